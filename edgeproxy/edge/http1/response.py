"""The meaning of a response's head, and which of its lines are passed on."""

from typing import Final

from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.http1 import grammar
from edgeproxy.edge.http1.fields import PROTECTED_FIELDS, FieldKind
from edgeproxy.edge.http1.lines import (
    PASSED,
    RESPONSE_LINES,
    STATUS_LINES,
    Field,
    parse_plain_status,
    parse_response_field,
)
from edgeproxy.edge.http1.security_fields import ALL

DATE, LENGTH, RATE = FieldKind.DATE, FieldKind.LENGTH, FieldKind.RATE
PlainResponse = tuple[int, int, bytes, bytes, int, bool]
"""(status, length, keep, rate, flags, dated) of a plain head, see `read_plain_response`."""

NOT_PLAIN: Final[PlainResponse] = (0, -1, b"", b"", 0, True)
"""The result of `read_plain_response` for a head that is not plain."""
VERSION: Final = b"HTTP/1."
"""The beginning of every status line (RFC 9112 section 4)."""
FieldsByKind = dict[FieldKind, list[Field]]
"""The lines that are more than passed on, by kind, in their order."""
NO_HEAD: Final = b"\0"
"""Bytes that no answer begins with."""
recall = RESPONSE_LINES.get

FLAGGED_KINDS: Final = (FieldKind.PLACE, FieldKind.SECURITY)
"""Kinds whose lines are passed on, and set a flag of security_fields.py."""

IN_PLACE: Final = frozenset((FieldKind.PASS, DATE, LENGTH, *FLAGGED_KINDS))
"""Kinds whose lines are passed on, in their place."""


class ResponseHead:
    """The meaning of an upstream's response head: a pure function of its bytes."""

    status: int
    """100 to 999; a status above 599 counts as a server's error (RFC 9110 section 15)."""
    minor: int
    """HTTP/1.x of the upstream."""
    keep: bytes = b""
    """The status line as HTTP/1.1 and the lines to pass on, each with its CRLF: with Content-Length, without
    Transfer-Encoding, hop-by-hop fields and X-Request-Id.
    """
    rate: bytes = b""
    """The upstream's own RateLimit lines, each with its CRLF."""
    flags: int = 0
    """The flags of security_fields.py: the fields for browsers and the names of places that the head has already."""
    dated: bool = False
    """`keep` has a Date; otherwise it gets the time when the response came (RFC 9110 section 6.6.1), unless the status
    is 1xx.
    """
    bodiless: bool = False
    """1xx, 204 or 304: no body follows, whatever the fields say. (Nor does one follow the answer to a HEAD.)"""
    length: int = -1
    """Content-Length in bytes; -1 if it is absent."""
    chunked: bool = False
    close: bool = False
    """The connection serves no further request."""
    upgrade: bytes | None = None
    """The value of Upgrade in lower case, if Connection names it; with 101, the protocol from here on, if stated."""


def read_plain_response(block: bytes) -> PlainResponse:
    """Read a plain response's head: (status, length, keep, rate, flags, dated); NOT_PLAIN if only `read_response` can
    read it.

    `block` is the status line and the field lines, each with its CRLF, without the blank line. Plain is: HTTP/1.1, a
    final status, Content-Length or a status without a body, the connection kept. `length` is the number of bytes that
    follow the head, unless the request was HEAD; in NOT_PLAIN it is -1. ResponseHead describes the rest. The result
    depends on nothing but the bytes, so it may be remembered. The function is longer than a screen, because each call
    in the loop would cost time. Raises UpstreamError for a malformed field line.
    """
    lines = block.split(b"\r\n")
    lines.pop()
    status = STATUS_LINES[lines[0]]
    if status is None:
        status = parse_plain_status(lines[0])
    if not status:
        return NOT_PLAIN
    keep = [lines[0]]
    rate = b""
    length = -1
    flags = 0
    dated = False
    del lines[0]
    for line in lines:
        field = recall(line)
        if field is None:
            field = parse_response_field(line)
        if field is PASSED:
            keep.append(line)
        elif field.kind is DATE:
            keep.append(field.line)
            dated = True
        elif field.dropped:
            pass
        elif field.kind is LENGTH and length < 0:
            length = field.length
            keep.append(field.line)
        elif field.kind is RATE:
            rate += field.tail
        elif field.kind in FLAGGED_KINDS:
            keep.append(field.line)
            flags |= field.flags
        else:
            return NOT_PLAIN
    if status in (204, 304):
        # RFC 9110 section 8.6 forbids the field here. `read_response` removes it.
        if status == 204 and length >= 0:
            return NOT_PLAIN
        # A 304 has no body. Its Content-Length is the length of the representation (RFC 9110 section 8.6).
        length = 0
        if status == 304:
            flags |= ALL
    elif length < 0:
        return NOT_PLAIN
    keep.append(b"")
    return status, length, b"\r\n".join(keep), rate, flags, dated


def read_response(block: bytes) -> ResponseHead:
    """Read the head of a response by every rule; for `block` see `read_plain_response`.

    Raises UpstreamError(http_protocol_error) if the head is malformed, or the end of its body in doubt.
    """
    first, *lines = block.split(b"\r\n")
    lines.pop()
    match = grammar.STATUS_LINE.fullmatch(first)
    if match is None:
        raise _create_protocol_error("sent a malformed status line")
    head = ResponseHead()
    head.status, head.minor = int(match[2]), int(match[1])
    keep: list[bytes] = []
    by_kind: FieldsByKind = {}
    for line in lines:
        field = recall(line) or parse_response_field(line)
        if field is PASSED:
            keep.append(line)
            continue
        by_kind.setdefault(field.kind, []).append(field)
        if field.kind in IN_PLACE:
            keep.append(field.line)
    options = {option for field in by_kind.get(FieldKind.CONNECTION, ()) for option in grammar.parse_list(field.value)}
    _read_connection(head, by_kind, options)
    _read_framing(head, by_kind)
    connection_names = options - PROTECTED_FIELDS
    if head.bodiless and head.status != 304:
        connection_names.add(b"content-length")  # RFC 9110 section 8.6
    if connection_names:
        keep = [line for line in keep if grammar.parse_field_name(line) not in connection_names]
    head.keep = b"\r\n".join([b"HTTP/1.1 %d %b" % (head.status, match[3] or b""), *keep, b""])
    head.rate = b"".join(
        [field.tail for field in by_kind.get(RATE, ()) if grammar.parse_field_name(field.tail) not in connection_names]
    )
    head.flags = _collect_flags(head, by_kind, connection_names)
    head.dated = DATE in by_kind and b"date" not in connection_names
    return head


def check_unfinished(data: bytes) -> None:
    """Raise UpstreamError(http_protocol_error) if `data`, a head without its end, can never become a valid one.

    Otherwise the edge would wait until a time-out for an upstream that speaks another protocol, or ends lines in
    another way.
    """
    if not data.startswith(VERSION[: len(data)]):
        raise _create_protocol_error("sent a malformed status line")
    if b"\n\n" in data:
        raise _create_protocol_error("ended its lines without a carriage return")


def _create_protocol_error(what: str) -> UpstreamError:
    return UpstreamError("http_protocol_error", f"The upstream {what}")


def _get_single(by_kind: FieldsByKind, name: str, kind: FieldKind) -> Field | None:
    fields = by_kind.get(kind)
    if fields is None:
        return None
    if len(fields) > 1:
        raise _create_protocol_error(f"repeated {name}")
    return fields[0]


def _read_connection(head: ResponseHead, by_kind: FieldsByKind, options: set[bytes]) -> None:
    """Read the options for this connection (RFC 9112 section 9.3), and Upgrade (RFC 9110 section 7.8)."""
    head.close = b"close" in options or (head.minor == 0 and b"keep-alive" not in options)
    if b"upgrade" in options or head.status == 101:
        protocols = [field.value.lower() for field in by_kind.get(FieldKind.UPGRADE, ()) if field.value]
        head.upgrade = b", ".join(protocols) or None


def _collect_flags(head: ResponseHead, by_kind: FieldsByKind, connection_names: set[bytes]) -> int:
    """Return the flags of the head: its fields for browsers and its names of places.

    A 304 repeats only the fields that it changes, and browsers copy them into the answer that they hold (RFC 9110
    section 15.4.5, RFC 9111 section 3.2). Nothing may be added there, or it would replace the upstream's field in the
    held answer.
    """
    flags = ALL if head.status == 304 else 0
    for kind in FLAGGED_KINDS:
        for field in by_kind.get(kind, ()):
            if grammar.parse_field_name(field.line) not in connection_names:
                flags |= field.flags
    return flags


def _read_framing(head: ResponseHead, by_kind: FieldsByKind) -> None:
    """Find the end of the body (RFC 9112 sections 6.1 to 6.3)."""
    length = _get_single(by_kind, "Content-Length", LENGTH)
    coding = _get_single(by_kind, "Transfer-Encoding", FieldKind.CODING)
    if coding is not None:
        if length is not None:
            # RFC 9112 section 6.3: such a message may be an attempt to split a response.
            raise _create_protocol_error("sent Content-Length beside Transfer-Encoding")
        if head.minor == 0:
            raise _create_protocol_error("sent Transfer-Encoding in HTTP/1.0")
        if coding.value.lower() != b"chunked":
            raise _create_protocol_error("sent a transfer coding that is not known here")
    head.bodiless = head.status < 200 or head.status in (204, 304)
    if not head.bodiless or head.status == 304:
        head.chunked = coding is not None
        head.length = -1 if length is None else length.length
    elif coding is not None or (length is not None and length.length > 0):
        # Section 6.1 and RFC 9110 section 8.6 forbid both fields here. An upstream that still sends them may also send
        # a body, so the connection is not used again.
        head.close = True
