"""The API describes itself: each field, parameter and operation has its text, and examples are what schemas allow."""

import base64
import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import orjson
import pytest

from edgeproxy.collector.api.examples import ExampleComposer, read_examples
from edgeproxy.collector.api.groups import GROUPS
from edgeproxy.collector.api.openapi import build_description
from loadtest.testbed.collector import Collector
from loadtest.testbed.process import ROOT

NOUN = re.compile(r"(A|An|The|What|Who|Where|Whether|How|All|Its) ")
"""How a summary begins that is no imperative."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return build_description([(group, group.endpoints) for group in GROUPS])


def build_validator(schema: dict[str, Any], document: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    """Return the validator of a schema of the document. Only what refers to the components has them: it takes
    milliseconds to read them, and there are a thousand schemas.
    """
    refers = b'"$ref"' in orjson.dumps(schema)
    return jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]} if refers else schema)


def test_every_field_of_every_schema_has_a_description(document: dict[str, Any]) -> None:
    bare = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, shape in schema.get("properties", {}).items()
        if not shape.get("description", "").endswith(".")
    ]
    assert bare == []


def test_every_field_of_every_schema_has_an_example_or_refers_to_fields_which_have(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    composer = ExampleComposer(schemas)
    bare = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, shape in schema.get("properties", {}).items()
        if "examples" not in shape and not composer.refers_to_fields(shape)
    ]
    assert bare == []
    fields = {name: schema.get("properties", {}).keys() for name, schema in schemas.items()}
    examples = read_examples()
    assert examples.fields.keys() <= set().union(*fields.values()), "examples.yml has fields that are no more"
    assert [(name, own) for name, own in examples.schemas.items() if not own.keys() <= fields[name]] == []


def test_every_answer_of_json_has_an_example_which_its_schema_allows(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                media = response.get("content", {}).get("application/json")
                if media is not None and status < "300":
                    validator = build_validator(media["schema"], document)
                    faults = [fault.message for fault in validator.iter_errors(media["example"])]
                    assert faults == [], f"{method} {path}"


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
    count = 0
    for schema in _schemas_with_examples(document):
        validator = build_validator(schema, document)
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


def test_each_operation_that_takes_json_has_an_example_which_its_schema_allows(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            media = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if media is not None and path != "/billing/webhooks/stripe":  # Its form is Stripe's.
                validator = build_validator(media["schema"], document)
                assert validator.is_valid(media["example"]), f"{method} {path}"


def test_the_page_of_the_api_is_made_of_its_description() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts/api-page", "--check"], check=False)
    assert done.returncode == 0, "run scripts/api-page"


def test_a_collector_shows_the_page_which_loads_nothing(sqlite_collector: Collector) -> None:
    page = sqlite_collector.get("/docs", token=None)
    assert (page.status, page["content-type"]) == (200, "text/html; charset=utf-8")
    text = page.body.decode()
    style = text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert page["content-security-policy"].startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert not re.search(r"<script|<link|<img|\bsrc=|@import|url\(", text)
    described = sqlite_collector.get("/v1/openapi.json", token=None).json()
    ids = {operation["operationId"] for path in described["paths"].values() for operation in path.values()}
    assert ids <= set(re.findall(r'<h3 id="([a-z0-9_]+)"', text))
