"""The times of the usage explorer: a range, the preceding range, and their steps. Pure."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from edgeproxy.collector.database.schema import DAY, HOUR, MINUTE
from edgeproxy.collector.languages.reader import parse_time

DAYS = {"today": 1, "7": 7, "30": 30, "90": 90}
"""Ranges of whole days in UTC including today, with their number of days."""
RANGES = ("1h", *DAYS, "own")
RANGE = "30"
"""The default range."""
OWN_DAYS_MAX = 731
STEPS = {"minute": MINUTE, "hour": HOUR, "day": DAY, "month": 28 * DAY}
"""The least seconds of each step, shortest first."""
STEPS_MAX = 92
"""Most steps of a range. Each step is a bar."""
MONTHS = 12


class Period(NamedTuple):
    """A range of usage in Unix seconds, from `since` on and before `until`."""

    range: str
    since: int
    until: int
    shift: int
    """Seconds from the preceding period to this one."""
    step: str
    last_day: int
    """The Unix second when the last day of the range begins."""

    @property
    def before(self) -> tuple[int, int]:
        """Return the preceding period. It has the length of this one, and an equally long part of its last day."""
        return self.since - self.shift, self.until - self.shift

    def list_links(self) -> list[dict[str, str]]:
        """Return for each step the query of a range with only this step, in shorter steps. Minutes have none."""
        starts = self.list_starts()
        ends = [*starts[1:], self.until]
        if self.step == "minute":
            return []
        if self.step == "hour":
            spans = [(format_minute(start), format_minute(start + HOUR)) for start in starts]
            return [{"from": since, "to": until, "step": "minute"} for since, until in spans]
        step = "hour" if self.step == "day" else "day"
        days = [(format_day(start), format_day(end - 1)) for start, end in zip(starts, ends, strict=True)]
        return [{"from": first, "to": last, "step": step} for first, last in days]

    def list_starts(self, shift: int = 0) -> list[int]:
        """Return the Unix seconds when the steps begin, minus `shift`."""
        if self.step != "month":
            return [second - shift for second in range(self.since, self.until, STEPS[self.step])]
        starts = [self.since]
        while (following := find_next_month(starts[-1])) < self.until:
            starts.append(following)
        return [second - shift for second in starts]


def choose_period(query: Mapping[str, str], now: float, earliest: float | None = None) -> Period:
    """Return the period in a page's query: `range`, `step`, and for a custom range `from` and `to` (days).

    If the days differ from the range's, the reader has changed them and the range becomes a custom one. A period begins
    at the Unix second `earliest` or later.
    """
    name = query.get("range", RANGE if "from" not in query else "own")
    name = name if name in RANGES else RANGE
    since, until, shift = _find_range(name, query, now)
    if name != "own" and query.keys() >= {"from", "to"}:
        first, last = (datetime.fromtimestamp(second, UTC).date().isoformat() for second in (since, until - 1))
        name = name if (query["from"], query["to"]) == (first, last) else "own"
        since, until, shift = _find_range(name, query, now)
    if until <= since:
        name, (since, until, shift) = RANGE, _find_range(RANGE, query, now)
    if earliest is not None:
        since = min(max(since, int(earliest)), max(until - MINUTE, 0))
    last_day = (until - 1) // DAY * DAY
    return Period(name, since, until, shift, choose_step(query.get("step", ""), until - since), last_day)


def _find_range(name: str, query: Mapping[str, str], now: float) -> tuple[int, int, int]:
    """Return since, until and the seconds to the preceding range.

    A custom range has whole days. If `to` has a time of day, as in links of charts, the range has exact times.
    """
    current = math.ceil(now / MINUTE) * MINUTE  # The running minute counts from its first moment.
    today = int(now) // DAY * DAY
    if name == "1h":
        return current - HOUR, current, HOUR
    if name in DAYS:
        return today - (DAYS[name] - 1) * DAY, max(current, today + MINUTE), DAYS[name] * DAY
    try:
        since, until = (int(parse_time(query[end]).timestamp()) // MINUTE * MINUTE for end in ("from", "to"))
        if "T" in query["to"] and since < min(until, current) and until - since <= STEPS_MAX * HOUR:
            return since, min(until, current), until - since
        first, last = since // DAY * DAY, until // DAY * DAY
    except (KeyError, ValueError, OverflowError):
        return _find_range(RANGE, query, now)
    last = min(last, today)
    first = max(first, last - (OWN_DAYS_MAX - 1) * DAY, 0)
    return first, min(last + DAY, current), last + DAY - first


def format_day(second: int) -> str:
    """Return the UTC day of a Unix second, for example 2027-01-31."""
    return datetime.fromtimestamp(second, UTC).date().isoformat()


def format_minute(second: int) -> str:
    """Return a Unix second to the minute in UTC, for example 2027-01-31T23:00."""
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M}"


def choose_step(name: str, seconds: int) -> str:
    """Return the step of this name. If it is unknown or makes more than STEPS_MAX steps, return the next longer one."""
    longer = list(STEPS)[list(STEPS).index(name) if name in STEPS else 0 :]
    return next(step for step in longer if step == "month" or seconds <= STEPS_MAX * STEPS[step])


def list_steps(seconds: int) -> list[str]:
    """Return the steps that divide this many seconds into 2 to STEPS_MAX parts."""
    return [name for name, length in STEPS.items() if length < seconds <= STEPS_MAX * length]


def find_next_month(second: int) -> int:
    """Return the Unix second when the next month of UTC begins."""
    first = datetime.fromtimestamp(second, UTC).replace(day=1, hour=0, minute=0, second=0)
    return int((first + timedelta(days=32)).replace(day=1).timestamp())


def find_step(starts: Sequence[int], second: float) -> int:
    """Return the index of the step that contains a Unix second."""
    return max(bisect_right(starts, second) - 1, 0)
