"""The messages of a supervisor to its worker process, and the worker's answers."""

import asyncio
import os
import signal
import socket
from contextlib import suppress
from itertools import pairwise
from time import monotonic

import pytest

from edgeproxy.config.edge.load import dump_settings
from edgeproxy.edge import messages
from edgeproxy.edge.channel import Channel, ChannelClosedError
from edgeproxy.edge.messages import (
    AcmeChallenges,
    Alive,
    ChallengesServed,
    Commit,
    Committed,
    Discard,
    Drain,
    Prepare,
    Prepared,
    PrepareFailed,
    SetEndpoints,
    ToSupervisor,
)
from edgeproxy.edge.proxy.process import control_handler
from edgeproxy.edge.proxy.process.control_handler import ControlHandler
from tests.edge.proxy.worker_process import Process
from tests.support.transcript import KEY, Edge, digest, get


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
    edge.config["keys"] += [{"sha256": digest(f"{n}"), "customer": "free"} for n in range(10_000)]
    message = Prepare(2, dump_settings(edge.settings()), {})
    for _ in range(20):
        await worker.channel.send(message)
    await worker.channel.send(Drain(5.0))
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
