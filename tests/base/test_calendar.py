from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.base.calendar import Period, period_of
from edgeproxy.base.clock import EPOCH

ZONES = sorted(zone for zone in available_timezones() if "/" in zone and not zone.startswith(("posix/", "right/")))
HOUR = 3600.0


def edge(text: str) -> float:
    """Edge time of a moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() - EPOCH


def day(zone: str, text: str) -> Period:
    return period_of(edge(text), "day", ZoneInfo(zone))


def hours(period: Period) -> float:
    return (period.until - period.since) / HOUR


# ---- days and months


def test_month_period_spans_its_calendar_month() -> None:
    for text, since, until in (
        ("2026-02-28T23:59:59.999999", "2026-02-01", "2026-03-01"),
        ("2028-02-29", "2028-02-01", "2028-03-01"),
        ("2026-12-31T12:00", "2026-12-01", "2027-01-01"),
        ("2027-01-01", "2027-01-01", "2027-02-01"),
    ):
        period = period_of(edge(text), "month", ZoneInfo("UTC"))
        assert (period.since, period.until) == (edge(since), edge(until))


@pytest.mark.parametrize(
    ("zone", "moment", "since", "length"),
    [
        ("Europe/Berlin", "2026-03-29T12:00", "2026-03-28T23:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00", "2026-10-24T22:00", 25),
        ("Australia/Lord_Howe", "2026-04-05T02:00", "2026-04-04T13:00", 24.5),
        ("Asia/Kathmandu", "2026-06-01T00:00", "2026-05-31T18:15", 24),
        ("Pacific/Kiritimati", "2026-06-01T10:00", "2026-06-01T10:00", 24),
        ("Etc/GMT+12", "2026-06-01T11:59", "2026-05-31T12:00", 24),
        # Midnight does not exist: the day begins at one.
        ("America/Sao_Paulo", "2018-11-04T12:00", "2018-11-04T03:00", 23),
        ("Asia/Beirut", "2027-03-28T12:00", "2027-03-27T22:00", 23),
        ("Africa/Cairo", "2026-04-24T12:00", "2026-04-23T22:00", 23),
        ("Atlantic/Azores", "2026-03-29T12:00", "2026-03-29T01:00", 23),
        # At midnight it is eleven once more, or midnight comes twice: the first of the two counts.
        ("America/Sao_Paulo", "2018-02-17T12:00", "2018-02-17T02:00", 25),
        ("Asia/Beirut", "2026-10-24T12:00", "2026-10-23T21:00", 25),
        ("Atlantic/Azores", "2026-10-25T12:00", "2026-10-25T00:00", 25),
        ("America/Havana", "2026-11-01T12:00", "2026-11-01T04:00", 25),
        # From eleven on it is the next day.
        ("America/Nuuk", "2026-03-28T12:00", "2026-03-28T02:00", 23),
        ("America/Nuuk", "2026-03-29T12:00", "2026-03-29T01:00", 24),
        # There was no 30 December.
        ("Pacific/Apia", "2011-12-30T09:59", "2011-12-29T10:00", 24),
        ("Pacific/Apia", "2011-12-30T10:00", "2011-12-30T10:00", 24),
    ],
)
def test_day_period_follows_clock_changes_of_its_zone(zone: str, moment: str, since: str, length: float) -> None:
    period = day(zone, moment)
    assert period.since == edge(since)
    assert hours(period) == length


def test_periods_contain_dates_up_to_the_year_9998() -> None:
    zone = ZoneInfo("Europe/Berlin")
    for text in ("2099-12-31T12:00", "2400-02-29T12:00", "9998-12-30T12:00"):
        for per in ("day", "month"):
            period = period_of(edge(text), per, zone)
            assert period.since <= edge(text) < period.until
    assert period_of(edge("2400-02-29T12:00"), "month", zone).until == edge("2400-02-29T23:00")


# ---- in all time zones there are


def local(now: float, zone: ZoneInfo) -> datetime:
    """Return the local date and time, computed by another library."""
    return datetime.fromtimestamp(now + EPOCH, UTC).astimezone(zone)


@given(
    zone=st.sampled_from(ZONES).map(ZoneInfo),
    # Calendars are told apart to a microsecond.
    now=st.one_of(st.integers(0, 35 * 365 * 86400), st.integers(0, 4 * 365 * 86400_000).map(lambda ms: ms / 1000)),
    per=st.sampled_from(("day", "month")),
)
def test_period_contains_exactly_its_day_or_month(zone: ZoneInfo, now: float, per: str) -> None:
    period = period_of(now, per, zone)
    assert period.since <= now < period.until
    span = slice(0, 10 if per == "day" else 7)
    name = local(now, zone).isoformat()[span]
    for inside in (period.since, (period.since + period.until) / 2, period.until - 1):
        assert local(inside, zone).isoformat()[span] == name
        assert period_of(inside, per, zone) == period
    assert local(period.since - 1, zone).isoformat()[span] < name < local(period.until, zone).isoformat()[span]
    assert period_of(period.until, per, zone).number == period.number + 1
    assert period_of(period.since - 1, per, zone).number == period.number - 1


@pytest.mark.parametrize("zone", [ZoneInfo(zone) for zone in ZONES[:: len(ZONES) // 60]], ids=str)
def test_days_follow_each_other_without_a_gap(zone: ZoneInfo) -> None:
    period = period_of(edge("2026-01-01T12:00"), "day", zone)
    for _ in range(800):
        following = period_of(period.until, "day", zone)
        assert following.since == period.until
        assert following.number == period.number + 1
        assert timedelta(hours=22) <= timedelta(hours=hours(following)) <= timedelta(hours=26)
        period = following


# ---- of plans and credits


def test_a_month_from_a_day_on_ends_on_that_day_or_on_the_last_one() -> None:
    zone, anchor = ZoneInfo("UTC"), int(edge("2027-01-31T12:00") + EPOCH)
    for at, number, since, until in (
        ("2027-01-31T12:00", 1, "2027-01-31T12:00", "2027-02-28T12:00"),
        ("2027-02-28T11:59", 1, "2027-01-31T12:00", "2027-02-28T12:00"),
        ("2027-02-28T12:00", 2, "2027-02-28T12:00", "2027-03-31T12:00"),
    ):
        assert period_of(edge(at), f"month@{anchor}", zone) == Period(number, edge(since), edge(until))


def test_unlimited_quota_has_one_period_of_over_a_year() -> None:
    now = edge("2027-01-31T12:00")
    period = period_of(now, "ever@3", ZoneInfo("UTC"))
    assert (period.number, period.since) == (1, 0.0)
    assert now + 366 * 86400 < period.until
    assert period_of(now + 1, "ever@3", ZoneInfo("UTC")) == period
