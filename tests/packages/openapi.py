"""Checks docs/openapi.yaml: that it is valid, that it has each route of the server, of the
table in docs/http.md and no other, and that parameters and responses of the running server
are those that it describes. Ends with 0 if all of that is so.
"""

import http.client
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlencode

import yaml
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "crates/server/src"
METHODS = ("get", "post", "delete")
PATIENCE = 30
wrong = []


def check(is_right, message):
    if not is_right:
        wrong.append(message)


def routes_of_sources():
    """The routes that the server registers, without those of the page's own files."""
    found = set()
    for path in (SOURCES / "routes.rs", SOURCES / "assets.rs", SOURCES / "page.rs"):
        for method, route in re.findall(r'\.(get|post|delete)\(\s*"(/[^"]*)"', path.read_text()):
            # `/channels/` is answered with an error: a channel needs a name.
            if not route.startswith("/_page") and route != "/channels/":
                found.add((method, route))
    return found


def routes_of_manual():
    """The routes in the table at the top of docs/http.md."""
    table = (ROOT / "docs/http.md").read_text().split("\n- With no keys")[0]
    return {(method.lower(), path) for method, path in re.findall(r"`(GET|POST|DELETE) (/[^`? ]*)", table)}


class Server:
    def __enter__(self):
        command = [os.environ["PUSHWHEEL_BIN"], "serve", "--listen", "127.0.0.1:0"]
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PUSHWHEEL_")}
        self.process = subprocess.Popen(command, env=inherited, stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().split("http://")[1].strip()
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(PATIENCE)

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        if response.getheader("Content-Type") == "text/event-stream":
            connection.close()
            return response, None
        text = response.read().decode()
        connection.close()
        return response, text


def resolved(document, value):
    """The value that a reference names."""
    while isinstance(value, dict) and "$ref" in value:
        target = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        value = target
    return value


def check_responses(document, server):
    """Compares real responses with their schemas."""
    as_json = {"Content-Type": "application/json"}
    reads = {"Accept": "application/json"}
    event = json.dumps({"event": "a", "data": {"n": 1}, "idempotency_key": "k"})
    open_stream = http.client.HTTPConnection(server.address, timeout=PATIENCE)
    open_stream.request("GET", "/channels/a?client=ann&meta.role=x", headers={"Accept": "text/event-stream"})
    stream = open_stream.getresponse()
    for method, route, path, body, headers, status in (
        ("post", "/channels/{channel}", "/channels/a", event, as_json, 200),
        ("post", "/channels/{channel}", "/channels/a", event, as_json, 200),
        ("post", "/channels/{channel}", "/channels/a", "x", {"If-Match": '"no"'}, 412),
        ("post", "/channels", "/channels", "x", {}, 200),
        ("get", "/channels/{channel}", "/channels/a?last=5", None, reads, 200),
        ("get", "/channels/{channel}", "/channels/a?last_event_id=lost", None, reads, 200),
        ("get", "/channels/{channel}", "/channels/a?wait=61", None, reads, 400),
        ("get", "/events", "/events?channel=a&channel=b&last=5", None, reads, 200),
        ("get", "/events", "/events", None, reads, 400),
        ("get", "/channels", "/channels", None, {}, 200),
        ("get", "/channels/{channel}/clients", "/channels/a/clients", None, {}, 200),
        ("get", "/channels/{channel}/clients", "/channels/a/clients?count", None, {}, 200),
        ("get", "/channels/{channel}/clients/{id}", "/channels/a/clients/ann", None, {}, 200),
        ("get", "/channels/{channel}/settings", "/channels/a/settings", None, {}, 200),
        ("post", "/tickets", "/tickets", json.dumps({"subscribe": ["a"]}), as_json, 200),
        ("get", "/stats", "/stats?server&top=1", None, {}, 200),
        ("get", "/health", "/health", None, {}, 200),
        ("get", "/ready", "/ready", None, {}, 200),
        ("delete", "/channels/{channel}/clients", "/channels/a/clients?where.role=y", None, {}, 200),
        ("delete", "/channels/{channel}/clients/{id}", "/channels/a/clients/ann", None, {}, 200),
        ("delete", "/channels/{channel}", "/channels/a?finish", None, {}, 200),
        ("delete", "/channels", "/channels?empty", None, {}, 200),
    ):
        what = f"{method.upper()} {path}"
        response, text = server.ask(method.upper(), path, body, headers)
        check(response.status == status, f"{what}: {response.status}, not {status}: {text}")
        responses = document["paths"][route][method]["responses"]
        described = resolved(document, responses.get(str(response.status), responses.get("default", {})))
        media = response.getheader("Content-Type", "").split(";")[0]
        check(media in described.get("content", {}), f"{what}: {media} is not described")
        schema = described.get("content", {}).get(media, {}).get("schema", {})
        validator = Draft202012Validator({**schema, "components": document["components"]})
        for error in validator.iter_errors(json.loads(text)):
            wrong.append(f"{what}: {error.message} in {text}")
    stream.close()
    open_stream.close()


def check_parameters(document, server):
    """A publish refuses unknown parameters, so those that it accepts are known."""
    examples = {"boolean": "true", "integer": "1000"}
    for route, path in (("/channels/{channel}", "/channels/p"), ("/channels", "/channels")):
        named = [resolved(document, p) for p in document["paths"][route]["post"]["parameters"]]
        for parameter in (p for p in named if p["in"] == "query"):
            schema = resolved(document, parameter["schema"])
            value = "true" if "enum" in schema else examples.get(schema.get("type"), "x")
            query = urlencode({parameter["name"]: value})
            _, text = server.ask("POST", f"{path}?{query}", "x")
            code = json.loads(text).get("error", {}).get("code")
            check(code != "parameter_unknown", f"POST {route}: the server does not know `{parameter['name']}`")
        _, text = server.ask("POST", f"{path}?nonsense=1", "x")
        check(json.loads(text)["error"]["code"] == "parameter_unknown", f"POST {route} accepts anything")


def main():
    document = yaml.safe_load((ROOT / "docs/openapi.yaml").read_text())
    validate(document)
    described = {(m, path) for path, item in document["paths"].items() for m in METHODS if m in item}
    for name, routes in (("the server", routes_of_sources()), ("docs/http.md", routes_of_manual())):
        check(len(routes) > 15, f"{name} has only {len(routes)} routes")
        for method, path in described ^ routes:
            where = "docs/openapi.yaml" if (method, path) in routes else name
            wrong.append(f"{where} does not have {method.upper()} {path}")
    with Server() as server:
        for path, item in document["paths"].items():
            response, _ = server.ask("OPTIONS", path.replace("{channel}", "a").replace("{id}", "b"))
            allowed = {m.strip().lower() for m in response.getheader("Allow", "").split(",")}
            expected = {m for m in METHODS if m in item} | {"options"} | ({"head"} if "get" in item else set())
            check(allowed == expected, f"{path}: the server allows {sorted(allowed)}, not {sorted(expected)}")
        check_parameters(document, server)
        check_responses(document, server)
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
