"""Times in APIs: RFC 3339, in UTC, with milliseconds."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import overload

DAY = 86_400


@overload
def format_timestamp(ms: int) -> str: ...
@overload
def format_timestamp(ms: int | None) -> str | None: ...
def format_timestamp(ms: int | None) -> str | None:
    """Return Unix milliseconds in RFC 3339: `2027-03-01T00:00:00.000Z`. None stays None."""
    if ms is None:
        return None
    seconds, milliseconds = divmod(ms, 1000)
    day, second = divmod(seconds, DAY)
    minute, second = divmod(second, 60)
    hour, minute = divmod(minute, 60)
    return f"{format_day(day)}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z"


@lru_cache(4096)
def format_day(day: int) -> str:
    """Return a UTC day, counted from 1970, as a date: `2027-03-01`."""
    return datetime.fromtimestamp(day * DAY, UTC).date().isoformat()
