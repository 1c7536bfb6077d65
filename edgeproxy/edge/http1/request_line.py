"""The first line of a request, and the faults that already show in an unfinished head."""

import re
from typing import Final, NamedTuple

from edgeproxy.config.edge.methods import is_forwarded
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1 import grammar

ABSOLUTE: Final = re.compile(rb"(https?)://([^/?]*)(/[^?]*)?(\?.*)?", re.IGNORECASE)
"""absolute-form, RFC 9112 section 3.2.2, of the two schemes that an HTTP server is asked for."""


class RequestLine(NamedTuple):
    """A well-formed request line with a method that is forwarded."""

    method: bytes
    target: bytes
    """The target in origin-form (path and query, not yet resolved), or `*`. The bytes of ENCODED_IN_QUERY are
    escaped.
    """
    version: tuple[int, int]
    """(1, 0) or (1, 1)."""
    authority: bytes | None = None
    """host[:port] of an absolute-form target; None for the other forms."""
    scheme: bytes | None = None
    """`http` or `https` of an absolute-form target."""


def read_request_line(line: bytes) -> RequestLine:
    """Read a request line, without its CRLF.

    Raises RejectedError: 400 malformed (RFC 9112 section 3), 501 a method that is not forwarded (RFC 9110 section 9.1),
    505 another version of HTTP than 1.0 and 1.1 (section 15.6.6).
    """
    parts = line.split(b" ")
    if len(parts) != 3:
        raise RejectedError(400, "The request line is not a method, a target and a version with one space between")
    method, target, version = parts
    if not method or method.translate(None, grammar.TOKEN):
        raise RejectedError(400, "The method is malformed")
    minor = _parse_minor(version)
    path, _, query = target.partition(b"?")
    if query.translate(None, grammar.QUERY):
        for raw, escaped in grammar.ENCODED_IN_QUERY.items():
            query = query.replace(raw, escaped)
        target = path + b"?" + query
    if not target or path.translate(None, grammar.TARGET) or query.translate(None, grammar.QUERY):
        raise RejectedError(400, "The request target is malformed")
    if method not in grammar.METHODS and not is_forwarded(method.decode("ascii")):
        raise RejectedError(501, "The method is not forwarded")
    if path.startswith(b"/"):
        return RequestLine(method, target, (1, minor))
    if target == b"*":
        if method != b"OPTIONS":  # RFC 9112 section 3.2.4
            raise RejectedError(400, "Only OPTIONS may ask for *")
        return RequestLine(method, target, (1, minor))
    return _parse_absolute(method, target, minor)


def _parse_minor(version: bytes) -> int:
    match = grammar.VERSION.fullmatch(version)
    if match is None:
        raise RejectedError(400, "The HTTP version is malformed")
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise RejectedError(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here")
    return int(match[2])


def _parse_absolute(method: bytes, target: bytes, minor: int) -> RequestLine:
    match = ABSOLUTE.fullmatch(target)
    if match is None:
        raise RejectedError(400, "The request target is neither a path nor an http URI")
    scheme, authority, path, query = match.groups()
    if grammar.parse_host(authority) is None:
        raise RejectedError(400, "The request target names no valid host")
    origin = (path or b"/") + (query or b"")
    if path is None and query is None and method == b"OPTIONS":
        origin = b"*"  # RFC 9112 section 3.2.4
    return RequestLine(method, origin, (1, minor), authority, scheme.lower())


def check_sizes(line: int, head: int, limits: grammar.HeadLimits) -> None:
    """Refuse a request line of `line` bytes, or a head of `head` bytes up to its blank line, that is too long.

    Raises RejectedError: 414 (RFC 9112 section 3), 431 (RFC 6585 section 5).
    """
    if line > limits.head:
        raise RejectedError(414, "The request line is too long")
    if head > limits.head:
        raise RejectedError(431, "The header fields are too long")


def check_unfinished(data: bytes, limits: grammar.HeadLimits) -> None:
    """Refuse the beginning of a head that no further bytes can make acceptable.

    `data` begins with the request line and has no blank line yet. Raises RejectedError as the readers do; so a client
    that waits for an answer to half a head, or speaks another protocol, is told at once.
    """
    end = data.find(b"\r\n")
    check_sizes(len(data) if end < 0 else end, len(data), limits)
    if b"\0" in data or data.count(b"\n") != data.count(b"\r\n") or b"\r" in data.replace(b"\r\n", b"")[:-1]:
        raise RejectedError(400, "The head has a NUL, or a CR or LF of its own")
    if end >= 0:
        read_request_line(data[:end])
