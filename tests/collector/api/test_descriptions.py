"""The API describes itself: each field, parameter and operation has its text, and examples are what schemas allow."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest

from edgeproxy.collector.api.groups import GROUPS
from edgeproxy.collector.api.openapi import build_description

NOUN = re.compile(r"(A|An|The|What|Who|Where|Whether|How|All|Its) ")
"""How a summary begins that is no imperative."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build_description([(group, group.endpoints) for group in GROUPS])


def test_every_field_of_every_schema_has_a_description(document: dict[str, Any]) -> None:
    bare = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, shape in schema.get("properties", {}).items()
        if not shape.get("description", "").endswith(".")
    ]
    assert bare == []


def test_every_operation_has_a_summary_a_tag_and_described_parameters(document: dict[str, Any]) -> None:
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    bare = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            summary = operation["summary"]
            if NOUN.match(summary) or not summary.endswith(".") or not set(operation["tags"]) <= tags:
                bare.append(f"{method} {path}")
            for parameter in operation["parameters"]:
                if not parameter.get("description", "").endswith("."):
                    bare.append(f"{method} {path}: {parameter['name']}")
    assert bare == []


def test_examples_are_what_their_schemas_allow(document: dict[str, Any]) -> None:
    definitions = {"components": document["components"]}
    count = 0
    for schema in _schemas_with_examples(document):
        validator = jsonschema_rs.Draft202012Validator({**schema, **definitions})
        for example in schema["examples"]:
            validator.validate(example)
            count += 1
    assert count > 50


def _schemas_with_examples(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if isinstance(node.get("examples"), list):
            yield node
        for value in node.values():
            yield from _schemas_with_examples(value)
    elif isinstance(node, list):
        for value in node:
            yield from _schemas_with_examples(value)
