"""Hourly usage histories for replays of anomaly detection.

They are read from an access log or an export of the ledger, or generated. Changes that a detector should find can be
planted into them. All randomness follows from a seed.
"""

import csv
import gzip
import math
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TextIO

from edgeproxy.collector.anomalies.baseline import DAY, DAY_HOURS, HOUR, WEEK, Hours

BEGIN = 1_767_225_600 - 1_767_225_600 % WEEK
"""The Unix second when generated histories begin, a Thursday."""
LOG_TIME = re.compile(r"\[(\d{2}/[A-Z][a-z]{2}/\d{4}:\d{2}):\d{2}:\d{2} ([+-]\d{4})\]")
"""The hour of a request in the common and the combined log format."""
WEEK_HOURS = WEEK // HOUR
ORDINARY = 0.15
"""The standard deviation of an hour of a generated customer, relative to its mean."""

Subject = tuple[str, str]
"""A customer and a meter."""
Histories = dict[Subject, dict[int, int]]
"""The usage of each subject by the Unix second when the hour begins."""


class InvalidHistoryError(Exception):
    """A file contains no history. The message says why."""


class Planted(NamedTuple):
    """A planted change with its kind and its days."""

    what: str
    days: frozenset[int]


def read_history(file: Path, weeks: int, customers: int, seed: int) -> Histories:
    """Return the histories in a file: rows of `hour,customer,meter,value` from a ledger export, or an access log.

    A log of a few days has no weeks, so weeks of `customers` customers are drawn from its hours. Raises
    InvalidHistoryError.
    """
    open_text: Callable[..., TextIO] = gzip.open if file.suffix == ".gz" else open
    try:
        with open_text(file, "rt", encoding="utf-8", errors="replace") as lines:
            first = lines.readline()
            if {"hour", "customer", "meter", "value"} <= set(first.strip().split(",")):
                return _parse_export(csv.DictReader(lines, fieldnames=first.strip().split(",")))
            counts = _count_log_hours(first, lines)
    except (OSError, EOFError) as error:
        raise InvalidHistoryError(f"{file} cannot be read: {error}") from None
    if not counts:
        raise InvalidHistoryError(f"{file} is neither an access log nor rows of hour,customer,meter,value")
    return draw_histories(counts, weeks, customers, seed)


def _parse_export(rows: Iterator[dict[str, str]]) -> Histories:
    histories: Histories = defaultdict(lambda: defaultdict(int))
    try:
        for row in rows:
            hour = int(datetime.fromisoformat(row["hour"]).timestamp())
            histories[row["customer"], row["meter"]][hour - hour % HOUR] += int(row["value"])
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidHistoryError(f"a row is not hour,customer,meter,value: {error}") from None
    return {subject: dict(hours) for subject, hours in histories.items()}


def _count_log_hours(first: str, lines: Iterator[str]) -> dict[int, int]:
    counts: dict[int, int] = defaultdict(int)
    for line in (first, *lines):
        match = LOG_TIME.search(line)
        if match is not None:
            at = datetime.strptime(" ".join(match.groups()), "%d/%b/%Y:%H %z")
            counts[int(at.timestamp())] += 1
    return dict(counts)


def draw_histories(counts: Hours, weeks: int, customers: int, seed: int) -> Histories:
    """Return weeks whose hours are drawn from the counts at this time of day.

    The first and the last hour of the counts are left out, because they are incomplete.
    """
    first, last = min(counts), max(counts)
    counts_by_hour: dict[int, list[int]] = defaultdict(list)
    for hour in range(first + HOUR, last, HOUR):
        counts_by_hour[hour // HOUR % DAY_HOURS].append(counts.get(hour, 0))
    histories: Histories = {}
    for number in range(customers):
        rng = random.Random(f"{seed}:{number}")
        hours = range(BEGIN, BEGIN + weeks * WEEK, HOUR)
        values = {
            hour: draw_poisson(rng, rng.choice(counts_by_hour[hour // HOUR % DAY_HOURS] or [0])) for hour in hours
        }
        histories[f"drawn-{number + 1}", "requests"] = values
    return histories


# ---- generated

Shape = Callable[[int], float]
"""The usual usage of an hour, by its number since BEGIN."""


def office_usage(hour: int) -> float:
    """Return the usage of people at work: 8 to 18 o'clock on five days."""
    day, at = hour // DAY_HOURS % 7, hour % DAY_HOURS
    return 40 + (0 if day in (2, 3) else 600 * math.exp(-(((at - 13) / 4) ** 2)))


def machine_usage(_: int) -> float:
    """Return the usage of a machine with constant requests."""
    return 900


def nightly_usage(hour: int) -> float:
    """Return the usage of a nightly job."""
    return 5000 if hour % DAY_HOURS in (2, 3) else 20


def little_usage(hour: int) -> float:
    """Return the usage of a trial."""
    return 4 if 8 <= hour % DAY_HOURS < 20 else 0.3


def growing_usage(hour: int) -> float:
    """Return the usage of people around the clock, growing by three percent per week."""
    return float(200 * 1.03 ** (hour / WEEK_HOURS)) * (1.5 + math.sin(2 * math.pi * (hour % DAY_HOURS - 6) / DAY_HOURS))


SHAPES: Mapping[str, Shape] = {
    "office": office_usage,
    "machine": machine_usage,
    "nightly": nightly_usage,
    "little": little_usage,
    "growing": growing_usage,
}


def generate_histories(weeks: int, customers: int, seed: int) -> Histories:
    """Return histories of customers of different sizes, with all shapes in turn."""
    histories: Histories = {}
    for number in range(customers):
        rng = random.Random(f"{seed}:{number}")
        name, shape = list(SHAPES.items())[number % len(SHAPES)]
        size = 1.0 if name == "little" else rng.choice((0.3, 1.0, 3.0, 10.0))
        histories[f"{name}-{number + 1}", "requests"] = {
            BEGIN + hour * HOUR: draw_poisson(rng, size * shape(hour) * max(0.0, rng.gauss(1.0, ORDINARY)))
            for hour in range(weeks * WEEK_HOURS)
        }
    return histories


def draw_poisson(rng: random.Random, mean: float) -> int:
    """Return a random Poisson count with this mean."""
    if mean > 50:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


# ---- planted changes

CHANGES: Mapping[str, Callable[[dict[int, int], int, float], None]] = {
    "spike": lambda hours, day, level: _add(hours, day, range(14, 17), 3 * level),
    "flood": lambda hours, day, level: _add(hours, day, range(9, 15), 8 * level),
    "stolen key": lambda hours, day, level: _add(hours, day, range(6), 2 * level),
    "outage": lambda hours, day, _: _scale(hours, day, range(4, 24), 0.05),
    "moved": lambda hours, day, _: _move(hours, day, 9),
}
"""Changes by name. A level is the customer's average usage of an hour of the day."""


def plant_changes(hours: dict[int, int], rng: random.Random, since: int, until: int) -> list[Planted]:
    """Plant a change into about every second week of a history from `since` on. Return the changes."""
    planted: list[Planted] = []
    day = since + rng.randrange(14) * DAY
    while day + DAY <= until:
        what, change = rng.choice(list(CHANGES.items()))
        before = _list_hours(hours, day)
        change(hours, day, max(sum(before) / DAY_HOURS, 1.0))
        if _list_hours(hours, day) != before:
            planted.append(Planted(what, frozenset([day])))
        day += rng.randrange(9, 20) * DAY
    return planted


def _list_hours(hours: Hours, day: int) -> list[int]:
    """Return the usage of each hour of a day."""
    return [hours.get(day + n * HOUR, 0) for n in range(DAY_HOURS)]


def _add(hours: dict[int, int], day: int, at: range, value: float) -> None:
    for n in at:
        hours[day + n * HOUR] = hours.get(day + n * HOUR, 0) + round(value)


def _scale(hours: dict[int, int], day: int, at: range, by: float) -> None:
    for n in at:
        hours[day + n * HOUR] = round(hours.get(day + n * HOUR, 0) * by)


def _move(hours: dict[int, int], day: int, by: int) -> None:
    for n, value in enumerate(_list_hours(hours, day)):
        hours[day + (n + by) % DAY_HOURS * HOUR] = value
