"""The times of the usage explorer."""

from calendar import timegm
from types import SimpleNamespace
from typing import Any

import pytest

from edgeproxy.collector.database.schema import DAY, HOUR
from edgeproxy.collector.pages.usage import fetch_splits
from edgeproxy.collector.pages.usage_explorer import (
    compute_counts,
    compute_groups,
    compute_series,
    fetch_counts,
    find_split_field,
    list_meters,
)
from edgeproxy.collector.pages.usage_periods import choose_period, choose_step
from edgeproxy.config.meters import Meter

NOW = timegm((2027, 3, 10, 15, 30, 20))
TODAY = timegm((2027, 3, 10, 0, 0, 0))


def test_a_part_of_a_day_is_held_against_as_much_of_one() -> None:
    period = choose_period({"range": "7"}, NOW)
    assert (period.since, period.until, period.step) == (TODAY - 6 * DAY, TODAY + 15 * HOUR + 31 * 60, "day")
    assert period.before == (TODAY - 13 * DAY, TODAY - 7 * DAY + 15 * HOUR + 31 * 60)
    assert len(period.list_starts()) == 7
    assert choose_period({"range": "today"}, NOW).step == "hour"
    assert choose_period({"range": "1h"}, NOW).until - choose_period({"range": "1h"}, NOW).since == HOUR


@pytest.mark.parametrize("name", ["1h", "today", "7", "own"])
@pytest.mark.parametrize("second", [0.01, 0.99, 1.0, 59.99])
def test_a_range_until_now_has_the_running_minute_from_its_first_second(name: str, second: float) -> None:
    query = {"range": name, "from": "2027-03-09", "to": "2027-03-10"}
    assert choose_period(query, TODAY + HOUR + second).until == TODAY + HOUR + 60


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"range": "7", "from": "2027-03-04", "to": "2027-03-10"}, ("7", 7)),  # Its own days were sent along.
        ({"range": "7", "from": "2027-03-01", "to": "2027-03-10"}, ("own", 10)),
        ({"from": "2027-03-10", "to": "2027-03-01"}, ("30", 30)),
        ({"range": "own", "from": "0001-01-01", "to": "9999-12-31"}, ("own", 25)),  # Two years, by month.
        ({"range": "own", "from": "x", "to": "2027-03-10"}, ("own", 30)),
        ({"range": "nonsense"}, ("30", 30)),
    ],
)
def test_a_query_chooses_a_period(query: dict[str, str], expected: tuple[str, int]) -> None:
    period = choose_period(query, NOW)
    assert (period.range, len(period.list_starts())) == expected


def test_a_step_leads_to_a_range_of_itself_in_shorter_steps() -> None:
    days = choose_period({"range": "7"}, NOW)
    assert days.list_links()[-2] == {"from": "2027-03-09", "to": "2027-03-09", "step": "hour"}
    hours = choose_period({"range": "own", **days.list_links()[-2]}, NOW)
    assert (hours.since, hours.until, hours.step, len(hours.list_links())) == (TODAY - DAY, TODAY, "hour", 24)
    assert hours.list_links()[-1] == {"from": "2027-03-09T23:00", "to": "2027-03-10T00:00", "step": "minute"}
    minutes = choose_period({"range": "own", **hours.list_links()[-1]}, NOW)
    assert (minutes.since, minutes.until, minutes.step, minutes.shift) == (TODAY - HOUR, TODAY, "minute", HOUR)
    assert minutes.list_links() == []
    several = {"from": hours.list_links()[0]["from"], "to": hours.list_links()[5]["to"]}
    assert len(choose_period({"range": "own", **several}, NOW).list_starts()) == 6, "as drawing over hours chooses"
    months = choose_period({"range": "own", "from": "2026-01-01", "to": "2027-03-10"}, NOW)
    assert months.list_links()[1] == {"from": "2026-02-01", "to": "2026-02-28", "step": "day"}


def test_usage_period_starts_within_the_history_of_the_tier() -> None:
    period = choose_period({"range": "90"}, NOW, TODAY - 3 * DAY)
    assert (period.since, len(period.list_starts())) == (TODAY - 3 * DAY, 88)


def test_a_step_is_as_long_as_the_bars_need() -> None:
    assert [choose_step("minute", seconds) for seconds in (HOUR, DAY, 30 * DAY, 400 * DAY)] == [
        *("minute", "hour", "day", "month"),
    ]
    assert choose_step("day", HOUR) == "day"


def test_usage_series_merge_small_groups_and_list_deleted_groups_last() -> None:
    rows = [
        {"day": "2027-03-09", "model": name, "value": used} for name, used in zip("abcde", (5, 9, 1, 7, 3), strict=True)
    ]
    counts = compute_counts(rows, "model", [TODAY - DAY, TODAY])
    assert (counts.steps, counts.total) == ([25, 0], 25)
    assert [(one.value, one.steps[0]) for one in compute_series(counts)] == [("b", 9), ("d", 7), ("a", 5), (None, 4)]
    before = compute_counts([{"day": "2027-03-09", "model": "z", "value": 4}], "model", [TODAY - DAY])
    assert [(group.value, group.used, group.before) for group in compute_groups(counts, before)][-1] == ("z", 0, 4)


@pytest.mark.parametrize(("used_keys", "is_split"), [(500, True), (501, False)])
async def test_usage_of_very_many_keys_is_not_read_by_step(used_keys: int, is_split: bool) -> None:
    meters = {"calls": Meter.model_validate({"count": "requests", "dimensions": {"key": 1000}})}
    groupings: list[str] = []

    async def fetch(_method: str, _path: str, *, query: dict[str, str]) -> dict[str, Any]:
        groupings.append(query["by"])
        by_day = {"day": "2027-03-10"} if query["by"].startswith("day") else {}
        keys: list[dict[str, str]] = [{"key": str(n)} for n in range(used_keys)] if "key" in query["by"] else [{}]
        return {"rows": [by_day | key | {"value": 2 if key else 2 * used_keys} for key in keys]}

    visit: Any = SimpleNamespace(fetch=fetch, site=SimpleNamespace(settings_now=lambda: SimpleNamespace(meters=meters)))
    counts = await fetch_counts(visit, {"meter": "calls", "by": "day,key"}, "key", [TODAY])
    assert (counts.steps, len(counts.groups), counts.split is not None) == ([2 * used_keys], used_keys, is_split)
    assert ("day,key" in groupings) == is_split


@pytest.mark.parametrize("dimensions", [{"key": 1000}, {"key": 1000, "model": 50}])
async def test_splits_of_the_month_have_the_usage_of_very_many_keys(dimensions: dict[str, int]) -> None:
    meters = {f"calls{n}": Meter.model_validate({"count": "requests", "dimensions": dimensions}) for n in range(5)}

    async def fetch(_method: str, _path: str, *, query: dict[str, str]) -> dict[str, Any]:
        fields = [(name, 1000 if name == "key" else 1) for name in query["by"].split(",")[1:]]
        (many, count), *_ = sorted(fields, key=lambda field: -field[1])
        rows = [{"meter": name, many: str(n), "value": 2000 // count} for name in meters for n in range(count)]
        limit = int(query["limit"])
        return {"rows": rows[:limit]} | ({"next": "more"} if len(rows) > limit else {})

    visit: Any = SimpleNamespace(fetch=fetch, site=SimpleNamespace(settings_now=lambda: SimpleNamespace(meters=meters)))
    splits = await fetch_splits(visit, "acme", TODAY)
    assert [(split.meter, split.total) for split in splits] == [(name, 2000) for name in meters] * len(dimensions)


def test_usage_page_starts_with_the_most_used_priced_meter_and_chosen_split() -> None:
    counted = {
        name: Meter.model_validate({"count": count})
        for name, count in {
            "calls": "requests",
            "sent": "bytes_out",
            "tokens": "events",
            "429": "refusals",
        }.items()
    }
    rows = [{"meter": name, "value": used} for name, used in (("calls", 7), ("sent", 900), ("tokens", 5), ("429", 50))]
    assert [meter.meter for meter in list_meters(rows, counted, ())] == ["calls", "sent", "tokens", "429"]
    assert [meter.meter for meter in list_meters(rows, counted, ("sent", "tokens"))] == [
        "sent",
        "tokens",
        "calls",
        "429",
    ]
    split = [{"route": route, "region": "eu", "model": model} for route, model in (("a", "m"), ("b", "m"))]
    fields = ["route", "region", "model"]
    assert find_split_field(split, fields) == "route"
    assert find_split_field([*split, split[0] | {"model": ""}], fields) == "model"
    assert find_split_field(split[:1], fields) == ""
