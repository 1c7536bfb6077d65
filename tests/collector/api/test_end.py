"""A collector that is asked to end commits the batches that it has."""

import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

import pytest

from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import checked
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import StartCollector


@pytest.mark.parametrize("late", [*(pytest.param(late, marks=pytest.mark.soak) for late in (0.0, 0.01)), 0.002])
def test_ending_collector_commits_its_batches(start_collector: StartCollector, late: float) -> None:
    collector = start_collector()
    chains = [Chain(f"edge-{number}") for number in range(8)]
    answers: list[int] = []

    def ship(chain: Chain) -> None:
        for _ in range(1000):
            try:
                status = collector.post(chain.next()).status
            except (OSError, HTTPException):
                status = 0
            if status in (0, 408):
                # The collector ended before it had the whole batch. An edge would ship it again.
                chain.made.pop()
                return
            answers.append(status)

    with ThreadPoolExecutor(len(chains)) as pool:
        for chain in chains:
            pool.submit(ship, chain)
        until(lambda: len(answers) > 20, "batches are shipped")
        time.sleep(late)
        collector.end()
    assert set(answers) == {200}
    total = sum(chain.total for chain in chains)
    assert checked(collector) == (
        0,
        f"8 edges, {len(answers)} batches, 0 gaps, 0 quarantined; total {total}; 0 audit records",
    )
