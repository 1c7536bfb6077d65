"""The tables that answer a query: days and hours if rolled up, minutes for the rest. Pure.

The whole days and hours of a query come from `days` and `hours` if they are rolled up. The rest, and the time before
the first whole hour and after the last one, comes from `ledger`. Each count is read from exactly one table, so every
granularity yields the same totals.
"""

from functools import lru_cache
from typing import NamedTuple

import sqlalchemy as sa

from edgeproxy.collector.database.schema import DAY, HOUR, MINUTE, days, hours, ledger
from edgeproxy.collector.ledger.rollup import RollupState

Span = tuple[int, int]
"""Unix seconds: from the first one on, before the second one."""


class NotRetainedError(Exception):
    """The requested usage was dropped because of its age. The message has {} for the first second still stored."""

    def __init__(self, sentence: str, since: int) -> None:
        super().__init__(sentence)
        self.since = since


class Source(NamedTuple):
    """Part of a table: all rows that begin within [since, until); with `unrolled`, only rows not rolled up."""

    table: sa.Table
    since: int
    until: int
    unrolled: bool = False

    @property
    def time(self) -> sa.Column[int]:
        """Column of start times of minutes (hours, days)."""
        return list(self.table.primary_key)[1]

    def condition(self, rolled: RollupState) -> sa.ColumnElement[bool]:
        """Return the condition of the rows of this part."""
        return self.condition_between(sa.literal(self.since), sa.literal(self.until), rolled)

    def condition_between(
        self, since: sa.ColumnElement[int], until: sa.ColumnElement[int], rolled: RollupState
    ) -> sa.ColumnElement[bool]:
        """Return the condition of the rows of such a part with another begin and end."""
        within = (self.time >= since) & (self.time < until)
        if not self.unrolled:
            return within
        return within & ((self.time >= rolled.hour + HOUR) | (self.table.c.series > rolled.series))


@lru_cache(maxsize=4096)  # A page asks for hundreds of plan segments, and for each of them several times.
def select_sources(seconds: int, since: int, until: int, rolled: RollupState) -> tuple[Source, ...]:
    """Select the sources of minutes that begin within [since, until).

    The resolution `seconds` is a MINUTE, an HOUR or a DAY. Raises NotRetainedError.
    """
    whole_minutes = (round_up(since, MINUTE), round_up(until, MINUTE))
    whole_hours = find_whole_steps(whole_minutes, HOUR) if seconds >= HOUR else None
    whole_days = find_whole_steps(whole_minutes, DAY) if seconds >= DAY else None
    selected = [Source(days, *whole_days)] if whole_days else []
    selected += [Source(hours, *span) for span in subtract_span(whole_hours, whole_days)]
    selected += [Source(ledger, *span) for span in subtract_span(whole_minutes, whole_hours)]
    for source in selected:
        _require_retained(source, rolled)
    if whole_hours and whole_hours[1] > rolled.hour:
        selected.append(Source(ledger, max(whole_hours[0], rolled.hour), whole_hours[1], unrolled=True))
    return tuple(selected)


def round_up(second: int, step: int) -> int:
    """Return the first multiple of `step` that is not less than `second`."""
    return -(-second // step) * step


def find_whole_steps(span: Span, step: int) -> Span | None:
    """Return the whole steps in a span, or None if there are none."""
    since, until = round_up(span[0], step), span[1] - span[1] % step
    return (since, until) if since < until else None


def subtract_span(span: Span | None, inner: Span | None) -> list[Span]:
    """Return the pieces of a span outside an inner span."""
    if span is None:
        return []
    pieces = [span] if inner is None else [(span[0], inner[0]), (inner[1], span[1])]
    return [(since, until) for since, until in pieces if since < until]


def _require_retained(source: Source, rolled: RollupState) -> None:
    if source.table is ledger and source.since < rolled.minutes_from:
        raise NotRetainedError(
            "minutes before {} are not kept any more: what begins or ends before that does so at whole hours, "
            "and is by hour or day",
            rolled.minutes_from,
        )
    if source.table is hours and source.since < rolled.hours_from:
        raise NotRetainedError(
            "hours before {} are not kept any more: what begins or ends before that does so at whole days of UTC, "
            "and is by day",
            rolled.hours_from,
        )
