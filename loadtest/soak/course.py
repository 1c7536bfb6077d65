"""The schedule of a soak test's deeds, drawn from a seed. Each deed happens at least once if there is time.

The course has three phases. In the first and last, all deeds happen. In the calm phase between them, only deeds
happen that end no process of the edge, so that growth can be measured. A short course has only the first phase,
because some seconds show no growth.
"""

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from loadtest.soak.fault import Deed
from loadtest.soak.reloads import Reloads
from loadtest.soak.site import LASTING, Site
from loadtest.soak.way import Way

EDGE = {
    Deed.RELOAD: 6,
    Deed.BAD_RELOAD: 2,
    Deed.KILL_WORKER: 4,
    Deed.HANG_WORKER: 1,
    Deed.KILL_SUPERVISOR: 2,
    Deed.ROLL: 2,
}
"""Weights of the deeds that change or break the way from clients to upstreams."""
WAY = {
    Deed.KILL_STEP: 6,
    Deed.KILL_EDGE: 2,
    Deed.TEAR: 2,
    Deed.END: 2,
    Deed.MOVE: 1,
    Deed.SWITCH: 1,
    Deed.FILL: 3,
    Deed.CLOCK: 2,
    Deed.WEATHER: 6,
    Deed.LATE: 2,
    Deed.COLLECTOR_KILL: 4,
    Deed.COLLECTOR_END: 1,
    Deed.COLLECTOR_COPY: 3,
    Deed.COLLECTOR_BACK: 1,
}
"""Weights of the deeds on the way of counts to the ledger."""
ENDPOINT_DEEDS = (Deed.RESTART, Deed.OUTAGE)
CALM = (
    Deed.RELOAD,
    Deed.BAD_RELOAD,
    *(Deed.SWITCH, Deed.FILL, Deed.CLOCK, Deed.WEATHER, Deed.LATE),
    *(Deed.COLLECTOR_KILL, Deed.COLLECTOR_END, Deed.COLLECTOR_COPY, Deed.COLLECTOR_BACK),
)
"""The deeds that end no process of the edge."""
ROUND = 120.0
"""Seconds between two checks that all sums agree."""
BETWEEN = (0.0, 3.0)
"""Seconds between two deeds on the edge."""
ENDPOINTS = (3.0, 8.0)
"""Seconds between two deeds on endpoints: longer than an ejection lasts."""
OUTAGES = 0.2
"""The share of outages among these deeds."""
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
    """The deeds of one soak test."""

    def __init__(self, site: Site, seed: int, seconds: float, weights: dict[Deed, int]) -> None:
        self.calm = Calm()
        self._weights = weights
        self._site, self._seconds = site, seconds
        self._draw, self._draw_endpoints = random.Random(f"{seed} edge"), random.Random(f"{seed} endpoints")
        self._reloads = Reloads(site)
        self._over = threading.Event()
        self._failures: list[BaseException] = []
        self._deeds: dict[Deed, Callable[[random.Random], None]] = {
            Deed.RELOAD: self._reloads.good,
            Deed.BAD_RELOAD: self._reloads.bad,
            Deed.KILL_WORKER: self._kill_worker,
            Deed.HANG_WORKER: self._hang_worker,
            Deed.KILL_SUPERVISOR: site.kill_supervisor,
            Deed.ROLL: site.roll,
            **Way(site).deeds,
        }

    @property
    def deeds(self) -> frozenset[Deed]:
        """The deeds that happen at least once."""
        return frozenset({*self._weights, *ENDPOINT_DEEDS})

    def run(self) -> None:
        """Run the whole course. Raises the error of a failed deed."""
        endpoints = threading.Thread(target=self._endpoints, name="endpoints", daemon=True)
        endpoints.start()
        try:
            begun = monotonic()
            calm, again, end = (begun + share * self._seconds for share in (*PARTS, 1.0))
            if self._seconds < WITH_CALM:
                self._several(list(self._weights), end)
            else:
                self._several(list(self._weights), calm)
                self._site.settle()
                self.calm.began = monotonic()
                self._several(
                    [deed for deed in CALM if deed in self._weights], max(again, self.calm.began + (again - calm))
                )
                self.calm.ended = monotonic()
                self._several(list(self._weights), end, each=False)
            self._reloads.repair()
        finally:
            self._over.set()
            endpoints.join(60)
        if self._failures:
            raise self._failures[0]

    def _several(self, deeds: list[Deed], until: float, *, each: bool = True) -> None:
        """Do each deed once, however long that takes, and then random ones until that moment or until a sum is
        wrong.
        """
        due = self._draw.sample(deeds, len(deeds)) if each else []
        rest = monotonic() + ROUND
        while (due or monotonic() < until) and not self._failures and not self._site.is_wrong:
            deed = due.pop() if due else self._draw.choices(deeds, [self._weights[each] for each in deeds])[0]
            self._deeds[deed](self._draw)
            self._over.wait(self._draw.uniform(*BETWEEN))
            if monotonic() > rest:
                self._site.rest()
                self._site.load()
                rest = monotonic() + ROUND

    def _kill_worker(self, draw: random.Random) -> None:
        self._site.kill_worker(draw)
        if draw.random() < HASTE:
            self._reloads.good(draw)
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
