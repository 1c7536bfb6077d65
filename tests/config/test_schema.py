"""The JSON Schema for editors."""

import json
import re
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from pydantic import BeforeValidator, InstanceOf
from pydantic_core import PydanticCustomError

from edgeproxy.config import addresses, hub_settings, parsers, units
from edgeproxy.config.collector.settings import CollectorFile
from edgeproxy.config.edge import cors, readers
from edgeproxy.config.edge.settings import EdgeFile
from edgeproxy.config.forms import find_form
from edgeproxy.config.part import FieldMark, Part
from edgeproxy.config.schema import FileSchema, build_schema, remove_links

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made():
    return build_schema("edge.yaml", EdgeFile)


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
    """Yield the faults of a mapping's fields against its rule."""
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


def reported(text, made):
    return list(faults(yaml.safe_load(text), made, made))


@pytest.mark.parametrize("name", ["edge.yaml", "tiers.yaml"])
def test_the_examples_are_valid(made, name):
    assert reported((ROOT / "config" / name).read_text(), made) == []


def test_schema_names_its_dialect_and_is_json(made):
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


@pytest.mark.parametrize(
    "text",
    [
        "workers: auto",
        "workers: 4",
        'workers: "${N:-4}"',
        "listen: 0.0.0.0:8080",
        'listen: ["[::]:8080", {address: "${LISTEN}"}]',
        "access_log: off",
        "access_log: 'off'",
        "access_log: var/access.log",
        "access_log: /dev/stdout",
        'access_log: "${LOG}"',
        "access_log: {file: a.log, sample: 0.5%}",
        "security_headers: true",
        "routes: [{path: /a, upstream: a, compress: on}, {path: /b, upstream: a, compress: off}]",
        "routes: [{path: /a, upstream: a, compress: {algorithms: [gzip], types: [text/*, a/b+c], min_size: 1B}}]",
        "listen: {address: '127.0.0.1:1', authorize: original}",
        "networks: {allow: [10.0.0.0/8, '::1'], deny: [10.1.0.0/16], allow_file: a.txt, deny_file: b.txt}",
        "rules: [{name: a, path: /a/*, methods: [GET], field: X-A, contains: b c, larger: 1MiB, action: log}]",
        "rules: [{name: a, field: X-A, action: limit, rate: 5/min}]",
        "limits: {connection_rate: 50/s, ipv6_prefix: 56}",
        "customers: {a: {tier: t, networks: {deny: [10.0.0.1]}}}",
        "upstreams: {a: {endpoints: ['http://a/b', {url: 'http://a:1', path: /c}]}}",
        "routes: [{path: /a, redirect: https, upstream: a}, {path: /b/*, redirect: {to: /c/*, status: 302}}]",
        "routes: [{path: /a, respond: {status: 204}}, {path: /b, respond: {body: '', type: text/html}}]",
        "routes: [{path: /a, upstream: a, rewrite: {strip: /a, prefix: /b, request: {set: {X: y}, remove: [Via]}}}]",
        "routes: [{path: /a, upstream: a, rewrite: {response: {set: {X: y z}, remove: [Via]}}}]",
        "cors: {origins: ['*'], methods: [GET], headers: ['*'], expose: [X-A], credentials: no, max_age: 0s}",
        "routes: [{path: /, upstream: a, cors: off}, {path: /b, upstream: a, cors: {origins: ['https://a.b']}}]",
        "listen: {address: 0.0.0.0:443, tls: {cert: a.pem, key: a.key, client_ca: ca.pem}}",
        "listen: [{address: 0.0.0.0:443, tls: {certificates: [{cert: a, key: b}, {cert: c, key: '${KEY}'}]}}, 'a:80']",
        "upstreams: {a: {endpoints: ['https://a', {url: 'https://b', weight: 2, region: us-east}]}}",
        "upstreams: {a: {endpoints: ['http://a'], health: {path: /healthz}}}",
        "upstreams: {a: {endpoints: ['http://a'], health: {path: '/healthz?deep=1', every: 250ms}}}",
        "upstreams: {a: {endpoints: ['http://a'], retry: {attempts: 1}}}",
        "upstreams: {a: {endpoints: ['http://a'], retry: {budget: 0%}, eject: off, breaker: {pending: 1000}}}",
        "upstreams: {a: {endpoints: ['http://a'], retry: {}, eject: {errors: 5, for: 30s}}}",
        "upstreams: {a: {endpoints: ['http://a'], eject: {for: '${FOR}'}}}",
        "upstreams: {a: {endpoints: ['https://a'], tls: {ca: a, cert: b, key: c, server_name: d.e, verify: no}}}",
        "upstreams: {a: {endpoints: ['https://a'], tls: {server_name: '::1'}}}",
        "limits: {connections: 10, connections_per_ip: '10', pipelined: 1}",
        "meters: {m: {count: bytes_out}, n: {count: response_header, header: X-Usage, when: success, pass: true}}",
        "legacy_headers: yes",
        "tiers: {basic: {limits: [{rate: 1e6/day}]}}",
        "upstreams: {a: {endpoints: ['http://a:1', {url: 'http://b:2'}], pool: 5}}",
        "keys: [{sha256: '${HASH}', customer: a, expires: '2027-01-01T00:00:00Z'}]",
        "tiers: {a: {concurrency: 5}, b: {concurrency: none}, c: {concurrency: '${N}'}}",
        "tiers: {a: {limits: [{rate: 5/s, algorithm: token_bucket, burst: 9, scope: key, mode: shadow}]}}",
        "tiers: {a: {limits: [{rate: 5/s, cost_header: X-Cost}]}}",
        "tiers: {a: {quotas: [{meter: m, per: day, included: 0, cap: hard, timezone: Europe/Berlin}]}}",
        "tiers: {a: {burst_credits: {earn: 10/s, max: 600}, priority: 1, message: 'a\\n b'}, b: {burst_credits: off}}",
        "customers: {a: {tier: t, concurrency: none, quotas: [], burst_credits: off, priority: 0}}",
        "customers: {a: {tier: t, concurrency: 5, burst_credits: {earn: 1/s, max: 5}, message: '${M}'}}",
        "customers: {a: {tier: t, burst_credits: 'off'}, b: {tier: t, burst_credits: '${CREDITS}'}}",
        "customers: {a: {tier: t, paused: {why: x, status: 402}}, b: {tier: t, paused: {why: x, status: '${S}'}}}",
        "customers: {a: {tier: t, regions: {allow: [a, b], prefer: b}}}",
        "routes: [{path: /, upstream: a, cost: 10, limits: [{rate: 5/min}], flag: new}]",
        "flags: {new: {percent: 10, tiers: [a], customers: [b]}, old: {}}",
        "overload: {lag: 50ms, requests: 10}",
        "hub: redis://localhost",
        "hub: '${HUB}'",
        "hub: redis+cluster://edge:p@a:7000,b:7000",
        "hub: {url: 'rediss+cluster://[::1]:7000', tls: {ca: a}}",
        "hub: {}",
        "hub: {url: 'rediss://me:p@h:6379/0', sync: 250ms, on_loss: deny, tls: {ca: a, cert: b, key: c, verify: no}}",
        "tiers: {a: {limits: [{rate: 5/s, sync: strict}]}}",
        "usage: {collector: 'http://127.0.0.1:9100', token: '${TOKEN:-}', every: 1s}",
        "usage: {collector: '${COLLECTOR}', token: '', tls: {ca: a, cert: b, key: c, server_name: d.e, verify: no}}",
        "include: tiers.yaml",
        "include: [a.yaml, b.yaml]",
        "limits: {body: none, head: 16KiB}",
    ],
)
def test_configuration_that_passes_check_fits_the_schema(made, text):
    assert reported(text, made) == []


@pytest.mark.parametrize(
    "text",
    [
        "regio: x",
        "region: 'a b'",
        "workers: 0",
        "workers: many",
        "listen: 8080",
        "hub: redis+cluster://localhost/0",
        "hub: redis+sentinel://localhost",
        "hub: off",
        "hub: {url: 'redis://'}",
        "hub: {url: redis://a, sync: 1}",
        "hub: {url: redis://a, on_loss: allow}",
        "hub: {url: redis://a, tls: {server_name: a}}",
        "security_headers: maybe",
        "routes: [{path: /a, upstream: a, compress: gzip}]",
        "routes: [{path: /a, upstream: a, compress: {types: [text]}}]",
        "networks: {deny: 10.0.0.1}",
        "rules: [{path: /a}]",
        "limits: {ipv6_prefix: 32}",
        "cors: off",
        "cors: {origins: []}",
        "cors: {origins: ['null']}",
        "access_log: true",
        "access_log: 'on'",
        "access_log: ''",
        "access_log: var/log/",
        "access_log: {sample: 1%}",
        "access_log: {file: a, sample: 0%}",
        "access_log: {file: a, sample: 0.01}",
        "access_log: {file: a, sample: 101%}",
        "access_log: {file: a, format: json}",
        "listen: {address: a:443, tls: true}",
        "listen: {address: a:443, tls: {ca: x}}",
        "listen: {address: a:443, tls: {cert: ''}}",
        "listen: {address: a:443, tls: {certificates: [{cert: a}]}}",
        "listen: {address: a:443, tls: {certificates: a}}",
        "listen: {tls: {cert: a, key: b}}",
        "listen: https://a:443",
        "upstreams: {a: {endpoints: ['http://a'], health: /healthz}}",
        "upstreams: {a: {endpoints: ['http://a'], health: {path: healthz}}}",
        "upstreams: {a: {endpoints: ['http://a'], health: {path: '/a b'}}}",
        "upstreams: {a: {endpoints: ['http://a'], retry: off}}",
        "upstreams: {a: {endpoints: ['http://a'], retry: {attempts: 0}}}",
        "upstreams: {a: {endpoints: ['http://a'], retry: {budget: 20}}}",
        "upstreams: {a: {endpoints: ['http://a'], eject: true}}",
        "upstreams: {a: {endpoints: ['http://a'], eject: {errors: 0}}}",
        "upstreams: {a: {endpoints: ['http://a'], eject: {for_: 30s}}}",
        "upstreams: {a: {endpoints: ['http://a'], eject: {for: 30}}}",
        "upstreams: {a: {endpoints: ['http://a'], breaker: {}}}",
        "upstreams: {a: {endpoints: ['http://a'], breaker: {pending: 0}}}",
        "upstreams: {a: {endpoints: ['http://a'], tls: {verify: maybe}}}",
        "upstreams: {a: {endpoints: ['http://a'], tls: {server_name: 'a b'}}}",
        "upstreams: {a: {endpoints: [{url: 'http://a', weight: 0}]}}",
        "upstreams: {a: {endpoints: [{url: 'http://a', region: 'a b'}]}}",
        "limits: {connections: 0}",
        "limits: {pipelined: 10001}",
        "tiers: {basic: {limits: [{rate: 60}]}}",
        "tiers: {basic: {limits: [{name: x}]}}",
        "tiers: {'a b': {}}",
        "tiers: {basic: {concurrency: 0}}",
        "tiers: {basic: {concurrency: off}}",
        "tiers: {basic: {caps: {day: 0}}}",
        "tiers: {basic: {caps: {session: 100}}}",
        "tiers: {basic: {priority: -1}}",
        "tiers: {basic: {message: ' '}}",
        "tiers: {basic: {burst_credits: {earn: 10/s}}}",
        "tiers: {basic: {burst_credits: 5}}",
        "tiers: {basic: {quotas: [{meter: m, per: week, included: 5}]}}",
        "tiers: {basic: {quotas: [{meter: m, per: day}]}}",
        "tiers: {basic: {quotas: [{meter: m, per: day, included: 5, timezone: localtime}]}}",
        "tiers: {basic: {limits: [{rate: 5/s, algorithm: leaky}]}}",
        "tiers: {basic: {limits: [{rate: 5/s, burst: 0}]}}",
        "tiers: {basic: {limits: [{rate: 5/s, scope: tier}]}}",
        "tiers: {basic: {limits: [{rate: 5/s, sync: always}]}}",
        "tiers: {basic: {limits: [{rate: 5/s, cost_header: 'X Cost'}]}}",
        "customers: {a: {tier: t, concurrency: off}}",
        "customers: {a: {tier: t, burst_credits: true}}",
        "customers: {a: {tier: t, burst_credits: none}}",
        "customers: {a: {tier: t, paused: unpaid}}",
        "customers: {a: {tier: t, paused: {status: 402}}}",
        "customers: {a: {tier: t, paused: {why: x, status: 404}}}",
        "customers: {a: {tier: t, regions: [a]}}",
        "customers: {a: {tier: t, regions: {allow: []}}}",
        "routes: [{path: /, upstream: a, cost: 0}]",
        "routes: [{path: /, upstream: a, limits: [{scope: route}]}]",
        "routes: [{path: /, upstream: a, flag: [new]}]",
        "flags: {new: {percent: 101}}",
        "flags: {new: {tiers: pro}}",
        "overload: {lag: 50}",
        "usage: off",
        "usage: {token: x}",
        "usage: {collector: 'http://127.0.0.1:9100/v1/batches'}",
        "usage: {collector: 'http://127.0.0.1:9100', token: 'a b'}",
        "usage: {collector: 'http://127.0.0.1:9100', every: 5}",
        "usage: {collector: 'http://127.0.0.1:9100', tls: {cert: ''}}",
        "upstreams: {}",
        "upstreams: {a: {endpoints: []}}",
        "upstreams: {a: {endpoints: ['ftp://a']}}",
        "routes: [{path: v1, upstream: a}]",
        "routes: [{path: /, upstream: a, methods: ['g t']}]",
        "routes: [{path: /v1, redirect: //evil}]",
        "routes: [{path: /v1, redirect: {status: 308}}]",
        "routes: [{path: /v1, respond: {status: 100}}]",
        "routes: [{path: /v1, upstream: a, rewrite: {request: {set: {X-A: ''}}}}]",
        "drain: 30",
        "limits: {fields: 1001}",
        "keys: [{sha256: abc, customer: a}]",
        "sha256: x",
    ],
)
def test_configuration_that_fails_check_does_not_fit_the_schema(made, text):
    assert reported(text, made)


TRIED = {
    units.read_wait: ["0s", "5s", "1.5 h", "5", "s", "-1s", "1e2s", "5sec"],
    units.read_body: ["none", "5MiB", "5MB", "5", "all"],
    units.read_rate: ["60/min", "1/10s", "1 / 10 s", "60", "1/", "1/sec", "1e3/h"],
    units.read_moment: ["2027-01-01", "2027-01-01T00:00:00Z", "2027-01-01T00:00:00", "soon", "2027-1-1"],
    parsers.read_name: ["a", "a b", "-a", "a" * 64, "a" * 65, ""],
    parsers.read_scope: ["read", "a:b", "a b", ""],
    readers.read_path: ["/", "/v1/*", "v1", "/a b", "/é"],
    parsers.read_digest: ["ab" * 32, "AB" * 32, "ab", "g" * 64],
    addresses.read_address: ["a:80", "[::1]:80", "80", ":80", "a", "::1:80"],
    addresses.read_origin: ["http://a", "http://a:1/", "a:1", "http://a/b", "https://a", "http://u@a", "ftp://a"],
    addresses.read_collector: ["http://a", "https://a:1/", "a:1", "http://a/b", "http://u@a", "http://a?b", "ftp://a"],
    hub_settings.read_hub_url: [
        *("memory://", "memory://a", "redis://a", "rediss://[::1]:1/2", "redis://u:p@a@b:6379/15", "redis://:p@a/"),
        *("redis+cluster://a", "redis://", "redis://u@", "redis://a/b", "redis://a/0/1", "redis://a?b", "redis://a#b"),
        *("redis+cluster://u:p@a:1,[::1]:2,b/", "rediss+cluster://a,", "redis+cluster://a/0", "redis+cluster://"),
    ],
    parsers.read_token: ["", "a", "a.b-c~+/=", "a b", "é", "a" * 1001],
    parsers.read_target: ["/", "/healthz?x=y", "healthz", "/a b", "/a#b", "", "/é"],
    addresses.read_server_name: ["a", "A.example", "10.0.0.5", "::1", "a b", "https://a", ""],
    parsers.read_file: ["a", "/a/b.pem", ""],
    readers.read_log: ["a", "on", "only", "/dev/stdout", "stdout", "stdout.log", "-", "a/", ""],
    units.read_share: ["20%", "0%", "100%", "101%", "0.5 %", "100.0%", "100.1%", "20", ".5%", "1e1%", ""],
    units.read_sample: ["1%", "0%", "0.0 %", "00%", "0.01%", "100%", "101%", "1"],
    parsers.read_field_name: ["X-Cost", "X Cost", "", "X:", "a" * 65],
    parsers.read_sentence: ["a", " a b\n", "", " ", "\n"],
    parsers.read_timezone: ["UTC", "Europe/Berlin", "a b", "", "localtime", "right/UTC", "Etc/GMT+5", "/UTC"],
    cors.read_origin: [
        "*",
        "null",
        "https://a.example",
        "https://*.example.com",
        "https://*.com",
        "a.b",
        "https://a/",
        "",
    ],
    cors.read_header: ["*", "X-Own", "X Own", ""],
    readers.read_host: ["a.example", "*.example", "a:80", ""],
    addresses.read_network: ["10.0.0.0/8", "::1", "x", ""],
}


@pytest.mark.parametrize(("reader", "written"), [(reader, one) for reader, some in TRIED.items() for one in some])
def test_forms_and_readers_agree(reader, written):
    rule = find_form(reader).schema({})
    try:
        reader(written)
    except PydanticCustomError:
        accepted = False
    else:
        accepted = True
    assert bool(re.search(rule["pattern"], written)) is accepted


class Hexadecimal(int):
    """A type without an equivalent in JSON Schema."""

    @classmethod
    def read(cls, value: object) -> "Hexadecimal":
        return cls(str(value), 16)


def test_a_setting_with_a_new_reader_or_a_new_type_has_a_schema():
    class Fresh(Part):
        size: Annotated[int, BeforeValidator(lambda value: int(str(value), 16))] = 5
        mask: Annotated[InstanceOf[Hexadecimal], BeforeValidator(Hexadecimal.read)] = Hexadecimal(5)

    properties = build_schema("fresh.yaml", Fresh)["properties"]
    assert properties["size"]["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    assert properties["mask"]["anyOf"] == [{}, {"type": "string"}]


@pytest.mark.parametrize("root", [EdgeFile, CollectorFile])
def test_every_reader_of_a_file_has_a_form(root):
    unknown = []

    class Strict(FileSchema):
        def function_before_schema(self, schema):
            if find_form(schema["function"]["function"]) is None:
                unknown.append(schema["function"]["function"])
            return super().function_before_schema(schema)

    root.model_json_schema(schema_generator=Strict)
    assert unknown == []


def test_descriptions_for_editors_have_no_links():
    schema = {"description": "See [limits](limits.md#a).", "anyOf": [{"description": "[a](b)", "pattern": "[a](b)"}, 5]}
    assert remove_links(schema) == {
        "description": "See limits.",
        "anyOf": [{"description": "a", "pattern": "[a](b)"}, 5],
    }


def test_a_setting_that_needs_a_restart_says_so(made):
    notes = {name for name, field in made["properties"].items() if field["description"].endswith("Needs a restart.")}
    assert notes - {"hub"} == set(EdgeFile.list_marked(FieldMark.RESTART))
