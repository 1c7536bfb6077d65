"""A thread that reads all counters of `/metrics` and `/usage`, and the resources of each process of the edge."""

import threading
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from time import monotonic

from prometheus_client.parser import text_string_to_metric_families

from loadtest.soak.site import Site
from loadtest.testbed.http_client import ask

EVERY = 1.0
"""Seconds between two readings."""
EXEMPT = frozenset(
    {
        "edge_worker_restarts_total",
        "edge_config_reloads_total",
        "edge_dns_failures_total",
        "edge_usage_batches_total",
    }
)
"""Counters in a supervisor's memory, which start from zero with each supervisor."""
RISING = ("counter", "histogram")


@dataclass(frozen=True)
class Vitals:
    """A process's open descriptors, and its own memory in KiB (RssAnon of proc(5)), at a moment."""

    look: int
    """The number of the reading."""
    at: float
    descriptors: int
    memory: int


class Watch(threading.Thread):
    """The thread. Its results are complete after `end`."""

    def __init__(self, site: Site) -> None:
        super().__init__(name="watch", daemon=True)
        self._site = site
        self._over = threading.Event()
        self.readings = self.silent = 0
        """Readings that succeeded, and readings that got no answer."""
        self.falls: list[str] = []
        """Counters that fell and must not."""
        self.began_anew: Counter[str] = Counter()
        """Falls of exempt counters, by name."""
        self.ended_with: Counter[str] = Counter()
        """How often a supervisor ended after it had counted in an exempt counter, by name."""
        self.series = 0
        self.connections: dict[int, float] = {}
        """The edge's own number of connections, on both of its sides, by reading."""
        self.vitals: dict[int, list[Vitals]] = {}
        self.roles: dict[int, str] = {}
        self.failures: list[BaseException] = []
        self._seen: dict[str, float] = {}
        self._supervisors = 1

    def run(self) -> None:
        while not self._over.wait(EVERY):
            try:
                self._look_at_processes()
                self._look_at_counters()
                self.readings += 1
            except (OSError, HTTPException):
                self.silent += 1
            except BaseException as failure:
                self.failures.append(failure)
                raise

    def end(self) -> None:
        """Stop the readings."""
        self._over.set()
        self.join(30)

    @property
    def needlessly_exempt(self) -> set[str]:
        """Exempt counters that did not fall when a supervisor ended, so that they need no exemption."""
        return {name for name in self.ended_with if not self.began_anew[name]}

    def _look_at_counters(self) -> None:
        edge = self._site.edge
        if len(edge.supervisors) > self._supervisors:
            self._supervisors = len(edge.supervisors)
            counted = {name.partition("{")[0] for name, value in self._seen.items() if value}
            self.ended_with.update(EXEMPT & counted)
        shown: dict[str, float] = {}
        answer = ask(edge.admin, "/metrics")
        assert answer.status == 200
        for family in text_string_to_metric_families(answer.body.decode()):
            if family.name == "edge_connections":
                self.connections[self.readings + self.silent] = sum(sample.value for sample in family.samples)
            if family.type in RISING:
                for sample in family.samples:
                    labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
                    shown[f"{sample.name}{{{labels}}}"] = sample.value
        shown |= {f"/usage{{{customer}}}": total for customer, total in edge.usage().items()}
        for name, value in self._seen.items():
            if shown.get(name, 0) < value:
                plain = name.partition("{")[0]
                if plain in EXEMPT:
                    self.began_anew[plain] += 1
                else:
                    self.falls.append(f"{name} fell from {value:g} to {shown.get(name)}")
        self._seen = self._seen | shown
        self.series = len(self._seen)

    def _look_at_processes(self) -> None:
        supervisors = {process.pid for process in self._site.edge.supervisors}
        for pid in self._site.kin():
            held = vitals(pid, self.readings + self.silent)
            if held is not None:
                self.roles[pid] = "supervisor" if pid in supervisors else "worker"
                self.vitals.setdefault(pid, []).append(held)


def vitals(pid: int, look: int = 0) -> Vitals | None:
    """Read a process's vitals; None if it has ended, also as a zombie."""
    try:
        descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return Vitals(look, monotonic(), descriptors, int(line.split()[1]))
    return None  # a zombie


@dataclass(frozen=True)
class Trend:
    """A straight line through values over time, by least squares."""

    begin: float
    end: float
    """The line's values at the first and the last moment."""

    @property
    def growth(self) -> float:
        return self.end - self.begin


def trend(points: list[tuple[float, float]]) -> Trend:
    """Fit a line to (time, value); needs at least two moments."""
    count = len(points)
    middle, mean = sum(at for at, _ in points) / count, sum(value for _, value in points) / count
    spread = sum((at - middle) ** 2 for at, _ in points)
    slope = sum((at - middle) * (value - mean) for at, value in points) / spread
    return Trend(mean + slope * (points[0][0] - middle), mean + slope * (points[-1][0] - middle))
