"""The JSON Schema for editors."""

import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic_core import PydanticCustomError

from edgeproxy.config import kinds, units
from edgeproxy.config.schema import FORMS, schema

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made():
    return schema()


KINDS = {"object": dict, "array": list, "string": str, "integer": int}


def faults(value, rule, top, path="$"):
    """Where `value` breaks `rule`: the part of JSON Schema that our schema is made of, and no more."""
    known = {"type", "enum", "const", "pattern", "minimum", "maximum", "anyOf", "$ref", "properties", "required"} | {
        "additionalProperties", "patternProperties", "minProperties", "items", "minItems", "uniqueItems",
    }  # fmt: skip
    notes = {"description", "title", "default", "examples", "$schema", "$defs"}
    assert set(rule) <= known | notes, set(rule) - known - notes
    if "$ref" in rule:
        yield from faults(value, top["$defs"][rule["$ref"].removeprefix("#/$defs/")], top, path)
    if "anyOf" in rule and all(any(faults(value, one, top, path)) for one in rule["anyOf"]):
        yield f"{path}: {value!r} is none of these"
    kind = rule.get("type")
    if kind and (not isinstance(value, KINDS[kind]) or (kind == "integer" and isinstance(value, bool))):
        yield f"{path}: {value!r} is no {kind}"
        return
    if not any(type(value) is type(one) and value == one for one in rule.get("enum", [value])):
        yield f"{path}: {value!r} is not in {rule['enum']}"
    if rule.get("const", value) != value:
        yield f"{path}: {value!r} is not {rule['const']}"
    if isinstance(value, str) and not re.search(rule.get("pattern", ""), value):
        yield f"{path}: {value!r} is not like {rule['pattern']}"
    if isinstance(value, int) and not rule.get("minimum", value) <= value <= rule.get("maximum", value):
        yield f"{path}: {value} is out of range"
    if isinstance(value, list):
        if len(value) < rule.get("minItems", 0):
            yield f"{path}: too few"
        for index, member in enumerate(value):
            yield from faults(member, rule.get("items", {}), top, f"{path}.{index}")
    if isinstance(value, dict):
        yield from faults_of_fields(value, rule, top, path)


def faults_of_fields(value, rule, top, path):
    """Where the fields of a mapping break its rule."""
    if len(value) < rule.get("minProperties", 0):
        yield f"{path}: too few"
    yield from (f"{path}: lacks {name}" for name in rule.get("required", ()) if name not in value)
    for name, member in value.items():
        inner = rule.get("properties", {}).get(name)
        patterns = [one for pattern, one in rule.get("patternProperties", {}).items() if re.search(pattern, name)]
        if inner is None and not patterns and "additionalProperties" in rule:
            yield f"{path}: {name} is unknown"
        for one in [*([inner] if inner is not None else []), *patterns]:
            yield from faults(member, one, top, f"{path}.{name}")


def said(text, made):
    return list(faults(yaml.safe_load(text), made, made))


@pytest.mark.parametrize("name", ["edge.yaml", "tiers.yaml"])
def test_the_examples_are_valid(made, name):
    assert said((ROOT / "config" / name).read_text(), made) == []


def test_it_names_its_dialect_and_is_json(made):
    assert made["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(made)) == made


def test_references_lead_somewhere(made):
    referred = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(made)))
    assert referred == set(made["$defs"])


def test_every_field_is_described(made):
    for part in (made, *made["$defs"].values()):
        assert part["description"]
        assert part["additionalProperties"] is False
        for name, field in part["properties"].items():
            assert field.get("description"), name


def test_defaults_are_as_they_would_be_written(made):
    def defaults(part):
        return {name: field["default"] for name, field in part["properties"].items() if "default" in field}

    assert defaults(made) == {
        "region": "local",
        "listen": "127.0.0.1:8080",
        "state": "var/edge",
        "hub": "memory://",
        "security_headers": False,
        "access_log": "off",
        "legacy_headers": False,
        "drain": "30s",
    }
    assert defaults(made["$defs"]["Limits"]) == {
        "head": "32KiB",
        "fields": 100,
        "body": "none",
        "header_timeout": "10s",
        "body_idle": "60s",
        "keepalive_idle": "75s",
    }
    assert defaults(made["$defs"]["Tables"]) == {"people": 200_000, "addresses": 200_000}
    assert defaults(made["$defs"]["Route"]) == {"auth": "required"}


@pytest.mark.parametrize(
    "text",
    [
        "workers: auto",
        "workers: 4",
        'workers: "${N:-4}"',
        "listen: 0.0.0.0:8080",
        'listen: ["[::]:8080", {address: "${LISTEN}"}]',
        "access_log: off",
        "legacy_headers: yes",
        "tiers: {basic: {limits: [{rate: 1e6/day}]}}",
        "upstreams: {a: {endpoints: ['http://a:1', {url: 'http://b:2'}], pool: 5}}",
        "keys: [{sha256: '${HASH}', customer: a, expires: '2027-01-01T00:00:00Z'}]",
        "include: tiers.yaml",
        "include: [a.yaml, b.yaml]",
        "limits: {body: none, head: 16KiB}",
    ],
)
def test_what_passes_check_is_valid(made, text):
    assert said(text, made) == []


@pytest.mark.parametrize(
    "text",
    [
        "regio: x",
        "region: 'a b'",
        "workers: 0",
        "workers: many",
        "listen: 8080",
        "hub: redis://localhost",
        "security_headers: true",
        "tiers: {basic: {limits: [{rate: 60}]}}",
        "tiers: {basic: {limits: [{name: x}]}}",
        "tiers: {'a b': {}}",
        "tiers: {basic: {concurrency: 5}}",
        "upstreams: {}",
        "upstreams: {a: {endpoints: []}}",
        "upstreams: {a: {endpoints: ['https://a']}}",
        "routes: [{path: v1, upstream: a}]",
        "routes: [{path: /v1}]",
        "routes: [{path: /, upstream: a, methods: [get]}]",
        "drain: 30",
        "limits: {fields: 1001}",
        "keys: [{sha256: abc, customer: a}]",
        "sha256: x",
    ],
)
def test_what_does_not_pass_is_not_valid(made, text):
    assert said(text, made)


TRIED = {
    units.read_wait: ["0s", "5s", "1.5 h", "5", "s", "-1s", "1e2s", "5sec"],
    units.read_body: ["none", "5MiB", "5MB", "5", "all"],
    units.read_rate: ["60/min", "1/10s", "1 / 10 s", "60", "1/", "1/sec", "1e3/h"],
    units.read_moment: ["2027-01-01", "2027-01-01T00:00:00Z", "2027-01-01T00:00:00", "soon", "2027-1-1"],
    kinds.read_name: ["a", "a b", "-a", "a" * 64, "a" * 65, ""],
    kinds.read_scope: ["read", "a:b", "a b", ""],
    kinds.read_path: ["/", "/v1/*", "v1", "/a b", "/é"],
    kinds.read_digest: ["ab" * 32, "AB" * 32, "ab", "g" * 64],
    kinds.read_address: ["a:80", "[::1]:80", "80", ":80", "a", "::1:80"],
    kinds.read_origin: ["http://a", "http://a:1/", "a:1", "http://a/b", "https://a", "http://u@a"],
    kinds.read_host: ["a.example", "*.example", "a:80", ""],
    kinds.read_network: ["10.0.0.0/8", "::1", "x", ""],
}


@pytest.mark.parametrize(("reader", "written"), [(reader, one) for reader, some in TRIED.items() for one in some])
def test_forms_and_readers_agree(reader, written):
    rule = FORMS[reader].schema({})
    try:
        reader(written)
    except PydanticCustomError:
        accepted = False
    else:
        accepted = True
    assert bool(re.search(rule["pattern"], written)) is accepted
