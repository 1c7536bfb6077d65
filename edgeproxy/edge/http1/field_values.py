"""Lookup and removal of fields in a block of lines that was already read.

Fields that every request needs are found as its head is read; this is for fields that few routes use.
"""

from collections.abc import Collection

from edgeproxy.edge.http1.grammar import OWS, parse_field_name


def find_values(lines: bytes, name: bytes) -> list[bytes]:
    """Return the values of the fields of this name, which is in lower case; `lines` each end with CRLF."""
    return [line.partition(b":")[2].strip(OWS) for line in lines.split(b"\r\n") if parse_field_name(line) == name]


def find_value(lines: bytes, name: bytes) -> bytes | None:
    """Return the value of the only field of this name; None if it is absent or repeated."""
    matching = find_values(lines, name)
    return matching[0] if len(matching) == 1 else None


def remove_field(lines: bytes, name: bytes) -> bytes:
    """Return the lines without the fields of a name, which is in lower case: a fast `remove_fields`, for each
    request.
    """
    lowered = b"\r\n" + lines.lower()  # So its places are the places of `lines`, two bytes on.
    opening = b"\r\n%b:" % name
    at = lowered.find(opening)
    while at >= 0:
        end = lowered.index(b"\r\n", at + 2)
        lines, lowered = lines[:at] + lines[end:], lowered[:at] + lowered[end:]
        at = lowered.find(opening, at)
    return lines


def remove_fields(lines: bytes, names: Collection[bytes]) -> bytes:
    """Return the lines without the fields of these names, which are in lower case."""
    return b"".join([line + b"\r\n" for line in lines.split(b"\r\n")[:-1] if parse_field_name(line) not in names])
