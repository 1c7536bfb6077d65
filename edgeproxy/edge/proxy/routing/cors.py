"""Cross-origin requests: the fields that tell browsers which pages may call (the Fetch standard, section 3.3)."""

import re
from typing import TYPE_CHECKING, Final, Protocol

from edgeproxy.edge.http1.field_values import find_value, find_values
from edgeproxy.edge.http1.grammar import TOKEN

if TYPE_CHECKING:
    from edgeproxy.config.edge.cors import Cors
    from edgeproxy.edge.http1.request import RequestHead

ORIGIN: Final = b"origin"
METHOD: Final = b"access-control-request-method"
HEADERS: Final = b"access-control-request-headers"

OWN_FIELDS: Final = ("RateLimit", "RateLimit-Policy", "Retry-After", "X-Request-Id")
"""The edge's own fields of answers, which pages may always read."""

RESPONSE_FIELDS: Final = frozenset(
    b"access-control-" + name
    for name in (
        *(b"allow-origin", b"allow-credentials", b"allow-methods", b"allow-headers"),
        *(b"expose-headers", b"max-age"),
    )
)
"""The fields that the edge sets instead of upstreams. Browsers reject an answer that has them twice."""

REQUESTED_HEADERS_BYTES_MAX: Final = 1024
"""Bytes of a requested list of fields that the answer repeats at most."""


class RequestWithFields(Protocol):
    """The interface of a request that may be a preflight, see `Exchange`."""

    @property
    def method(self) -> bytes: ...
    @property
    def keep(self) -> bytes: ...
    @property
    def length(self) -> int: ...
    @property
    def head(self) -> "RequestHead": ...


class CrossOrigin:
    """The pages that may call a route."""

    def __init__(self, settings: "Cors") -> None:
        self._any = "*" in settings.origins
        self._exact = frozenset(origin.encode() for origin in settings.origins if "://*." not in origin)
        self._below = [compile_subdomains(origin) for origin in settings.origins if "://*." in origin]
        self._any_header = "*" in settings.headers
        exposed = ", ".join(dict.fromkeys((*OWN_FIELDS, *settings.expose)))
        credentials = b"Access-Control-Allow-Credentials: true\r\n" if settings.credentials else b""
        self._exposed = credentials + f"Access-Control-Expose-Headers: {exposed}\r\n".encode()
        self._methods = f"Access-Control-Allow-Methods: {', '.join(settings.methods)}\r\n".encode()
        self._headers = ", ".join(settings.headers).encode()
        self._age = b"Access-Control-Max-Age: %d\r\n" % settings.max_age

    def allows(self, origin: bytes | None) -> bool:
        """Return whether pages of this origin may call. The origin is compared as a whole."""
        if self._any:
            return True
        return origin is not None and (
            origin in self._exact or any(pattern.fullmatch(origin) for pattern in self._below)
        )

    def format_fields(self, origin: bytes | None) -> bytes:
        """Format the lines of an answer.

        They tell caches that the answer depends on the origin, even without an Origin field.
        """
        if self._any:
            return b"Access-Control-Allow-Origin: *\r\n" + self._exposed
        if origin is None or not self.allows(origin):
            return b"Vary: Origin\r\n"
        return b"Access-Control-Allow-Origin: %b\r\nVary: Origin\r\n%b" % (origin, self._exposed)

    def format_preflight_fields(self, lines: bytes) -> bytes:
        """Format the additional lines of the answer to a preflight; `lines` are the fields of the request."""
        headers = self._headers
        if self._any_header:
            # The list is written into the answer, so it is repeated only if it has names and commas alone.
            requested = find_value(lines, HEADERS) or b""
            headers = (
                requested
                if len(requested) <= REQUESTED_HEADERS_BYTES_MAX and not requested.translate(None, TOKEN + b", ")
                else b""
            )
        allowed = b"Access-Control-Allow-Headers: %b\r\n" % headers if headers else b""
        vary = b"Vary: Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
        return self._methods + allowed + self._age + vary


def is_preflight(request: RequestWithFields) -> bool:
    """Return whether this is a preflight request of a browser, which has an Origin and no body."""
    return (
        request.method == b"OPTIONS"
        and not (request.length or request.head.chunked or request.head.upgrade)
        and find_requested_method(request) is not None
        and bool(find_values(request.keep, ORIGIN))
    )


def find_requested_method(request: RequestWithFields) -> bytes | None:
    """Return the method that a preflight asks about."""
    return find_value(request.keep, METHOD)


def compile_subdomains(origin: str) -> re.Pattern[bytes]:
    """Compile the pattern of subdomains for an origin in the form `https://*.example.com`.

    A host that only ends in equal letters does not match.
    """
    scheme, _, host = origin.partition("://*.")
    return re.compile(rb"%b://(?:[a-z0-9_-]+\.)+%b" % (re.escape(scheme.encode()), re.escape(host.encode())))
