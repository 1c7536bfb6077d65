"""The alphabets and shapes of HTTP/1.1, each written once, with the section that it follows."""

import re
from ipaddress import AddressValueError, IPv6Address
from typing import Final, NamedTuple

from edgeproxy.config.edge import methods


class HeadLimits(NamedTuple):
    """Bounds of a head, in bytes and in field lines."""

    head: int = 32 << 10
    """The whole head without its blank line, and likewise a trailer section; longer is 431, or 414 if its request line
    alone is longer.
    """
    fields: int = 100
    """Field lines of a head or of a trailer section; more is 431."""


def create_answer_limits(head_bytes_max: int) -> HeadLimits:
    """Return the bounds of an answer's head and trailers: `head` of the upstream, in bytes alone.

    A field line has at least one byte, so the number of lines is bounded as well.
    """
    return HeadLimits(head=head_bytes_max, fields=head_bytes_max)


PASSES_MAX: Final = 8
"""Edges that a request may come through, by its Via (RFC 9110 section 7.6.3). More are a loop, which is 400: a status
from 500 on would have the edges before eject each other as failing upstreams.
"""

METHODS: Final = frozenset(method.encode() for method in methods.FORWARDED)
"""The methods that are known and forwarded; others are looked at more closely (config/edge/methods.py)."""

IDEMPOTENT: Final = frozenset(method.encode() for method in methods.REPEATABLE)
"""The methods that may be sent again when a connection died before any byte of an answer (RFC 9110 section 9.2.2)."""

TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
"""tchar, RFC 9110 section 5.6.2."""

VALUE: Final = bytes([9, *range(32, 127), *range(128, 256)])
"""HTAB, SP, VCHAR and obs-text: the bytes of a field value or a reason phrase (RFC 9110 section 5.5)."""

VALUE_TABLE: Final = bytes([each if each in VALUE else each ^ 1 for each in range(256)])
"""The table that translates bytes, to see whether all are in VALUE: then the translation changes nothing.

To remove the bytes of VALUE and look for a rest would take four times as long, as CPython 3.11 makes a table for it
each time.
"""

TARGET: Final = bytes(set(range(33, 127)) - set(b'"#<>\\'))
"""The bytes of a request target: RFC 3986, and the bytes that browsers leave unescaped (`[ ] ^ ` { | }`, see the WHATWG
URL standard, section 1.3). No fragment (RFC 9112 section 3.2); a backslash only in a query, as QUERY allows it.
"""

QUERY: Final = TARGET + b"\\"

ENCODED_IN_QUERY: Final = {b'"': b"%22", b"<": b"%3C", b">": b"%3E"}
"""Bytes that clients leave in a query though RFC 3986 has them escaped, and their forwarded form: browsers write them
like this by the WHATWG URL standard (section 1.3, the query percent-encode set).
"""

OWS: Final = b" \t"
"""Optional whitespace around a field value, RFC 9110 section 5.6.3."""

VERSION: Final = re.compile(rb"HTTP/([0-9])\.([0-9])")
"""RFC 9112 section 2.3; the name is case-sensitive."""

STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
"""RFC 9112 section 4. The space before an absent reason phrase is forgiven, as many servers leave it out."""

LENGTH_DIGITS_MAX: Final = 18
"""Digits of Content-Length."""

CONTENT_LENGTH: Final = re.compile(rb"[0-9]{1,%d}" % LENGTH_DIGITS_MAX)
"""RFC 9110 section 8.6; no list, no sign, and nothing that 63 bits do not hold."""

AUTHORITY: Final = re.compile(rb"([A-Za-z0-9\-_~]+(?:\.[A-Za-z0-9\-_~]+)*\.?|\[[0-9A-Fa-f:.]+\])(?::([0-9]{0,5}))?")
"""uri-host [":" port], RFC 9110 section 7.2. No empty name (section 4.2.1) and no user information (section 4.2.4).
Also no percent-encoding, empty labels or sub-delims (RFC 3986 section 3.2.2). Such a name would be one host to us, and
another to a server that decodes it, drops dots, or takes X-Forwarded-Host for a list, as Express, Rails and Werkzeug
do.
"""

TraceParent = tuple[bytes, bytes, bytes]
"""The trace-id, the parent-id and the flags of a valid traceparent, in hex digits."""

SHAPE_TABLE: Final = bytes.maketrans(b"123456789abcdef", b"0" * 15)
TRACEPARENT_SHAPE: Final = b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-00"
"""A valid traceparent of version 00 after the translation, as the table makes all lower-case hex digits equal."""

NO_TRACE, NO_PARENT = b"0" * 32, b"0" * 16
FLAGS: Final = frozenset((b"00", b"01", b"02", b"03"))
"""W3C Trace Context section 3.2.2: the values that neither id may have, and all of the flags `sampled` and `random`."""

LATER_TRACEPARENT: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
"""A traceparent with any additions of later versions, in flags or at the end."""

REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")


LIMITS: Final = HeadLimits()
"""The bounds that hold unless the configuration says otherwise."""


def is_field_value(value: bytes) -> bool:
    """Return whether these bytes are a field value that is not empty, without whitespace around it."""
    return bool(value) and value.translate(VALUE_TABLE) == value and value.strip(OWS) == value


def parse_field_line(line: bytes) -> tuple[bytes, bytes] | None:
    """Return (lower-case name, value without the whitespace around it) of a field line; None if it is malformed.

    RFC 9112 section 5.1: no whitespace before the colon. This also refuses folded lines (5.2), as they begin with
    whitespace. And no CR, LF or NUL in the value (RFC 9110 section 5.5).
    """
    name, colon, value = line.partition(b":")
    if not colon or not name or name.translate(None, TOKEN) or value.translate(VALUE_TABLE) != value:
        return None
    return name.lower(), value.strip(OWS)


def parse_field_name(line: bytes) -> bytes:
    """Return the lower-case field name of a line that is known to be well-formed."""
    return line.partition(b":")[0].lower()


def parse_list(value: bytes) -> list[bytes]:
    """Return the members of a comma-separated list in lower case, empty ones left out (RFC 9110 section 5.6.1)."""
    return [member for part in value.lower().split(b",") if (member := part.strip(OWS))]


def parse_host(authority: bytes) -> bytes | None:
    """Return the name for routing: lower case, no port, no trailing dot; None if the authority is malformed."""
    match = AUTHORITY.fullmatch(authority)
    if match is None or int(match[2] or 0) > 65535:
        return None
    host = match[1].lower()
    if host.startswith(b"["):
        try:
            IPv6Address(host[1:-1].decode("ascii"))
        except AddressValueError:
            return None
    return host.removesuffix(b".") or None


def parse_traceparent(value: bytes) -> TraceParent | None:
    """Return the parts of a traceparent without the whitespace around it; None if it is invalid."""
    if value.translate(SHAPE_TABLE) == TRACEPARENT_SHAPE and value.startswith(b"00-"):
        trace, parent, flags = value[3:35], value[36:52], value[53:]
        if trace != NO_TRACE and parent != NO_PARENT and flags in FLAGS:
            return trace, parent, flags
    return _parse_later_traceparent(value)


def _parse_later_traceparent(traceparent: bytes) -> TraceParent | None:
    """Return the parts of a traceparent with more in it than this version defines; None if it is invalid.

    Trace Context section 3.2.2.5.2: flags that are not yet defined are not passed on.
    """
    match = LATER_TRACEPARENT.fullmatch(traceparent)
    if match is None or (match[1] == b"00" and match[5] is not None):
        return None
    return match[2], match[3], b"%02x" % (int(match[4], 16) & 3)
