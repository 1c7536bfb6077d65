"""A head without its new values, for example without path, key and Content-Length, and a block that completes it.

A block is read from left to right, and each field begins at the end of the previous one. So while the table does not
change, equal bytes at the beginning of two blocks have one meaning. The value of a literal that is inserted into no
table changes the meaning of no other field. It is read again in each block, and all other bytes are compared.

The meaning of a string depends on its bytes alone. So values are cached by their strings, for all connections.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, cast

from edgeproxy.base.lru_cache import BytesCache
from edgeproxy.edge.http1.grammar import CONTENT_LENGTH
from edgeproxy.edge.http2.errors import CompressionError
from edgeproxy.edge.http2.hpack import Unindexed, read_string
from edgeproxy.edge.http2.lines import MALFORMED, TE, Line, Pseudo, PseudoField, format_line
from edgeproxy.edge.http2.request import CRLF, Head

LENGTH: Final = b"content-length"

VALUES_MAX: Final = 16_384
PATHS_MAX, LENGTHS_MAX = 1024, 1024
ENCODED_BYTES_MAX: Final = 64
"""Bounds of the caches of values: their number, and bytes of the string of each."""


class ValueCache(BytesCache[bytes]):
    """String of a block -> its value, which may stand in a head as it is."""

    __slots__ = ("_is_valid",)

    def __init__(self, capacity: int, is_valid: Callable[[bytes], object]) -> None:
        """`is_valid` returns whether a value may stand in a head."""
        super().__init__(capacity, ENCODED_BYTES_MAX)
        self._is_valid = is_valid

    def read(self, block: bytes, position: int) -> tuple[bytes | None, int]:
        """Read the string at `position`, and cache its value; return it and its end. The value is None if it may not
        stand in a head. Raises as `read_string` does.
        """
        value, end = read_string(block, position)
        return self.store(block[position:end], value) if self._is_valid(value) else None, end


VALUES: Final = ValueCache(VALUES_MAX, lambda value: format_line(b"authorization", value) is not MALFORMED)
"""The values of field lines. Most of them are keys."""
PATHS: Final = ValueCache(PATHS_MAX, lambda value: value != b"*" and format_line(b":path", value) is not MALFORMED)
"""A path of * has rules of its own."""
LENGTHS: Final = ValueCache(LENGTHS_MAX, CONTENT_LENGTH.fullmatch)


class OpenHead(NamedTuple):
    """A head without some values."""

    beginning: bytes
    """The bytes of the head before the first missing value."""
    values: tuple[tuple[bytes, ValueCache, bytes], ...]
    """Three things for each value: the bytes of the block between the previous value and this one, the cache of such
    values, and the bytes of the head before the next value.
    """
    end: bytes
    """The bytes of the block behind the last value."""
    length: int
    """The length of the body, as in a Head."""
    length_at: int
    """The place of the value with that length among all pieces of the head; 0 if no missing value has it."""
    size: int
    """An upper bound of all these bytes."""


def open_head(block: bytes, lines: list[Line], unindexed: list[Unindexed], head: Head) -> OpenHead | None:
    """Return a head without the values of its literals that are in no table; None if all of them must stay.

    `lines` are the lines of its block, which must not have changed the table.
    """
    text, length = head
    pieces: list[bytes] = []
    fields: list[tuple[bytes, ValueCache]] = []
    position = length_at = 0
    for start, end, place in unindexed:
        line = lines[place]
        if type(line) is bytes:
            name, _, value = line.partition(b": ")
            before, match, behind = text.partition(CRLF + line + CRLF)
            # Crumbs and Host have no line of their own in the head. A request without a body has no other length.
            if line is TE or (name == LENGTH and not length) or not match or lines.count(line) > 1:
                continue
            pieces.append(before + match[: -len(value + CRLF)])
            text = CRLF + behind
            cache = VALUES
            if name == LENGTH:
                cache, length_at = LENGTHS, 2 * len(pieces) - 1
        elif line[0] == Pseudo.PATH:
            method, _, behind = text.partition(b" ")
            pieces.append(method + b" ")
            text = behind[len(cast("PseudoField", line)[1]) :]
            cache = PATHS
        else:
            continue
        fields.append((block[position:start], cache))
        position = end
    if not fields:
        return None
    beginning, *others = pieces
    values = tuple([(*field, piece) for field, piece in zip(fields, [*others, text], strict=True)])
    return OpenHead(beginning, values, block[position:], length, length_at, len(block) + len(head[0]))


def complete_head(known: OpenHead, block: bytes) -> Head | None:
    """Return the head of a block, or None if the block differs by more than the missing values.

    The table must not have changed since `known` was read. The caller checks the size of the head.
    """
    beginning, values, end, length, length_at, _ = known
    parts = [beginning]
    position = 0
    try:
        for before, cache, behind in values:
            start = position + len(before)
            if block[position:start] != before:
                return None
            # The cache has no part of a string, and no string whose length has more than these bits.
            position = start + 1 + (block[start] & 0x7F)
            value = cache[block[start:position]]
            if value is None:
                value, position = cache.read(block, start)
                if value is None:
                    return None
            parts += value, behind
    except (CompressionError, IndexError):
        return None  # The reader of the whole block says why.
    if block[position:] != end:
        return None
    return b"".join(parts), int(parts[length_at]) if length_at else length
