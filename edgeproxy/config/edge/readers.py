"""Readers for settings of edge.yaml only: hosts, paths and methods of routes, fields of requests, endpoints, logs.

Each accepts the text of the file or the plain value, and raises `value_error`.
"""

import re

from edgeproxy.config.addresses import HOST
from edgeproxy.config.edge import methods
from edgeproxy.config.edge.proxy_fields import has_proxy_field
from edgeproxy.config.edge.stamps import STAMP_FIELDS
from edgeproxy.config.forms import OFF as OFF_FORM
from edgeproxy.config.forms import build_any_of, build_one_or_more, build_text, written
from edgeproxy.config.parsers import OFF, read_file_path, read_one_or_more, read_unless_off
from edgeproxy.config.units import PatternText, format_value, read_text, value_error

REQUEST_FIELDS = frozenset(
    (
        *(
            "host",
            "content-length",
            "transfer-encoding",
            "connection",
            "upgrade",
            "te",
            "expect",
            "via",
            "max-forwards",
        ),
        *("keep-alive", "proxy-connection", "proxy-authorization", "proxy-authenticate", "proxy", "trailer"),
        *("traceparent", "tracestate", "x-request-id", "forwarded"),
        *("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-real-ip"),
        *STAMP_FIELDS,
    )
)
"""Fields of requests with an own meaning for the edge."""
PARAMETER = re.compile(r"[A-Za-z0-9_.-]{1,64}")
KEY_FIELD = re.compile(r"[A-Za-z0-9-]{1,64}")
STRIPPED = re.compile(r"[A-Za-z0-9-]{1,64}\*?")
ENDPOINT = re.compile(r"(?i)(https?://[^/?#]+)(/[^?#]+)")
"""The URL of an endpoint with a path, in two parts."""
PATH = re.compile(r"/[!#-;=?-~]*")
REFUSED_IN_PATHS = {
    "%": "write the character itself, or let a prefix end before it",
    "?": "routes look at paths, not at queries",
    "#": "a request's path never has one",
    "\\": "write /",
    "*": "only a last /* stands for all that follows, and in the path of a route /*/ for one segment",
}
PROTOCOL = re.compile(rf"{methods.TOKEN.pattern}(/{methods.TOKEN.pattern})?")
HTTP_AGAIN = re.compile(r"(?i:h2c?|h3|http|https|tls)(/.*)?")
"""Protocols that lead back to HTTP, past every rule of the edge: RFC 7540 section 3.2, RFC 2817."""
NO_LOGS = (*OFF, "on", "true", "yes", "none", "-", "stdout", "stderr")
LOG = build_text("file", rf"(?!({'|'.join(NO_LOGS)})$).*[^/]", "var/access.log")
A_HOST = "a name such as api.example.com, or *.example.com"
A_SENT_HOST = "pass (the client's), upstream (that of the endpoint), or a name such as api.internal"
A_METHOD = f"a method such as GET, PROPFIND or QUERY; {', '.join(methods.REFUSED)} are not forwarded"
A_PROTOCOL = "a protocol such as websocket or SPDY/3.1"
A_PATH = "a path such as /v1/orders, or /v1/* for all below it"
A_LOG = "a file such as var/access.log or /dev/stdout"
A_KEY_FIELD = "the name of a field of your own, such as X-API-Key"
A_PARAMETER = "none, or a name of letters, digits, -, _ and . such as api_key"
A_STRIPPED = "the name of a field such as X-Country-Code, or the beginning of some such as X-Internal-*"
AN_EXCEPTION = "a field of docs/edge/proxy-fields.md such as X-HTTP-Method-Override, or the beginning of some"


@written(build_text("host name", r"(\*\.)?[A-Za-z0-9_.-]+", "api.example.com", "*.example.com"))
def read_host(value: object) -> str:
    """Read a route's host in lower case without a trailing dot: an exact one, or `*.suffix`."""
    written = read_text(value, A_HOST)
    host = written.lower().removesuffix(".")
    if not HOST.fullmatch(host.removeprefix("*.")):
        raise value_error(f"{format_value(written)} is not a host name", f"{A_HOST}, without a port")
    return host


@written(
    build_text("`pass`, `upstream` or host name", r"[A-Za-z0-9_.-]+(:[0-9]{1,5})?", "pass", "upstream", "api.internal")
)
def read_sent_host(value: object) -> str:
    """Read the Host for upstreams: `pass`, `upstream`, or a name in lower case with an optional port."""
    written = read_text(value, A_SENT_HOST)
    name, colon, port = written.lower().partition(":")
    if not HOST.fullmatch(name) or (colon and not (port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16)):
        raise value_error(f"{format_value(written)} is not a host name", A_SENT_HOST)
    return name + colon + port


@written(build_text("path", PATH.pattern, "/v1/orders", "/v1/*"))
def read_path(value: object) -> str:
    """Read a path: an exact one, or a prefix that ends in `/*`."""
    path = read_text(value, A_PATH)
    _check_path(path, path.removesuffix("/*"))
    return path


@written(build_text("path", PATH.pattern, "/v1/orders", "/v1/*", "/users/*/orders"))
def read_route_path(value: object) -> str:
    """Read a route's path: as `read_path`, and `*` may stand for a whole segment."""
    path = read_text(value, A_PATH)
    _check_path(path, "/".join(["" if part == "*" else part for part in path.removesuffix("/*").split("/")]))
    return path


def _check_path(path: str, stem: str) -> None:
    """Raise an error for an unusual path. `stem`: the path without its wildcards."""
    if not path.startswith("/"):
        raise value_error(f"{format_value(path)} does not begin with /", A_PATH)
    if not PATH.fullmatch(path):
        raise value_error(f"{format_value(path)} has a space, or another character that no request's path has", A_PATH)
    for character, hint in REFUSED_IN_PATHS.items():
        if character in stem:
            raise value_error(f"{format_value(path)} has {character}", hint)
    if {".", ".."} & {segment.partition(";")[0] for segment in stem.split("/")}:
        raise value_error(f"{format_value(path)} has a dot segment", "write the path that it leads to")


@written(build_text("method", methods.TOKEN.pattern, "GET", "PROPFIND"))
def read_method(value: object) -> str:
    """Read a method that is forwarded, registered or not (RFC 9110 section 9.1)."""
    method = read_text(value, A_METHOD)
    if not methods.TOKEN.fullmatch(method) or not methods.is_forwarded(method):
        hint = f"write {method.upper()}" if method.upper() in methods.FORWARDED else A_METHOD
        raise value_error(f"{format_value(method)} is not a method that the edge forwards", hint)
    return method


def _refuse_http(protocol: str) -> str:
    if HTTP_AGAIN.fullmatch(protocol):
        hint = "leave it out"
        raise value_error(f"{format_value(protocol)} is HTTP again, in which requests would pass unseen", hint)
    return protocol


read_protocol = PatternText(
    "protocol", PROTOCOL, "{} is not a protocol", A_PROTOCOL, ("websocket", "SPDY/3.1"), convert=_refuse_http
)
"""Reads a protocol of Upgrade: a name with an optional version after a slash (RFC 9110 section 7.8)."""


@written(LOG)
def read_log(value: object) -> str:
    """Read the path of a log file. Words that could be mistaken for a setting are refused."""
    file = read_file_path(value, A_LOG)
    if file.lower() in NO_LOGS or file.endswith("/"):
        raise value_error(f"{format_value(file)} is not a file to write to", A_LOG)
    return file


def _refuse_other_meaning(name: str) -> str:
    if name.lower() in (*REQUEST_FIELDS, "cookie"):
        raise value_error(f"{name} has another meaning", A_KEY_FIELD)
    return name


read_key_field = PatternText(
    "field name",
    KEY_FIELD,
    "{} is not the name of a field",
    A_KEY_FIELD,
    ("X-API-Key",),
    convert=_refuse_other_meaning,
)
"""Reads the name of a field that contains keys."""


@written(build_one_or_more, ", ".join)
def read_key_fields(value: object) -> object:
    """Read a list of unique fields."""
    names = read_one_or_more(value)
    assert isinstance(names, list | tuple)
    lower = [name.lower() for name in names if isinstance(name, str)]
    if len(set(lower)) < len(lower):
        raise value_error("names a field twice", "leave one of them out")
    return names


@written(build_text("name or `none`", PARAMETER.pattern, "none", "api_key"), lambda _: "none")
def read_parameter(value: object) -> str | None:
    """Read the name of a query parameter or a cookie. `none`: there is none."""
    if value is None or value == "none":
        return None
    name = read_text(value, A_PARAMETER)
    if not PARAMETER.fullmatch(name):
        raise value_error(f"{format_value(name)} is not such a name", A_PARAMETER)
    return name


def _refuse_own_rule(name: str) -> str:
    if name.lower() in REQUEST_FIELDS:
        raise value_error(f"{name} has a rule of its own", "leave it out")
    return name


read_stripped = PatternText(
    "field name or `PREFIX*`",
    STRIPPED,
    "{} is not the name of a field",
    A_STRIPPED,
    ("X-Internal-*",),
    convert=_refuse_own_rule,
)
"""Reads the name, or with `*` the prefix, of fields that only trusted proxies may send."""


@written(build_text("field name or `PREFIX*`", STRIPPED.pattern, "X-HTTP-Method-Override"))
def read_strip_exception(value: object) -> str:
    """Read the name, or with `*` the prefix, of fields that all clients may send."""
    name = read_stripped(value)
    if not has_proxy_field(name.lower()):
        raise value_error(f"{name} passes in any case", AN_EXCEPTION)
    return name


@written(
    lambda inner: build_any_of(
        build_text("URL", r"https?://[^/?#@\s]+(/[^?#\s]*)?", "http://10.0.0.5:9001", "http://10.0.0.5:9001/api"), inner
    )
)
def read_endpoint(value: object) -> object:
    """Read an endpoint: its URL with an optional path, or a mapping with the URL."""
    if not isinstance(value, str):
        return value
    match = ENDPOINT.fullmatch(value)
    return {"url": value} if match is None else {"url": match[1], "path": match[2]}


@written(lambda inner: build_any_of(OFF_FORM, LOG, inner), lambda _: "off")
def read_access_log(value: object) -> object:
    """Read `off`, a file, or a mapping with the file."""
    value = read_unless_off(value)
    return {"file": value} if isinstance(value, str) else value
