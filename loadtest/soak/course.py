"""The schedule of a soak test's faults, drawn from a seed. Each kind happens at least once if there is time.

The course has three phases. In the first and last, all kinds of faults happen. The calm phase between them has only
faults that end no process of the edge, so that growth can be measured. A short course has only the first phase, because
some seconds show no growth.
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from loadtest.soak.delivery_faults import DeliveryFaults
from loadtest.soak.fault import FaultKind
from loadtest.soak.reloads import Reloads
from loadtest.soak.site import LASTING, Site

EDGE = {
    FaultKind.RELOAD: 6,
    FaultKind.BAD_RELOAD: 2,
    FaultKind.KILL_WORKER: 4,
    FaultKind.HANG_WORKER: 1,
    FaultKind.KILL_SUPERVISOR: 2,
    FaultKind.ROLL: 2,
}
"""Weights of the faults between clients and upstreams, reloads included."""
WAY = {
    FaultKind.KILL_STEP: 6,
    FaultKind.KILL_EDGE: 2,
    FaultKind.TEAR: 2,
    FaultKind.END: 2,
    FaultKind.MOVE: 1,
    FaultKind.SWITCH: 1,
    FaultKind.FILL: 3,
    FaultKind.CLOCK: 2,
    FaultKind.WEATHER: 6,
    FaultKind.LATE: 2,
    FaultKind.COLLECTOR_KILL: 4,
    FaultKind.COLLECTOR_END: 1,
    FaultKind.COLLECTOR_COPY: 3,
    FaultKind.COLLECTOR_BACK: 1,
}
"""Weights of the faults between the edge's counts and the ledger."""
ENDPOINT_FAULTS = (FaultKind.RESTART, FaultKind.OUTAGE)
CALM = (
    FaultKind.RELOAD,
    FaultKind.BAD_RELOAD,
    *(FaultKind.SWITCH, FaultKind.FILL, FaultKind.CLOCK, FaultKind.WEATHER, FaultKind.LATE),
    *(FaultKind.COLLECTOR_KILL, FaultKind.COLLECTOR_END, FaultKind.COLLECTOR_COPY, FaultKind.COLLECTOR_BACK),
)
"""The faults that end no process of the edge."""
ROUND = 120.0
"""Seconds between two checks that all sums agree."""
BETWEEN = (0.0, 3.0)
"""Seconds between two faults of the edge."""
ENDPOINTS = (3.0, 8.0)
"""Seconds between two faults of endpoints: longer than an ejection lasts."""
OUTAGES = 0.2
"""The share of outages among these faults."""
RETRIES = 11.0
"""Seconds after an outage until the retries that it cost are forgotten (edge/proxy/upstreams/retry_budget.py)."""
HASTE = 0.5
"""The share of kills of a worker that a reload follows before the successor serves."""
PARTS = (0.4, 0.7)
"""The start and end of the calm phase, as shares of the whole."""
WITH_CALM = 100.0
"""The shortest course, in seconds, with a calm phase."""


@dataclass
class Calm:
    """The time without ends of processes; empty if both are 0."""

    began: float = 0.0
    ended: float = 0.0


class Course:
    """The faults of one soak test."""

    def __init__(self, site: Site, seed: int, seconds: float, weights: dict[FaultKind, int]) -> None:
        self.calm = Calm()
        self._weights = weights
        self._site, self._seconds = site, seconds
        self._draw, self._draw_endpoints = random.Random(f"{seed} edge"), random.Random(f"{seed} endpoints")
        self._reloads = Reloads(site)
        self._over = threading.Event()
        self._failures: list[BaseException] = []
        self._handlers: dict[FaultKind, Callable[[random.Random], None]] = {
            FaultKind.RELOAD: self._reloads.reload_valid,
            FaultKind.BAD_RELOAD: self._reloads.reload_invalid,
            FaultKind.KILL_WORKER: self._kill_worker,
            FaultKind.HANG_WORKER: self._hang_worker,
            FaultKind.KILL_SUPERVISOR: site.kill_supervisor,
            FaultKind.ROLL: site.roll,
            **DeliveryFaults(site).handlers,
        }

    @property
    def fault_kinds(self) -> frozenset[FaultKind]:
        """The kinds of faults that happen at least once."""
        return frozenset({*self._weights, *ENDPOINT_FAULTS})

    def run(self) -> None:
        """Run the whole course. Raises the error of a fault that failed, for example if the site did not recover."""
        endpoints = threading.Thread(target=self._endpoints, name="endpoints", daemon=True)
        endpoints.start()
        try:
            begun = monotonic()
            calm, again, end = (begun + share * self._seconds for share in (*PARTS, 1.0))
            if self._seconds < WITH_CALM:
                self._make_faults(list(self._weights), end)
            else:
                self._make_faults(list(self._weights), calm)
                self._site.settle()
                self.calm.began = monotonic()
                self._make_faults(
                    [kind for kind in CALM if kind in self._weights], max(again, self.calm.began + (again - calm))
                )
                self.calm.ended = monotonic()
                self._make_faults(list(self._weights), end, each=False)
            self._reloads.repair()
        finally:
            self._over.set()
            endpoints.join(60)
        if self._failures:
            raise self._failures[0]

    def _make_faults(self, kinds: list[FaultKind], until: float, *, each: bool = True) -> None:
        """Make each kind of fault once, however long that takes, and then random ones until that moment or until a
        sum is wrong.
        """
        due = self._draw.sample(kinds, len(kinds)) if each else []
        rest = monotonic() + ROUND
        while (due or monotonic() < until) and not self._failures and not self._site.is_wrong:
            kind = due.pop() if due else self._draw.choices(kinds, [self._weights[kind] for kind in kinds])[0]
            self._handlers[kind](self._draw)
            self._over.wait(self._draw.uniform(*BETWEEN))
            if monotonic() > rest:
                self._site.rest()
                self._site.load()
                rest = monotonic() + ROUND

    def _kill_worker(self, draw: random.Random) -> None:
        self._site.kill_worker(draw)
        if draw.random() < HASTE:
            self._reloads.reload_valid(draw)
        self._site.settle()

    def _hang_worker(self, draw: random.Random) -> None:
        self._site.hang_worker(draw)
        self._site.settle()

    def _endpoints(self) -> None:
        """Stop one endpoint or all of them now and then: first one, then all, so that both happen in any case."""
        draw, times = self._draw_endpoints, 0
        wait = draw.uniform(*ENDPOINTS)
        try:
            while not self._over.wait(wait):
                times += 1
                outage = times == 2 or (times > 2 and draw.random() < OUTAGES)
                self._site.restart(draw, tuple(self._site.services) if outage else (draw.choice(LASTING),))
                wait = draw.uniform(*ENDPOINTS) + RETRIES * outage
        except BaseException as failure:
            self._failures.append(failure)
