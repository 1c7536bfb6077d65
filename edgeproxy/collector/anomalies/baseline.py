"""What a customer's use of a meter is usually like: by the hour of the week, the day of the week, in its shape. Pure.

Counts are compared by their roots (Anscombe 1948), whose spread does not grow with them. The middle is a median and the
spread a median of deviations (MAD), so that a few hours of trailing weeks that were not as usual themselves change
neither. Weeks begin on Thursday, as the Unix epoch does.
"""

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

HOUR, DAY, WEEK = 3600, 86400, 604800
WEEK_HOURS, DAY_HOURS, WEEK_DAYS = 168, 24, 7
WEEKS = 8
"""Trailing weeks that a baseline is made of."""
WEEKS_MIN = 3
"""Weeks without which nobody can say what is usual."""
NEAR = 2
"""Hours before and after one whose deviations count for its spread."""
MAD_TO_SIGMA = 1.4826
"""By what a MAD is smaller than the standard deviation where deviations are normal."""
MEDIAN_VARIANCE = math.pi / 2
"""How much more the median of several normal values varies than their mean."""
POISSON_SPREAD = 1.0
"""The spread of the root of a count of independent events: nothing is more regular than that."""
RELATIVE_SPREAD = 0.05
"""The spread at least, as a part of the root: a tenth of the count is nothing to speak of."""
GROWTH_MAX = 1.5
"""By what the last week may be above the trailing ones without more than its level being raised."""
SHAPE_UNITS_MIN = 240
"""What a day must come to before its shape says anything."""

Hours = Mapping[int, int]
"""What was used, by the Unix second at which each hour begins; hours that are not there have nothing."""


class Baseline(NamedTuple):
    """What is usual: `middles` and `spreads` are roots, by the hour of the week; `days` and `day_spread` of days."""

    middles: Sequence[float]
    spreads: Sequence[float]
    days: Sequence[float]
    day_spread: float
    likeness: float
    """How like days usually are to what is usual on theirs: a cosine."""

    @classmethod
    def compute(cls, hours: Hours, until: int) -> "Baseline | None":
        """The baseline of the weeks before the Unix second `until`, at which a day begins; None where they are too few.

        Only what is before `until` counts. Weeks count from the first use on.
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
        measured = [one for one in alike if one is not None]
        return baseline._replace(likeness=median(measured) if measured else 1.0)

    def expected(self, hour: int) -> float:
        """What is usually used in the hour that begins at this Unix second."""
        return unroot(self.middles[hour // HOUR % WEEK_HOURS])

    def expected_day(self, day: int) -> float:
        """The same of a day."""
        return unroot(self.days[day // DAY % WEEK_DAYS])

    def score(self, hour: int, value: int) -> float:
        """By how many spreads a value is above what is usual in that hour: a robust z-score."""
        at = hour // HOUR % WEEK_HOURS
        return _compute_score(value, self.middles[at], self.spreads[at])

    def day_score(self, day: int, value: int) -> float:
        """The same of a day."""
        return _compute_score(value, self.days[day // DAY % WEEK_DAYS], self.day_spread)

    def compute_likeness(self, hours: Hours, day: int) -> float | None:
        """How like the hours of a day are to what is usual: a cosine, 1 where only the volume is another one.

        None where there is too little of either to say so.
        """
        own = [float(hours.get(day + n * HOUR, 0)) for n in range(DAY_HOURS)]
        usual = [self.expected(day + n * HOUR) for n in range(DAY_HOURS)]
        if min(sum(own), sum(usual)) < SHAPE_UNITS_MIN:
            return None
        return cosine(own, usual)

    def to_bytes(self) -> bytes:
        """All of it as bytes, for `from_bytes`."""
        return array("d", [*self.middles, *self.spreads, *self.days, self.day_spread, self.likeness]).tobytes()

    @classmethod
    def from_bytes(cls, packed: bytes) -> "Baseline":
        """Return what `to_bytes` has made bytes of."""
        numbers = array("d", packed)
        middles, rest = numbers[:WEEK_HOURS], numbers[WEEK_HOURS:]
        spreads, rest = rest[:WEEK_HOURS], rest[WEEK_HOURS:]
        return cls(tuple(middles), tuple(spreads), tuple(rest[:WEEK_DAYS]), rest[WEEK_DAYS], rest[WEEK_DAYS + 1])


NEARBY = range(-NEAR, NEAR + 1)


def root(value: float) -> float:
    """The root by which counts are compared: that of a Poisson count has a standard deviation of 1."""
    return 2 * math.sqrt(value + 0.375)


def unroot(value: float) -> float:
    """The count that has this root."""
    return max(0.0, (value / 2) ** 2 - 0.375)


def median(values: Iterable[float]) -> float:
    """The middle of values, of which there is at least one."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """The cosine of the angle between two vectors that are not zero."""
    product = sum(mine * theirs for mine, theirs in zip(one, other, strict=True))
    return product / (math.hypot(*one) * math.hypot(*other))


def _compute_medians(values: Sequence[float], period: int) -> list[float]:
    return [median(values[at::period]) for at in range(period)]


def _compute_spread(off: Sequence[float]) -> float:
    """The spread of what is off the middle. What is the middle itself, one of each odd number of weeks, is left out."""
    return MAD_TO_SIGMA * median([abs(one) for one in off if one] or [0.0])


def _compute_growth(roots: Sequence[float], middles: Sequence[float]) -> float:
    """By what the last week is above the trailing ones, of most of its hours."""
    last = roots[-WEEK_HOURS:]
    return min(max(median([value / middle for value, middle in zip(last, middles, strict=True)]), 1.0), GROWTH_MAX)


def _rotate(values: Sequence[float], by: int) -> tuple[float, ...]:
    """Values by the hour or day since some Unix second, by that of the week."""
    return (*values[-by:], *values[:-by]) if by else tuple(values)


def _compute_score(value: int, middle: float, spread: float) -> float:
    return (root(value) - middle) / max(spread, POISSON_SPREAD, RELATIVE_SPREAD * middle)
