"""Into which slices of time usage is cut before it is told to Stripe. Pure.

A slice is a time, half-open, in Unix seconds. All customers share one grid, which divides days of UTC; at the beginning
of a segment, and where charging was switched off or on, a customer's slice is cut once more.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from edgeproxy.collector.billing.rating.rater import Span

MINUTE, DAY = 60, 86400
LENGTHS: Sequence[int] = [minutes * MINUTE for minutes in (5, 10, 15, 30, 60, 120, 180, 240, 360, 480, 720, 1440)]
"""Seconds that a slice may have; each divides a day."""
ROWS_A_MONTH_MAX = 10_000_000
MONTH = 30 * DAY
LATE_SECONDS = 15 * MINUTE
"""Seconds after its end in which edges may still tell of a slice; what comes later is a revision."""
CROWDED_SECONDS = 60.0
"""Seconds of refusals for their number after which slices become longer."""
QUIET_SECONDS = 3600.0
"""Seconds without any after which they become shorter again."""


def length(pairs: int, rate: float) -> int:
    """Choose the length of slices for so many active (customer, meter) pairs at an allowed rate of events a second.

    The shortest one that takes half of the rate and ten million rows a month at most; else a day.
    """
    for seconds in LENGTHS:
        if pairs / seconds <= rate / 2 and pairs * MONTH // seconds <= ROWS_A_MONTH_MAX:
            return seconds
    return LENGTHS[-1]


def adapted(current: int, shortest: int, crowded: float, quiet: float) -> int:
    """Return the length that follows: twice as many seconds where so many were `crowded`, half of them after a `quiet`
    time; never below the shortest that `length` allows.
    """
    if crowded >= CROWDED_SECONDS:
        return next((seconds for seconds in LENGTHS if seconds >= 2 * current), LENGTHS[-1])
    if quiet >= QUIET_SECONDS and current > shortest:
        return max(shortest, max((seconds for seconds in LENGTHS if seconds <= current // 2), default=LENGTHS[0]))
    return max(current, shortest)


def following(since: int, seconds: int) -> Span:
    """Return the slice that begins at `since` on a grid of so many seconds: it ends where the grid's does."""
    return Span(since, since - since % seconds + seconds)


def is_complete(span: Span, now: float, watermarks: Iterable[int | None]) -> bool:
    """Whether all usage of a slice has come: every edge has told of later times, or nobody waits any more.

    `watermarks` are the Unix seconds up to which each edge that is not retired has told; None: nothing yet.
    """
    if now < span.end:
        return False
    return now >= span.end + LATE_SECONDS or all(mark is not None and mark >= span.end for mark in watermarks)


class Told(NamedTuple):
    """A segment whose usage Stripe is told."""

    span: Span
    since: int = 0
    """From when on Stripe counts events for it, a whole minute: what was used before is told with what comes then."""
    is_final: bool = False
    """Whether Stripe has charged it: what comes now is on the next invoice."""


class Piece(NamedTuple):
    """What is left of a slice for one segment."""

    span: Span
    segment: Told
    is_waived: bool
    before: tuple[Span, ...] = ()
    """What was used in these times, too: before Stripe counted the segment's events."""

    @property
    def start(self) -> int:
        """The first second of what it tells of."""
        return (*self.before, self.span)[0].start


def pieces(span: Span, segments: Sequence[Told], waived: Sequence[Span] = ()) -> list[Piece]:
    """Cut a slice at the bounds of segments and of times without charging; what is in no segment is left out, and what
    is over before Stripe counts the segment's events.

    Segments are in the order of time and do not overlap.
    """
    starts = [segment.span.start for segment in segments]
    found = []
    for part in _cut(span, [*waived, *(segment.span for segment in segments)]):
        place = bisect_right(starts, part.start) - 1
        if place < 0 or part.start >= segments[place].span.end:
            continue
        segment = segments[place]
        since = _first(segment, waived)
        if _is_in(part.start, waived):
            found.append(Piece(part, segment, True))
        elif part.start > since:
            found.append(Piece(part, segment, False))
        elif part.end >= since + MINUTE:
            earlier = _cut(Span(segment.span.start, part.start), waived)
            found.append(Piece(part, segment, False, tuple(one for one in earlier if not _is_in(one.start, waived))))
    return found


def _first(segment: Told, waived: Sequence[Span]) -> int:
    """From when on there are events of a segment."""
    since = max(segment.since, segment.span.start)
    return next((one.end for one in waived if one.start <= since < one.end), since)


def _cut(span: Span, bounds: Iterable[Span]) -> list[Span]:
    """The parts of a time, cut at the bounds of others; none of one that is empty."""
    inner = {at for one in bounds for at in one if span.start < at < span.end}
    cuts = sorted({*span, *inner})
    return [Span(start, end) for start, end in pairwise(cuts)]


def _is_in(at: int, spans: Iterable[Span]) -> bool:
    return any(one.start <= at < one.end for one in spans)
