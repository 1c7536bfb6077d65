"""The slices of time that usage is cut into before it is sent to Stripe. Pure.

A slice is half-open, in Unix seconds. All customers share one grid, which divides UTC days. A customer's slice is cut
further at the start of a segment, and where charging was switched off or on.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from edgeproxy.collector.billing.meter_export.meter_keys import UsageSource
from edgeproxy.collector.billing.rating.rater import Span

MINUTE, DAY = 60, 86400
LENGTHS: Sequence[int] = [minutes * MINUTE for minutes in (5, 10, 15, 30, 60, 120, 180, 240, 360, 480, 720, 1440)]
"""The possible lengths of a slice in seconds. Each divides a day."""
ROWS_A_MONTH_MAX = 10_000_000
MONTH = 30 * DAY
LATE_SECONDS = 15 * MINUTE
"""Edges may report a slice until this many seconds after its end. Later usage is a revision."""
CROWDED_SECONDS = 60.0
"""After this many seconds of rate-limit refusals, slices become longer."""
QUIET_SECONDS = 3600.0
"""After this many seconds without refusals, slices become shorter."""


def choose_length(pairs: int, rate: float) -> int:
    """Return the length of slices for a number of active (customer, meter) pairs and a rate of events per second.

    It is the shortest length that needs at most half of the rate and ten million rows a month, else a day.
    """
    for seconds in LENGTHS:
        if pairs / seconds <= rate / 2 and pairs * MONTH // seconds <= ROWS_A_MONTH_MAX:
            return seconds
    return LENGTHS[-1]


def adapt_length(current: int, shortest: int, crowded: float, quiet: float) -> int:
    """Return the next length in seconds: doubled after `crowded` seconds of refusals, halved after `quiet` seconds.

    It is never below the shortest that `choose_length` allows.
    """
    if crowded >= CROWDED_SECONDS:
        return next((seconds for seconds in LENGTHS if seconds >= 2 * current), LENGTHS[-1])
    if quiet >= QUIET_SECONDS and current > shortest:
        return max(shortest, max((seconds for seconds in LENGTHS if seconds <= current // 2), default=LENGTHS[0]))
    return max(current, shortest)


def next_slice(since: int, seconds: int) -> Span:
    """Return the slice that begins at `since` and ends at the next bound of a grid of this many seconds."""
    return Span(since, since - since % seconds + seconds)


def is_complete(span: Span, now: float, watermarks: Iterable[int | None]) -> bool:
    """Return whether all usage of a slice has arrived: every edge has reported later times, or the wait is over.

    `watermarks` has one element for each edge that is not retired: the Unix second that it has reported up to, or None
    before its first report.
    """
    if now < span.end:
        return False
    # An edge that is gone must not hold the export of all others for ever.
    return now >= span.end + LATE_SECONDS or all(mark is not None and mark >= span.end for mark in watermarks)


class MeteredSegment(NamedTuple):
    """A segment whose usage is sent to Stripe."""

    span: Span
    since: int = 0
    """The first whole minute that Stripe counts events for. Earlier usage is sent with the usage after it."""
    is_final: bool = False
    """True if Stripe has charged it. Usage that arrives now goes on the next invoice."""
    source: UsageSource | None = None
    """The usage that is sent. None means all usage of the meter."""


class Piece(NamedTuple):
    """The part of a slice within one segment."""

    span: Span
    segment: MeteredSegment
    is_waived: bool
    before: tuple[Span, ...] = ()
    """Earlier times whose usage it includes, from before Stripe counted the segment's events."""

    @property
    def start(self) -> int:
        """The first second of its usage."""
        return (*self.before, self.span)[0].start


def cut_pieces(span: Span, segments: Sequence[MeteredSegment], waived: Sequence[Span] = ()) -> list[Piece]:
    """Cut a slice at the bounds of segments and of times without charging.

    Parts outside all segments are left out, and parts that end before Stripe counts the segment's events. Segments are
    in order of time and do not overlap.
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
        # Stripe begins to count within this part. Its row also has the usage before that.
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
    """Return the first second of a segment's events."""
    since = max(segment.since, segment.span.start)
    return next((waiver.end for waiver in waived if waiver.start <= since < waiver.end), since)


def _cut_span(span: Span, bounds: Iterable[Span]) -> list[Span]:
    """Return the parts of a span cut at the bounds of others. An empty span has no parts."""
    inside = {at for bound in bounds for at in bound if span.start < at < span.end}
    cuts = sorted({*span, *inside})
    return [Span(start, end) for start, end in pairwise(cuts)]


def _is_in(at: int, spans: Iterable[Span]) -> bool:
    return any(span.start <= at < span.end for span in spans)
