"""Slices: how long they are, when they are complete, and how they are cut."""

import pytest

from edgeproxy.billing.rating import Span
from edgeproxy.billing.slices import LENGTHS, Piece, adapted, following, is_complete, length, pieces

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
    assert length(pairs, rate) == minutes * MINUTE


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
    assert adapted(current * MINUTE, 5 * MINUTE, crowded, quiet) == then * MINUTE


def test_never_shorter_than_the_customers_allow() -> None:
    assert adapted(10 * MINUTE, 30 * MINUTE, 0, 0) == 30 * MINUTE
    assert adapted(60 * MINUTE, 30 * MINUTE, 0, HOUR) == 30 * MINUTE


def test_a_slice_ends_where_the_grid_does_whatever_it_begins_with() -> None:
    assert following(0, HOUR) == Span(0, HOUR)
    assert following(5 * MINUTE, HOUR) == Span(5 * MINUTE, HOUR)
    assert following(23 * HOUR, 12 * HOUR) == Span(23 * HOUR, 24 * HOUR)


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
def test_a_slice_is_complete_once_every_edge_has_passed_it_or_after_15_minutes(
    now: float, watermarks: list[int | None], complete: bool
) -> None:
    assert is_complete(Span(0, HOUR), now, watermarks) is complete


def test_a_slice_is_cut_at_the_bounds_of_segments() -> None:
    segments = [Span(0, 1000), Span(1000, 5000)]
    assert pieces(Span(600, 1200), segments) == [
        Piece(Span(600, 1000), 0, False),
        Piece(Span(1000, 1200), 1000, False),
    ]
    assert pieces(Span(1200, 1800), segments) == [Piece(Span(1200, 1800), 1000, False)]


def test_what_is_in_no_segment_is_left_out() -> None:
    assert pieces(Span(0, 600), [Span(300, 400)]) == [Piece(Span(300, 400), 300, False)]
    assert pieces(Span(0, 600), []) == []
    assert pieces(Span(0, 600), [Span(900, 1000)]) == []


def test_what_is_waived_is_a_piece_of_its_own() -> None:
    assert pieces(Span(0, 600), [Span(0, 5000)], [Span(120, 240), Span(540, 900)]) == [
        Piece(Span(0, 120), 0, False),
        Piece(Span(120, 240), 0, True),
        Piece(Span(240, 540), 0, False),
        Piece(Span(540, 600), 0, True),
    ]
