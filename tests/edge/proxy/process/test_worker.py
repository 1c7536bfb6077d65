"""A worker process from its configuration to its end, with a test in its supervisor's place."""

import asyncio
import fcntl
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import pairwise
from pathlib import Path
from time import monotonic

import pytest
import uvloop

from edgeproxy.config.edge.load import dump_settings
from edgeproxy.edge import messages
from edgeproxy.edge.channel import Channel, ChannelClosedError
from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters.columns import list_orphans
from edgeproxy.edge.counters.index import TableBusyError, TableFullError
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.counters.tallies import FLOCK_WAIT_SECONDS
from edgeproxy.edge.messages import (
    AcmeChallenges,
    Alive,
    ChallengesServed,
    Commit,
    Committed,
    Discard,
    Drain,
    EndpointAddresses,
    Failed,
    Prepare,
    Prepared,
    PrepareFailed,
    SetEndpoints,
    ToSupervisor,
)
from edgeproxy.edge.proxy.process import control_handler
from edgeproxy.edge.proxy.process.control_handler import ControlHandler, describe_failure
from edgeproxy.edge.proxy.process.handshake_filter import refuse_handshakes
from loadtest.testbed.waiting import until
from tests.edge.proxy.authority import Authority
from tests.edge.proxy.worker_process import TOKEN, Process, lived
from tests.support.transcript import KEY, Edge, digest, get


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_signal_ends_the_worker_cleanly(worker: Process, number: int) -> None:
    async def scene() -> None:
        await worker.begins()
        os.kill(worker.process.pid, number)
        async with asyncio.timeout(10):
            await worker.hangs_up()

    uvloop.run(scene())
    assert worker.ends()[0] == 0


def test_sighup_does_not_end_a_worker(worker: Process) -> None:
    async def scene() -> None:
        await worker.begins()
        os.kill(worker.process.pid, signal.SIGHUP)
        assert await worker.asks(get("/nowhere")) == 404
        await worker.channel.send(Drain(5.0))
        async with asyncio.timeout(10):
            await worker.hangs_up()

    uvloop.run(scene())
    assert worker.ends()[0] == 0


def test_orphaned_worker_serves_until_another_supervisor_serves(worker: Process) -> None:
    async def scene() -> None:
        worker.supervisor.control.write_heartbeat(TOKEN, monotonic())
        await worker.begins()
        worker.channel.close()
        # The last heartbeat is its own supervisor's, so no other supervisor serves yet.
        for _ in range(3):
            assert await worker.asks(get("/nowhere")) == 404
        assert worker.process.running
        worker.supervisor.control.write_heartbeat(TOKEN + 1, monotonic())

    uvloop.run(scene())
    assert worker.ends()[0] == 0


def test_orphaned_worker_accepts_handshakes_until_it_leaves(worker: Process) -> None:
    async def scene() -> None:
        await worker.begins()
        worker.channel.close()
        refuse_handshakes([worker.listening])  # As another worker does that left.
        assert await worker.asks(get("/nowhere")) == 404
        worker.supervisor.control.write_heartbeat(TOKEN + 1, monotonic())

    uvloop.run(scene())
    assert worker.ends()[0] == 0
    assert not is_queued(worker)


def is_queued(worker: Process) -> bool:
    """Return whether a connection waits in the accept queue of a worker that has left."""
    with socket.socket() as late:
        late.setblocking(False)
        late.connect_ex(worker.address)
        return bool(select.select([worker.listening], [], [], 0)[0])


@pytest.fixture
def unresolved(edge: Edge) -> Iterator[Process]:
    """A worker whose upstream has a name, so it waits for addresses from its supervisor."""
    edge.config["upstreams"]["api"]["endpoints"] = ["http://upstream.test:80"]
    yield from lived(edge)


def test_worker_serves_after_its_supervisor_dies_before_readiness(unresolved: Process) -> None:
    async def scene() -> None:
        await unresolved.is_configured()
        await unresolved.channel.send(SetEndpoints(1, {"api": [EndpointAddresses([], [])]}))
        unresolved.channel.close()
        async with asyncio.timeout(30):
            assert await unresolved.asks(get("/nowhere")) == 404
        unresolved.supervisor.control.write_heartbeat(TOKEN + 1, monotonic())

    uvloop.run(scene())
    assert unresolved.ends()[0] == 0


def test_orphaned_worker_leaves_if_enough_others_serve_on(worker: Process) -> None:
    async def scene() -> None:
        await worker.begins()
        worker.channel.close()
        assert await worker.asks(get("/nowhere")) == 404

    uvloop.run(scene())
    other = Store.join(worker.state)
    assert other.declare_orphan(TOKEN + 1, last=True)
    code, written = worker.ends()
    assert code == 0
    assert "enough others serve on" in written
    assert not is_queued(worker), "no connection waits for the worker that has left"
    other.close()


def test_orphaned_worker_marks_its_column_until_it_drains(worker: Process, edge: Edge) -> None:
    async def scene() -> None:
        worker.supervisor.control.write_heartbeat(TOKEN, monotonic())
        await worker.begins()
        worker.channel.close()

    uvloop.run(scene())
    with closing(Store.join(worker.state)) as other:
        tables = other.limits.values()
        until(
            lambda: all(table.seen_by(frozenset({0}), table.version) for table in tables),
            "each table reads the new column",
        )
        known = other.get_file("connections.1.tbl", "connections")
        until(lambda: list_orphans(known) == {0: True}, "other processes see the orphan")
        assert not other.declare_orphan(TOKEN + 1, last=False)
        with socket.create_connection(worker.address) as client:
            client.sendall(get())
            edge.upstream.listening.settimeout(20)
            under_way, _ = edge.upstream.listening.accept()
            worker.process.send_signal(signal.SIGTERM)
            until(lambda: not list_orphans(known), "the orphan has withdrawn its mark")
            assert columns.list_held_columns(other.metrics.file) | {other.column} == {0, 1}
            under_way.close()
    assert worker.ends()[0] == 0


def test_worker_without_a_free_column_fails_with_a_reason(worker: Process) -> None:
    taken = [Store.join(worker.state) for _ in range(2)]

    async def scene() -> None:
        answer = await worker.begins()
        assert isinstance(answer, Failed)
        assert answer.why
        assert answer.crowded

    uvloop.run(scene())
    assert worker.ends()[0] == 1
    for store in taken:
        store.close()


def test_worker_without_a_supervisor_at_start_exits_with_1(worker: Process) -> None:
    worker._mine.close()
    code, written = worker.ends()
    assert code == 1
    assert "the other side is gone" in written


def test_an_unknown_message_ends_the_supervisors_channel_and_not_the_requests(worker: Process) -> None:
    async def scene() -> None:
        worker.supervisor.control.write_heartbeat(TOKEN, monotonic())
        await worker.begins()
        worker.channel._writer.write(b"\x00\x00\x00\x0e\x81\xa4type\xa7unknown")
        async with asyncio.timeout(10):
            await worker.hangs_up()
        assert await worker.asks(get("/nowhere")) == 404
        worker.supervisor.control.write_heartbeat(TOKEN + 1, monotonic())

    uvloop.run(scene())
    code, written = worker.ends()
    assert code == 0
    assert "Invalid value 'unknown'" in written


def test_message_before_the_configuration_ends_the_worker_with_an_error(worker: Process) -> None:
    async def scene() -> None:
        channel = await Channel.from_socket(worker._mine, messages.SUPERVISOR)
        await channel.send(Drain(5.0))

    uvloop.run(scene())
    code, written = worker.ends()
    assert code == 1
    assert "Drain is not what a worker is told first" in written


@pytest.fixture
def files(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secure(edge: Edge, files: Authority) -> Iterator[Process]:
    """A worker whose listener has TLS."""
    cert, key = files.issues("edge.test")
    edge.config["listen"] = {"address": "127.0.0.1:0", "tls": {"cert": str(cert), "key": str(key)}}
    yield from lived(edge)


def test_worker_with_an_unusable_certificate_fails_with_a_reason(secure: Process, tmp_path: Path) -> None:
    (tmp_path / "edge.key").unlink()

    async def scene() -> None:
        answer = await secure.begins()
        assert isinstance(answer, Failed)
        assert "No such file" in answer.why

    uvloop.run(scene())
    assert secure.ends()[0] == 1


# ---- orders of the supervisor


async def prepares(worker: Process, edge: Edge, number: int) -> ToSupervisor:
    """Let the worker prepare the present `config`. Return its answer."""
    await worker.channel.send(Prepare(number, dump_settings(edge.settings()), {}))
    return await worker.hears()


async def commits(worker: Process, edge: Edge, number: int) -> None:
    """Let the worker prepare and serve the present `config`."""
    assert await prepares(worker, edge, number) == Prepared(number)
    await worker.channel.send(Commit(number))
    assert await worker.hears() == Committed(number)


async def test_only_a_commit_of_a_prepared_configuration_changes_the_served_one(edge: Edge, worker: Process) -> None:
    """Only a commit of a prepared configuration changes the served one."""
    await worker.begins()
    edge.config["routes"].append({"path": "/new/*", "upstream": "api"})
    assert await prepares(worker, edge, 2) == Prepared(2)
    assert await worker.asks(get("/new/x")) == 404
    await worker.channel.send(Discard(2))
    await worker.channel.send(Commit(2))
    assert await prepares(worker, edge, 3) == Prepared(3)
    assert await worker.asks(get("/new/x")) == 404
    await worker.channel.send(Commit(3))
    assert await worker.hears() == Committed(3)
    assert await worker.asks(get("/new/x")) == 401
    await worker.channel.send(Drain(5.0))
    await worker.hangs_up()
    assert worker.ends()[0] == 0


async def test_a_configuration_waits_for_a_locked_table_while_requests_are_served(edge: Edge, worker: Process) -> None:
    await worker.begins()
    assert await worker.asks(get("/nowhere")) == 404
    edge.config["routes"].append({"path": "/new/*", "upstream": "api"})
    held = worker.supervisor.metrics.file
    assert held.lock()
    await worker.channel.send(Prepare(2, dump_settings(edge.settings()), {}))
    began = monotonic()
    while monotonic() < began + 6 * FLOCK_WAIT_SECONDS:
        assert await worker.asks(get("/nowhere")) == 404
    held.unlock()
    assert await worker.hears() == Prepared(2)


async def test_a_configuration_is_built_again_only_once_the_table_is_free(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_handler, "BUSY_RETRY_SECONDS", 0.001)
    tries: list[int] = []
    mine, theirs = socket.socketpair()
    await edge.client()
    worker = edge.worker
    worker._sweep()  # It claims its rows at the first time.
    channel, ours = (
        await Channel.from_socket(theirs, messages.WORKER),
        await Channel.from_socket(mine, messages.SUPERVISOR),
    )
    handler = ControlHandler(channel, worker.runtime, worker.generations, worker.reload_certificates)
    with worker.store.metrics.file.path.open("rb") as held:
        prepare = worker.generations.prepare

        def count(*arguments: object) -> None:
            tries.append(1)
            prepare(*arguments)

        monkeypatch.setattr(worker.generations, "prepare", count)
        edge.config["routes"].append({"name": "new", "path": "/new/*", "upstream": "api"})
        fcntl.flock(held, fcntl.LOCK_EX)
        preparing = edge.runtime.tasks.start("prepare", handler._prepare(2, dump_settings(edge.settings()), {}))
        await edge.until(lambda: tries, "the table was busy")
        for _ in range(5):
            await asyncio.sleep(0.002)
        assert tries == [1]
        fcntl.flock(held, fcntl.LOCK_UN)
        await preparing
        assert (tries, await ours.receive()) == ([1, 1], Prepared(2))
        # The last try is made in any case: its error names the table.
        fcntl.flock(held, fcntl.LOCK_EX)
        edge.config["routes"].append({"name": "newer", "path": "/newer/*", "upstream": "api"})
        await handler._prepare(3, dump_settings(edge.settings()), {})
        answer = await ours.receive()
        assert isinstance(answer, PrepareFailed)
        assert "locked by another process" in answer.why
        assert tries == [1] * 4
        fcntl.flock(held, fcntl.LOCK_UN)
    channel.close()
    ours.close()


def test_a_table_that_stays_locked_is_not_called_full() -> None:
    assert "another process" in describe_failure(TableBusyError("metrics"))
    assert "no room" in describe_failure(TableFullError("metrics"))


async def test_an_invalid_message_stops_neither_messages_nor_heartbeats(edge: Edge, worker: Process) -> None:
    await worker.begins()
    await worker.channel.send(SetEndpoints(1, {"api": []}))
    unreadable = {"api.test": str(edge._folder / "nothing.pem")}
    for number, challenges in enumerate((({}, {"api.test": "\0"}), ({}, unreadable), ({"x" * 80_000: "x"}, {})), 1):
        await worker.channel.send(AcmeChallenges(*challenges, number))
        answer = await worker.hears()
        assert isinstance(answer, ChallengesServed)
        assert answer.number == number
        assert bool(answer.why) == (number < 3)
    await commits(worker, edge, 2)
    async with asyncio.timeout(10):
        for _ in range(2):
            while not isinstance(await worker.channel.receive(), Alive):
                pass


async def test_an_unusable_configuration_is_refused_and_the_served_one_stays(edge: Edge, worker: Process) -> None:
    await worker.begins()
    for number, dumped in enumerate((b"", b"{}\nkey", dump_settings(edge.settings()) + b"\nkey nonsense {}"), 2):
        await worker.channel.send(Prepare(number, dumped, {}))
        answer = await worker.hears()
        assert isinstance(answer, PrepareFailed)
        assert answer.number == number
        assert answer.why
    settings = edge.settings()
    upstream = settings.upstreams["api"]
    tls = upstream.tls.model_copy(update={"ca": edge._folder / "nothing.pem"})
    endpoint = upstream.endpoints[0].model_copy(update={"url": "https://127.0.0.1:9"})
    broken = settings.model_copy(
        update={"upstreams": {"api": upstream.model_copy(update={"tls": tls, "endpoints": (endpoint,)})}}
    )
    await worker.channel.send(Prepare(5, dump_settings(broken), {}))
    answer = await worker.hears()
    assert isinstance(answer, PrepareFailed)
    assert "nothing.pem" in answer.why
    edge.config["routes"] += [{"name": f"r{n}", "path": f"/{n}/*", "upstream": "api"} for n in range(5000)]
    answer = await prepares(worker, edge, 6)
    assert isinstance(answer, PrepareFailed)
    assert "metrics" in answer.why
    assert await worker.asks(get("/v1/x", f"X-API-Key: {KEY}-not")) == 401
    del edge.config["routes"][3:]
    await commits(worker, edge, 7)


async def test_a_drain_does_not_wait_for_pending_prepares(edge: Edge, worker: Process) -> None:
    await worker.begins()
    message = Prepare(2, dump_settings(edge.settings()), {})
    # The worker finds all messages at once.
    os.kill(worker.process.pid, signal.SIGSTOP)
    for _ in range(20):
        await worker.channel.send(message)
    await worker.channel.send(Drain(5.0))
    os.kill(worker.process.pid, signal.SIGCONT)
    answers = 0
    with suppress(ChannelClosedError):
        while await worker.hears():
            answers += 1
    assert answers < 20
    assert worker.ends()[0] == 0


async def test_sigterm_drains_with_the_time_of_the_served_configuration(edge: Edge, worker: Process) -> None:
    await worker.begins()
    edge.config["drain"] = "100ms"
    await commits(worker, edge, 2)
    client = socket.create_connection(worker.address)
    client.sendall(get())  # The upstream accepts the request and never answers.
    end, _ = await asyncio.get_running_loop().sock_accept(edge.upstream.listening)
    began = monotonic()
    os.kill(worker.process.pid, signal.SIGTERM)
    await worker.hangs_up()
    assert monotonic() - began < 10
    assert worker.ends()[0] == 0
    client.close()
    end.close()


async def test_unread_heartbeats_do_not_accumulate(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_handler, "ALIVE_SECONDS", 0.0)
    mine, theirs = socket.socketpair()
    channel = await Channel.from_socket(theirs, messages.WORKER)
    await edge.client()
    worker = edge.worker
    handler = ControlHandler(channel, worker.runtime, worker.generations, worker.reload_certificates)
    task = edge.runtime.tasks.start("alive", handler.send_heartbeats())
    transport = channel._writer.transport
    await edge.until(transport.get_write_buffer_size, "the receiver reads no more")
    held = transport.get_write_buffer_size()
    for _ in range(200):
        await asyncio.sleep(0)
    assert transport.get_write_buffer_size() == held <= 64
    task.cancel()
    channel.close()
    mine.close()


def memory(pid: int) -> int:
    """Return the resident KiB of a process."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


async def test_memory_stays_level_over_forty_reloads(edge: Edge, worker: Process) -> None:
    """Each configuration has other upstreams, routes, limits and half of the keys, and serves requests."""
    keys = [{"sha256": digest(f"key {n}"), "customer": "free"} for n in range(600)]
    variants = []
    for n in range(4):
        edge.config["keys"] = edge.config["keys"][:4] + keys[100 * n : 100 * n + 300]
        edge.config["upstreams"][f"more-{n}"] = {"endpoints": [edge.upstream.url, "https://127.0.0.1:9"], "pool": n + 1}
        edge.config["routes"] = [
            {"name": f"r{m}", "path": f"/{m}/*", "upstream": f"more-{n}", "auth": "required"} for m in range(100)
        ]
        edge.config["tiers"]["basic"] = {"limits": [{"rate": f"{60 + n}/min"}]}
        edge.config["per_ip"] = {"rate": f"{10_000 + n}/s"}
        edge.config["access_log"] = str(edge._folder / f"{n}.log")
        variants.append(dump_settings(edge.settings()))
        del edge.config["upstreams"][f"more-{n}"]
    await worker.begins()

    async def reloads(first: int, last: int) -> int:
        for number in range(first, last):
            await worker.channel.send(Prepare(number, variants[number % 4], {}))
            assert await worker.hears() == Prepared(number)
            await worker.channel.send(Commit(number))
            assert await worker.hears() == Committed(number)
            assert await worker.asks(get("/7/x", "X-API-Key: nobody")) == 401
            assert await worker.asks(get("/nowhere", f"X-API-Key: {KEY}")) == 404
        return memory(worker.process.pid)

    held = [await reloads(*stretch) for stretch in pairwise(range(2, 43, 10))]
    # A leak grows in every stretch of ten reloads. The allocator's rounding does not, so the minimum counts.
    assert min(after - before for before, after in pairwise(held)) < 100, f"KiB, 10 configurations apart: {held}"
    descriptors = len(os.listdir(f"/proc/{worker.process.pid}/fd"))
    assert descriptors < 40
    threads = len(os.listdir(f"/proc/{worker.process.pid}/task"))
    assert threads < 20
