"""Usual and unusual usage, decided on histories of values."""

import gzip
import math
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from edgeproxy.collector.anomalies import history
from edgeproxy.collector.anomalies.baseline import DAY, HOUR, WEEK, WEEKS, Baseline, cosine, median, root, unroot
from edgeproxy.collector.anomalies.history import (
    BEGIN,
    InvalidHistoryError,
    draw_histories,
    generate_histories,
    read_history,
)
from edgeproxy.collector.anomalies.judgement import Finding, judge_day, judge_hour, judge_pause, merge_findings
from edgeproxy.collector.anomalies.replay import format_result, replay_histories
from edgeproxy.config.collector.anomalies import Thresholds

NOW = BEGIN + 9 * WEEK
USUAL = Thresholds()


def shape(hour: int) -> float:
    """Return the usage of an hour: each day has a morning peak, and one day a week is quiet."""
    return (100 + 900 * math.exp(-(((hour % 24 - 10) / 3) ** 2))) * (0.5 if hour // 24 % 7 == 3 else 1.0)


def past(weeks: int = 9) -> dict[int, int]:
    chance = random.Random(5)
    since = NOW - weeks * WEEK
    return {hour: history.draw_poisson(chance, shape((hour - BEGIN) // HOUR)) for hour in range(since, NOW, HOUR)}


def baseline(hours: dict[int, int]) -> Baseline:
    created = Baseline.compute(hours, NOW)
    assert created is not None
    return created


def day_like(factor: float = 1.0, moved: int = 0, day: int = NOW) -> dict[int, int]:
    """Return a day of the usual shape, multiplied by `factor` and shifted by `moved` hours."""
    return {day + (n + moved) % 24 * HOUR: round(factor * shape((day - BEGIN) // HOUR + n)) for n in range(24)}


def test_baseline_needs_three_weeks_and_follows_the_hour_of_the_week() -> None:
    assert Baseline.compute({}, NOW) is None
    assert Baseline.compute(past(2), NOW) is None
    assert Baseline.compute(past(3), NOW) is not None
    created = baseline(past())
    for hour in range(0, 168, 5):
        assert created.expected(NOW + hour * HOUR) == pytest.approx(shape(hour), rel=0.2)
    assert created.expected_day(NOW + 3 * DAY) == pytest.approx(0.5 * created.expected_day(NOW), rel=0.1)
    assert created.likeness > 0.98
    assert Baseline.from_bytes(created.to_bytes()) == created
    # Later usage, and usage older than the counted weeks, is ignored.
    assert baseline({**past(), NOW: 10**9, NOW - (WEEKS + 1) * WEEK - HOUR: 10**9}) == created


def test_hour_with_more_corrections_than_usage_counts_as_unused() -> None:
    hours, hour = past(), NOW - DAY
    assert baseline({**hours, hour: -5000}).middles == baseline({**hours, hour: 0}).middles
    created = baseline(hours)
    assert created.score(NOW, -5000) == created.score(NOW, 0)
    assert created.day_score(NOW, -5000) == created.day_score(NOW, 0)


def test_earlier_peaks_do_not_hide_later_ones() -> None:
    hours = past()
    for week in (1, 4):
        for n in range(6):
            hours[NOW - week * WEEK + (9 + n) * HOUR] *= 20
    created = baseline(hours)
    assert created.expected(NOW + 10 * HOUR) == pytest.approx(1000, rel=0.2)
    found = judge_hour(created, {NOW + 10 * HOUR: 3000}, NOW + 10 * HOUR, USUAL)
    assert found is not None
    assert (found.kind, found.severity, found.is_more) == ("volume", "warn", True)


def test_large_hourly_anomaly_is_found_at_once_and_small_one_after_two_hours() -> None:
    created, hour = baseline(past()), NOW + 10 * HOUR
    low, value = Thresholds(score=3.0), 1600
    assert 3.0 <= created.score(hour, value) < 6.0
    assert judge_hour(created, {hour: value}, hour, low) is None
    assert judge_hour(created, {hour: value, hour - HOUR: 4000}, hour, low) is not None
    assert judge_hour(created, {hour: 10_000}, hour, low) is not None
    assert judge_hour(created, {hour: 10_000}, hour, Thresholds(score=90.0)) is None
    assert judge_hour(created, {}, hour, low) is None, "an hour of nothing is for the day to tell"
    loud = judge_hour(created, {hour: 10_000}, hour, low)
    assert loud is not None
    assert loud.severity == "page"


@pytest.mark.parametrize(
    ("day", "kind", "severity", "more"),
    [
        (day_like(), None, "", True),
        (day_like(1.3), None, "", True),
        (day_like(3), "volume", "warn", True),
        (day_like(8), "volume", "page", True),
        ({}, "volume", "warn", False),
        (day_like(0.2), "volume", "warn", False),
        (day_like(1, 12), "pattern", "info", True),
        (day_like(3, 12), "both", "page", True),
        (day_like(0.3, 12), "both", "warn", False),
    ],
)
def test_daily_anomaly_judges_volume_and_hourly_pattern(
    day: dict[int, int], kind: str | None, severity: str, more: bool
) -> None:
    found = judge_day(baseline(past()), day, NOW, USUAL)
    if kind is None or found is None:
        assert (kind, found) == (None, None)
        return
    assert (found.kind, found.severity) == (kind, severity)
    assert kind == "pattern" or found.is_more == more
    assert found.action
    assert found.details["kind"] == kind


def test_low_usage_is_not_judged_by_its_hours() -> None:
    few = {hour: value // 500 for hour, value in past().items()}
    created = baseline(few)
    assert created.compute_likeness(day_like(1 / 500, 12), NOW) is None
    assert judge_day(created, day_like(1 / 500, 12), NOW, USUAL) is None


def test_pause_needs_a_threshold_and_substantial_usage() -> None:
    created, hour = baseline(past()), NOW + 10 * HOUR
    five = Thresholds(pause=5.0)
    assert judge_pause(created, {hour: 6000}, hour, five) is not None
    assert judge_pause(created, {hour: 4000}, hour, five) is None
    assert judge_pause(created, {hour: 6000}, hour, USUAL) is None
    assert judge_pause(created, {NOW + HOUR: 900}, NOW + HOUR, five) is None, "nine times a little"


def test_findings_of_an_hour_and_its_day_are_merged() -> None:
    hour = Finding("volume", "warn", 9.0, None, 300, 100.0, NOW)
    day = Finding("pattern", "info", 1.0, 0.5, 1000, 900.0, NOW)
    assert merge_findings(None, hour) == merge_findings(hour, None) == hour
    whole = merge_findings(hour, day)
    assert whole is not None
    assert (whole.kind, whole.severity, whole.likeness, whole.value) == ("both", "page", 0.5, 300)
    assert merge_findings(hour, hour._replace(severity="page", value=900)) == hour._replace(severity="page", value=900)


def test_median_root_and_cosine_of_small_inputs() -> None:
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 2, 3]) == 2.5
    assert unroot(root(1234)) == pytest.approx(1234)
    assert cosine([1, 0], [0, 1]) == 0
    assert cosine([1, 2], [2, 4]) == pytest.approx(1)


def test_replay_finds_planted_anomalies_and_is_deterministic() -> None:
    figures = replay_histories(generate_histories(12, 10, 1), USUAL, 1)
    assert figures == replay_histories(generate_histories(12, 10, 1), USUAL, 1)
    assert figures.recall > 0.6
    assert figures.precision > 0.8
    assert figures.false_alarms < 0.5
    assert "recall" in format_result(figures)
    quiet = replay_histories(generate_histories(8, 5, 2), Thresholds(score=100.0, similarity=0.0), 2)
    assert (quiet.detected.total(), quiet.right, quiet.false.total()) == (0, 0, 0), "what nobody looks for is not found"
    unlabelled = replay_histories(generate_histories(8, 5, 2), USUAL, 2, planting=False)
    assert unlabelled.planted.total() == 0


def test_histories_are_read_from_logs_and_ledger_exports(tmp_path: Path) -> None:
    log = tmp_path / "access.log.gz"
    lines = [
        f'192.0.2.1 - - [{day}/May/2015:{hour:02}:05:03 +0000] "GET / HTTP/1.1" 200 1' for day, hour in some_hours()
    ]
    log.write_bytes(gzip.compress("\n".join(lines).encode()))
    created = read_history(log, 4, 3, 1)
    assert created == read_history(log, 4, 3, 1)
    assert len(created) == 3
    assert all(len(hours) == 4 * 168 for hours in created.values())
    assert created != draw_histories({0: 1, 3600: 2, 7200: 3}, 4, 3, 1)

    table = tmp_path / "usage.csv"
    rows = ["2026-11-01T00:00:00Z,acme,requests,5", "2026-11-01T01:00:00Z,acme,requests,7"]
    table.write_text("\n".join(["hour,customer,meter,value", *rows]))
    ((subject, hours),) = read_history(table, 4, 1, 1).items()
    assert (subject, sorted(hours.values())) == (("acme", "requests"), [5, 7])

    table.write_text("hour,customer,meter,value\nnever,acme,requests,5\n")
    for bad in (table, tmp_path / "none.csv", tmp_path):
        with pytest.raises(InvalidHistoryError):
            read_history(bad, 4, 1, 1)
    table.write_text("nothing\nof\nthe kind\n")
    with pytest.raises(InvalidHistoryError, match="neither an access log"):
        read_history(table, 4, 1, 1)


def some_hours() -> Iterable[tuple[int, int]]:
    return ((day, hour) for day in (17, 18, 19) for hour in range(24) for _ in range(10 + hour))
