"""Explanations of pydantic's errors, for the person who wrote the file."""

import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, NamedTuple, TypeGuard

from pydantic import BaseModel, ValidationError

from edgeproxy.config import field_codes
from edgeproxy.config.field_codes import FieldCode
from edgeproxy.config.nearest import find_nearest, format_suggestion
from edgeproxy.config.parsers import GIVEN
from edgeproxy.config.problems import Steps
from edgeproxy.config.units import format_value

SEE_SCHEMA = "see `edgeproxy schema`"
"""The hint if there is no better one."""

EXAMPLES = {
    "rate": "rate: 60/min",
    "count": "count: requests",
    "endpoint": "endpoint: http://127.0.0.1:4318",
    "format": "format: openai",
    "basic": "basic: users.htpasswd",
    "tier": "tier: basic",
    "sha256": "sha256: and 64 hex digits, which `edgeproxy key add` prints",
    "customer": "customer: acme",
    "url": "url: http://127.0.0.1:9001",
    "address": "address: 127.0.0.1:8080",
    "endpoints": "endpoints: [http://127.0.0.1:9001]",
    "path": "path: /v1/*",
    "upstreams.path": "path: /healthz",
    "pending": "pending: 1000",
    "cert": "cert: certs/edge.pem",
    "key": "key: certs/edge.key",
    "erasures": "erasures: /srv/edgeproxy-erasures/eu-1.jsonl",
    "file": "file: var/access.log",
    "upstream": "upstream: api",
    "deliver": "deliver: portal",
    "upstreams": "upstreams: {api: {endpoints: [http://127.0.0.1:9001]}}",
    "routes": "routes: [{path: /*, upstream: api}]",
    "meter": "meter: requests",
    "usage": 'usage: {collector: "https://eu.example.com:9100", token: "${EU_TOKEN}"}',
    "directory": "directory: {from: collector, trust: KEY}",
    "values": "values: 50",
    "per": "per: month",
    "included": "included: 100000",
    "earn": "earn: 10/s",
    "jwks": "jwks: https://id.example.com/.well-known/jwks.json",
    "audiences": "audiences: [api]",
    "max": "max: 600",
    "encryption": "encryption: ${WEBHOOK_KEY}",
    "from": "from: hub",
    "why": "why: and what the customer is told",
    "collector": "collector: http://127.0.0.1:9100",
    "domains": "domains: [api.example.com]",
    "terms_accepted": "terms_accepted: true",
    "origins": "origins: [https://app.example.com]",
    "to": "to: https://www.example.com/*",
    "tokens": 'tokens: [{sha256: "<64 hex digits>", role: edge}]',
    "names": "names: [eu-west, us-east]",
    "regions": "regions: {eu-west: https://eu.api.example.com/beacon, us-east: https://us.api.example.com/beacon}",
    "issuer": "issuer: https://id.example.com",
    "audience": "audience: edgeproxy",
    "roles": "roles: {claim: groups, admin: [ops]}",
    "plans": "plans: config/plans.yaml",
    "fee": 'fee: "99"',
    "tokens.sha256": "sha256: and the SHA-256 of the token in hex",
}
"""Examples of required fields. `SECTION.FIELD` is used if a field of that name differs elsewhere."""

PARTS = {
    "per_ip": "per_ip: {rate: 200/s}",
    "timeouts": "timeouts: {connect: 5s, response_head: 60s, idle: 60s}",
    "health": "health: {path: /healthz, every: 5s}, or leave it out",
    "retry": "retry: {attempts: 2, budget: 20%}; with attempts: 1 nothing is sent twice",
    "eject": "eject: {errors: 5, for: 30s}, or eject: off",
    "breaker": "breaker: {pending: 1000}, or leave it out",
    "tls": "tls: {cert: certs/collector.pem, key: certs/collector.key}, or leave it out",
    "listen.tls": "tls: {cert: certs/edge.pem, key: certs/edge.key}, or leave it out",
    "upstreams.tls": "tls: {ca: certs/ca.pem}, or leave it out: https:// is enough",
    "certificates": "certificates: [{cert: certs/edge.pem, key: certs/edge.key}]",
    "access_log": "access_log: var/access.log, or off",
    "directory": "directory: {from: hub, trust: KEY}, or leave it out",
    "dimensions": "dimensions: {model: 50}, or leave it out",
    "quotas": "quotas: [{meter: requests, per: month, included: 100000}]",
    "burst_credits": "burst_credits: {earn: 10/s, max: 600}, or off",
    "caps": "caps: {request: 50000, day: 500000, session: 100000/60min}, in millicredits",
    "paused": "paused: {why: what the customer is told, status: 402}, or leave it out",
    "regions": "regions: {allow: [eu-west], prefer: eu-west}, or leave it out",
    "regions.regions": "regions: {names: [eu-west, us-east]} in collector.yaml, {NAME: URL} in regions.yaml",
    "usage": "usage: {collector: http://127.0.0.1:9100, token: and a token of it}, or leave it out",
    "usage.tls": "tls: {ca: certs/ca.pem}, or leave it out: https:// is enough",
    "tracing": "tracing: {endpoint: http://127.0.0.1:4318, sample: 1%}, or leave it out",
    "tracing.tls": "tls: {ca: certs/ca.pem}, or leave it out: https:// is enough",
    "hub": "hub: redis://HOST:PORT, or hub: {url: redis://HOST:PORT, sync: 1s, on_loss: share}",
    "hub.tls": "tls: {ca: certs/ca.pem}, or leave it out: rediss:// is enough",
    "overload": "overload: {lag: 50ms, requests: 4000}, or leave it out",
}
"""Examples of mappings that say more than a list of the fields."""
UNWRITTEN_STEPS = {"[key]", GIVEN}
"""Steps of pydantic's paths that do not exist in files."""

MISPLACED = {
    "tls": "write it in a listener, or in an upstream",
    "weight": "write it in an endpoint: {url: http://HOST:PORT, weight: 2}",
}
"""Hints for fields that are often written in the wrong place."""
RENAMED: dict[Steps, str] = {("tables", "people"): "customers", ("rotation", "overlap"): "grace"}
"""New names of renamed fields, by the path of the old one."""


class Finding(NamedTuple):
    """The error of a value: its path in pydantic's terms, the problem and a hint; for programs a code and figures."""

    path: Steps
    missing: bool
    what: str
    hint: str
    code: FieldCode
    params: Mapping[str, str | int]


class ErrorDetails(NamedTuple):
    """An error as input of the functions in EXPLAINED. `fields` returns the known names in the mapping at a path."""

    path: Steps
    given: object
    context: dict[str, object]
    fields: Callable[[Steps], set[str]]


def explain_errors(error: ValidationError, fields: Callable[[Steps], set[str]]) -> Iterator[Finding]:
    """Yield an explanation of each error. `fields` returns the known names in the mapping at a path."""
    for detail in error.errors(include_url=False):
        if detail["type"] == "too_short" and detail["input"]:
            continue  # Invalid members were not counted.
        path = tuple(step for step in detail["loc"] if step not in UNWRITTEN_STEPS)
        explain = EXPLAINED.get(detail["type"])
        error_details = ErrorDetails(path, detail["input"], detail.get("ctx", {}), fields)
        what, hint = explain(error_details) if explain else (detail["msg"], SEE_SCHEMA)
        yield Finding(path, detail["type"] == "missing", what, hint, *_find_code(detail["type"], error_details.context))


def _find_code(kind: str, context: Mapping[str, Any]) -> tuple[FieldCode, Mapping[str, str | int]]:
    if kind == "wrong":
        return context["code"], context["params"]
    if kind == "string_too_long":
        return field_codes.TOO_LONG, {"most": context["max_length"]}
    return CODES.get(kind, field_codes.INVALID), {}


def list_fields(model: object, path: Steps) -> set[str]:
    """List the fields of the mapping at `path` in the type `model`, or nothing if it has no model."""
    for step in path:
        model = _find_member_type(model, step)
    return set(_get_field_types(model)) if _is_model(model) else set()


def _get_field_types(model: type[BaseModel]) -> dict[str, object]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _is_model(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _find_member_type(kind: object, step: str | int) -> object:
    """Return the type of the value at `step` in a value of this type. None: there can be no value."""
    if _is_model(kind):
        return _unwrap_type(_get_field_types(kind).get(str(step)))
    members = typing.get_args(kind)
    if typing.get_origin(kind) is dict:
        return _unwrap_type(members[1])
    return _unwrap_type(members[0]) if members else None


def _unwrap_type(kind: object) -> object:
    """Return a type without its annotations and without `| None`."""
    if typing.get_origin(kind) is Annotated:
        return _unwrap_type(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return _unwrap_type(next(member for member in typing.get_args(kind) if member is not types.NoneType))
    return kind


def _explain_missing(error: ErrorDetails) -> tuple[str, str]:
    return "is missing", f"write {_find_example(EXAMPLES, error.path) or 'it'}"


def _find_example(examples: dict[str, str], path: Steps) -> str | None:
    """Return the example for the field at `path`, if there is one."""
    return examples.get(f"{path[0]}.{path[-1]}", examples.get(str(path[-1]))) if path else None


def _explain_unknown(error: ErrorDetails) -> tuple[str, str]:
    name = str(error.path[-1])
    known = error.fields(error.path[:-1])
    if (renamed := RENAMED.get(error.path)) is not None:
        return "has another name now", f"write {renamed}"
    return "unknown field", MISPLACED.get(name) or format_suggestion(name, known, "leave it out")


def _explain_literal(error: ErrorDetails) -> tuple[str, str]:
    if not isinstance(error.given, str):
        return "is not a single value", f"write {error.context['expected']}"
    values = re.findall(r"'([^']*)'", str(error.context["expected"]))
    name = find_nearest(error.given, values)
    hint = f"did you mean {name}?" if name else f"write {' or '.join(values)}"
    return f"{format_value(error.given)} is not known here", hint


def _explain_no_mapping(error: ErrorDetails) -> tuple[str, str]:
    known = sorted(error.fields(error.path))
    path = error.path
    while path and isinstance(path[-1], int):
        path = path[:-1]  # A problem of a member is shown with its list.
    example = _find_example(PARTS, path)
    if example and path[-1] in error.fields(path[:-1]):
        return "is not a mapping", f"write {example}"
    return "is not a mapping", f"its fields are {', '.join(known)}" if known else "write NAME: and what it is"


def _explain_no_list(_error: ErrorDetails) -> tuple[str, str]:
    return "is not a list", "write [ ] around it"


EXPLAINED: dict[str, Callable[[ErrorDetails], tuple[str, str]]] = {
    "wrong": lambda error: (str(error.context["what"]), str(error.context["hint"])),
    "missing": _explain_missing,
    "extra_forbidden": _explain_unknown,
    "literal_error": _explain_literal,
    "model_type": _explain_no_mapping,
    "dict_type": _explain_no_mapping,
    "tuple_type": _explain_no_list,
    "frozen_set_type": _explain_no_list,
    "too_short": lambda _: ("is empty", "write at least one"),
    "string_type": lambda _: ("is not a single value", "write one"),
}
"""The problem and a hint for each type of pydantic's errors in these models."""
CODES = {
    "missing": field_codes.MISSING,
    "string_too_short": field_codes.MISSING,
    "extra_forbidden": field_codes.UNKNOWN,
    "literal_error": field_codes.NOT_OFFERED,
    "too_short": field_codes.EMPTY,
    **dict.fromkeys(("less_than", "less_than_equal", "greater_than", "greater_than_equal"), field_codes.OUT_OF_RANGE),
    **dict.fromkeys(
        (f"{kind}_type" for kind in ("model", "dict", "tuple", "list", "frozen_set", "string", "int", "bool")),
        field_codes.WRONG_TYPE,
    ),
}
"""The code for each type of pydantic's errors that has one of its own."""
