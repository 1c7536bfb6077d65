"""kill -9 of edge and collector at every boundary of every step between a count and the ledger, under load."""

import random
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from loadtest.testbed.faulty_edge import dies_at
from loadtest.testbed.postgresql import Postgresql, programs
from loadtest.testbed.relay import STORMY
from loadtest.testbed.step_kill import COLLECTOR_STEPS, EDGE_STEPS, boundaries
from loadtest.testbed.waiting import until
from tests.faults.counting.site import Site

FEW = 3
"""Boundaries that are drawn of each process where not all of them are tried: each costs a start."""


@pytest.fixture
def site(tmp_path: Path, seed: int) -> Iterator[Site]:
    """An edge and a collector over a bad network, under load."""
    with Site(tmp_path, seed) as site:
        site.edge.relay.fates = STORMY
        site.edge.load()
        yield site


def drawn(pytestconfig: pytest.Config, chance: random.Random, steps: tuple[str, ...]) -> list[tuple[str, int]]:
    """The boundaries of these steps, and the how-manieth time a process comes there: some, or all of them twice."""
    every = boundaries(steps)
    if not pytestconfig.getoption("soak"):
        return [(step, chance.randint(1, 4)) for step in chance.sample(every, FEW)]
    return [(step, number) for step in chance.sample(every, len(every)) for number in (1, chance.randint(2, 6))]


@pytest.mark.timeout(900)
def test_kill_at_any_step_counts_usage_once(site: Site, seed: int, pytestconfig: pytest.Config) -> None:
    chance = random.Random(seed)
    edge, collector = site.edge, site.collector
    edge.shipped_more()
    for step, number in drawn(pytestconfig, chance, COLLECTOR_STEPS):
        dies_at(collector, step, number)
    collector.start()
    edge.shipped_more()
    edge.unload()
    # Nothing of the edge was killed: clients know of every answer.
    site.assert_exact(killed=False)

    edge.relay.fates = STORMY
    edge.load()
    for step, number in drawn(pytestconfig, chance, EDGE_STEPS):
        if edge.supervisor.running or chance.random() < 0.3:
            edge.kill_all()
        edge.dies_at(step, number)
    edge.start()
    edge.shipped_more()
    edge.unload()
    site.assert_exact(killed=True)


@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not on this machine")
def test_a_database_killed_in_the_midst_of_transactions_settles_all_once(
    tmp_path: Path, seed: int, pytestconfig: pytest.Config
) -> None:
    chance = random.Random(f"{seed} database")
    with closing(Postgresql(durable=True)) as server, Site(tmp_path, seed, database=server.database()) as site:
        edge = site.edge
        edge.load()
        for _ in range(8 if pytestconfig.getoption("soak") else 1):
            edge.shipped_more(chance.randint(1, 4))
            time.sleep(chance.uniform(0.0, 0.2))  # any moment of a transaction, or between two
            server.kill()
            until(lambda: edge.status()["usage"]["shipping"]["state"] == "waiting", "nothing is settled", seconds=40)
            server.start()
        edge.shipped_more()
        edge.unload()
        site.assert_exact(killed=False)
