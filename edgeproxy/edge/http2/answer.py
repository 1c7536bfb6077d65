"""The heads of answers as field blocks, by the static table alone.

The encoded form of a line depends on nothing but the line. So each line is encoded once for all connections together,
and the head of an answer costs a look-up a line.
"""

from typing import Final

from edgeproxy.base.lru_cache import BytesCache
from edgeproxy.edge.http1.grammar import OWS
from edgeproxy.edge.http2 import huffman
from edgeproxy.edge.http2.appendices import STATIC
from edgeproxy.edge.http2.lines import CONNECTION_SPECIFIC

LINES_MAX: Final = 4096
LINE_BYTES_MAX: Final = 256
"""Lines that are remembered, and bytes of each."""

CHANGING: Final = frozenset((b"date", b"etag", b"ratelimit", b"set-cookie", b"traceparent", b"x-request-id"))
"""Fields whose values are new again and again: written without the Huffman code, which is slow to write."""

INDEXES: Final = {field: index for index, field in reversed(list(enumerate(STATIC, 1)))}
NAME_INDEXES: Final = {name: index for index, (name, _) in reversed(list(enumerate(STATIC, 1)))}

WITHOUT_INDEXING, NEVER_INDEXED = 0x00, 0x10
"""RFC 7541 sections 6.2.2 and 6.2.3: secrets must not enter the table of any proxy on the way."""
SECRET: Final = frozenset((b"set-cookie",))

BEGINNINGS_MAX: Final = 1024
BEGINNING_BYTES_MAX: Final = 4096
"""Parts of heads that are remembered as a whole, and bytes of each."""

CRLF: Final = b"\r\n"
RATE_LIMIT: Final = b"\r\nRateLimit: "
"""The beginning of the RateLimit line, which follows that of its policy."""

_lines: dict[bytes, bytes] = {}
"""The encoded fields, by line."""
_prefixes: dict[bytes, bytes] = {}
"""The beginnings of fields with changing values, by name."""
_beginnings: BytesCache[bytes] = BytesCache(BEGINNINGS_MAX, BEGINNING_BYTES_MAX)
"""Encoded status lines with lines behind them: a server sends equal ones again and again, except for its Date."""
_openings: BytesCache[bytes] = BytesCache(LINES_MAX, BEGINNING_BYTES_MAX)
"""Groups of encoded lines; the last line of each has no value yet."""
_policies: BytesCache[bytes] = BytesCache(LINES_MAX, LINE_BYTES_MAX)
"""The same for RateLimit, by the lines before it."""


def encode_head(head: bytes) -> bytes:
    """Encode the head of an answer in HTTP/1.1: its status line and its lines, each with its CRLF."""
    status_line, *lines = head.split(b"\r\n")
    lines.pop()
    recall = _lines.get
    return encode_status(status_line[9:12]) + b"".join([recall(line) or encode_line(line) for line in lines])


def encode_pieces(keep: bytes, changing: bytes, opening: bytes, value: bytes) -> bytes:
    """Encode a head in four pieces.

    `keep` is its status line and most of its lines. `changing` is lines that are new in each answer. `opening` is lines
    that end behind the colon of the last one. `value` is the value of that last line, also new in each answer.
    """
    beginning = _beginnings[keep] or _beginnings.store(keep, encode_head(keep))
    own = _openings[opening] or _openings.store(opening, _encode_opening(opening))
    size = len(value)
    length = LENGTHS[size] if size < 0x7F else encode_integer(size, 0x7F)
    policy, separator, rest = changing.rpartition(RATE_LIMIT)
    if separator and len(rest) < len(LENGTHS) and rest.find(CRLF) == len(rest) - len(CRLF):
        # Most answers: one policy, and only its rest is new.
        rest = rest.strip()
        lines = _policies[policy] or _policies.store(policy, _encode_opening(policy + RATE_LIMIT))
        return b"".join((beginning, lines, LENGTHS[len(rest)], rest, own, length, value))
    return b"".join((beginning, encode_lines(changing.split(CRLF)[:-1]), own, length, value))


def _encode_opening(opening: bytes) -> bytes:
    *lines, last = opening.split(b"\r\n")
    return encode_lines(lines) + _encode_name(last.partition(b":")[0].lower())


def encode_status(status: bytes) -> bytes:
    """Encode the pseudo-header field of a status (RFC 9113 section 8.3.2)."""
    line = b":status:" + status
    return _lines.get(line) or _remember(line, encode_field(b":status", status))


def encode_lines(lines: list[bytes]) -> bytes:
    """Encode field lines without CRLF, for example trailers."""
    recall = _lines.get
    return b"".join([recall(line) or encode_line(line) for line in lines])


def encode_line(line: bytes) -> bytes:
    """Encode one field line; nothing if it is about a connection of HTTP/1.1 (RFC 9113 section 8.2.2)."""
    name, _, value = line.partition(b":")
    name, value = name.lower(), value.strip(OWS)
    if name in CONNECTION_SPECIFIC:
        return b""
    if name in CHANGING:
        return _encode_changing(name, value)
    return _remember(line, encode_field(name, value))


def _remember(line: bytes, encoded: bytes) -> bytes:
    if len(line) <= LINE_BYTES_MAX:
        if len(_lines) >= LINES_MAX:
            _lines.clear()
        _lines[line] = encoded
    return encoded


def encode_field(name: bytes, value: bytes) -> bytes:
    """Encode a field by its index in the static table, or as a literal (RFC 7541 sections 6.1 and 6.2.2)."""
    index = INDEXES.get((name, value))
    if index is not None:
        return bytes((0x80 | index,))
    return _encode_name(name) + encode_string(value)


def _encode_changing(name: bytes, value: bytes) -> bytes:
    """Encode a field without the Huffman code for its value."""
    prefix = _prefixes.get(name)
    if prefix is None:
        prefix = _prefixes[name] = _encode_name(name)
    size = len(value)
    return prefix + (LENGTHS[size] if size < 0x7F else encode_integer(size, 0x7F)) + value


def _encode_name(name: bytes) -> bytes:
    """Encode the beginning of a literal: its kind, and its name or the index of the name."""
    kind = NEVER_INDEXED if name in SECRET else WITHOUT_INDEXING
    index = NAME_INDEXES.get(name, 0)
    return encode_integer(index, 0x0F, kind) + (b"" if index else encode_string(name))


def encode_string(data: bytes) -> bytes:
    """Encode a string in its shorter form: by the Huffman code, or unchanged (RFC 7541 section 5.2)."""
    packed = huffman.encode(data)
    if len(packed) < len(data):
        return encode_integer(len(packed), 0x7F, 0x80) + packed
    return encode_integer(len(data), 0x7F) + data


def encode_integer(value: int, mask: int, high: int = 0) -> bytes:
    """Encode an integer whose prefix has the bits of `mask`; `high` are the bits before it (RFC 7541 section 5.1)."""
    if value < mask:
        return bytes((high | value,))
    encoded, value = bytearray((high | mask,)), value - mask
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


LENGTHS: Final = tuple(encode_integer(size, 0x7F) for size in range(0x7F))
"""The encoded lengths of short strings without the Huffman code."""
