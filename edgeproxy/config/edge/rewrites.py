"""Rewrites of a route: changes of paths and fields, redirects and fixed answers."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.config import parsers
from edgeproxy.config.edge.path_patterns import UnsafePatternError, compile_pattern
from edgeproxy.config.edge.stamps import STAMP_FIELDS
from edgeproxy.config.forms import build_any_of, build_number, build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import PatternText, Whole, format_value, read_switch, read_text, value_error

VALUE = re.compile(r"[!-~](?:[\t -~]{0,998}[!-~])?")
BASE = re.compile(r"(?:/[!$&-.0-;=@-\[\]-~]+)*/?")
"""Characters of an unescaped path, without a query."""
WHERE = re.compile(
    r"(?:https?://(?:[A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]+(?::[0-9]{1,5})?)?"
    r"(?:/(?![/\\])(?:[!$-)+-;=?-\[\]-~]*|(?:[!$-)+-;=@-\[\]-~]*/)?\*))?"
)
CONTENT_CHARACTERS_MAX = 64 << 10

REDIRECT_TARGET = build_text(
    "`https`, URL or path", f"https|(?!$){WHERE.pattern}", "https", "https://www.example.com/*"
)
A_VALUE = "1 to 1000 visible ASCII characters, spaces and tabs between them"
A_BASE = "a path such as /api, without escapes and a query"
A_PLACE = "https, https://HOST/PATH or /PATH, with /* at its end for what follows the route's prefix"
A_CONTENT = "up to 65536 characters"
A_REPLACEMENT = (
    "a path such as /orders/{1}, with captures in braces, and {{ for a brace; escapes and a query cannot be in it"
)

VARIABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "client.address": "The address of the client, as limits know it.",
        "request.host": "The host that the client asked for, with its port.",
        "request.method": "The method.",
        "request.path": "The path that the client asked for, without the query.",
        "request.id": "The value of `X-Request-Id`.",
        "request.scheme": "`http` or `https`, as the client asked.",
        "customer.id": "The customer; empty without one.",
        "customer.tier": "The tier; empty without one.",
        "user.name": "The [user with a password](access.md#users-with-passwords); empty without one.",
        "route.name": "The name of the route in usage and metrics.",
    }
)
"""The variables for values of request fields, with their meanings. Each header is a variable too."""
HEADER = "header."
"""The prefix of variables for request fields: `header.x-tenant`. Fields with keys are excluded."""
VARIABLES_MAX = 10
"""Maximum variables in one value, and captures in one replacement."""
CAPTURE = re.compile(r"[0-9]{1,2}|[A-Za-z_][A-Za-z0-9_]*")
"""The name of a capture: its number, or its name in the pattern."""
PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
"""An escaped brace, a variable, or an unmatched brace."""

FRAMING = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"),
        *("content-length", "transfer-encoding", "x-request-id"),
    )
)
"""Fields of the connection and of message framing, and the request id. Only the edge sets them."""

REQUEST_OWN = FRAMING | {
    *("host", "expect", "max-forwards", "forwarded", "traceparent", "origin"),
    *("true-client-ip", "remote-user"),
    *STAMP_FIELDS,
}
REQUEST_SETTABLE = frozenset(("x-real-ip", "x-forwarded-prefix"))
"""Fields that a route may set but not remove, because clients cannot send them."""
REQUEST_PREFIXES = ("x-edge-", "x-forwarded-", "x-real-", "x-original-", "access-control-request-")
"""Stamps, and fields about the owner and origin of a request. Upstreams trust them because only the edge sets them."""

RESPONSE_OWN = FRAMING | {"date", "content-encoding", "content-range"}
RESPONSE_PREFIXES = ("ratelimit", "x-ratelimit-", "access-control-")

Redirecting = Literal[301, 302, 303, 307, 308]


@written(build_text("field name", parsers.FIELD_NAME.pattern, "Cookie"))
def read_request_field(value: object) -> str:
    """Read the name of a request field that a route may set or remove."""
    return _read_changeable_field(value, REQUEST_OWN, REQUEST_PREFIXES, "upstreams rely on what the edge says in it")


@written(build_text("field name", parsers.FIELD_NAME.pattern, "Server"))
def read_response_field(value: object) -> str:
    """Read the name of an answer's field that a route may set or remove."""
    return _read_changeable_field(
        value, RESPONSE_OWN, RESPONSE_PREFIXES, "it is the edge's own, or says how the answer is to be read"
    )


def _read_changeable_field(value: object, own: frozenset[str], prefixes: tuple[str, ...], why: str) -> str:
    name = parsers.read_field_name(value)
    # In every spelling that a server behind the edge may treat as this name.
    folded = re.sub("[^a-z0-9]", "-", name.lower())
    if folded in own or folded.startswith(prefixes):
        raise value_error(
            f"{format_value(name)} cannot be changed", "use cors" if folded.startswith("access-control-") else why
        )
    return name


@written(build_text("field name", parsers.FIELD_NAME.pattern))
def read_set_request_field(value: object) -> str:
    """Read the name of a request field that a route may set."""
    name = parsers.read_field_name(value)
    return name if name.lower() in REQUEST_SETTABLE else _refuse_via(read_request_field(value))


@written(build_text("field name", parsers.FIELD_NAME.pattern))
def read_set_response_field(value: object) -> str:
    """Read the name of an answer's field that a route may set."""
    return _refuse_via(read_response_field(value))


def _refuse_via(name: str) -> str:
    if name.lower() == "via":
        raise value_error("Via says by which proxies a message came", "it can be removed, not set")
    return name


read_value = PatternText("field value", VALUE, "has other characters than fields may have, or too many", A_VALUE)
"""Reads the value of a field. It cannot contain the end of a line."""


@written(build_text("field value, with variables", VALUE.pattern))
def read_template(value: object) -> str:
    """Read the value of a request field. It may contain variables in braces."""
    written = read_value(value)
    names = [match[1] for match in PART.finditer(written) if match[0] not in ("{{", "}}")]
    hint = f"{', '.join(VARIABLES)} or {HEADER}NAME in braces, and {{{{ for a brace"
    for name in names:
        if name is None:
            raise value_error("has a brace that belongs to no variable", hint)
        field = name.removeprefix(HEADER)
        if name not in VARIABLES and not (name.startswith(HEADER) and parsers.FIELD_NAME.fullmatch(field)):
            raise value_error(f"has the variable {format_value(name)}, which does not exist", hint)
    if len(names) > VARIABLES_MAX:
        raise value_error(f"has {len(names)} variables", f"at most {VARIABLES_MAX}")
    return written


@written(build_text("path", rf"(?!.*/\.\.?(/|$)){BASE.pattern}", "/api"))
def read_base(value: object) -> str:
    """Read a path prefix without its trailing slash."""
    base = read_text(value, A_BASE)
    if not BASE.fullmatch(base) or {".", ".."} & set(base.split("/")):
        raise value_error(f"{format_value(base)} is not a path of this form", A_BASE)
    return base.removesuffix("/")


@written(build_text("regular expression", ".+", "/users/([0-9]+)/(.*)"))
def read_pattern(value: object) -> str:
    """Read a pattern of paths. Only patterns that match in linear time are accepted."""
    pattern = read_text(value, "a regular expression")
    try:
        compile_pattern(pattern)
    except UnsafePatternError as error:
        raise value_error(error.problem, error.hint) from None
    return pattern


@written(build_text("path, with captures", "/.*", "/orders/{1}"))
def read_replacement(value: object) -> str:
    """Read a path whose braces have captures of a pattern."""
    text = read_text(value, A_REPLACEMENT)
    captures = list_captures(text)
    for name in captures:
        if not CAPTURE.fullmatch(name):
            raise value_error(f"has the capture {format_value(name)}, which cannot be", A_REPLACEMENT)
    plain = PART.sub(lambda match: match[0][:1] if match[1] is None else "x", text)
    if not text.startswith("/") or not BASE.fullmatch(plain.replace("//", "/")) or {".", ".."} & set(plain.split("/")):
        raise value_error(f"{format_value(text)} is not a path of this form", A_REPLACEMENT)
    if len(captures) > VARIABLES_MAX:
        raise value_error(f"has {len(captures)} captures", f"at most {VARIABLES_MAX}")
    return text


def list_captures(replacement: str) -> list[str]:
    """List the captures of a replacement. A brace that belongs to none is listed too."""
    return [match[1] or match[0] for match in PART.finditer(replacement) if match[0] not in ("{{", "}}")]


@written(REDIRECT_TARGET)
def read_redirect_target(value: object) -> str:
    """Read the target of a redirect. Parts of the request may only follow a / in it."""
    place = read_text(value, A_PLACE)
    if place != "https" and (not place or not WHERE.fullmatch(place)):
        raise value_error(f"{format_value(place)} is not a place that a redirect may lead to", A_PLACE)
    return place


@written(lambda inner: build_any_of(REDIRECT_TARGET, inner))
def read_redirect(value: object) -> object:
    """Read a redirect: its target, or a mapping with the target."""
    return {"to": value} if isinstance(value, str) else value


@written(lambda inner: inner, int)
def read_redirect_status(value: object) -> int:
    """Read the status of a redirect."""
    hint = "308 and 307 keep the method, 301 and 302 may not, 303 asks with GET"
    written = str(value) if isinstance(value, int) else read_text(value, hint)
    if written not in ("301", "302", "303", "307", "308"):
        raise value_error(f"{format_value(written)} is not the status of a redirect", hint)
    return int(written)


@written(build_number(200, 599), int)
def read_fixed_status(value: object) -> int:
    """Read the status of a fixed answer."""
    status = some_status(value)
    if status in (205, 304):
        raise value_error(f"{status} is about an answer that somebody has already", "an answer of another status")
    return status


some_status = Whole(200, 599)


@written({"type": "string", "title": f"text, up to {CONTENT_CHARACTERS_MAX} characters"})
def read_content(value: object) -> str:
    """Read the content of a fixed answer."""
    content = read_text(value, A_CONTENT)
    if len(content) > CONTENT_CHARACTERS_MAX:
        raise value_error(f"has {len(content)} characters", A_CONTENT)
    return content


Base = Annotated[str, BeforeValidator(read_base)]
Value = Annotated[str, BeforeValidator(read_value)]
Template = Annotated[str, BeforeValidator(read_template)]
Switch = Annotated[bool, BeforeValidator(read_switch)]


class RequestFields(Part):
    """Changes of request fields.

    These fields cannot be changed: `Host`, stamps, `X-Forwarded-*` except `X-Forwarded-Prefix`, and fields of the
    connection or the framing, in any spelling that an upstream may treat as the same name. `Via` can be removed but
    not set.
    """

    set: dict[Annotated[str, BeforeValidator(read_set_request_field)], Template] = Field(
        default={},
        description="Fields that upstreams get with these values, whatever the client sent, such as an `Authorization` "
        "for the upstream. Values may contain [variables](rewrites.md#variables): `{client.address}`.",
    )
    remove: tuple[Annotated[str, BeforeValidator(read_request_field)], ...] = Field(
        default=(), description="Fields that upstreams do not get."
    )


class ResponseFields(Part):
    """Changes of response fields. The edge's own answers are not changed.

    These fields cannot be changed: `Date`, `X-Request-Id`, RateLimit fields, [CORS](#cors) fields, `Content-Encoding`,
    and fields of the connection or the framing.
    """

    set: dict[Annotated[str, BeforeValidator(read_set_response_field)], Value] = Field(
        default={}, description="Fields that clients get with these values, whatever the upstream sent."
    )
    remove: tuple[Annotated[str, BeforeValidator(read_response_field)], ...] = Field(
        default=(), description="Fields that clients do not get."
    )


class Rewrite(Part):
    """Changes of paths and fields on the way to the upstream and back.

    ```yaml
    routes:
      - path: /shop/v1/*
        upstream: api
        rewrite:
          strip: /shop            # the upstream gets /shop/v1/orders as /internal/v1/orders
          prefix: /internal
          request: {set: {X-Channel: web}, remove: [Cookie, Via]}
          response: {set: {Cache-Control: no-store}, remove: [Server, X-Powered-By]}
    ```
    """

    strip: Base | None = Field(
        default=None,
        description="Start of the path to remove: the whole path of the route, or its first segments.",
    )
    prefix: Base | None = Field(default=None, description="Path to put before the rest.")
    regex: Annotated[str, BeforeValidator(read_pattern)] | None = Field(
        default=None,
        description="[Regular expression](rewrites.md#regular-expressions) for the whole path, in place of `strip` and "
        "`prefix`. The path that it matches becomes the `replacement`; another path stays.",
    )
    replacement: Annotated[str, BeforeValidator(read_replacement)] | None = Field(
        default=None, description="Path in place of the one that `regex` matches: `/orders/{1}`, `/orders/{name}`."
    )
    locations: Switch = Field(
        default=True,
        description="Gives `Location` and similar fields [the path that clients use](rewrites.md#the-way-back).",
    )
    cookies: Switch = Field(
        default=True,
        description="Puts the stripped path before the path of cookies. `false` for a service whose cookies are for "
        "the whole host, such as a service that signs users in.",
    )
    request: RequestFields = Field(default=RequestFields(), description="Changes of request fields.")
    response: ResponseFields = Field(default=ResponseFields(), description="Changes of response fields.")


class Redirect(Part):
    """A redirect. [Rewrites](rewrites.md) explains the order of these steps.

    ```yaml
    routes:
      - {path: /old/*, redirect: "https://www.example.com/new/*"}   # /old/a?b=c leads to …/new/a?b=c
      - {path: /docs, redirect: {to: /docs/start, status: 302}}
      - {path: /*, upstream: api, redirect: https}                  # requests without TLS, to the same URL over TLS
    ```
    """

    to: Annotated[str, BeforeValidator(read_redirect_target)] = Field(
        description="Target. `https`: the same host, path and query over TLS, at port 443; requests over TLS go on to "
        "the `upstream`, and HTTP/1.0 requests without a host get 400. Else a URL or a path: a final `/*` stands for "
        "the rest after the route's prefix, and the query is appended unless the target has one."
    )
    status: Annotated[Redirecting, BeforeValidator(read_redirect_status)] = Field(
        default=308,
        description="308 and 307 keep the method, 301 and 302 may change it, 303 changes it to GET. Browsers remember "
        "301 and 308 for ever.",
    )


class Respond(Part):
    r"""A fixed answer.

    ```yaml
    routes:
      - {path: /robots.txt, respond: {body: "User-agent: *\nDisallow: /\n"}}
      - {path: /v1/*, respond: {status: 410, body: '{"error":"use /v2"}', type: application/json}}
    ```
    """

    status: Annotated[int, BeforeValidator(read_fixed_status)] = Field(
        default=200, description="Status; not 205 or 304."
    )
    type: Value = Field(default="text/plain; charset=utf-8", description="`Content-Type`.")
    body: Annotated[str, BeforeValidator(read_content)] | None = Field(
        default=None, description="Content. By default none."
    )
