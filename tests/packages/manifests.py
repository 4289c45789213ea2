#!/usr/bin/env python3
"""Checks deploy/kubernetes.yml and deploy/compose.yml: against their schemas, against the
Dockerfile, and against a server that is started with their settings.

    manifests.py schemas        the schemas of Kubernetes and of Compose accept them
    manifests.py kubernetes     the server starts as the Deployment says; its probes and the
                                paths of the Ingress are answered; the Service finds it
    manifests.py compose        the server starts as the service of Compose says

PUSHWHEEL_BIN names the program. Needs the packages of requirements.txt.
"""

import http.client
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes.yml"
COMPOSE = ROOT / "deploy/compose.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PATIENCE = 30
# The range of versions that clusters run.
VERSIONS = ("1.29", "1.37")
KEY = "a-key-of-the-suite-for-"


class Server:
    """The program with these settings and those of the image, on a free port."""

    def __init__(self, settings, state):
        image = dict(re.findall(r"^ENV (\w+)=(.*)$", DOCKERFILE, re.M))
        settings = {**image, **settings}
        self.port = int(settings["PUSHWHEEL_LISTEN"].rpartition(":")[2])
        directory, name = os.path.split(settings["PUSHWHEEL_STATE"])
        assert f"/root-of-image{directory} {directory}\n" in DOCKERFILE, f"the image has no {directory}"
        settings |= {"PUSHWHEEL_LISTEN": "127.0.0.1:0", "PUSHWHEEL_STATE": f"{state}/{name}"}
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PUSHWHEEL_")}
        self.process = subprocess.Popen(
            [os.environ["PUSHWHEEL_BIN"], "serve"], env=inherited | settings, stdout=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()
        assert "http://" in line, f"the server did not start with {settings}"
        self.address = line.split("http://")[1].strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0

    def status(self, method, path, key=None):
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        # As a probe, or a client of a service, names the host.
        headers = {"Host": "10.0.0.1:8080"} | ({"Authorization": f"Bearer {key}"} if key else {})
        connection.request(method, path, "hello" if method == "POST" else None, headers)
        answer = connection.getresponse()
        connection.close()
        return answer.status


def default_of(setting):
    shown = subprocess.run([os.environ["PUSHWHEEL_BIN"], "config"], capture_output=True, text=True, check=True)
    return int(re.search(rf"^#? ?{setting} = (\d+)", shown.stdout, re.M)[1])


def check_use(server):
    """Publishing needs the key, and streams can be read."""
    assert server.status("POST", "/channels/news") == 401
    assert server.status("POST", "/channels/news", KEY + "publish-key") == 200
    assert server.status("GET", "/stats", KEY + "admin-key") == 200


def schemas():
    for version in VERSIONS:
        done = subprocess.run([f"{sys.prefix}/bin/kubernetes-validate", "--strict", "-k", version, KUBERNETES])
        assert done.returncode == 0, version
    check = [f"{sys.prefix}/bin/check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE]
    assert subprocess.run(check).returncode == 0


def kubernetes():
    kinds = {document["kind"]: document for document in yaml.safe_load_all(KUBERNETES.read_text())}
    pod = kinds["Deployment"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    settings = {}
    for variable in container["env"]:
        secret = variable.get("valueFrom", {}).get("secretKeyRef")
        settings[variable["name"]] = KEY + secret["key"] if secret else variable["value"]
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.M)
    context = pod["spec"]["securityContext"]
    assert [context["runAsUser"], context["fsGroup"]] == [int(user[1]), int(user[2])], "another user than the image's"
    assert pod["spec"]["terminationGracePeriodSeconds"] > default_of("shutdown_deadline")
    [mount] = container["volumeMounts"]
    assert settings["PUSHWHEEL_STATE"].startswith(mount["mountPath"] + "/")
    [volume] = pod["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == kinds["PersistentVolumeClaim"]["metadata"]["name"]

    [port] = container["ports"]
    service = kinds["Service"]["spec"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items(), "the Service finds no pod"
    assert kinds["Deployment"]["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert service["ports"][0]["targetPort"] == port["name"]

    with tempfile.TemporaryDirectory() as state, Server(settings, state) as server:
        assert port["containerPort"] == server.port, "the server listens on another port"
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            get = container[probe]["httpGet"]
            assert get["port"] == port["name"] and server.status("GET", get["path"]) == 200, probe
        check_use(server)
        for rule in kinds["Ingress"]["spec"]["rules"]:
            for way in rule["http"]["paths"]:
                backend = way["backend"]["service"]
                assert backend["name"] == kinds["Service"]["metadata"]["name"]
                assert backend["port"]["name"] == service["ports"][0]["name"]
                path = {"/events": "/events?channel=news", "/channels/": "/channels/news"}.get(way["path"], way["path"])
                # What needs another method says so; what does not exist is 404.
                assert server.status("GET", path) in (200, 405), path
        paths = [way["path"] for rule in kinds["Ingress"]["spec"]["rules"] for way in rule["http"]["paths"]]
        assert not {"/", "/metrics", "/stats", "/channels"} & set(paths), "management is public"
    assert server.process.returncode == 0


def compose():
    document = yaml.safe_load(COMPOSE.read_text())
    service = document["services"]["pushwheel"]
    keys = {"PUSHWHEEL_PUBLISH_KEY": KEY + "publish-key", "PUSHWHEEL_ADMIN_KEY": KEY + "admin-key"}
    settings = {}
    for name, value in service["environment"].items():
        needed = re.fullmatch(r"\$\{(\w+):\?.*\}", value)
        settings[name] = keys[needed[1]] if needed else value
    [published] = service["ports"]
    [volume] = service["volumes"]
    name, directory = volume.split(":")
    assert name in document["volumes"] and settings["PUSHWHEEL_STATE"].startswith(directory + "/")
    assert int(service["stop_grace_period"].removesuffix("s")) > default_of("shutdown_deadline")
    assert (COMPOSE.parent / service["build"] / "Dockerfile").resolve() == ROOT / "Dockerfile"
    with tempfile.TemporaryDirectory() as state, Server(settings, state) as server:
        assert int(published.rpartition(":")[2]) == server.port
        check_use(server)


{"schemas": schemas, "kubernetes": kubernetes, "compose": compose}[sys.argv[1]]()
