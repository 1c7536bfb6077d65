"""Slices: how long they are, when they are complete, and how they are cut."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.collector.billing.meter_export.slices import (
    LENGTHS,
    MeteredSegment,
    Piece,
    adapt_length,
    choose_length,
    cut_pieces,
    is_complete,
    next_slice,
)
from edgeproxy.collector.billing.rating.rater import Span

MINUTE, HOUR = 60, 3600


@pytest.mark.parametrize(
    ("pairs", "rate", "minutes"),
    [
        (0, 1000, 5),
        (1_157, 1000, 5),
        (1_158, 1000, 10),
        (5_000, 1000, 30),  # 1,000 customers and 5 meters.
        (5_000, 25, 30),
        (100_000, 25, 240 * 2),
        (500_000, 1000, 1440),
        (10_000_000, 25, 1440),
    ],
)
def test_the_shortest_that_takes_half_of_the_rate_and_ten_million_rows(pairs: int, rate: float, minutes: int) -> None:
    assert choose_length(pairs, rate) == minutes * MINUTE


def test_every_length_divides_a_day_and_those_below_an_hour_an_hour() -> None:
    assert all(24 * HOUR % seconds == 0 for seconds in LENGTHS)
    assert all(HOUR % seconds == 0 for seconds in LENGTHS if seconds < HOUR)


@pytest.mark.parametrize(
    ("current", "crowded", "quiet", "then"),
    [
        (5, 59, 0, 5),
        (5, 60, 0, 10),
        (15, 60, 0, 30),
        (180, 60, 0, 360),
        (1440, 60, 0, 1440),
        (720, 60, 0, 1440),
        (10, 0, 3599, 10),
        (10, 0, 3600, 5),
        (5, 0, 3600, 5),
        (15, 0, 3600, 5),
        (180, 0, 3600, 60),
    ],
)
def test_longer_after_a_minute_of_refusals_and_shorter_after_a_quiet_hour(
    current: int, crowded: float, quiet: float, then: int
) -> None:
    assert adapt_length(current * MINUTE, 5 * MINUTE, crowded, quiet) == then * MINUTE


def test_never_shorter_than_the_customers_allow() -> None:
    assert adapt_length(10 * MINUTE, 30 * MINUTE, 0, 0) == 30 * MINUTE
    assert adapt_length(60 * MINUTE, 30 * MINUTE, 0, HOUR) == 30 * MINUTE


def test_slice_ends_at_the_next_grid_line() -> None:
    assert next_slice(0, HOUR) == Span(0, HOUR)
    assert next_slice(5 * MINUTE, HOUR) == Span(5 * MINUTE, HOUR)
    assert next_slice(23 * HOUR, 12 * HOUR) == Span(23 * HOUR, 24 * HOUR)


@pytest.mark.parametrize(
    ("now", "watermarks", "complete"),
    [
        (HOUR - 1, [HOUR], False),
        (HOUR, [HOUR, HOUR + 60], True),
        (HOUR, [], True),
        (HOUR, [HOUR, HOUR - 60], False),
        (HOUR, [None], False),
        (HOUR + 899, [None], False),
        (HOUR + 900, [None, 0], True),
    ],
)
def test_slice_is_complete_after_all_watermarks_or_15_minutes(
    now: float, watermarks: list[int | None], complete: bool
) -> None:
    assert is_complete(Span(0, HOUR), now, watermarks) is complete


def segment_of(start: int, end: int, since: int = 0) -> MeteredSegment:
    return MeteredSegment(Span(start, end), since)


def test_a_slice_is_cut_at_the_bounds_of_segments() -> None:
    segments = [segment_of(0, 1020), segment_of(1020, 5000)]
    assert cut_pieces(Span(600, 1200), segments) == [
        Piece(Span(600, 1020), segments[0], False),
        Piece(Span(1020, 1200), segments[1], False),
    ]
    assert cut_pieces(Span(1200, 1800), segments) == [Piece(Span(1200, 1800), segments[1], False)]


def test_pieces_leave_out_time_without_a_segment() -> None:
    metered_segment = segment_of(300, 400)
    assert cut_pieces(Span(0, 600), [metered_segment]) == [Piece(Span(300, 400), metered_segment, False)]
    assert cut_pieces(Span(0, 600), []) == []
    assert cut_pieces(Span(0, 600), [segment_of(900, 1000)]) == []


def test_waived_span_becomes_a_separate_piece() -> None:
    metered_segment = segment_of(0, 5000)
    assert cut_pieces(Span(0, 600), [metered_segment], [Span(120, 240), Span(540, 900)]) == [
        Piece(Span(0, 120), metered_segment, False),
        Piece(Span(120, 240), metered_segment, True),
        Piece(Span(240, 540), metered_segment, False),
        Piece(Span(540, 600), metered_segment, True),
    ]


def test_usage_before_stripe_counts_a_segment_is_in_the_first_slice_after_that() -> None:
    metered_segment = segment_of(300, 9000, since=1260)
    assert cut_pieces(Span(0, 600), [metered_segment]) == cut_pieces(Span(600, 1200), [metered_segment]) == []
    assert cut_pieces(Span(1200, 1260), [metered_segment]) == [], "there is no minute in it that Stripe counts"
    (first,) = cut_pieces(Span(1200, 1800), [metered_segment])
    assert first == Piece(Span(1200, 1800), metered_segment, False, (Span(300, 1200),))
    assert first.start == 300
    assert cut_pieces(Span(1800, 2400), [metered_segment]) == [Piece(Span(1800, 2400), metered_segment, False)]
    assert cut_pieces(Span(1260, 1800), [metered_segment]) == [
        Piece(Span(1260, 1800), metered_segment, False, (Span(300, 1260),))
    ]


def test_span_waived_before_stripe_counts_becomes_a_separate_piece() -> None:
    metered_segment = segment_of(300, 9000, since=1260)
    free = [Span(480, 540), Span(1200, 1380)]
    assert cut_pieces(Span(300, 600), [metered_segment], free) == [Piece(Span(480, 540), metered_segment, True)]
    assert cut_pieces(Span(1200, 1800), [metered_segment], free) == [
        Piece(Span(1200, 1380), metered_segment, True),
        Piece(Span(1380, 1800), metered_segment, False, (Span(300, 480), Span(540, 1200))),
    ]


@given(st.data())
def test_each_minute_is_in_one_piece_for_any_grid(data: st.DataObject) -> None:
    minutes = st.integers(0, 60)
    start, since = 60 * data.draw(st.integers(0, 5)), 60 * data.draw(minutes)
    bounds = sorted({0, 90 * 60, *(60 * at for at in data.draw(st.lists(minutes, max_size=8)))})
    free = data.draw(st.lists(minutes, max_size=4, unique=True).map(sorted))
    waived = [Span(60 * one, 60 * other) for one, other in zip(free[::2], free[1::2], strict=False)]
    metered_segment = MeteredSegment(Span(start, 90 * 60), since)
    pieces = [piece for span in pairwise(bounds) for piece in cut_pieces(Span(*span), [metered_segment], waived)]
    minute_counts = Counter(
        at for piece in pieces for part in (*piece.before, piece.span) for at in range(part.start, part.end, 60)
    )
    assert minute_counts == Counter(range(start, 90 * 60, 60))
    assert len({piece.start for piece in pieces}) == len(pieces), "each has a place of its own"
    for piece in pieces:
        free_minutes = {at for span in waived for at in range(span.start, span.end, 60)}
        assert piece.is_waived == (piece.span.start in free_minutes)
        assert piece.is_waived or piece.span.end >= since + 60
