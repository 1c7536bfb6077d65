"""A head without its new values, for example without path and key, and a block that completes it.

A block is read from left to right, and each field begins at the end of the previous one. So while the table does not
change, equal bytes at the beginning of two blocks have one meaning. The value of a literal that is inserted into no
table changes the meaning of no other field. It is read again in each block, and all other bytes are compared.
"""

from typing import Final, NamedTuple, cast

from edgeproxy.edge.http2.errors import CompressionError
from edgeproxy.edge.http2.hpack import Unindexed, read_string
from edgeproxy.edge.http2.lines import Line, Pseudo, PseudoField, format_line
from edgeproxy.edge.http2.request import CRLF, Head

PATH: Final = b":path"
CONTENT_LENGTH: Final = b"content-length"
"""The field whose value means more than its line says."""


class OpenHead(NamedTuple):
    """A head without some values."""

    beginning: bytes
    """The bytes of the head before the first missing value."""
    values: tuple[tuple[bytes, bytes, bytes], ...]
    """Three things for each value: the bytes of the block between the previous value and this one, the name of the
    field, and the bytes of the head before the next value.
    """
    end: bytes
    """The bytes of the block behind the last value."""
    length: int
    """The length of the body, as in a Head."""
    size: int
    """An upper bound of all these bytes."""


def open_head(block: bytes, lines: list[Line], unindexed: list[Unindexed], head: Head) -> OpenHead | None:
    """Return a head without the values of its literals that are in no table; None if all of them must stay.

    `lines` are the lines of its block, which must not have changed the table.
    """
    text, length = head
    pieces: list[bytes] = []
    fields: list[tuple[bytes, bytes]] = []
    position = 0
    for start, end, place in unindexed:
        line = lines[place]
        if type(line) is bytes:
            name = line.partition(b":")[0]
            before, match, behind = text.partition(CRLF + line + CRLF)
            # Crumbs and Host have no line of their own in the head.
            if name == CONTENT_LENGTH or not match or lines.count(line) > 1:
                continue
            pieces.append(before + CRLF)
            text = CRLF + behind
        elif line[0] == Pseudo.PATH:
            name = PATH
            method, _, behind = text.partition(b" ")
            pieces.append(method + b" ")
            text = behind[len(cast("PseudoField", line)[1]) :]
        else:
            continue
        fields.append((block[position:start], name))
        position = end
    if not fields:
        return None
    beginning, *others = pieces
    values = tuple([(*field, piece) for field, piece in zip(fields, [*others, text], strict=True)])
    return OpenHead(beginning, values, block[position:], length, len(block) + len(head[0]))


def complete_head(known: OpenHead, block: bytes) -> Head | None:
    """Return the head of a block, or None if the block differs by more than the missing values.

    The table must not have changed since `known` was read. The caller checks the size of the head.
    """
    beginning, values, end, length, _ = known
    parts = [beginning]
    position = 0
    try:
        for before, name, behind in values:
            if not block.startswith(before, position):
                return None
            value, position = read_string(block, position + len(before))
            line = format_line(name, value)
            if type(line) is bytes:
                parts += line, behind
            # A path of * has rules of its own.
            elif line[0] == Pseudo.PATH and value[:1] == b"/":
                parts += value, behind
            else:
                return None
    except (CompressionError, IndexError):
        return None  # The reader of the whole block says why.
    return (b"".join(parts), length) if block[position:] == end else None
