"""The field lines that a client sends anew with each request, for example its trace, a cookie or a number; and the
rest.

A block with such a line never comes again, so its meaning is not remembered. The block without these lines does come
again, and its meaning is remembered. The names of the lines that were new in one request of the connection tell which
lines change.

The line of the key is left out likewise: all customers of one program send equal remaining lines.
"""

from collections.abc import Sequence
from typing import Final

from edgeproxy.edge.http1.fields import AUTHORIZATION, FieldKind
from edgeproxy.edge.http1.grammar import OWS, VALUE_TABLE, TraceParent, is_field_value, parse_traceparent
from edgeproxy.edge.http1.lines import RequestLines

PASS, TRACEPARENT = FieldKind.PASS, FieldKind.TRACEPARENT

CHANGING_MAX: Final = 3
"""Lines beside traceparent that may change in each request of a connection."""

NAME_BYTES_MAX: Final = 64
"""Bytes of the name of such a line; it is held while the connection is open."""

Changing = tuple[bytes, ...]
"""The beginning of each changing line: CRLF, its name as sent, colon. The first is of traceparent, and empty if the
client sends none; the others are of fields that pass unchanged.
"""

KeyPlace = tuple[int, int]
"""The place of the key in a head: bytes from its start to the end of the head, and bytes behind it."""


def find_changing(block: bytes, request_lines: RequestLines, most: int) -> Changing | None:
    """Find which lines of a block change; None if none does, too many do, or the block has more lines than `most`.

    Call this before the block is read, as afterwards no line is new any more. `block` is the one that `read_fields`
    reads.
    """
    if block.count(b"\r\n") > most:
        return None
    trace, passing = b"", []
    for line in block.split(b"\r\n")[:-1]:
        if not request_lines.passes(line):
            name = line.partition(b":")[0]
            kind = request_lines.names[name]
            if kind is TRACEPARENT:
                trace = b"\r\n%b:" % name
            elif kind is PASS:
                passing.append(b"\r\n%b:" % name)
                if len(passing) > CHANGING_MAX or len(name) > NAME_BYTES_MAX:
                    return None
    # `cut_lines` finds a line by its name, so lines of equal name could not be told apart.
    names = set(map(_fold, passing))
    return (trace, *passing) if (trace or passing) and len(names) == len(passing) else None


def cut_lines(block: bytes, changing: Changing) -> tuple[bytes, bytes, TraceParent | None] | None:
    """Cut the changing lines out of a block that has a CRLF before each line and after the last.

    Returns the rest, the lines that pass (each with its CRLF), and the trace; None if a line is missing or invalid. The
    rest may hold another line of equal name: `fits_rest` tells.
    """
    trace = None
    lines = b""
    for prefix in changing:
        if not prefix:
            continue
        at = block.find(prefix)
        if at < 0:
            return None
        end = block.find(b"\r\n", at + 2)
        line = block[at + 2 : end]
        block = block[:at] + block[end:]
        if line.translate(VALUE_TABLE) != line:
            return None
        if prefix is changing[0]:
            trace = parse_traceparent(line[len(prefix) - 2 :].strip(OWS))
            if trace is None:
                return None
        else:
            lines += line + b"\r\n"
    return block, lines, trace


def list_key_beginnings(fields: Sequence[str]) -> tuple[bytes, ...]:
    """List the beginnings of key lines, for the fields that may hold keys: CRLF, name, colon, and in Authorization the
    scheme, in the spellings of HTTP/1.1 and of HTTP/2.
    """
    names = {name.encode() for each in fields for name in (each, each.lower(), each.title())}
    return tuple(sorted(b"\r\n%b: %b" % (name, b"Bearer " if name.lower() == AUTHORIZATION else b"") for name in names))


def cut_key(block: bytes, beginnings: Sequence[bytes]) -> tuple[bytes, bytes, int, int] | None:
    """Cut a key out of a block that has a CRLF before each line and after the last.

    Returns the rest, the key, the position of the CRLF before its line, and that of the key; None if no line begins
    with one of `beginnings`, or the line is invalid. The rest has the beginning of the line, which shows where the key
    was. It may hold another key: the reader of the rest finds it.
    """
    for beginning in beginnings:
        at = block.find(beginning)
        if at >= 0:
            start = at + len(beginning)
            end = block.find(b"\r\n", start)
            key = block[start:end]
            return (block[:start] + block[end:], key, at, start) if is_field_value(key) else None
    return None


def fits_rest(rest: bytes, changing: Changing, request_lines: RequestLines, most: int) -> bool:
    """Return whether a rest and any changing lines keep their meanings together: no name is in both, all are of the
    right kinds, and the lines number no more than `most`.
    """
    folded = _fold(rest)
    return rest.count(b"\r\n") + CHANGING_MAX <= most and all(
        request_lines.names[prefix[2:-1]] in (PASS, TRACEPARENT) and _fold(prefix) not in folded
        for prefix in changing
        if prefix
    )


def _fold(text: bytes) -> bytes:
    """Return names folded, as some servers take differently written names for equal: in any case, and with `_` for
    `-`.
    """
    return text.lower().replace(b"_", b"-")
