"""Which tables answer a question: days and hours where these are rolled up, minutes for the rest. Pure.

The whole days and the whole hours of a question are in `days` and `hours`, as far as they are rolled up; what is not
yet, and what is before the first whole hour and after the last one, is in `ledger`. Each count is taken from one of
these and only one, so that every granularity comes to the same.
"""

from typing import NamedTuple

import sqlalchemy as sa

from edgeproxy.collector.database.schema import DAY, HOUR, MINUTE, days, hours, ledger
from edgeproxy.collector.ledger.rollup import Rolled

Span = tuple[int, int]
"""Unix seconds: from the first one on, before the second one."""


class NotKept(Exception):
    """What is asked for was dropped for its age: a sentence for who asked, with {} for the time that it begins with."""

    def __init__(self, sentence: str, since: int) -> None:
        super().__init__(sentence)
        self.since = since


class Source(NamedTuple):
    """What is taken from a table: all that begins within [since, until), with `unrolled` only what is not rolled up."""

    table: sa.Table
    since: int
    until: int
    unrolled: bool = False

    @property
    def time(self) -> sa.Column[int]:
        """When its minutes (hours, days) begin."""
        return list(self.table.primary_key)[1]

    def condition(self, rolled: Rolled) -> sa.ColumnElement[bool]:
        """Which rows of the table these are."""
        within = (self.time >= self.since) & (self.time < self.until)
        if not self.unrolled:
            return within
        return within & ((self.time >= rolled.hour + HOUR) | (self.table.c.series > rolled.series))


def sources(seconds: int, since: int, until: int, rolled: Rolled) -> list[Source]:
    """Where the minutes are that begin within [since, until), if they are told apart by so many seconds: a MINUTE, an
    HOUR or a DAY. Raises NotKept.
    """
    asked = (up(since, MINUTE), up(until, MINUTE))
    whole_hours = within(asked, HOUR) if seconds >= HOUR else None
    whole_days = within(asked, DAY) if seconds >= DAY else None
    found = [Source(days, *whole_days)] if whole_days else []
    found += [Source(hours, *span) for span in without(whole_hours, whole_days)]
    found += [Source(ledger, *span) for span in without(asked, whole_hours)]
    for source in found:
        _must_be_kept(source, rolled)
    if whole_hours and whole_hours[1] > rolled.hour:
        found.append(Source(ledger, max(whole_hours[0], rolled.hour), whole_hours[1], unrolled=True))
    return found


def up(second: int, step: int) -> int:
    """The first multiple of `step` that is no less."""
    return -(-second // step) * step


def within(span: Span, step: int) -> Span | None:
    """The whole steps in a span, None where there are none."""
    since, until = up(span[0], step), span[1] - span[1] % step
    return (since, until) if since < until else None


def without(span: Span | None, inner: Span | None) -> list[Span]:
    """What is left of a span without one that is within it."""
    if span is None:
        return []
    pieces = [span] if inner is None else [(span[0], inner[0]), (inner[1], span[1])]
    return [(since, until) for since, until in pieces if since < until]


def _must_be_kept(source: Source, rolled: Rolled) -> None:
    if source.table is ledger and source.since < rolled.minutes_from:
        raise NotKept(
            "minutes before {} are not kept any more: what begins or ends before that does so at whole hours, "
            "and is by hour or day",
            rolled.minutes_from,
        )
    if source.table is hours and source.since < rolled.hours_from:
        raise NotKept(
            "hours before {} are not kept any more: what begins or ends before that does so at whole days of UTC, "
            "and is by day",
            rolled.hours_from,
        )
