"""The reading of field blocks (RFC 7541): the decoder of one connection, and the strings and integers in a block.

The dynamic table holds lines of HTTP/1.1 (lines.py), made and checked once, when their field is inserted. Most blocks
are a run of one-byte indexes, and such a run is one match of a pattern and one `map` over the table.
"""

import re
from typing import Final

from edgeproxy.edge.http2 import huffman
from edgeproxy.edge.http2.appendices import STATIC
from edgeproxy.edge.http2.errors import CompressionError
from edgeproxy.edge.http2.lines import MALFORMED, OVERSIZED, Line, format_line

TABLE_BYTES: Final = 4096
"""SETTINGS_HEADER_TABLE_SIZE, which is never announced: a peer may use the default without being told so."""

ENTRY_OVERHEAD: Final = 32
"""Bytes that an entry counts beyond its name and value (RFC 7541 section 4.1)."""

RESIZES_MAX: Final = 2
"""Changes of the table's size in a block: the smallest since the last one, and the present (RFC 7541 section 4.2)."""

INTEGER_BYTES_MAX: Final = 5
"""Bytes of an integer behind its prefix. No size that is read here exceeds 2**35."""

STRINGS_MAX: Final = 4096
STRING_BYTES_MAX: Final = 64
"""Huffman strings that are remembered, and bytes of each."""

COOKIE: Final = b"cookie: "
CRUMB_BYTES: Final = len(COOKIE) - len(b"; ")
"""Bytes that a crumb's own line has more than its part of a Cookie."""

REFUSAL_LINES: Final = (b"host: ", b"origin: ", b"content-type: application/grpc")
REFUSAL_LINES_MAX: Final = 8
"""The lines of a too large head that decide how it is refused, and how many of them are kept."""

INDEXES: Final = re.compile(rb"[\x81-\xfe]+")
"""Indexed fields of one byte each (RFC 7541 section 6.1)."""

FIRST_INDEX: Final = 0x80
"""The start of a decoder's table, so that a byte that is an index is the place of its line."""

FIRST_DYNAMIC: Final = len(STATIC) + 1

STATIC_NAMES: Final[list[bytes]] = [b"", *[name for name, _ in STATIC]]
STATIC_LINES: Final[list[Line]] = [
    *[MALFORMED] * (FIRST_INDEX + 1),
    *[format_line(name, value) for name, value in STATIC],
]


Block = bytes | None
"""A field block; None stands for a block that was too long to keep, and whose parts were skipped."""


Unindexed = tuple[int, int, int]
"""A literal that is inserted into no table: the start and the end of its value in the block, and the place of its line.
"""

UNINDEXED_MAX: Final = 8
"""Such literals of a block that are noted: a block may have thousands."""


class HpackDecoder:
    """Reads the field blocks of one peer, in their order."""

    __slots__ = (
        "_fields_max",
        "_limit",
        "_lines",
        "_names",
        "_size",
        "_size_max",
        "_sizes",
        "has_changed",
        "unindexed",
    )

    def __init__(self, fields_max: int, size_max: int) -> None:
        """`fields_max` and `size_max`: of the lines of a block, in number and in bytes."""
        self._fields_max, self._size_max = fields_max, size_max
        self._lines = STATIC_LINES.copy()
        """By index, from FIRST_INDEX on: the static table, then the dynamic one with its newest entry first."""
        self._names = STATIC_NAMES.copy()
        """The names in index order, for literals that name a field by its index."""
        self._sizes: list[int] = []
        """The sizes of the dynamic entries, oldest first."""
        self._size = 0
        self._limit = TABLE_BYTES
        self.has_changed = False
        """True if the table has changed since this was last set to False: blocks may have another meaning now."""
        self.unindexed: list[Unindexed] = []
        """The first literals of the latest block that it inserts into no table."""

    @property
    def size(self) -> int:
        """The size of the dynamic table (RFC 7541 section 4.1)."""
        return self._size

    def decode(self, block: Block) -> list[Line]:
        """Return the lines of a block, in order. If a block has too many lines, or too long ones, return its lines that
        tell whose request it is, and OVERSIZED behind them.

        The crumbs of a Cookie count as the one line that they become (RFC 9113 section 8.2.3).

        Even such a block is read to its end, so that the table stays in step with the peer's. Raises CompressionError.
        """
        if block is None:
            return [OVERSIZED]
        try:
            return self._read_block(block)
        except IndexError:
            raise CompressionError(
                "a block ends within a field, or names an index that is not there", "2.3.3"
            ) from None

    def skip(self, part: bytes, *, begins: bool) -> bytes:
        """Read a part of a block only for its effect on the table; return the unfinished field at its end. `begins`:
        the block begins with it. Raises CompressionError.

        So a block of any length takes no more memory than its longest field.
        """
        end = find_whole_fields(part)
        # `decode` takes each part for a whole block, and would accept a change of the size at its beginning.
        if end and not begins and part[0] & 0xE0 == 0x20:
            raise CompressionError("the table's size changes within a block", "4.2")
        self.decode(part[:end])
        return part[end:]

    def _read_block(self, block: bytes) -> list[Line]:
        lines: list[Line] = []
        position, end = 0, len(block)
        is_oversized, resizes = False, 0
        owner_lines: list[Line] = []
        counted_at = self._fields_max
        self.unindexed.clear()
        while position < end:
            run = INDEXES.match(block, position)
            first = block[position]
            if run is not None:
                position = run.end()
                lines += map(self._lines.__getitem__, run[0])
            elif first >= 0x80:
                index, position = read_integer(block, position, 0x7F)
                if not index:
                    raise CompressionError("index 0", "6.1")
                lines.append(self._lines[FIRST_INDEX + index])
            elif first & 0xE0 == 0x20:
                resizes += 1
                if lines or is_oversized or resizes > RESIZES_MAX:
                    raise CompressionError("the table's size changes within a block, or too often", "4.2")
                limit, position = read_integer(block, position, 0x1F)
                self._resize(limit)
            else:
                position = self._read_literal(block, position, lines)
            if len(lines) > counted_at:
                if len(lines) - count_spare_crumbs(lines) > self._fields_max:
                    is_oversized = True
                    owner_lines += select_owner_lines(lines)
                    lines.clear()
                    counted_at = self._fields_max
                else:
                    # Crumbs are counted again only when the lines have doubled, so that the work stays linear in the
                    # block.
                    counted_at = 2 * len(lines)
        # An index of one byte may stand for 4 KiB: summed up before anything is copied.
        size = sum(map(len, lines))
        if is_oversized or size > self._size_max or len(lines) > self._fields_max:
            spare = count_spare_crumbs(lines)
            is_larger = size - CRUMB_BYTES * spare > self._size_max or len(lines) - spare > self._fields_max
            if is_oversized or is_larger:
                return [*(owner_lines + select_owner_lines(lines))[:REFUSAL_LINES_MAX], OVERSIZED]
        return lines

    def _read_literal(self, block: bytes, position: int, lines: list[Line]) -> int:
        """Read a literal field (RFC 7541 section 6.2); return its end."""
        first = block[position]
        mask = 0x3F if first & 0x40 else 0x0F
        index = first & mask
        if index == mask:
            index, position = read_integer(block, position, mask)
        else:
            position += 1
        if index:
            name = self._names[index]
        else:
            name, position = read_string(block, position)
        start = position
        value, position = read_string(block, position)
        line = format_line(name, value)
        if first & 0x40:
            self._insert(name, line, len(name) + len(value) + ENTRY_OVERHEAD)
        elif len(self.unindexed) < UNINDEXED_MAX:
            self.unindexed.append((start, position, len(lines)))
        lines.append(line)
        return position

    def _insert(self, name: bytes, line: Line, size: int) -> None:
        """Insert an entry; one that is larger than the table empties it (RFC 7541 section 4.4)."""
        self.has_changed = True
        self._evict(self._limit - size)
        if size <= self._limit:
            self._size += size
            self._sizes.append(size)
            self._lines.insert(FIRST_INDEX + FIRST_DYNAMIC, line)
            self._names.insert(FIRST_DYNAMIC, name)

    def _resize(self, limit: int) -> None:
        if limit > TABLE_BYTES:
            raise CompressionError("a table that is larger than was allowed", "6.3")
        self.has_changed = True
        self._limit = limit
        self._evict(limit)

    def _evict(self, size_max: int) -> None:
        """Evict the oldest entries until the table is no larger than this (RFC 7541 section 4.3)."""
        evicted, sizes = 0, self._sizes
        while self._size > size_max and evicted < len(sizes):
            self._size -= sizes[evicted]
            evicted += 1
        if evicted:
            del sizes[:evicted], self._lines[-evicted:], self._names[-evicted:]


def count_spare_crumbs(lines: list[Line]) -> int:
    """Return how many lines fewer there are once the crumbs of a Cookie are one."""
    return max(0, sum(type(line) is bytes and line.startswith(COOKIE) for line in lines) - 1)


def select_owner_lines(lines: list[Line]) -> list[Line]:
    """Return the first lines that tell whose request it is (pseudo-header fields, Host and Origin), and the line that
    marks gRPC.
    """
    return [line for line in lines if type(line) is not bytes or line.startswith(REFUSAL_LINES)][:REFUSAL_LINES_MAX]


def find_whole_fields(part: bytes) -> int:
    """Return the end of the last whole field in a part of a block. Raises CompressionError."""
    position, size = 0, len(part)
    while position < size:
        run = INDEXES.match(part, position)
        try:
            end = _find_field_end(part, position) if run is None else run.end()
        except IndexError:
            break
        if end > size:
            break
        position = end
    return position


def _find_field_end(part: bytes, position: int) -> int:
    """Return the end of the field that begins here.

    Raises CompressionError, and IndexError if its lengths are incomplete.
    """
    first = part[position]
    if first >= 0x80 or first & 0xE0 == 0x20:
        return read_integer(part, position, 0x7F if first >= 0x80 else 0x1F)[1]
    index, position = read_integer(part, position, 0x3F if first & 0x40 else 0x0F)
    for _ in range(1 if index else 2):
        length, position = read_integer(part, position, 0x7F)
        position += length
    return position


def read_integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """Read an integer whose prefix has the bits of `mask` (RFC 7541 section 5.1); return it and its end.

    Raises CompressionError, and IndexError if the block ends before.
    """
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    for shift in range(0, 7 * INTEGER_BYTES_MAX, 7):
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise CompressionError("an integer is too long", "5.1")


_strings: dict[bytes, bytes] = {}
"""Lately decoded Huffman strings, and their plain form."""


def read_string(block: bytes, position: int) -> tuple[bytes, int]:
    """Read a string (RFC 7541 section 5.2); return it and its end. Raises as `read_integer` does."""
    first = block[position]
    length = first & 0x7F
    if length == 0x7F:
        length, position = read_integer(block, position, 0x7F)
    else:
        position += 1
    end = position + length
    data = block[position:end]
    if end > len(block):
        raise CompressionError("a string is longer than its block", "5.2")
    if first < 0x80:
        return data, end
    string = _strings.get(data)
    return (_decode_string(data) if string is None else string), end


def _decode_string(data: bytes) -> bytes:
    string = huffman.decode(data)
    if len(data) <= STRING_BYTES_MAX:
        if len(_strings) >= STRINGS_MAX:
            _strings.clear()
        _strings[data] = string
    return string
