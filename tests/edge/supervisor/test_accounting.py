"""Sealing and shipping by a supervisor: a real state directory and a collector that accepts every batch."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvloop
from aiohttp import web
from zstandard import ZstdDecompressor

from edgeproxy.config.edge.usage import Usage
from edgeproxy.config.tls import UpstreamTls
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.supervisor import accounting
from edgeproxy.edge.supervisor.accounting import OTHER, Accounting
from edgeproxy.edge.supervisor.destinations import Destinations
from edgeproxy.edge.supervisor.table_reader import TableReader
from edgeproxy.edge.usage import identity
from edgeproxy.edge.usage.chains import ChainGrowth, Chains
from edgeproxy.edge.usage.seal import Sealer
from edgeproxy.edge.usage.ship import Shipper
from edgeproxy.wire.batch import parse_batch
from loadtest.testbed.authority import Authority, Pair
from loadtest.testbed.waiting import turned
from tests.edge.supervisor.certified import serving
from tests.support.logs import capture_logs

TOKEN = "edge-token"


class Collecting:
    """A collector that acknowledges every batch, on a port of its own."""

    def __init__(self) -> None:
        self.port = 0
        self.units = 0
        self.edges: list[str] = []
        """The edges that have shipped, in order."""
        self._seq: dict[str, int] = {}

    async def start(self, pair: Pair | None = None) -> web.AppRunner:
        created = web.Application()
        created.router.add_post("/v1/batches", self._take)
        runner = web.AppRunner(created, access_log=None, auto_decompress=False)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=None if pair is None else serving(pair))
        await site.start()
        self.port = runner.addresses[0][1]
        return runner

    async def _take(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        batch = parse_batch(ZstdDecompressor().decompress(await request.read()))
        before = self._seq.get(batch.edge, 0)
        if batch.seq > before:
            assert batch.seq == before + 1
            self._seq[batch.edge] = batch.seq
            self.units += sum(value for *_, value in batch.rows)
            self.edges += [batch.edge] * (batch.edge not in self.edges)
        return web.Response(body=orjson.dumps({"watermark": self._seq[batch.edge]}))


class Room:
    """A state directory with a counting worker and supervisors that seal and ship its counts."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.stores: list[Store] = []
        self.store = self.supervise()
        self.collecting = Collecting()
        self.worker = Store.join(self.state)
        self.counted = self.worker.billing.counter("acme", "requests", "v1")

    def supervise(self) -> Store:
        """Open the state directory as a further supervisor."""
        self.stores.append(Store.prepare(self.state, workers=1, customers=40, addresses=8))
        return self.stores[-1]

    def usage(self, **settings: Any) -> Usage:
        said = {"collector": f"http://127.0.0.1:{self.collecting.port}", "token": TOKEN, "every": 0.1}
        return Usage.model_validate({**said, **settings})

    def accounting(self, usage: Usage | None, store: Store | None = None) -> Accounting:
        store = store or self.store
        return Accounting(store, TableReader(store), "here", shipped_to(usage))


def shipped_to(usage: Usage | None) -> Destinations:
    return Destinations({} if usage is None else {"": usage})


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.worker.close()
    for store in made.stores:
        store.close()


Scene = Callable[[], Awaitable[None]]


def play(room: Room, scene: Scene, pair: Pair | None = None) -> None:
    """Run the scene with a running collector."""

    async def played() -> None:
        runner = await room.collecting.start(pair)
        try:
            await scene()
        finally:
            await runner.cleanup()

    uvloop.run(played())


def said(logs: list[Any], event: str) -> list[Any]:
    return [line for line in logs if line["event"] == event]


def test_second_supervisor_seals_after_the_lock_is_released(room: Room) -> None:
    async def scene() -> None:
        other = room.supervise()
        assert other.identity.try_acquire()
        accounts = room.accounting(room.usage())
        await accounts.begin()
        room.counted.add(3)
        told = await accounts.report()
        assert (told["unshipped"], told["edge"], told["sealing"]) == (3, None, None)
        assert sum(told["unshipped_by_meter"].values()) == 3
        assert (told["shipping"]["state"], told["shipping"]["why"]) == ("elsewhere", OTHER)
        assert ("edge_usage_shipping_ok", (), (1,)) in await accounts.series()
        assert room.collecting.units == 0
        other.identity.release()
        # The supervisor that maintains the tables takes the lock.
        assert room.store.maintain(5e7).holder
        await turned(lambda: room.collecting.units == 3, "the counts arrive")
        await accounts.end()

    play(room, scene)


def test_a_hanging_disk_is_reported_and_does_not_block_the_end(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounting, "SLOW_SEAL_SECONDS", 0.05)
    monkeypatch.setattr(accounting, "LAST_SEAL_SECONDS", 0.1)
    answers, append = threading.Event(), Sealer.append_batch

    def hangs(*given: Any) -> Any:
        assert answers.wait(20)
        return append(*given)

    monkeypatch.setattr(Sealer, "append_batch", hangs)

    async def scene() -> None:
        accounts = room.accounting(room.usage())
        room.counted.add(3)
        await accounts.begin()
        told: dict[str, Any] = {}

        async def slow() -> bool:
            told.update(await accounts.report())
            return told["sealing"] is not None

        deadline = time.monotonic() + 10
        while not await slow():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert told["sealing"]["why"].startswith("the disk has not answered for ")
        assert told["unshipped"] == 3
        assert ("edge_usage_sealing_ok", (), (0,)) in await accounts.series()
        with capture_logs() as logs:
            await accounts.end()
        assert said(logs, "the disk does not take what was counted last; it stays in the tables")
        answers.set()
        await turned(lambda: not any(one.name == "seal" for one in threading.enumerate()), "the disk has answered")

    play(room, scene)


def test_faults_are_logged_once_and_all_counts_are_sealed(room: Room) -> None:
    identity.create_identity(room.state, time.time() + 1000)

    async def scene() -> None:
        with capture_logs() as logs:
            accounts = room.accounting(room.usage())
            await accounts.begin()
            for expected in (1, 2, 3):
                room.counted.add(1)
                await turned(lambda wanted=expected: room.collecting.units == wanted, "the batch arrives")  # type: ignore[misc]
            told = await accounts.report()
            await accounts.end()
        (line,) = said(logs, "sealing is not well; what is counted stays in the tables")
        assert line["why"].startswith("the clock is ")
        assert told["sealing"]["why"].startswith("the clock is ")

    play(room, scene)


def test_sealing_is_retried_after_an_unexpected_error(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    look, fails = Chains.find_growth, [True, True]

    def looks(chains: Chains, now: float) -> tuple[list[ChainGrowth], tuple[str, ...]]:
        if fails and fails.pop():
            raise RuntimeError("unforeseen")
        return look(chains, now)

    monkeypatch.setattr(Chains, "find_growth", looks)

    async def scene() -> None:
        with capture_logs() as logs:
            accounts = room.accounting(room.usage())
            room.counted.add(1)
            await accounts.begin()
            await turned(lambda: room.collecting.units == 1, "the batch arrives")
            await accounts.end()
        (line,) = said(logs, "sealing is not well; what is counted stays in the tables")
        assert "unforeseen" in line["why"]
        assert isinstance(line["exc_info"], RuntimeError)
        assert said(logs, "sealing is well again")

    play(room, scene)


def test_a_dead_shipper_is_reported(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dies(shipper: Shipper) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(Shipper, "run", dies)

    async def scene() -> None:
        with capture_logs() as logs:
            accounts = room.accounting(room.usage())
            await accounts.begin()
            await turned(lambda: said(logs, "task died"), "the shipper dies")
            told = await accounts.report()
            assert ("edge_usage_shipping_ok", (), (0,)) in await accounts.series()
            await accounts.end()
        assert (told["shipping"]["state"], told["sealing"]) == ("stopped", None)

    play(room, scene)


def test_shipping_uses_the_configured_tls(room: Room, tmp_path: Path) -> None:
    authority, pair = Authority(tmp_path), tmp_path / "edge.pem"

    async def scene() -> None:
        tls = UpstreamTls(ca=authority.file, cert=pair, key=pair, server_name="collector.test")
        accounts = room.accounting(room.usage(collector=f"https://127.0.0.1:{room.collecting.port}", tls=tls))
        room.counted.add(2)
        await accounts.begin()
        told: dict[str, Any] = {}
        while "certificates" not in told.get("why", ""):
            told = (await accounts.report())["shipping"]
            await asyncio.sleep(0.02)
        assert told["state"] == "waiting"
        assert room.collecting.units == 0
        cert, key = authority.issue("edge.test")
        pair.write_bytes(cert.read_bytes() + key.read_bytes())
        await turned(lambda: room.collecting.units == 2, "the batch arrives")
        accounts.renew()
        room.counted.add(2)
        await turned(lambda: room.collecting.units == 4, "the counts arrive over a new connection")
        await accounts.end()

    play(room, scene, authority.issue("collector.test"))


def test_a_token_sent_without_tls_is_warned_of(room: Room) -> None:
    async def scene() -> None:
        with capture_logs() as logs:
            # This address reaches the host, but it is not a loopback address.
            accounts = room.accounting(room.usage(collector=f"http://0.0.0.0:{room.collecting.port}"))
            await accounts.begin()
            await accounts.end()
        assert said(logs, "the collector's token can be read by all on the way")

    play(room, scene)
