"""The state of worker processes: stand-ins replace the workers, and the kernel reports on them."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from edgeproxy.config.addresses import Address
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.supervisor import sockets
from edgeproxy.edge.supervisor.table_reader import TableReader
from edgeproxy.edge.supervisor.vitals import Vitals, fetch_usage
from edgeproxy.edge.supervisor.workers import Workers
from loadtest.testbed.waiting import turned, within
from tests.edge.supervisor.standing_in import STAND_IN, importable, ready, start
from tests.support.logs import capture_logs

__all__ = ["importable"]


def play(tmp_path: Path, scene: Callable[[Workers, Vitals], Awaitable[None]], behaviour: str = "serves") -> None:
    """Play `scene` with the vitals of two stand-ins."""

    async def run() -> None:
        store = Store.prepare(tmp_path / "state", workers=2, customers=100, addresses=100)
        listening = sockets.bind_all([Address("127.0.0.1", 0)])
        workers = Workers(2, STAND_IN, listening, start(behaviour))
        workers.start()
        try:
            await scene(workers, Vitals(workers, TableReader(store)))
        finally:
            sockets.close_all(listening)
            await within(30, workers.drain(1.0))
            store.close()

    uvloop.run(run())


def test_a_process_is_seen_as_it_is() -> None:
    before = fetch_usage(os.getpid())
    assert before is not None
    assert 1 << 20 < before.resident < 1 << 33
    assert before.limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    with open(os.devnull), open(os.devnull):
        after = fetch_usage(os.getpid())
        assert after is not None
        assert after.descriptors == before.descriptors + 2


def test_dead_process_has_no_usage() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        # Ended, and not waited for: its entries are there, and empty.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        found = fetch_usage(child.pid)
        assert found is None or found.resident == 0
    assert fetch_usage(child.pid) is None


def test_vitals_name_workers_by_place_across_restarts(tmp_path: Path) -> None:
    async def scene(workers: Workers, vitals: Vitals) -> None:
        await within(20, workers.first_ready)
        first = await vitals.report()
        assert [worker["place"] for worker in first] == [0, 1]
        for worker in first:
            assert worker["resident_bytes"] > 1 << 20
            assert worker["descriptors"] >= 3
            assert worker["connections"] == 0
        os.kill(first[0]["pid"], signal.SIGKILL)
        await turned(lambda: workers.restarts == 1 and workers.ready == 2, "a new worker is ready")
        second = await vitals.report()
        assert [worker["place"] for worker in second] == [0, 1]
        assert second[0]["pid"] != first[0]["pid"]
        assert second[1]["pid"] == first[1]["pid"]
        series: dict[Any, Any] = {(name, labels): words for name, labels, words in await vitals.series()}
        for place in "0", "1":
            assert series["edge_worker_resident_bytes", (place,)][0] > 1 << 20
            assert series["edge_worker_open_descriptors", (place,)][0] >= 3
            assert series["edge_worker_connections", (place,)] == (0,)
        assert series["edge_descriptor_limit", ()] == (resource.getrlimit(resource.RLIMIT_NOFILE)[0],)
        assert len(series) == 7

    play(tmp_path, scene)


def test_report_without_live_workers_is_empty(tmp_path: Path) -> None:
    async def scene(workers: Workers, vitals: Vitals) -> None:
        await turned(lambda: workers.restarts >= 1 and not workers.workers, "both are dead")
        assert await vitals.report() == []

    play(tmp_path, scene, "dies")


def test_starting_workers_have_no_vital_series(tmp_path: Path) -> None:
    async def scene(workers: Workers, vitals: Vitals) -> None:
        await turned(lambda: len(workers.workers) == 2, "both are started")
        assert len(await vitals.report()) == 2
        assert [name for name, _, _ in await vitals.series()] == ["edge_descriptor_limit"]

    play(tmp_path, scene, "mute")


def test_worker_out_of_descriptors_is_logged_once(tmp_path: Path) -> None:
    async def scene(workers: Workers, vitals: Vitals) -> None:
        await ready(workers)
        scarce, other = workers.workers
        _, most = resource.prlimit(scarce.pid, resource.RLIMIT_NOFILE)
        used = fetch_usage(scarce.pid)
        assert used is not None

        async def said(limit: int) -> list[dict[str, Any]]:
            resource.prlimit(scarce.pid, resource.RLIMIT_NOFILE, (limit, most))
            with capture_logs() as lines:
                await vitals.check()
            return [dict(line) for line in lines]

        assert await said(used.descriptors * 2) == []
        (line,) = await said(used.descriptors)
        assert (line["event"], line["log_level"]) == ("worker runs out of descriptors", "warning")
        assert (line["pid"], line["open"], line["limit"]) == (scarce.pid, used.descriptors, used.descriptors)
        assert await said(used.descriptors) == []
        assert await said(used.descriptors * 2) == []
        assert len(await said(used.descriptors)) == 1
        assert other in workers.workers

    play(tmp_path, scene)
