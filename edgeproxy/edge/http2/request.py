"""The lines of a field block as the head of an HTTP/1.1 request, or the reason why they do not form one (RFC 9113
section 8).
"""

from typing import Final, cast

from edgeproxy.edge.http1.fields import NOT_IN_TRAILERS
from edgeproxy.edge.http1.grammar import CONTENT_LENGTH, HeadLimits, parse_field_name
from edgeproxy.edge.http2.errors import create_malformed_error
from edgeproxy.edge.http2.lines import OVERSIZED, TE, Line, Pseudo, PseudoField

Head = tuple[bytes, int]
"""A head with its blank line, and the length that it gives for the body; -1 if it gives none, OVERSIZED_LENGTH if the
head is too large.
"""

OVERSIZED_LENGTH: Final = -2
"""The length of a head with too many fields, or too long ones: answered with 431 or 414, as in HTTP/1.1. The head may
have no more than its request line, Host and Origin. It is empty if a part of the request line is missing.
"""

CRLF: Final = b"\r\n"

WEBSOCKET: Final = b"websocket"
UPGRADE: Final = b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
"""The HTTP/1.1 lines that replace :protocol (RFC 8441 section 5); the connection adds the key."""


def format_head(lines: list[Line], *, ended: bool, websockets: bool = False) -> Head:
    """Format the head of a request. `ended`: no body follows it. `websockets`: extended CONNECT was offered.

    Raises Http2StreamError if the request is malformed (section 8.1.1).
    """
    if lines[-1:] == [OVERSIZED]:
        return _format_oversized(lines[:-1])
    pseudo, fields = _split_pseudo_fields(lines)
    method, path, scheme, authority, protocol = pseudo
    if method is None or path is None or scheme is None or (method == b"CONNECT") is not (protocol is not None):
        raise create_malformed_error("a pseudo-header field is missing", "8.3.1")
    if path == b"*" and method != b"OPTIONS":
        raise create_malformed_error(":path is * and the method not OPTIONS", "8.3.1")
    host = b""
    # `find`, as `in` takes bytes for a number first, and raises an error within.
    if fields.find(b"\r\nhost: ") >= 0:
        authority, fields = _unite_hosts(authority, fields)
    if authority is not None:
        host = b"\r\nHost: " + authority
    if fields.count(b"\r\ncookie: ") > 1:
        fields = _unite_cookies(fields)
    length = _find_length(fields, ended=ended) if fields.find(b"\r\ncontent-length: ") >= 0 else -1
    ending = b"\r\n\r\n"
    if protocol is not None:
        if not websockets or ended or protocol != WEBSOCKET or length >= 0:
            raise create_malformed_error(":protocol is not websocket, or has a length", "RFC 8441 section 4")
        # The opening handshake of a WebSocket is a GET (RFC 6455 section 4.1).
        method, ending = b"GET", UPGRADE
    # Frames bound the body in HTTP/2. In HTTP/1.1 only chunks can, without a length.
    elif not ended and length < 0:
        ending = b"\r\ntransfer-encoding: chunked\r\n\r\n"
    return b"".join((method, b" ", path, b" HTTP/1.1", host, fields, ending)), length


def _format_oversized(lines: list[Line]) -> Head:
    """Format the lines that `HpackDecoder.decode` has kept of a head that is too large."""
    (method, path, _, authority, _), fields = _split_pseudo_fields(lines)
    if method is None or path is None:
        return b"", OVERSIZED_LENGTH
    host = b"" if authority is None else b"\r\nHost: " + authority
    return b"".join((method, b" ", path, b" HTTP/1.1", host, fields, b"\r\n\r\n")), OVERSIZED_LENGTH


def get_trailers(lines: list[Line], limits: HeadLimits) -> list[bytes] | None:
    """Return the trailer lines of a block that may be passed on; no pseudo-header field is among them (section 8.1).

    Return None if the section is larger than `limits`, counted as the lines of HTTP/1.1. Raises as `format_head` does.
    """
    size = sum(map(len, lines)) + len(CRLF) * (len(lines) - 1)
    if lines[-1:] == [OVERSIZED] or len(lines) > limits.fields or size > limits.head:
        return None
    trailers = []
    for line in lines:
        if type(line) is not bytes or line is TE:
            raise create_malformed_error("a trailer field is malformed", "8.1")
        # Some servers take `_` and `-` in names for equal.
        if parse_field_name(line).replace(b"_", b"-") not in NOT_IN_TRAILERS:
            trailers.append(line)
    return trailers


def _split_pseudo_fields(lines: list[Line]) -> tuple[list[bytes | None], bytes]:
    """Return the values of the pseudo-header fields, which come first (section 8.3), and the other lines, each behind a
    CRLF.
    """
    pseudo: list[bytes | None] = [None] * len(Pseudo)
    count = 0
    for line in lines:
        if type(line) is bytes:
            break
        place, value = cast("PseudoField", line)
        if place >= Pseudo.MALFORMED or pseudo[place] is not None:
            raise create_malformed_error("a field is malformed, or a pseudo-header field repeated", "8.3")
        pseudo[place] = value
        count += 1
    try:
        fields = CRLF.join([b"", *lines[count:]])  # type: ignore[list-item] # Of a tuple it raises.
    except TypeError:
        raise create_malformed_error(
            "a field is malformed, or a pseudo-header field stands behind others", "8.2"
        ) from None
    return pseudo[: Pseudo.MALFORMED], fields


def _unite_hosts(authority: bytes | None, fields: bytes) -> tuple[bytes, bytes]:
    """Return the authority and the lines without Host, which must name one host (section 8.3.1)."""
    lines = fields.split(CRLF)
    hosts = [line[6:] for line in lines if line.startswith(b"host: ")]
    if len(hosts) > 1 or (authority is not None and hosts[0].lower() != authority.lower()):
        raise create_malformed_error("Host is repeated, or differs from :authority", "8.3.1")
    return authority or hosts[0], CRLF.join([line for line in lines if not line.startswith(b"host: ")])


def _unite_cookies(fields: bytes) -> bytes:
    """Return the lines with one Cookie made of its crumbs (section 8.2.3)."""
    lines = fields.split(CRLF)
    crumbs = b"; ".join([line[8:] for line in lines if line.startswith(b"cookie: ")])
    return CRLF.join([*[line for line in lines if not line.startswith(b"cookie: ")], b"cookie: " + crumbs])


def _find_length(fields: bytes, *, ended: bool) -> int:
    """Return the length of the body: one number, which the DATA frames have to keep (section 8.1.1)."""
    values = [line[16:] for line in fields.split(CRLF) if line.startswith(b"content-length: ")]
    if len(values) > 1 or not CONTENT_LENGTH.fullmatch(values[0]):
        raise create_malformed_error("Content-Length is repeated, or no number", "8.1.1")
    if ended and int(values[0]):
        raise create_malformed_error("a length without a body", "8.1.1")
    return int(values[0])
