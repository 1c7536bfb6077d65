"""A worker process from its configuration to its end, with a test in its supervisor's place."""

import asyncio
import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from time import monotonic

import pytest
import uvloop

from edgeproxy.edge import messages
from edgeproxy.edge.channel import Channel
from edgeproxy.edge.counters import columns
from edgeproxy.edge.counters.columns import list_orphans
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.messages import Drain, EndpointAddresses, Failed, SetEndpoints
from edgeproxy.edge.proxy.process.handshake_filter import refuse_handshakes
from loadtest.testbed.waiting import until
from tests.edge.proxy.authority import Authority
from tests.edge.proxy.worker_process import TOKEN, Process, lived
from tests.support.transcript import Edge, get


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
