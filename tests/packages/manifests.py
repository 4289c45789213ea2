#!/usr/bin/env python3
"""Checks the files of deploy/ for Kubernetes and Compose: against their schemas, against the
Dockerfile, and against a server that is started with their settings.

    manifests.py schemas        the schemas of Kubernetes and of Compose accept them
    manifests.py kubernetes     the server starts as the Deployment says; its probes and the
                                paths of the Ingress are answered; the Service finds it
    manifests.py compose        the server starts as the service of Compose says
    manifests.py cluster        so do the nodes of a cluster, with a Redis of this machine

PUSHWHEEL_BIN names the program. Needs the packages of requirements.txt, and redis-server
for `cluster`.
"""

import http.client
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes.yml"
KUBERNETES_CLUSTER = ROOT / "deploy/kubernetes-cluster.yml"
COMPOSE = ROOT / "deploy/compose.yml"
COMPOSE_CLUSTER = ROOT / "deploy/compose-cluster.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PATIENCE = 30
# The range of versions that clusters run.
VERSIONS = ("1.29", "1.37")
KEY = "a-key-of-the-suite-for-"


class Server:
    """The program with these settings and those of the image, on a free port."""

    def __init__(self, settings, state=None):
        image = dict(re.findall(r"^ENV (\w+)=(.*)$", DOCKERFILE, re.M))
        settings = {**image, **settings}
        self.port = int(settings["PUSHWHEEL_LISTEN"].rpartition(":")[2])
        settings |= {"PUSHWHEEL_LISTEN": "127.0.0.1:0"}
        if state:
            directory, name = os.path.split(settings["PUSHWHEEL_STATE"])
            assert f"/root-of-image{directory} {directory}\n" in DOCKERFILE, f"the image has no {directory}"
            settings |= {"PUSHWHEEL_STATE": f"{state}/{name}"}
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


class Redis:
    """A Redis without files, on a free port."""

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        words = ["redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--loglevel", "warning"]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        self.url = f"redis://127.0.0.1:{port}"
        for _ in range(PATIENCE * 100):
            try:
                with socket.create_connection(("127.0.0.1", port), 1) as connection:
                    connection.sendall(b"PING\r\n")
                    if connection.recv(5) == b"+PONG":
                        return self
            except OSError:
                time.sleep(0.01)
        raise AssertionError("Redis does not start")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


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
        files = [KUBERNETES, KUBERNETES_CLUSTER]
        done = subprocess.run([f"{sys.prefix}/bin/kubernetes-validate", "--strict", "-k", version, *files])
        assert done.returncode == 0, version
    check = [f"{sys.prefix}/bin/check-jsonschema", "--builtin-schema", "vendor.compose-spec"]
    assert subprocess.run([*check, COMPOSE, COMPOSE_CLUSTER]).returncode == 0


def deployment(file):
    """Returns the documents by their kind, the pod, its container and its settings."""
    kinds = {document["kind"]: document for document in yaml.safe_load_all(file.read_text())}
    pod = kinds["Deployment"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    settings = {}
    for variable in container["env"]:
        source = variable.get("valueFrom", {})
        if "secretKeyRef" in source:
            settings[variable["name"]] = KEY + source["secretKeyRef"]["key"]
        else:
            settings[variable["name"]] = variable["value"] if "value" in variable else "a-name"
    check_pod(kinds, pod)
    return kinds, pod, container, settings


def check_pod(kinds, pod):
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.M)
    context = pod["spec"]["securityContext"]
    assert [context["runAsUser"], context["fsGroup"]] == [int(user[1]), int(user[2])], "another user than the image's"
    assert pod["spec"]["terminationGracePeriodSeconds"] > default_of("shutdown_deadline")
    service = kinds["Service"]["spec"]
    assert service["selector"].items() <= pod["metadata"]["labels"].items(), "the Service finds no pod"
    assert kinds["Deployment"]["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    [port] = pod["spec"]["containers"][0]["ports"]
    assert service["ports"][0]["targetPort"] == port["name"]


def check_serves(server, kinds, container):
    """Its probes and the paths of the Ingress are answered."""
    [port] = container["ports"]
    assert port["containerPort"] == server.port, "the server listens on another port"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        get = container[probe]["httpGet"]
        assert get["port"] == port["name"] and server.status("GET", get["path"]) == 200, probe
    check_use(server)
    service = kinds["Service"]["spec"]
    paths = [way for rule in kinds["Ingress"]["spec"]["rules"] for way in rule["http"]["paths"]]
    for way in paths:
        backend = way["backend"]["service"]
        assert backend["name"] == kinds["Service"]["metadata"]["name"]
        assert backend["port"]["name"] == service["ports"][0]["name"]
        path = {"/events": "/events?channel=news", "/channels/": "/channels/news"}.get(way["path"], way["path"])
        # What needs another method says so; what does not exist is 404.
        assert server.status("GET", path) in (200, 405), path
    assert not {"/", "/metrics", "/stats", "/channels"} & {way["path"] for way in paths}, "management is public"


def kubernetes():
    kinds, pod, container, settings = deployment(KUBERNETES)
    [mount] = container["volumeMounts"]
    assert settings["PUSHWHEEL_STATE"].startswith(mount["mountPath"] + "/")
    [volume] = pod["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == kinds["PersistentVolumeClaim"]["metadata"]["name"]

    with tempfile.TemporaryDirectory() as state, Server(settings, state) as server:
        check_serves(server, kinds, container)
    assert server.process.returncode == 0


def service_settings(service):
    """Returns the variables of a service of Compose, with keys of the suite."""
    keys = {"PUSHWHEEL_PUBLISH_KEY": KEY + "publish-key", "PUSHWHEEL_ADMIN_KEY": KEY + "admin-key"}
    settings = {}
    for name, value in service["environment"].items():
        needed = re.fullmatch(r"\$\{(\w+):\?.*\}", value)
        settings[name] = keys[needed[1]] if needed else value
    assert int(service["stop_grace_period"].removesuffix("s")) > default_of("shutdown_deadline")
    assert (COMPOSE.parent / service["build"] / "Dockerfile").resolve() == ROOT / "Dockerfile"
    return settings


def compose():
    document = yaml.safe_load(COMPOSE.read_text())
    service = document["services"]["pushwheel"]
    settings = service_settings(service)
    [published] = service["ports"]
    [volume] = service["volumes"]
    name, directory = volume.split(":")
    assert name in document["volumes"] and settings["PUSHWHEEL_STATE"].startswith(directory + "/")
    with tempfile.TemporaryDirectory() as state, Server(settings, state) as server:
        assert int(published.rpartition(":")[2]) == server.port
        check_use(server)


def cluster():
    """An event that is published to one node is delivered by another."""
    kinds, _, container, settings = deployment(KUBERNETES_CLUSTER)
    services = yaml.safe_load(COMPOSE_CLUSTER.read_text())["services"]
    nodes = [service_settings(service) for name, service in services.items() if name.startswith("node")]
    assert len(nodes) == 3 and len({node["PUSHWHEEL_NODE_NAME"] for node in nodes}) == 3
    with Redis() as redis, ExitStack() as stack:
        of_redis = {"PUSHWHEEL_BROKER": redis.url}
        pod = stack.enter_context(Server(settings | of_redis | {"PUSHWHEEL_SHUTDOWN_DELAY": "0"}))
        check_serves(pod, kinds, container)
        for node in nodes:
            node = stack.enter_context(Server(node | of_redis))
            connection = http.client.HTTPConnection(node.address, timeout=PATIENCE)
            connection.request("GET", "/channels/news?last=1", headers={"Host": "10.0.0.1:8080"})
            answer = connection.getresponse()
            lines = iter(lambda: answer.readline().decode().strip(), "data: hello")
            assert all(line is not None for line in lines)


checks = {"schemas": schemas, "kubernetes": kubernetes, "compose": compose, "cluster": cluster}
checks[sys.argv[1]]()
