"""The baseline of a customer's use of a meter: by hour of the week, by day of the week, and its daily shape. Pure.

Counts are compared by their square roots (Anscombe 1948), whose spread does not grow with the counts. The middle is a
median, and the spread a median of absolute deviations (MAD), so a few unusual hours in the past weeks change neither.
Weeks begin on Thursday, as the Unix epoch does.
"""

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

HOUR, DAY, WEEK = 3600, 86400, 604800
WEEK_HOURS, DAY_HOURS, WEEK_DAYS = 168, 24, 7
WEEKS = 8
"""Past weeks in a baseline."""
WEEKS_MIN = 3
"""The fewest weeks for a baseline."""
NEAR = 2
"""Neighbouring hours on each side whose deviations count for an hour's spread."""
MAD_TO_SIGMA = 1.4826
"""The ratio of the standard deviation to the MAD for normal deviations."""
MEDIAN_VARIANCE = math.pi / 2
"""The variance of a median of normal values, relative to the variance of their mean."""
POISSON_SPREAD = 1.0
"""The spread of the root of a Poisson count. It is the least possible spread."""
RELATIVE_SPREAD = 0.05
"""The least spread relative to the root: a tenth of the count is insignificant."""
GROWTH_MAX = 1.5
"""The largest factor for raising the level after growth in the last week."""
SHAPE_UNITS_MIN = 240
"""The shape of days with fewer units is not judged."""

Hours = Mapping[int, int]
"""The usage by the Unix second when each hour begins. Missing hours have no usage."""


class Baseline(NamedTuple):
    """The usual usage: `middles` and `spreads` are roots by hour of the week, `days` and `day_spread` are for days."""

    middles: Sequence[float]
    spreads: Sequence[float]
    days: Sequence[float]
    day_spread: float
    likeness: float
    """The usual cosine similarity of days to the baseline."""

    @classmethod
    def compute(cls, hours: Hours, until: int) -> "Baseline | None":
        """Return the baseline of the weeks before the Unix second `until`, a day's beginning; None: too few weeks.

        Weeks count from the first usage on.
        """
        first = min((hour for hour in hours if hour < until), default=until)
        weeks = min((until - first) // WEEK, WEEKS)
        if weeks < WEEKS_MIN:
            return None
        since = until - weeks * WEEK
        roots = [root(hours.get(hour, 0)) for hour in range(since, until, HOUR)]
        middles = _compute_medians(roots, WEEK_HOURS)
        off = [value - middles[at % WEEK_HOURS] for at, value in enumerate(roots)]
        wider = math.sqrt(weeks / (weeks - 1) + MEDIAN_VARIANCE / weeks)
        spreads = [
            wider
            * _compute_spread(
                [off[week * WEEK_HOURS + (at + near) % WEEK_HOURS] for week in range(weeks) for near in NEARBY]
            )
            for at in range(WEEK_HOURS)
        ]
        growth = _compute_growth(roots, middles)
        totals = [
            root(sum(hours.get(begin + n * HOUR, 0) for n in range(DAY_HOURS))) for begin in range(since, until, DAY)
        ]
        days = _compute_medians(totals, WEEK_DAYS)
        day_spread = wider * _compute_spread([value - days[at % WEEK_DAYS] for at, value in enumerate(totals)])
        turned = (since // HOUR) % WEEK_HOURS
        baseline = cls(
            _rotate([growth * middle for middle in middles], turned),
            _rotate(spreads, turned),
            _rotate([growth * middle for middle in days], turned // DAY_HOURS),
            day_spread,
            1.0,
        )
        alike = [baseline.compute_likeness(hours, begin) for begin in range(since, until, DAY)]
        measured = [likeness for likeness in alike if likeness is not None]
        return baseline._replace(likeness=median(measured) if measured else 1.0)

    def expected(self, hour: int) -> float:
        """Return the usual usage of the hour that begins at this Unix second."""
        return unroot(self.middles[hour // HOUR % WEEK_HOURS])

    def expected_day(self, day: int) -> float:
        """Return the usual usage of the day that begins at this Unix second."""
        return unroot(self.days[day // DAY % WEEK_DAYS])

    def score(self, hour: int, value: int) -> float:
        """Return the robust z-score of an hour's value: its distance from the usual value, in spreads."""
        at = hour // HOUR % WEEK_HOURS
        return _compute_score(value, self.middles[at], self.spreads[at])

    def day_score(self, day: int, value: int) -> float:
        """Return the robust z-score of a day's value."""
        return _compute_score(value, self.days[day // DAY % WEEK_DAYS], self.day_spread)

    def compute_likeness(self, hours: Hours, day: int) -> float | None:
        """Return the cosine similarity of a day's hours to the usual ones. It is 1 if only the volume differs.

        Return None if either has fewer than SHAPE_UNITS_MIN units.
        """
        own = [float(hours.get(day + n * HOUR, 0)) for n in range(DAY_HOURS)]
        usual = [self.expected(day + n * HOUR) for n in range(DAY_HOURS)]
        if min(sum(own), sum(usual)) < SHAPE_UNITS_MIN:
            return None
        return cosine(own, usual)

    def to_bytes(self) -> bytes:
        """Return the baseline as bytes for `from_bytes`."""
        return array("d", [*self.middles, *self.spreads, *self.days, self.day_spread, self.likeness]).tobytes()

    @classmethod
    def from_bytes(cls, packed: bytes) -> "Baseline":
        """Return a baseline from `to_bytes`."""
        numbers = array("d", packed)
        middles, rest = numbers[:WEEK_HOURS], numbers[WEEK_HOURS:]
        spreads, rest = rest[:WEEK_HOURS], rest[WEEK_HOURS:]
        return cls(tuple(middles), tuple(spreads), tuple(rest[:WEEK_DAYS]), rest[WEEK_DAYS], rest[WEEK_DAYS + 1])


NEARBY = range(-NEAR, NEAR + 1)


def root(value: float) -> float:
    """Return the transformed root of a count. For a Poisson count its standard deviation is 1.

    An hour with more corrections than usage counts as unused.
    """
    return 2 * math.sqrt(max(value, 0.0) + 0.375)


def unroot(value: float) -> float:
    """Return the count for a transformed root."""
    return max(0.0, (value / 2) ** 2 - 0.375)


def median(values: Iterable[float]) -> float:
    """Return the median of at least one value."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine of the angle between two non-zero vectors."""
    product = sum(mine * theirs for mine, theirs in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other))


def _compute_medians(values: Sequence[float], period: int) -> list[float]:
    return [median(values[at::period]) for at in range(period)]


def _compute_spread(off: Sequence[float]) -> float:
    """Return the spread of deviations. Zeros are left out, because an odd number of weeks always has one."""
    return MAD_TO_SIGMA * median([abs(deviation) for deviation in off if deviation] or [0.0])


def _compute_growth(roots: Sequence[float], middles: Sequence[float]) -> float:
    """Return the median factor of the last week's hours to the baseline, limited to 1 to GROWTH_MAX."""
    last = roots[-WEEK_HOURS:]
    return min(max(median([value / middle for value, middle in zip(last, middles, strict=True)]), 1.0), GROWTH_MAX)


def _rotate(values: Sequence[float], by: int) -> tuple[float, ...]:
    """Rotate values by hour or day since a Unix second into the order of the week."""
    return (*values[-by:], *values[:-by]) if by else tuple(values)


def _compute_score(value: int, middle: float, spread: float) -> float:
    return (root(value) - middle) / max(spread, POISSON_SPREAD, RELATIVE_SPREAD * middle)
