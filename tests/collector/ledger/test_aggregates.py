"""Aggregates of readings equal a second-by-second reference."""

import random

import pytest

from edgeproxy.collector.ledger.aggregates import GAUGES, Reading


def levels(before: dict[str, int], readings: list[Reading], since: int, until: int) -> list[int]:
    """Return the gauge's level in each second, computed the simple way."""
    found = []
    for second in range(since, until):
        total = 0
        for series in {*before, *(reading.series for reading in readings)}:
            own = [reading for reading in readings if reading.series == series and reading.second <= second]
            latest = max((reading.second for reading in own), default=None)
            total += max(reading.value for reading in own if reading.second == latest) if own else before.get(series, 0)
        found.append(total)
    return found


def test_gauge_aggregates_equal_a_second_by_second_reference(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(300):
        since = chance.randrange(100)
        until = since + chance.randrange(1, 30)
        before = {series: chance.randrange(9) for series in chance.sample("abc", chance.randrange(3))}
        readings = [
            Reading(chance.randrange(since, until), chance.choice("abc"), chance.randrange(9))
            for _ in range(chance.randrange(6))
        ]
        expected = levels(before, readings, since, until)
        chance.shuffle(readings)
        found = {name: whole(before, sorted(readings), since, until) for name, whole in GAUGES.items()}
        average = sum(expected) // len(expected)
        assert found == {"max": max(expected), "last": expected[-1], "average": average, "held": sum(expected)}


@pytest.mark.parametrize(("name", "level"), [("max", 10), ("last", 10), ("average", 10)])
def test_gauge_keeps_its_level_without_new_readings(name: str, level: int) -> None:
    assert GAUGES[name]({"": 10}, [], 0, 60) == level


def test_move_between_series_in_one_second_counts_once() -> None:
    moved = [Reading(5, "a", 0), Reading(5, "b", 7)]
    assert GAUGES["max"]({"a": 7}, moved, 0, 10) == 7
