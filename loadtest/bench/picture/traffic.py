"""Equal requests for each algorithm, and the requests that it admits, decided by the edge's own code."""

import heapq
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from edgeproxy.config.allowance import compute_allowance
from edgeproxy.config.edge.routes import Route
from edgeproxy.config.meters import Meter
from edgeproxy.config.tiers import Tier
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.limits.admission import admit
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.limits.policies import Policies
from edgeproxy.edge.limits.route_limits import LimitTerms, PolicyTables, RouteLimits

BEGIN = 60_000_000.0
"""The edge time of the beginning; no request came before."""
ANSWERED_AFTER = 1.0
"""Seconds that each request is under way."""
MINUTE = 60.0


class Phase(NamedTuple):
    """`requests` evenly spread over `seconds` from `since` on (seconds after the beginning)."""

    what: str
    since: float
    seconds: float
    requests: int

    @property
    def until(self) -> float:
        """The end of the phase."""
        return self.since + self.seconds

    def times(self) -> list[float]:
        """Return the time of each request."""
        return [self.since + self.seconds * number / self.requests for number in range(self.requests)]


PHASES = (
    Phase("80 in 2 s", 10.0, 2.0, 80),
    Phase("30 in 1 s", 40.0, 1.0, 30),
    Phase("3 a second, 2 min", 110.0, 120.0, 360),
)
END = 300.0


@dataclass(frozen=True)
class Plan:
    """A tier as written in tiers.yaml, and its caption."""

    name: str
    tier: str
    said: tuple[str, ...]


PLANS = (
    Plan("sliding_window", "{limits: [{name: basic, rate: 60/min}]}", ("60/min",)),
    Plan(
        "token_bucket",
        "{limits: [{name: basic, rate: 60/min, algorithm: token_bucket}]}",
        ("60/min", "burst: 60 (default)"),
    ),
    Plan("hybrid", "{limits: [{name: basic, rate: 60/min, algorithm: hybrid}]}", ("60/min", "burst: 6 (default)")),
    Plan(
        "burst_credits",
        "{limits: [{name: basic, rate: 60/min}], burst_credits: {earn: 10/min, max: 30}}",
        ("earn: 10/min, max: 30", "on a window of 60/min"),
    ),
    Plan("concurrency", "{concurrency: 2}", ("2 at once,", "each takes 1 s")),
)


@dataclass(frozen=True)
class Outcome:
    """The times of a plan's admitted requests (seconds after the beginning)."""

    plan: Plan
    admitted: tuple[float, ...]

    def of(self, phase: Phase) -> int:
        """Return how many of a phase's requests were admitted."""
        return self.between(phase.since, phase.until)

    def between(self, since: float, until: float) -> int:
        """Return how many requests were admitted from one moment to just before another."""
        return sum(since <= time < until for time in self.admitted)

    def last_minute(self, now: float) -> int:
        """Return how many requests were admitted in the minute that ends at this moment."""
        return sum(now - MINUTE < time <= now for time in self.admitted)

    @property
    def most(self) -> int:
        """The most requests admitted in any minute."""
        return max(map(self.last_minute, self.admitted))


def outcomes() -> list[Outcome]:
    """Return the outcome of all requests of all phases for each plan."""
    times = sorted(time for phase in PHASES for time in phase.times())
    with tempfile.TemporaryDirectory(prefix="edgeproxy-picture-") as folder:
        supervisor = Store.prepare(Path(folder), workers=1, customers=100, addresses=100)
        worker = Store.join(Path(folder))
        tables = PolicyTables(*(Policies(worker.limits[kind]) for kind in PolicyTables._fields))
        route, meters = Route(path="/*", upstream="api"), {"requests": Meter(count="requests")}
        found = []
        for plan in PLANS:
            tier = compute_allowance(Tier.model_validate(yaml.safe_load(plan.tier)), None)
            terms = LimitTerms(tables, route, tier, meters)
            limits = RouteLimits(terms, plan.name.encode()).build_limit_set()
            found.append(Outcome(plan, tuple(_admitted(limits, times))))
        worker.close()
        supervisor.close()
    return found


def _admitted(limits: LimitSet, times: Sequence[float]) -> Iterator[float]:
    under_way: list[float] = []
    for time in times:
        while under_way and under_way[0] <= time:
            heapq.heappop(under_way)
            limits.release()
        refused, *_ = admit(limits, BEGIN + time)
        if not refused:
            heapq.heappush(under_way, time + ANSWERED_AFTER)
            yield time


def table(found: Sequence[Outcome]) -> str:
    """Return the figures as the rows of a Markdown table."""
    text = " | ".join([phase.what for phase in PHASES])
    rows = [f"| admitted of | {text} | most in any minute |", "|---|" + "---:|" * (len(PHASES) + 1)]
    for outcome in found:
        counts = " | ".join(str(outcome.of(phase)) for phase in PHASES)
        rows.append(f"| `{outcome.plan.name}` | {counts} | {outcome.most} |")
    return "\n".join(rows) + "\n"
