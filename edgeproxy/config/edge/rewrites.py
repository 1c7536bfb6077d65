"""What a route changes: paths and fields on their way, or the whole answer, which is then a redirect or fixed."""

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator

from edgeproxy.config import parsers
from edgeproxy.config.part import Part
from edgeproxy.config.units import Whole, format_value, read_switch, read_text, value_error

VALUE = re.compile(r"[!-~](?:[\t -~]{0,998}[!-~])?")
BASE = re.compile(r"(?:/[!$&-.0-;=@-\[\]-~]+)*/?")
"""Of characters that a path has as they are: no escapes, no query."""
WHERE = re.compile(
    r"(?:https?://(?:[A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]+(?::[0-9]{1,5})?)?"
    r"(?:/(?![/\\])(?:[!$-)+-;=?-\[\]-~]*|(?:[!$-)+-;=@-\[\]-~]*/)?\*))?"
)
CONTENT_CHARACTERS_MAX = 64 << 10

A_VALUE = "1 to 1000 visible ASCII characters, spaces and tabs between them"
A_BASE = "a path such as /api, without escapes and a query"
A_PLACE = "https, https://HOST/PATH or /PATH, with /* at its end for what follows the route's prefix"
A_CONTENT = "up to 65536 characters"

FRAMING = frozenset(
    (
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"),
        *("content-length", "transfer-encoding", "x-request-id"),
    )
)
"""Of the connection and of where a message ends, and the request's name: the edge alone says them, either way."""

REQUEST_OWN = FRAMING | {
    *("host", "expect", "max-forwards", "forwarded", "traceparent", "origin", "x-customer-id", "x-customer-tier"),
    *("true-client-ip", "remote-user"),
}
REQUEST_PREFIXES = ("x-edge-", "x-forwarded-", "x-real-", "x-original-", "access-control-request-")
"""Stamps, whose request it is and whence it came: upstreams believe them because nobody else can set them."""

RESPONSE_OWN = FRAMING | {"date", "content-encoding", "content-range"}
RESPONSE_PREFIXES = ("ratelimit", "x-ratelimit-", "access-control-")

Redirecting = Literal[301, 302, 303, 307, 308]


def read_request_field(value: object) -> str:
    """Read the name of a request's field that a route may set or remove."""
    return _read_changeable_field(value, REQUEST_OWN, REQUEST_PREFIXES, "upstreams rely on what the edge says in it")


def read_response_field(value: object) -> str:
    """Read the name of an answer's field that a route may set or remove."""
    return _read_changeable_field(
        value, RESPONSE_OWN, RESPONSE_PREFIXES, "it is the edge's own, or says how the answer is to be read"
    )


def _read_changeable_field(value: object, own: frozenset[str], prefixes: tuple[str, ...], why: str) -> str:
    name = parsers.read_field_name(value)
    # In every spelling that a server behind the edge may take for the same name.
    folded = re.sub("[^a-z0-9]", "-", name.lower())
    if folded in own or folded.startswith(prefixes):
        raise value_error(
            f"{format_value(name)} cannot be changed", "use cors" if folded.startswith("access-control-") else why
        )
    return name


def read_set_request_field(value: object) -> str:
    """Read the name of a request's field that a route may set."""
    return _refuse_via(read_request_field(value))


def read_set_response_field(value: object) -> str:
    """Read the name of an answer's field that a route may set."""
    return _refuse_via(read_response_field(value))


def _refuse_via(name: str) -> str:
    if name.lower() == "via":
        raise value_error("Via says by which proxies a message came", "it can be removed, not set")
    return name


def read_value(value: object) -> str:
    """Read the value of a field: nothing in it can end its line."""
    written = read_text(value, A_VALUE)
    if not VALUE.fullmatch(written):
        raise value_error("has other characters than fields may have, or too many", A_VALUE)
    return written


def read_base(value: object) -> str:
    """Read a path that others are put behind, without the / at its end."""
    base = read_text(value, A_BASE)
    if not BASE.fullmatch(base) or {".", ".."} & set(base.split("/")):
        raise value_error(f"{format_value(base)} is not a path of this form", A_BASE)
    return base.removesuffix("/")


def read_redirect_target(value: object) -> str:
    """Read where a redirect leads. What a request says is only ever put behind a / there."""
    place = read_text(value, A_PLACE)
    if place != "https" and (not place or not WHERE.fullmatch(place)):
        raise value_error(f"{format_value(place)} is not a place that a redirect may lead to", A_PLACE)
    return place


def read_redirect(value: object) -> object:
    """Read a redirect: where it leads, or a mapping with it."""
    return {"to": value} if isinstance(value, str) else value


def read_redirect_status(value: object) -> int:
    """Read the status of a redirect."""
    hint = "308 and 307 keep the method, 301 and 302 may not, 303 asks with GET"
    written = str(value) if isinstance(value, int) else read_text(value, hint)
    if written not in ("301", "302", "303", "307", "308"):
        raise value_error(f"{format_value(written)} is not the status of a redirect", hint)
    return int(written)


def read_fixed_status(value: object) -> int:
    """Read the status of a fixed answer."""
    status = some_status(value)
    if status in (205, 304):
        raise value_error(f"{status} is about an answer that somebody has already", "an answer of another status")
    return status


some_status = Whole(200, 599)


def read_content(value: object) -> str:
    """Read the content of a fixed answer."""
    content = read_text(value, A_CONTENT)
    if len(content) > CONTENT_CHARACTERS_MAX:
        raise value_error(f"has {len(content)} characters", A_CONTENT)
    return content


Base = Annotated[str, BeforeValidator(read_base)]
Value = Annotated[str, BeforeValidator(read_value)]
Switch = Annotated[bool, BeforeValidator(read_switch)]


class RequestFields(Part):
    """What is changed in the fields of requests."""

    set: dict[Annotated[str, BeforeValidator(read_set_request_field)], Value] = {}
    """Fields that upstreams get with these values, whatever the client sent in them."""
    remove: tuple[Annotated[str, BeforeValidator(read_request_field)], ...] = ()
    """Fields that upstreams do not get."""


class ResponseFields(Part):
    """What is changed in the fields of upstreams' answers."""

    set: dict[Annotated[str, BeforeValidator(read_set_response_field)], Value] = {}
    """Fields that clients get with these values, whatever the upstream sent in them."""
    remove: tuple[Annotated[str, BeforeValidator(read_response_field)], ...] = ()
    """Fields that clients do not get."""


class Rewrite(Part):
    """What is changed on the way to the upstream and back."""

    strip: Base | None = None
    """What is taken from the beginning of the path: all of the route's path, or of its first segments."""
    prefix: Base | None = None
    """What is put before the path, or before what is left of it."""
    locations: Switch = True
    """Whether the places that answers lead to are given the path by which clients reach them."""
    cookies: Switch = True
    """Whether cookies are for what was stripped and all below it, where the upstream says that they are for a path."""
    request: RequestFields = RequestFields()
    """What is changed in the fields of requests."""
    response: ResponseFields = ResponseFields()
    """What is changed in the fields of upstreams' answers."""


class Redirect(Part):
    """Where clients are sent instead."""

    to: Annotated[str, BeforeValidator(read_redirect_target)]
    """`https` for the same over TLS, else a URL or a path; a last * stands for what follows the route's prefix."""
    status: Annotated[Redirecting, BeforeValidator(read_redirect_status)] = 308
    """The status of the answer."""


class Respond(Part):
    """An answer that is always the same."""

    status: Annotated[int, BeforeValidator(read_fixed_status)] = 200
    """Its status."""
    type: Value = "text/plain; charset=utf-8"
    """Its Content-Type."""
    body: Annotated[str, BeforeValidator(read_content)] | None = None
    """Its content; by default none."""
