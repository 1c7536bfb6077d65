"""The kind of a body, by the head of its answer."""

from enum import Enum, auto
from typing import Final

from edgeproxy.edge.body_usage.content_coding import CODINGS

TYPE: Final = b"\r\ncontent-type:"
CODING: Final = b"\r\ncontent-encoding:"


LINES: Final = frozenset(
    (
        *(b"application/x-ndjson", b"application/ndjson", b"application/jsonl", b"application/x-jsonl"),
        *(
            b"application/x-jsonlines",
            b"application/jsonlines",
            b"application/json-seq",
            b"application/stream+json",
            b"text/jsonl",
        ),
    )
)
"""Types of JSON texts in lines."""
UNTYPED: Final = frozenset((b"", b"application/octet-stream", b"binary/octet-stream"))
"""Types that say nothing about a body."""


class BodyKind(Enum):
    """The kind of a body, which decides how it is read."""

    JSON = auto()
    STREAM = auto()
    """Server-sent events."""
    LINES = auto()
    """JSON texts, one a line."""
    AMAZON = auto()
    """Messages of Amazon's event streams, whose payload is JSON."""
    TEXT = auto()
    """Text or bytes of no known type, which may be one of the above: their beginning tells."""
    NEITHER = auto()
    """A body of another type, for example speech."""
    ENCODED = auto()
    """One of these in a coding that is not decoded here."""


JSON_LINE: Final = b"\r\ncontent-type: application/json\r\n"
USUAL: Final = (BodyKind.JSON, b"")


def describe_body(head: bytes) -> tuple[BodyKind, bytes]:
    """Return the kind of the body behind a head, and the coding that must be decoded first, empty for none.

    `head`: the status line and field lines, each with its CRLF.
    """
    lines = head.lower()
    if JSON_LINE in lines and CODING not in lines:
        return USUAL  # The most frequent kind.
    media_type = _find_value(lines, TYPE).partition(b";")[0].rstrip()
    if media_type == b"text/event-stream":
        kind = BodyKind.STREAM
    elif media_type in LINES:
        kind = BodyKind.LINES
    elif media_type.endswith(b"json"):
        kind = BodyKind.JSON
    elif media_type == b"application/vnd.amazon.eventstream":
        kind = BodyKind.AMAZON
    elif media_type.startswith(b"text/") or media_type in UNTYPED:
        kind = BodyKind.TEXT
    else:
        return BodyKind.NEITHER, b""
    coding = find_coding(lines)
    if coding in (b"", b"identity"):
        return kind, b""
    return (kind, coding) if coding in CODINGS else (BodyKind.ENCODED, b"")


def find_coding(lines: bytes) -> bytes:
    """Return the coding of the body behind these lines, which are in lower case and begin with CRLF; empty for none."""
    return _find_value(lines, CODING)


def _find_value(lines: bytes, field: bytes) -> bytes:
    at = lines.find(field)
    return b"" if at < 0 else lines[at + len(field) : lines.index(b"\r\n", at + len(field))].strip()
