"""Slices of time into which usage is cut before it is sent to Stripe. Pure.

A slice is half-open, in Unix seconds. All customers share one grid, which divides days of UTC. A customer's slice is
cut once more at the beginning of a segment, and where charging was switched off or on.
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
"""Seconds after its end in which edges may still report a slice; what comes later is a revision."""
CROWDED_SECONDS = 60.0
"""Seconds of rate-limit refusals after which slices become longer."""
QUIET_SECONDS = 3600.0
"""Seconds without refusals after which slices become shorter."""


def choose_length(pairs: int, rate: float) -> int:
    """Return the length of slices for so many active (customer, meter) pairs at an allowed rate of events a second.

    The shortest one that takes half of the rate and ten million rows a month at most; else a day.
    """
    for seconds in LENGTHS:
        if pairs / seconds <= rate / 2 and pairs * MONTH // seconds <= ROWS_A_MONTH_MAX:
            return seconds
    return LENGTHS[-1]


def adapt_length(current: int, shortest: int, crowded: float, quiet: float) -> int:
    """Return the next length: twice as many seconds after so many `crowded` ones, half of them after a `quiet` time;
    never below the shortest that `choose_length` allows."""
    if crowded >= CROWDED_SECONDS:
        return next((seconds for seconds in LENGTHS if seconds >= 2 * current), LENGTHS[-1])
    if quiet >= QUIET_SECONDS and current > shortest:
        return max(shortest, max((seconds for seconds in LENGTHS if seconds <= current // 2), default=LENGTHS[0]))
    return max(current, shortest)


def next_slice(since: int, seconds: int) -> Span:
    """Return the slice that begins at `since` on a grid of so many seconds: it ends where the grid's does."""
    return Span(since, since - since % seconds + seconds)


def is_complete(span: Span, now: float, watermarks: Iterable[int | None]) -> bool:
    """Return whether all usage of a slice has come: every edge has reported later times, or the wait is over.

    `watermarks` are the Unix seconds up to which each edge that is not retired has reported; None: nothing yet.
    """
    if now < span.end:
        return False
    return now >= span.end + LATE_SECONDS or all(mark is not None and mark >= span.end for mark in watermarks)


class MeteredSegment(NamedTuple):
    """A segment whose usage is sent to Stripe."""

    span: Span
    since: int = 0
    """The whole minute from which Stripe counts events of it; earlier usage is sent with what comes then."""
    is_final: bool = False
    """Whether Stripe has charged it: what comes now is on the next invoice."""


class Piece(NamedTuple):
    """The part of a slice that is of one segment."""

    span: Span
    segment: MeteredSegment
    is_waived: bool
    before: tuple[Span, ...] = ()
    """Earlier times whose usage it has too: before Stripe counted the segment's events."""

    @property
    def start(self) -> int:
        """The first second of its usage."""
        return (*self.before, self.span)[0].start


def cut_pieces(span: Span, segments: Sequence[MeteredSegment], waived: Sequence[Span] = ()) -> list[Piece]:
    """Cut a slice at the bounds of segments and of times without charging. Parts in no segment are left out, and parts
    that end before Stripe counts the segment's events.

    Segments are in the order of time and do not overlap.
    """
    starts = [segment.span.start for segment in segments]
    pieces = []
    for part in _cut_span(span, [*waived, *(segment.span for segment in segments)]):
        position = bisect_right(starts, part.start) - 1
        if position < 0 or part.start >= segments[position].span.end:
            continue
        segment = segments[position]
        since = _first_event_time(segment, waived)
        if _is_in(part.start, waived):
            pieces.append(Piece(part, segment, True))
        elif part.start > since:
            pieces.append(Piece(part, segment, False))
        elif part.end >= since + MINUTE:
            earlier = _cut_span(Span(segment.span.start, part.start), waived)
            pieces.append(
                Piece(
                    part,
                    segment,
                    False,
                    tuple(earlier_part for earlier_part in earlier if not _is_in(earlier_part.start, waived)),
                )
            )
    return pieces


def _first_event_time(segment: MeteredSegment, waived: Sequence[Span]) -> int:
    """Return the second from which a segment has events."""
    since = max(segment.since, segment.span.start)
    return next((waiver.end for waiver in waived if waiver.start <= since < waiver.end), since)


def _cut_span(span: Span, bounds: Iterable[Span]) -> list[Span]:
    """Return the parts of a time, cut at the bounds of others; an empty time has none."""
    inside = {at for bound in bounds for at in bound if span.start < at < span.end}
    cuts = sorted({*span, *inside})
    return [Span(start, end) for start, end in pairwise(cuts)]


def _is_in(at: int, spans: Iterable[Span]) -> bool:
    return any(span.start <= at < span.end for span in spans)
