"""Where usage leads by the end of a period."""

from edgeproxy.collector.billing.rating.projection import project_usage
from edgeproxy.collector.billing.rating.rater import Span, UsageKey
from edgeproxy.collector.ledger.projection import DAY, list_days

SEGMENT = Span(0, 31 * DAY)
NOW = 10 * DAY


def test_projection_uses_seven_whole_days_at_most() -> None:
    assert list_days(NOW, 0) == [Span(day * DAY, (day + 1) * DAY) for day in (9, 8, 7, 6, 5, 4, 3)]
    assert list_days(NOW, 8 * DAY + 60) == [Span(9 * DAY, NOW)], "a part of a day is none"
    assert list_days(NOW, NOW - 60) == list_days(NOW, NOW + 60) == []


def test_the_rest_of_the_period_is_as_the_low_and_as_the_high_day_value_by_value() -> None:
    old, new, gone = (UsageKey(SEGMENT, "tokens", value) for value in ("m1", "m2", "m3"))
    span = Span(*list_days(NOW, 7 * DAY)[0])
    days = [
        {key._replace(segment=span): used for key, used in usage.items()}
        for usage in ({old: 10, new: 1}, {old: 30, gone: -5}, {old: 20})
    ]
    low, high = project_usage({old: 100, gone: 9}, days, NOW, SEGMENT)
    assert low == {old: 100 + 21 * 10, new: 0, gone: 9}, "a day without a value is its low one"
    assert high == {old: 100 + 21 * 30, new: 21, gone: 9}


def test_projection_adds_no_usage_after_the_period() -> None:
    key = UsageKey(SEGMENT, "tokens")
    over = SEGMENT.end + 60
    assert project_usage({key: 5}, [{key: 100}] * 3, over, SEGMENT) == ({key: 5}, {key: 5})
