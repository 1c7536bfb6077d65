"""The API describes itself: each field, parameter and operation has its text, and examples are what schemas allow."""

import ast
import asyncio
import base64
import gzip
import hashlib
import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import orjson
import pytest

from edgeproxy.base.snippets import build_python, build_typescript
from edgeproxy.collector.api.examples import ExampleComposer, read_examples
from edgeproxy.collector.api.groups import GROUPS
from edgeproxy.collector.api.openapi import build_description
from edgeproxy.collector.api.service import Description
from loadtest.testbed.collector import Collector
from loadtest.testbed.http_client import ask

NOUN = re.compile(r"(A|An|The|What|Who|Where|Whether|How|All|Its) ")
"""The first words of a summary that is not an imperative."""
TEXTS = re.compile("name|title|message|note|why|force|comment|description|line1|line2|city")
"""The names of fields that people read."""
PAGE_BYTES_MAX = 90_000
"""The most bytes of a page of the reference, as sent."""


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


def test_each_schema_field_has_an_example_or_refers_to_examples(document: dict[str, Any]) -> None:
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


def test_each_json_answer_has_a_valid_example(document: dict[str, Any]) -> None:
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


def test_schema_examples_are_valid(document: dict[str, Any]) -> None:
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


def test_each_json_request_body_has_a_valid_example(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            media = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if media is not None and path != "/billing/webhooks/stripe":  # Its form is Stripe's.
                validator = build_validator(media["schema"], document)
                assert validator.is_valid(media["example"]), f"{method} {path}"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/customers/acme/keys", {"name": "{}"}, "name"),
        ("/v1/incidents", {"severity": "P1", "title": "{}", "message": "slow"}, "title"),
        ("/v1/incidents", {"severity": "P1", "title": "slow", "message": "{}"}, "message"),
    ],
)
@pytest.mark.parametrize("blank", ["", "  ", "\u00a0\u3000"])
def test_a_text_for_people_is_not_blank(
    sqlite_collector: Collector, path: str, body: dict[str, str], field: str, blank: str
) -> None:
    refused = sqlite_collector.send("POST", path, {name: text.format(blank) for name, text in body.items()})
    assert refused.status == 422, refused
    (fault,) = refused.json()["errors"]
    assert (fault["field"], fault["code"]) == (field, "empty")


def test_the_schema_of_each_text_for_people_refuses_spaces(document: dict[str, Any]) -> None:
    count = 0
    for name, schema in document["components"]["schemas"].items():
        for field, shape in schema.get("properties", {}).items():
            if TEXTS.fullmatch(field) and name.endswith(("Request", "Update", "Step")):
                count += 1
                assert not build_validator(shape, document).is_valid("  "), f"{name}.{field}"
    assert count > 20


def test_reference_pages_are_small_load_nothing_and_have_each_operation(sqlite_collector: Collector) -> None:
    def fetch(path: str) -> str:
        page = ask(sqlite_collector.port, path, fields={"Accept-Encoding": "gzip"})
        assert (page.status, page["content-type"]) == (200, "text/html; charset=utf-8")
        assert len(page.body) <= PAGE_BYTES_MAX
        text = gzip.decompress(page.body).decode()
        for tag in ("style", "script"):
            (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL) or [None]
            if content is not None:
                digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
                assert f"{tag}-src 'sha256-{digest}';" in page["content-security-policy"]
        assert page["content-security-policy"].startswith("default-src 'none';")
        assert not re.search(r"<link|<img|\bsrc=|@import|url\(|\bon\w+=", text)
        return text

    described = sqlite_collector.get("/v1/openapi.json", token=None).json()
    ids = {operation["operationId"] for path in described["paths"].values() for operation in path.values()}
    index = fetch("/docs")
    links = set(re.findall(r'href="(/docs/[a-z-]+)"', index))
    pages = {link: fetch(link) for link in links}
    headings = [name for text in pages.values() for name in re.findall(r'<h2 id="([a-z0-9_]+)"><code>', text)]
    assert sorted(headings) == sorted(ids)
    for link, text in pages.items():
        targets = set(re.findall(r'href="#(\w+)"', text)) - set(re.findall(r'\bid="(\w+)"', text))
        assert not targets, f"{link} refers to types that it does not show"
        assert "`" not in re.sub("<(pre|script).*?</\\1>", "", text, flags=re.DOTALL), f"{link} has a mark of code"
    assert "edgeproxy.client import EventClient" in pages["/docs/events"]
    assert pages["/docs/keys"].count("const response = await fetch(") == len(
        re.findall("<h2 id=.*<code>", pages["/docs/keys"])
    )
    matches = re.findall(r'href="/docs/keys#(\w+)"', fetch("/docs?q=KEYS+revoke"))
    assert "delete_keys_key" in matches
    assert "get_customers_customer_keys" not in matches
    assert "&lt;script&gt;" in fetch("/docs?q=%3Cscript%3E")
    assert sqlite_collector.get("/docs/nothing", token=None).status == 404


async def test_json_and_pages_are_of_one_description(document: dict[str, Any]) -> None:
    built: list[dict[str, Any]] = []

    def build() -> dict[str, Any]:
        built.append(document)
        return document

    description = Description(build)
    pages, again, body = await asyncio.gather(
        description.fetch_pages(), description.fetch_pages(), description.fetch_json()
    )
    assert (len(built), pages is again, orjson.loads(body) == document) == (1, True, True)


def test_snippets_of_a_hostile_request_are_code_with_its_values() -> None:
    url, body = 'https://api.example/a"b\\c', {"text": 'line\n"quoted" \u2028 </script>', "none": None}
    python = build_python("POST", url, {"X-Key": 'a"b'}, body)
    (call,) = [node for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Call) and node.keywords]
    values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert (ast.literal_eval(call.args[0]), values["headers"]) == (url, {"X-Key": 'a"b'})
    assert orjson.loads(values["data"]) == body
    typescript = build_typescript("POST", url, {"X-Key": 'a"b'}, body)
    assert orjson.loads(re.findall(r"fetch\((.*), {\n", typescript)[0]) == url
    assert orjson.loads(re.findall(r"JSON.stringify\((.*)\),\n", typescript)[0]) == body
    assert typescript.isascii(), "U+2028 would end a line"
