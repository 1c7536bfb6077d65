"""Faults on the way of counts: disks, clocks, copies and backups. Each test ends with equal sums.

The tests share an edge and a collector under load. Each leaves both intact.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.testbed.faulty_edge import Counted, copied, put_back
from loadtest.testbed.relay import CALM, DOWN, STORMY
from loadtest.testbed.sealing import batches
from loadtest.testbed.waiting import until
from tests.faults.counting.site import Site

HOUR = 3600.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, seed: int) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("usage"), seed) as site:
        yield site


@pytest.fixture
def edge(site: Site) -> Iterator[Counted]:
    """The edge, under load until `unload`."""
    site.edge.load()
    yield site.edge
    site.edge.unload()


def rest(site: Site, edge: Counted, *, killed: bool = False) -> None:
    """No more load: everything has arrived."""
    edge.unload()
    site.assert_exact(killed=killed)


def test_a_network_that_loses_doubles_and_delays_changes_no_count(site: Site, edge: Counted) -> None:
    edge.relay.fates = STORMY
    until(lambda: edge.relay.met["again later"] > 2 and edge.relay.met.total() > 25, "much is sent", seconds=60)
    edge.relay.late()
    edge.shipped_more()
    edge.relay.fates = CALM
    rest(site, edge)
    print(dict(edge.relay.met))


def test_a_full_disk_stops_sealing_and_no_request(site: Site, edge: Counted) -> None:
    edge.shipped_more()
    edge.fill_disk(True)
    why = until(lambda: edge.status()["usage"]["sealing"], "the edge reports that sealing failed")["why"]
    assert "No space left on device" in why
    before, counted = edge.watermark, sum(edge.usage().values())
    until(lambda: sum(edge.usage().values()) > counted + 50, "the edge serves")
    assert edge.status()["usage"]["unshipped"] > 50
    assert edge.ready()
    assert edge.watermark <= before + 1
    edge.fill_disk(False)
    until(lambda: edge.status()["usage"]["sealing"] is None, "the edge seals")
    rest(site, edge)


def test_a_clock_that_is_set_makes_no_count_twice(site: Site, edge: Counted) -> None:
    for seconds in (HOUR, -HOUR, -2 * HOUR, 0.0):
        edge.set_clock(seconds)
        edge.shipped_more()
    rest(site, edge)
    found = batches(edge.state / "spool")
    assert found[-1].since - found[0].since >= HOUR
    # No batch has a time from after the clock's step back.
    assert [batch.since for batch in found] == sorted(batch.since for batch in found)


def test_edge_resends_missing_batches_to_a_restored_collector(site: Site, edge: Counted, tmp_path: Path) -> None:
    edge.shipped_more()
    copy = tmp_path / "copy.db"
    copied(site.collector, copy)
    edge.shipped_more(5)
    assert (edge.state / "spool" / "watermark.json").exists()
    put_back(site.collector, copy)
    edge.shipped_more()
    rest(site, edge)


def test_collector_outage_loses_no_batch(site: Site, edge: Counted) -> None:
    edge.shipped_more()
    edge.relay.fates = DOWN
    until(lambda: edge.status()["usage"]["batches"] > 5, "batches wait")
    told = edge.status()["usage"]
    assert told["unshipped"] > 0
    assert told["oldest_s"] >= 0
    edge.relay.fates = CALM
    rest(site, edge)
    until(lambda: edge.status()["usage"]["unshipped"] == 0, "nothing is left")


def test_a_copy_of_a_state_directory_is_another_edge(site: Site, edge: Counted) -> None:
    edge.shipped_more()
    copy = site.add("copy", state=str(site.folder / "copy-state"))
    # As a snapshot of a running machine has it.
    shutil.copytree(edge.state, copy.state, ignore=shutil.ignore_patterns("*.sock"))
    mine = edge.id
    copy.start()
    copy.load()
    copy.shipped_more()
    edge.shipped_more()
    copy.unload()
    assert copy.id != mine == edge.id
    assert copy.status()["usage"]["aside"] == ["aside.1"]
    site.edges.append(copy)
    rest(site, edge)
