#!/usr/bin/env python3
"""Checks a bill of materials in CycloneDX: `bill.py FILE`.

The schema accepts it, each reference leads to a component, each component is reached from
the program, and what only tests use is not in it.
"""

import json
import sys
from importlib.resources import files
from pathlib import Path

import jsonschema
from referencing import Registry
from referencing.jsonschema import DRAFT7

SCHEMAS = files("cyclonedx") / "schema/_res"


def schema(name):
    return json.loads((SCHEMAS / f"{name}.SNAPSHOT.schema.json").read_text())


def reached(uses, start):
    found, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += uses[name]
    return found


def main():
    bill = json.loads(Path(sys.argv[1]).read_text())
    main_schema, others = schema("bom-1.5"), [schema("spdx"), schema("jsf-0.82")]
    registry = Registry().with_resources((other["$id"], DRAFT7.create_resource(other)) for other in others)
    jsonschema.Draft7Validator(main_schema, registry=registry).validate(bill)

    program = bill["metadata"]["component"]["bom-ref"]
    components = {component["bom-ref"] for component in bill["components"]} | {program}
    uses = {entry["ref"]: entry["dependsOn"] for entry in bill["dependencies"]}
    assert len(components) == len(bill["components"]) + 1, "a component is there twice"
    assert set(uses) == components, components ^ set(uses)
    assert reached(uses, program) == components, components - reached(uses, program)
    names = {component["name"] for component in bill["components"]}
    assert {"pushwheel", "httparse", "rustls"} <= names, names
    assert not {"proptest", "divan", "stats_alloc", "rsa"} & names, "what only tests use"
    for component in bill["components"]:
        # What does not come from this workspace has the checksum of Cargo.lock.
        assert component["name"].startswith("pushwheel") or component["hashes"], component["name"]


main()
