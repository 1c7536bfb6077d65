"""kill -9 at any moment: what was acknowledged is there, and each batch is counted once, however often it is sent."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import pytest

from edgeproxy.usage.batch import MINUTE, Batch, Row
from tests.support.chains import Chain
from tests.support.collector import Collector, checked
from tests.support.collector_fixtures import StartCollector
from tests.support.postgresql import Postgresql
from tests.support.waiting import until

EDGES = 6
PATIENCE = 90.0
"""Seconds in which a batch is acknowledged at last."""


@pytest.fixture
def kills(pytestconfig: pytest.Config) -> int:
    """How often something is killed in a test; each time takes seconds of CPU."""
    return 8 if pytestconfig.getoption("soak") else 2


class Fleet:
    """Edges that ship at once, each until it has heard of all its batches that they are settled."""

    def __init__(self, collector: Collector, seed: int, batches: int) -> None:
        """Each edge has so many batches."""
        self._batches = batches
        self._collector = collector
        self._chance = random.Random(seed)
        self.acknowledged = 0
        """Batches of which an edge has heard: they must be in the ledger, whatever comes."""
        self._lock = threading.Lock()
        self.chains = [Chain(f"edge-{number}") for number in range(EDGES)]
        for chain in self.chains:
            for _ in range(batches):
                chain.next(*self._rows(), seconds=self._chance.choice([1, 5, 20]))

    def _rows(self) -> tuple[Row, ...]:
        return tuple(
            (f"customer-{customer}", "requests", f"route-{route}", self._chance.randint(1, 1000))
            for customer in range(5)
            for route in range(self._chance.randint(1, 5))
        )

    def ship(self, while_it_runs: Callable[[], None]) -> None:
        """Ship everything; meanwhile do this."""
        with ThreadPoolExecutor(EDGES + 1) as pool:
            shipping = [pool.submit(self._ship, chain.made) for chain in self.chains]
            while_it_runs()
            for one in shipping:
                one.result()

    @property
    def size(self) -> int:
        """Batches in all."""
        return EDGES * self._batches

    def _ship(self, batches: list[Batch]) -> None:
        for batch in batches:
            until(lambda batch=batch: self._settled(batch), "a batch is acknowledged", seconds=PATIENCE)
            with self._lock:
                self.acknowledged += 1

    def _settled(self, batch: Batch) -> bool:
        try:
            answer = self._collector.post(batch)
        except (OSError, HTTPException):
            return False  # Nobody is there, or nobody any more: whether it was counted is not known.
        assert answer.status in (200, 429, 503), answer
        return answer.status == 200

    def check(self) -> None:
        """What the ledger says is what was shipped: in all, by edge, and by every dimension there is."""
        wanted: Counter[tuple[int, str, str]] = Counter()
        for chain in self.chains:
            for batch in chain.made:
                for customer, _, route, value in batch.rows:
                    wanted[batch.minute, customer, route] += value
        found = self._collector.usage(by="minute,customer,route")
        told = {(row["minute"], row["customer"], row["route"]): row["value"] for row in found["rows"]}
        assert told == {
            (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(minute)), customer, route): value
            for (minute, customer, route), value in wanted.items()
        }
        assert found["total"] == sum(chain.total for chain in self.chains)
        for by in ("hour", "day", "customer", "route,meter", ""):
            assert self._collector.usage(by=by)["total"] == found["total"]
        edges = self._collector.edges()
        for chain in self.chains:
            edge = edges[chain.edge]
            assert (edge["watermark"], edge["gaps"], edge["quarantined"]) == (self._batches, [], [])
        assert all(minute % MINUTE == 0 for minute, _, _ in wanted)
        assert f"{EDGES} edges, {self.size} batches, 0 gaps" in checked(self._collector)[1]


def test_the_collector_is_killed_while_it_takes_batches(start_collector: StartCollector, seed: int, kills: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    collector = start_collector()
    fleet = Fleet(collector, seed, 10 * (kills + 1))

    def kill_now_and_then() -> None:
        for step in range(1, kills + 1):
            # Somewhere in each part of the way, and then at any moment of a transaction.
            goal = fleet.size * step // (kills + 1)
            until(
                lambda goal=goal: fleet.acknowledged >= goal - chance.randrange(20),
                "some were shipped",
                seconds=PATIENCE,
            )
            time.sleep(chance.uniform(0, 0.02))
            collector.kill()
            collector.start()

    fleet.ship(kill_now_and_then)
    fleet.check()


@pytest.mark.usefixtures("postgresql")  # Which skips where there is none; this one is killed.
def test_the_database_is_killed_while_it_takes_batches(tmp_path: Path, seed: int, kills: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    server = Postgresql(durable=True)
    collector = Collector(tmp_path / "collector", server.database())
    try:
        collector.start()
        fleet = Fleet(collector, seed, 10 * (kills + 1))

        def kill_now_and_then() -> None:
            for step in range(1, kills + 1):
                goal = fleet.size * step // (kills + 1)
                until(lambda goal=goal: fleet.acknowledged >= goal, "some were shipped", seconds=PATIENCE)
                time.sleep(chance.uniform(0, 0.02))
                server.kill()
                until(lambda: not collector.ready(), "it is not ready without its database")
                server.start()

        fleet.ship(kill_now_and_then)
        fleet.check()
        # A server that starts is no fault of the collector's.
        assert "CannotConnectNowError" not in collector.output
        collector.close()
    finally:
        server.close()


@pytest.mark.parametrize("late", [*(pytest.param(late, marks=pytest.mark.soak) for late in (0.0, 0.01)), 0.002])
def test_a_collector_that_is_asked_to_end_settles_what_it_has(start_collector: StartCollector, late: float) -> None:
    collector = start_collector()
    chains = [Chain(f"edge-{number}") for number in range(8)]
    answers: list[int] = []

    def ship(chain: Chain) -> None:
        for _ in range(1000):
            try:
                answers.append(collector.post(chain.next()).status)
            except (OSError, HTTPException):
                chain.made.pop()
                return

    with ThreadPoolExecutor(len(chains)) as pool:
        for chain in chains:
            pool.submit(ship, chain)
        until(lambda: len(answers) > 20, "batches are shipped")
        time.sleep(late)
        collector.end()
    assert set(answers) == {200}
    total = sum(chain.total for chain in chains)
    assert checked(collector) == (0, f"8 edges, {len(answers)} batches, 0 gaps, 0 quarantined; total {total}")
