"""How well regions kept what was promised, of counted checks. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.pages.checks import BUCKETS_MS, FAILED, FAST, Row
from edgeproxy.config.collector.pages import StatusPage

DAYS = 90
"""Days over which objectives hold."""


class RegionDay(NamedTuple):
    """A day of a region."""

    second: int
    """The Unix second at which it begins."""
    total: int
    failed: int

    @property
    def available(self) -> float | None:
        """The share of answers that were well; None: nothing was measured."""
        return None if self.total == 0 else 1 - self.failed / self.total


class RegionAvailability(NamedTuple):
    """A region over DAYS."""

    name: str
    days: list[RegionDay]
    total: int
    failed: int
    fast: int
    median_ms: float | None
    """Of the last day on which anything was measured; half of the answers came within it."""
    p95_ms: float | None
    """95 of 100 answers came within it."""
    is_well: bool | None
    """Whether the last check went well; None: there was none yet."""
    objective: float
    """The share of answers that are to be well."""
    fast_objective: float
    latency: float
    """Seconds within which an answer is fast."""

    @property
    def available(self) -> float | None:
        """The share of answers that were well; None: nothing was measured."""
        return None if self.total == 0 else 1 - self.failed / self.total

    @property
    def fast_share(self) -> float | None:
        """The share of well answers that were fast; None: there was none."""
        well = self.total - self.failed
        return None if well == 0 else self.fast / well

    @property
    def budget_left(self) -> float | None:
        """The share that is left of what may fail; below 0 where more failed. None: nothing was measured."""
        if self.total == 0:
            return None
        may = (1 - self.objective) * self.total
        return 1 - self.failed / may if may else float(self.failed == 0)

    @property
    def meets_objectives(self) -> bool | None:
        """Whether both objectives are kept; None: nothing was measured."""
        if self.available is None:
            return None
        return self.available >= self.objective and (self.fast_share or 0) >= self.fast_objective


def compute_regions(
    counts: Mapping[Row, int], settings: StatusPage, last: Mapping[str, bool], now: float
) -> list[RegionAvailability]:
    """Return how the configured regions were, up to the Unix second `now`."""
    today = int(now) // DAY * DAY
    seconds = [today - (DAYS - 1 - number) * DAY for number in range(DAYS)]
    made = []
    latest: dict[int, int]
    for name, watched in sorted(settings.regions.items()):
        days, fast, latest = [], 0, {}
        for second in seconds:
            failed = counts.get((name, second, FAILED), 0)
            buckets = {end: counts.get((name, second, str(end)), 0) for end in BUCKETS_MS}
            well = sum(buckets.values())
            days.append(RegionDay(second, well + failed, failed))
            fast += counts.get((name, second, FAST), 0)
            latest = buckets if well else latest
        made.append(
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
            )
        )
    return made


def compute_quantile(buckets: Mapping[int, int], share: float) -> float | None:
    """Return the latency in ms within which this share of the answers came, between the ends of its bucket."""
    rank, begin, before = share * sum(buckets.values()), 0.0, 0
    for end, count in sorted(buckets.items()):
        if count and before + count >= rank:
            return begin + (end - begin) * (rank - before) / count
        begin, before = float(end), before + count
    return None
