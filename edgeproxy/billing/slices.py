"""Into which slices of time usage is cut before it is told to Stripe. Pure.

A slice is a time, half-open, in Unix seconds. All customers share one grid, which divides days of UTC; at the beginning
of a segment, and where charging was switched off or on, a customer's slice is cut once more.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from edgeproxy.billing.rating import Span

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


class Piece(NamedTuple):
    """What is left of a slice for one segment."""

    span: Span
    segment: int
    """When the segment begins."""
    is_waived: bool


def pieces(span: Span, segments: Sequence[Span], waived: Sequence[Span] = ()) -> list[Piece]:
    """Cut a slice at the bounds of segments and of times without charging; what is in no segment is left out.

    Segments are in the order of time and do not overlap.
    """
    cuts = sorted({span.start, span.end, *_within(span, segments), *_within(span, waived)})
    starts = [segment.start for segment in segments]
    found = []
    for start, end in pairwise(cuts):
        place = bisect_right(starts, start) - 1
        if place >= 0 and start < segments[place].end:
            free = any(one.start <= start < one.end for one in waived)
            found.append(Piece(Span(start, end), segments[place].start, free))
    return found


def _within(span: Span, bounds: Sequence[Span]) -> Iterable[int]:
    return (at for one in bounds for at in one if span.start < at < span.end)
