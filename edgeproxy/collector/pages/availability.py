"""The availability of regions compared with objectives, from counted checks. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.pages.checks import BUCKETS_MS, FAILED, FAST, Row
from edgeproxy.config.collector.pages import StatusPage

DAYS = 90
NEVER: Mapping[str, float] = {}
"""Days over which objectives are measured."""


class RegionDay(NamedTuple):
    """The checks of a region on a day."""

    second: int
    """The Unix second when the day begins."""
    total: int
    failed: int

    @property
    def available(self) -> float | None:
        """Return the share of successful checks, or None without checks."""
        return None if self.total == 0 else 1 - self.failed / self.total


class RegionAvailability(NamedTuple):
    """A region over DAYS."""

    name: str
    days: list[RegionDay]
    total: int
    failed: int
    fast: int
    median_ms: float | None
    """Half of the checks on the last measured day were at most this fast."""
    p95_ms: float | None
    """95 % of the checks on that day were at most this fast."""
    is_well: bool | None
    """True if the last check succeeded; None without checks."""
    objective: float
    """The required share of successful checks."""
    fast_objective: float
    latency: float
    """A check within this many seconds is fast."""
    failing_since: float | None = None
    """The Unix second of the first failed check after a success; None: it works, or the time is unknown."""

    @property
    def available(self) -> float | None:
        """Return the share of successful checks, or None without checks."""
        return None if self.total == 0 else 1 - self.failed / self.total

    @property
    def fast_share(self) -> float | None:
        """Return the share of fast checks among successful ones, or None if there are none."""
        well = self.total - self.failed
        return None if well == 0 else self.fast / well

    @property
    def budget_left(self) -> float | None:
        """Return the remaining share of the error budget, negative if overspent, or None without checks."""
        if self.total == 0:
            return None
        may = (1 - self.objective) * self.total
        return 1 - self.failed / may if may else float(self.failed == 0)


def compute_regions(
    counts: Mapping[Row, int],
    settings: StatusPage,
    last: Mapping[str, bool],
    now: float,
    failing_since: Mapping[str, float] = NEVER,
) -> list[RegionAvailability]:
    """Return the availability of the configured regions and components up to the Unix second `now`."""
    today = int(now) // DAY * DAY
    seconds = [today - (DAYS - 1 - number) * DAY for number in range(DAYS)]
    regions = []
    latest: dict[int, int]
    for name, watched in settings.watched.items():
        days, fast, latest = [], 0, {}
        for second in seconds:
            failed = counts.get((name, second, FAILED), 0)
            buckets = {end: counts.get((name, second, str(end)), 0) for end in BUCKETS_MS}
            well = sum(buckets.values())
            days.append(RegionDay(second, well + failed, failed))
            fast += counts.get((name, second, FAST), 0)
            latest = buckets if well else latest
        regions.append(
            RegionAvailability(
                name,
                days,
                sum(day.total for day in days),
                sum(day.failed for day in days),
                fast,
                compute_quantile(latest, 0.5),
                compute_quantile(latest, 0.95),
                last.get(name),
                settings.availability,
                settings.fast,
                watched.latency,
                failing_since.get(name),
            )
        )
    return regions


def compute_quantile(buckets: Mapping[int, int], share: float) -> float | None:
    """Return the latency in ms that this share of the checks did not exceed, interpolated, or None without checks."""
    rank, begin, before = share * sum(buckets.values()), 0.0, 0
    for end, count in sorted(buckets.items()):
        if count and before + count >= rank:
            return begin + (end - begin) * (rank - before) / count
        begin, before = float(end), before + count
    return None
