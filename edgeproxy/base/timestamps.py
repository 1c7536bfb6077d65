"""Times as APIs write them: RFC 3339, in UTC, with milliseconds."""

from datetime import UTC, datetime
from typing import overload


@overload
def format_timestamp(ms: int) -> str: ...
@overload
def format_timestamp(ms: int | None) -> str | None: ...
def format_timestamp(ms: int | None) -> str | None:
    """Return Unix milliseconds as RFC 3339, such as `2027-03-01T00:00:00.000Z`; None stays None."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
