"""When periods begin and end."""

from calendar import timegm
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.rater import Span

YEARS = st.integers(timegm((2020, 1, 1, 0, 0, 0)), timegm((2036, 12, 31, 23, 59, 59)))


def at(*moment: int) -> int:
    return timegm((*moment, *(0,) * (6 - len(moment))))


@pytest.mark.parametrize(
    ("now", "anchor", "start", "end"),
    [
        ((2027, 1, 16, 12), None, (2027, 1, 1), (2027, 2, 1)),
        ((2027, 12, 31, 23, 59, 59), None, (2027, 12, 1), (2028, 1, 1)),
        ((2027, 1, 16, 12), (2027, 1, 16, 12), (2027, 1, 16, 12), (2027, 2, 16, 12)),
        ((2027, 2, 16, 11, 59), (2027, 1, 16, 12), (2027, 1, 16, 12), (2027, 2, 16, 12)),
        ((2027, 2, 28, 5), (2027, 1, 31, 6), (2027, 1, 31, 6), (2027, 2, 28, 6)),
        ((2027, 3, 1), (2027, 1, 31, 6), (2027, 2, 28, 6), (2027, 3, 31, 6)),
        ((2028, 3, 1), (2027, 1, 31), (2028, 2, 29), (2028, 3, 31)),
    ],
)
def test_a_period_is_a_month_from_the_first_or_from_the_day_of_subscription(
    now: tuple[int, ...], anchor: tuple[int, ...] | None, start: tuple[int, ...], end: tuple[int, ...]
) -> None:
    period = periods.period_at(at(*now), None if anchor is None else at(*anchor))
    assert period == Span(at(*start), at(*end))


@given(YEARS, st.none() | YEARS)
def test_periods_follow_each_other_without_a_gap(now: int, anchor: int | None) -> None:
    anchor = None if anchor is None else periods.floor_to_minute(min(anchor, now))
    sequence = [periods.period_at(now, anchor)]
    assert sequence[0].start <= now < sequence[0].end
    for _ in range(13):
        sequence.append(periods.period_after(sequence[-1], anchor))
    assert all(one.end == other.start and one.start < one.end for one, other in pairwise(sequence))
    assert periods.year_of_period(sequence[0], anchor) == Span(sequence[0].start, sequence[11].end)


def test_plan_change_starts_at_its_minute_unless_the_segment_began_in_it() -> None:
    began = at(2027, 1, 16, 12)
    assert periods.compute_boundary(began + 3601.5, began) == began + 3600
    assert periods.compute_boundary(began + 59.9, began) == began + 60


def test_a_period_is_called_by_its_first_day() -> None:
    assert periods.format_period(Span(at(2027, 1, 1), at(2027, 2, 1))) == "2027-01-01"
