"""Where usage leads by the end of a period."""

from edgeproxy.collector.billing.rating.projection import DAY, compute_pace_span, project_usage
from edgeproxy.collector.billing.rating.rater import Span, UsageKey

SEGMENT = Span(0, 31 * DAY)
NOW = 10 * DAY


def test_the_pace_is_that_of_the_last_seven_days_or_of_as_long_as_there_is_a_customer() -> None:
    assert compute_pace_span(NOW, 0) == Span(3 * DAY, NOW)
    assert compute_pace_span(NOW, 8 * DAY) == Span(8 * DAY, NOW)
    assert compute_pace_span(NOW, NOW - 60) == Span(NOW - DAY, NOW)


def test_the_rest_of_the_period_is_added_at_that_pace_value_by_value() -> None:
    over = compute_pace_span(NOW, 0)
    old, new, gone = (UsageKey(SEGMENT, "tokens", value) for value in ("m1", "m2", "m3"))
    lately = {old._replace(segment=over): 70, new._replace(segment=over): 1, gone._replace(segment=over): -5}
    assert project_usage({old: 100, gone: 9}, lately, over, SEGMENT) == {old: 310, gone: 9, new: 3}


def test_nothing_is_added_once_the_period_is_over() -> None:
    over = Span(SEGMENT.end - DAY, SEGMENT.end + 60)
    key = UsageKey(SEGMENT, "tokens")
    assert project_usage({key: 5}, {key._replace(segment=over): 100}, over, SEGMENT) == {key: 5}
