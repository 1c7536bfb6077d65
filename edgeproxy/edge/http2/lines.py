"""The HTTP/1.1 field line that a field of HTTP/2 becomes, unless it has none (RFC 9113 sections 8.2 and 8.3).

A line is made once, when its field is first sent, and replaces the field in the connection's table. So the checks cost
nothing if a field is repeated.
"""

import re
from enum import IntEnum
from typing import Final

from edgeproxy.edge.http1.grammar import VALUE_TABLE


class Pseudo(IntEnum):
    """The pseudo-header fields of a request (RFC 9113 section 8.3.1, RFC 8441 section 4), and three further marks."""

    METHOD = 0
    PATH = 1
    SCHEME = 2
    AUTHORITY = 3
    PROTOCOL = 4
    MALFORMED = 5
    """The place of a malformed field, which makes its whole head malformed."""
    OVERSIZED = 6
    """The place of all fields of a block that has too many, or too long ones."""
    STATUS = 7
    """The one of an answer (RFC 9113 section 8.3.2): in a request it is malformed, like everything above MALFORMED."""


PseudoField = tuple[Pseudo, bytes]
Line = bytes | PseudoField
"""A field's line without CRLF, or a pseudo-header field and its value."""

MALFORMED: Final[PseudoField] = (Pseudo.MALFORMED, b"")
OVERSIZED: Final[PseudoField] = (Pseudo.OVERSIZED, b"")

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
"""Section 8.2.1: a token in lower case. A colon, first or not, is in no token."""

PSEUDO_FIELDS: Final[dict[bytes, tuple[Pseudo, re.Pattern[bytes]]]] = {
    b":method": (Pseudo.METHOD, TOKEN),
    b":path": (Pseudo.PATH, re.compile(rb"/[\x21-\x7e\x80-\xff]*|\*")),
    b":scheme": (Pseudo.SCHEME, re.compile(rb"[A-Za-z][A-Za-z0-9+.\-]*")),
    b":authority": (Pseudo.AUTHORITY, re.compile(rb"[\x21-\x2b\x2d-\x2e\x30-\x3e\x41-\x5b\x5d-\x7e]+")),
    b":protocol": (Pseudo.PROTOCOL, TOKEN),
    b":status": (Pseudo.STATUS, re.compile(rb"[1-9][0-9][0-9]")),
}
"""The values of each. :authority has no user information (section 8.3.1), so no @, and no comma, slash, question mark
or backslash, as servers may cut it differently there.
"""

CONNECTION_SPECIFIC: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
"""Fields of one connection of HTTP/1.1 (section 8.2.2)."""

TE: Final = b"te: trailers\r\nconnection: te"
"""TE is a field of one connection in HTTP/1.1 (RFC 9110 section 10.1.4), and has to be named as one."""

BORDERS: Final = (b" ", b"\t")

PREFIXES_MAX: Final = 1024
PREFIX_BYTES_MAX: Final = 64

_prefixes: dict[bytes, bytes] = {}
"""The beginnings of the lines of fields, by name; no bytes if more than the name has to be looked at."""


def format_line(name: bytes, value: bytes) -> Line:
    """Format the line of a field; MALFORMED if it has none."""
    prefix = _prefixes.get(name)
    if prefix is None:
        prefix = _format_prefix(name)
    if not prefix:
        return _format_special(name, value)
    if value.translate(VALUE_TABLE) != value or value[:1] in BORDERS or value[-1:] in BORDERS:
        return MALFORMED
    return prefix + value


def _format_prefix(name: bytes) -> bytes:
    """Format the beginning of a field's lines; no bytes if more than its name has to be looked at."""
    is_special = not NAME.fullmatch(name) or name in CONNECTION_SPECIFIC or name == b"te"
    prefix = b"" if is_special else name + b": "
    if len(name) <= PREFIX_BYTES_MAX:
        if len(_prefixes) >= PREFIXES_MAX:
            _prefixes.clear()
        _prefixes[name] = prefix
    return prefix


def _format_special(name: bytes, value: bytes) -> Line:
    pseudo = PSEUDO_FIELDS.get(name)
    if pseudo is not None:
        return (pseudo[0], value) if pseudo[1].fullmatch(value) else MALFORMED
    return TE if name == b"te" and value.lower() == b"trailers" else MALFORMED
