"""Ids of what is kept: UUIDv7 (RFC 9562 section 5.7), which sort by the time at which they were made."""

import re
import secrets
import time
from datetime import UTC, datetime
from uuid import UUID

ID_PATTERN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def generate_id() -> str:
    """Make an id."""
    bits = now_ms() << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(UUID(int=bits))


def is_id(text: str) -> bool:
    """Whether a text has the form of an id."""
    return ID_PATTERN.fullmatch(text) is not None


def now_ms() -> int:
    """Return the time in Unix milliseconds."""
    return time.time_ns() // 1_000_000


def format_timestamp(ms: int | None) -> str | None:
    """Write Unix milliseconds as RFC 3339."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
