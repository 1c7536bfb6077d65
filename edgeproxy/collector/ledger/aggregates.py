"""Aggregates of a gauge's readings: peak, last level, average over time. Pure.

A gauge, such as seats or gigabytes, keeps its level until the next reading, through any number of months. A gauge with
dimensions has a level per series, and its own level is their sum. If a series has several readings in one second, the
highest counts, so the order of arrival does not matter.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Final, Literal, NamedTuple

from edgeproxy.config.meters import AggregateName

ReadAs = AggregateName | Literal["held"]
"""The aggregate of readings: the meter's, or level-seconds."""


class Reading(NamedTuple):
    """The level of a series from a Unix second on."""

    second: int
    series: str
    value: int


def iterate_levels(before: Mapping[str, int], readings: Iterable[Reading], since: int) -> Iterator[tuple[int, int]]:
    """Yield each second when the gauge's level may change, from `since` on, and its level then.

    `before` are the levels of its series at `since`; `readings` are in order, none before `since`.
    """
    levels = dict(before)
    total = sum(levels.values())
    yield since, total
    for second, some in groupby(readings, lambda reading: reading.second):
        for reading in some:
            total += reading.value - levels.get(reading.series, 0)
            levels[reading.series] = reading.value
        yield second, total


def compute_peak(before: Mapping[str, int], readings: Iterable[Reading], since: int, until: int) -> int:
    """Compute the highest level. At `since` a reading of that second replaces the earlier level."""
    levels = dict(iterate_levels(before, readings, since))
    return max(levels.values())


def compute_last(before: Mapping[str, int], readings: Iterable[Reading], since: int, until: int) -> int:
    """Compute the level at the end."""
    *_, (_, level) = iterate_levels(before, readings, since)
    return level


def compute_level_seconds(before: Mapping[str, int], readings: Iterable[Reading], since: int, until: int) -> int:
    """Compute the sum of all levels, each times its duration in seconds."""
    level_seconds = 0
    at, level = since, 0
    for second, now in iterate_levels(before, readings, since):
        level_seconds += level * (second - at)
        at, level = second, now
    return level_seconds + level * (until - at)


def compute_average(before: Mapping[str, int], readings: Iterable[Reading], since: int, until: int) -> int:
    """Compute the level-seconds divided by all seconds, rounded down."""
    return compute_level_seconds(before, readings, since, until) // (until - since)


Aggregate = Callable[[Mapping[str, int], Iterable[Reading], int, int], int]

GAUGES: Final[dict[str, Aggregate]] = {
    "max": compute_peak,
    "last": compute_last,
    "average": compute_average,
    "held": compute_level_seconds,
}
"""Functions that aggregate readings within a non-empty [since, until), by aggregate name."""
