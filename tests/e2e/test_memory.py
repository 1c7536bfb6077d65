"""What an edge takes of a host: memory of its own, and room for tables."""

from pathlib import Path

import pytest

from edgeproxy.edge.counters.setup import layouts
from loadtest.bench.measure.memory import of_processes
from loadtest.testbed.edge import StartEdge
from loadtest.testbed.process import Process

MIB = 1 << 20
WORKER_MIB, SUPERVISOR_MIB = 33, 65
"""Private memory at most of a process that has just started: 29.6 and 60.2 MiB were measured."""


def test_an_edge_that_has_just_started_takes_no_more_memory_than_documented(
    start_edge: StartEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Process, "forks", False)  # Memory that is shared with the tests' own processes is none.
    edge = start_edge()
    assert of_processes([edge.supervisor.pid]).private < SUPERVISOR_MIB * MIB
    for worker in edge.worker_pids():
        assert of_processes([worker]).private < WORKER_MIB * MIB


def test_the_tables_of_a_pod_with_a_thousand_customers_have_room_in_64_mib() -> None:
    """As docs/operations/sizing.md gives their rows."""
    sizing = Path("docs/operations/sizing.md").read_text()
    assert "tables: {customers: 8000, addresses: 20000, end_users: 5000}" in " ".join(sizing.split())
    tables = layouts(2, customers=8_000, addresses=20_000, end_users=5_000, hub=True, ledger=True)
    assert sum(table.size for table in tables) <= 64 * MIB
