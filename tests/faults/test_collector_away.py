"""An edge whose collector is unavailable for long or has moved to another host: it serves, and no count is lost.

The short forms are among the ordinary tests; with --soak the collector is away for half an hour.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest

from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from loadtest.soak.watch import vitals
from loadtest.testbed.collector import EDGE, Collector, checked, sha256
from loadtest.testbed.customers import UNLIMITED, key_of, people
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.waiting import until
from tests.support.asking import Asking, at_work
from tests.support.service import Service

AWAY = [pytest.param(5.0, id="short"), pytest.param(1800.0, id="half-an-hour", marks=pytest.mark.soak)]
"""Seconds without a collector."""
GROWTH_MAX = 16 << 10
"""The supervisor's allowed growth in KiB. It does not depend on the number of batches that wait on its disk."""


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    directory_signatures.create_key_file(tmp_path / "directory.key")
    with closing(create_collector(tmp_path, "first")) as created:
        yield created.start()


def create_collector(folder: Path, host: str) -> Collector:
    """Create a collector with its own state directory and address."""
    (folder / host).mkdir()
    ledger = f"sqlite:///{folder / host}/ledger.db"
    return Collector(folder / host, ledger, directory={"key": str(folder / "directory.key")})


def build_settings(collector: Collector, folder: Path) -> dict[str, object]:
    """Return the settings of an edge that ships to this collector and follows its directory."""
    return {
        "usage": {"collector": f"http://127.0.0.1:{collector.port}", "token": EDGE, "every": "200ms"},
        "directory": {"from": "collector", "trust": Signer.load(folder / "directory.key").public_key},
    }


def sum_ledger(collector: Collector) -> dict[str, int]:
    """Return the requests of each customer in the ledger."""
    return {row["customer"]: row["value"] for row in collector.usage(by="customer", meter="requests")["rows"]}


def check_all_arrived(edge: Edge, collector: Collector, asking: Asking) -> None:
    """Wait until the ledger equals the edge's counts, and check that these equal the clients' answers."""
    assert (asking.lost, asking.refused) == (0, 0)
    until(lambda: edge.status()["usage"]["unshipped"] == 0, "everything is shipped", seconds=60)
    until(lambda: sum_ledger(collector).get(UNLIMITED) == edge.usage()[UNLIMITED], "the ledger has it", seconds=60)
    assert edge.usage()[UNLIMITED] == asking.statuses[200]
    assert checked(collector)[0] == 0


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("seconds", AWAY)
def test_collector_outage_loses_no_usage_and_needs_no_memory(
    seconds: float, collector: Collector, start_edge: StartEdge, service: Service, tmp_path: Path
) -> None:
    edge = start_edge(port=service.port, **people(), **build_settings(collector, tmp_path))
    asking = Asking(edge.port, UNLIMITED)
    with at_work(asking):
        until(lambda: sum_ledger(collector).get(UNLIMITED, 0) > 20, "usage arrives")
        collector.kill()
        until(lambda: edge.status()["usage"]["unshipped"] > 5, "batches wait")
        before = vitals(edge.supervisor.pid)
        back = monotonic() + seconds
        until(lambda: monotonic() > back, "the collector has been away for long", seconds=seconds + 10)
        after, waiting = vitals(edge.supervisor.pid), edge.status()["usage"]
        collector.start()
        until(
            lambda: edge.status()["usage"]["unshipped"] < 3,
            "the waiting batches are shipped",
            seconds=60 + seconds / 10,
        )
    assert before is not None
    assert after is not None
    print(f"{waiting['unshipped']} counts unshipped, {waiting['spool_bytes']} bytes in the spool")
    assert waiting["unshipped"] > 2 * seconds
    assert after.memory - before.memory < GROWTH_MAX
    check_all_arrived(edge, collector, asking)


def test_collector_move_to_another_host_loses_no_usage(
    collector: Collector, start_edge: StartEdge, service: Service, tmp_path: Path
) -> None:
    """The collector ends, its database moves to another address, and the edge is reloaded. Clients see no error."""
    edge = start_edge(port=service.port, **people(), **build_settings(collector, tmp_path))
    asking = Asking(edge.port, UNLIMITED)
    with closing(create_collector(tmp_path, "second")) as second:
        with at_work(asking):
            assert collector.send("POST", "/v1/customers", {"name": "dora", "tier": "basic"}).status == 201
            key = {"sha256": sha256(key_of("dora")), "name": "key"}
            body = collector.send("POST", "/v1/customers/dora/keys", key).json()
            until(lambda: fetch_statuses(edge, "dora") == {200}, "the edge knows dora")
            until(lambda: sum_ledger(collector).get(UNLIMITED, 0) > 20, "usage arrives")
            collector.end()
            shutil.copy(collector.database, second.database)
            until(lambda: edge.status()["usage"]["unshipped"] > 5, "batches wait")
            second.start()
            assert edge.reload(**build_settings(second, tmp_path)).status == 200
            until(lambda: edge.status()["usage"]["unshipped"] < 3, "the waiting batches are shipped")
            assert fetch_statuses(edge, "dora") == {200}
            assert second.send("DELETE", f"/v1/keys/{body['id']}").status in (200, 204)
            until(lambda: fetch_statuses(edge, "dora") == {401}, "the edge follows the second collector")
        check_all_arrived(edge, second, asking)


def fetch_statuses(edge: Edge, customer: str) -> set[int]:
    """Return the statuses of several requests of a customer, over all workers."""
    return {edge.ask(fields={"Authorization": f"Bearer {key_of(customer)}"}).status for _ in range(8)}
