"""From a client's request to the collector's ledger: a real edge that seals and ships, and a real collector."""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from edgeproxy import __version__
from loadtest.testbed.collector import EDGE, Collector, checked
from loadtest.testbed.customers import people
from loadtest.testbed.edge import Edge, total
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import kill
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until

KEY = {"Authorization": "Bearer key-of-acme"}

_regions = count(1)


def usage_of(collector: Collector, **settings: str) -> dict[str, str]:
    """Return the `usage` settings of an edge that ships to a collector."""
    return {"collector": f"http://{HOST}:{collector.port}", "token": EDGE, "every": "100ms", **settings}


class Shipping(Edge):
    """An edge that ships to a collector, from its own region, which identifies its usage."""

    def __init__(self, folder: Path, upstream: int, collector: Collector, **settings: Any) -> None:
        self.collector = collector
        self.region = f"shipping-{next(_regions)}"
        said = {"region": self.region, "usage": usage_of(collector), "workers": 1, **people(acme="basic")}
        super().__init__(folder, upstream, **{**said, **settings})

    def request(self, times: int = 1) -> None:
        """Send answered requests of acme."""
        for _ in range(times):
            assert self.ask(fields=KEY).status == 200

    @property
    def ledger(self) -> int:
        """The edge's usage in the ledger."""
        rows = self.collector.usage(by="region")["rows"]
        return sum(row["value"] for row in rows if row["region"] == self.region)

    def arrive(self, wanted: int) -> None:
        """Wait until the ledger has exactly this usage."""
        until(lambda: self.ledger >= wanted, f"the ledger has {wanted} of {self.region}")
        assert self.ledger == wanted

    @property
    def shipped(self) -> dict[str, Any]:
        """The usage part of `/status`."""
        told: dict[str, Any] = self.status()["usage"]
        return told


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """A collector that tests share. A test that stops it starts it again."""
    folder = tmp_path_factory.mktemp("collector")
    with closing(Collector(folder, f"sqlite:///{folder}/ledger.db")) as made:
        yield made.start()
        assert checked(made)[0] == 0


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream, collector: Collector) -> Iterator[Shipping]:
    """An edge that tests share, and leave unchanged."""
    with closing(Shipping(tmp_path_factory.mktemp("edge"), upstream.port, collector)) as edge:
        edge.start()
        yield edge


Start = Callable[..., Shipping]


@pytest.fixture
def start(tmp_path: Path, upstream: Upstream, collector: Collector) -> Iterator[Start]:
    """Start an edge for one test: `start(**settings)`."""
    with ExitStack() as ends:

        def started(**settings: Any) -> Shipping:
            edge = ends.enter_context(closing(Shipping(tmp_path / "edge", upstream.port, collector, **settings)))
            edge.start()
            return edge

        yield started


def test_requests_appear_in_the_ledger(edge: Shipping, collector: Collector) -> None:
    before = edge.ledger
    edge.request(5)
    edge.arrive(before + 5)
    until(lambda: edge.shipped["shipping"]["state"] == "idle", "all is acknowledged")
    told = edge.shipped
    assert (told["unshipped"], told["oldest_s"], told["batches"]) == (0, 0, 0)
    assert (told["sealing"], told["aside"]) == (None, [])
    assert told["spool_bytes"] > 0
    known = collector.edges()[told["edge"]]
    assert (known["region"], known["version"], known["sync_age_s"]) == (edge.region, __version__, None)
    samples = edge.metrics()
    assert total(samples, "edge_usage_unshipped") == total(samples, "edge_usage_unshipped_seconds") == 0
    assert total(samples, "edge_usage_shipping_ok") == total(samples, "edge_usage_sealing_ok") == 1
    assert total(samples, "edge_usage_watermark") >= told["watermark"] >= 1
    assert total(samples, "edge_usage_batches_total", result="acknowledged") >= 1


def test_unshipped_batches_wait_for_the_collector(edge: Shipping, collector: Collector) -> None:
    before = edge.ledger
    collector.kill()
    edge.request(3)
    until(lambda: edge.shipped["batches"] and edge.shipped["oldest_s"], "a batch waits, and is a second old")
    told = edge.shipped
    assert (told["unshipped"], told["shipping"]["state"], told["sealing"]) == (3, "waiting", None)
    assert "nobody answers" in told["shipping"]["why"]
    samples = edge.metrics()
    assert total(samples, "edge_usage_unshipped") == 3
    assert total(samples, "edge_usage_unshipped_seconds") >= 1
    assert total(samples, "edge_usage_shipping_ok") == 1
    collector.start()
    edge.arrive(before + 3)


def test_a_reload_ends_and_begins_it(edge: Shipping, collector: Collector) -> None:
    before = edge.ledger
    until(lambda: edge.shipped["unshipped"] == 0, "all is acknowledged")
    known = edge.shipped["edge"]
    del edge.settings["usage"]
    assert edge.reload().status == 200
    until(lambda: edge.shipped["shipping"]["state"] == "off", "nothing is shipped")
    edge.request(3)
    # Nobody says any more what of it was shipped.
    assert edge.shipped["unshipped"] == sum(edge.usage().values())
    assert edge.reload(usage=usage_of(collector, token="another")).status == 200
    until(lambda: "401" in edge.shipped["shipping"]["why"], "the collector refuses the token")
    assert (edge.shipped["unshipped"], edge.ledger) == (3, before)
    assert edge.reload(usage=usage_of(collector)).status == 200
    edge.arrive(before + 3)
    assert edge.shipped["edge"] == known


def test_a_copy_is_another_edge(edge: Shipping, start: Start, tmp_path: Path) -> None:
    before = edge.ledger
    # A copy has no sockets, as whatever makes backups leaves them out.
    shutil.copytree(edge.settings["state"], tmp_path / "edge" / "state", ignore=shutil.ignore_patterns("*.sock"))
    copy = start()
    copy.request(4)
    edge.request(1)
    copy.arrive(4)
    edge.arrive(before + 1)
    told = copy.shipped
    assert told["edge"] != edge.shipped["edge"]
    assert (told["aside"], edge.shipped["aside"]) == (["aside.1"], [])
    assert total(copy.metrics(), "edge_usage_aside") == 1
    assert "the state was set aside" in copy.output


def test_stopping_edge_ships_its_counts(start: Start, collector: Collector) -> None:
    edge = start(workers=2, usage=usage_of(collector, every="1min"))
    edge.request(7)
    edge.end()
    assert edge.ledger == 7


def test_successor_edge_continues_the_batch_chain(start: Start, collector: Collector) -> None:
    edge = start()
    edge.request(3)
    edge.arrive(3)
    known, first = edge.shipped["edge"], edge.supervisor
    edge.begin()
    until(lambda: edge.output.count('"event": "edge serving"') == 2, "the second one serves")
    edge.request(10)
    edge.arrive(13)
    assert first.wait_after(signal.SIGTERM, 60.0) == 0
    edge.request(10)
    edge.arrive(23)
    assert edge.shipped["edge"] == known
    kill(edge.supervisor.pid)
    edge.request(4)
    edge.start()
    edge.request(1)
    edge.arrive(28)
    assert [one for one, told in collector.edges().items() if told["region"] == edge.region] == [known]


def test_edge_serves_and_loses_no_count_while_it_cannot_seal(start: Start, tmp_path: Path) -> None:
    spool = tmp_path / "edge" / "state" / "spool"
    spool.parent.mkdir(parents=True)
    spool.write_text("in the way")
    edge = start()
    edge.request(3)
    told = edge.shipped
    assert (told["unshipped"], told["shipping"]["state"]) == (3, "stopped")
    assert told["sealing"]["why"] == told["shipping"]["why"] == f"{spool}: Not a directory"
    samples = edge.metrics()
    assert total(samples, "edge_usage_shipping_ok") == total(samples, "edge_usage_sealing_ok") == 0
    spool.unlink()
    edge.arrive(3)
    assert edge.shipped["sealing"] is None
    # Once, however often it was tried.
    assert edge.output.count("sealing is not well") == edge.output.count("sealing is well again") == 1
