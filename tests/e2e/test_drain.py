"""SIGTERM and kill -9 of a whole edge, as its clients see it: whatever connection they use, no request is lost."""

import asyncio
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import websockets
from websockets.exceptions import ConnectionClosed

from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.http_client import Wire, ask
from loadtest.testbed.load_clients import Load, Plan
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import kill
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until

ASKED = f"GET / HTTP/1.1\r\nHost: a\r\nX-API-Key: {key_of(UNLIMITED)}\r\n\r\n".encode()


class Callers:
    """Clients that open a new connection for each request. `seen` counts the outcomes."""

    def __init__(self, port: int, number: int = 8) -> None:
        self.seen: Counter[str] = Counter()
        self._port = port
        self._over = threading.Event()
        self._counting = threading.Lock()
        self._threads = [threading.Thread(target=self._call) for _ in range(number)]

    def _call(self) -> None:
        while not self._over.is_set():
            outcome = self._one()
            with self._counting:
                self.seen[outcome] += 1
            if outcome == "refused":
                self._over.wait(0.01)

    def _one(self) -> str:
        try:
            wire = Wire(self._port)
        except ConnectionRefusedError:
            return "refused"
        with wire:
            try:
                wire.send(ASKED)
                return str(wire.hear().status)
            except (OSError, ValueError) as lost:
                return f"lost: {lost!r}"

    def answered(self, more: int) -> None:
        """Wait for this number of further answers."""
        expected = self.seen["200"] + more
        until(lambda: self.seen["200"] >= expected, "requests are answered")

    def lost(self) -> list[str]:
        """Return the outcomes of accepted requests that did not get a 200."""
        return [outcome for outcome in self.seen if outcome not in ("200", "refused")]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()


def test_a_drain_under_load_loses_no_request(start_edge: StartEdge, upstream: Upstream, tmp_path: Path) -> None:
    edge = start_edge()
    paths = ["/kept", "POST /kept?chunked=1&size=5000", "/kept?wait=100"]
    kept = Load(tmp_path / "load", "kept", Plan(edge.port, [UNLIMITED], paths, connections=8))
    with Callers(edge.port) as callers, Wire(edge.port) as slow:
        callers.answered(200)
        until(lambda: upstream.seen()["paths"].get("/kept", 0) > 200, "clients with open connections are answered")
        slow.send(ASKED.replace(b"/ ", b"/slow?wait=1500 "))
        until(lambda: upstream.seen()["paths"].get("/slow"), "the slow one is under way")
        edge.supervisor.terminate()
        until(lambda: ask(edge.admin, "/readyz").status == 503, "the edge is not ready")
        assert ask(edge.admin, "/healthz").status == 200
        answer = slow.hear()
        assert (answer.status, answer["connection"]) == (200, "close")
        assert edge.supervisor.wait(10) == 0
        until(lambda: callers.seen["refused"], "no edge listens any more")
    account = kept.finish()
    assert callers.lost() == []
    assert (account.lost, account.reset) == ({}, 0)
    assert account.answered(UNLIMITED, 200) > 0


def test_new_edge_takes_over_each_connection(start_edge: StartEdge) -> None:
    edge = start_edge()
    with Callers(edge.port) as callers:
        for number in (2, 3):
            callers.answered(200)
            old = edge.supervisor
            edge.begin()
            until(lambda number=number: edge.output.count('"event": "edge serving"') == number, "the new one serves")
            assert old.wait_after(signal.SIGTERM, 20) == 0
        callers.answered(200)
    assert set(callers.seen) == {"200"}


def test_restarted_supervisor_replaces_orphaned_workers_in_seconds(start_edge: StartEdge) -> None:
    edge = start_edge()
    with Callers(edge.port) as callers:
        callers.answered(200)
        orphans = set(edge.worker_pids())
        kill(edge.supervisor.pid)
        callers.answered(200)
        edge.start()
        until(lambda: not orphans & edge.supervisor.family(), "the workers of the old one have left", seconds=5)
        callers.answered(200)
        assert edge.ready()
    assert set(callers.seen) == {"200"}


# ---- WebSockets


class Server(threading.Thread):
    """An echo server of the websockets library, and how it saw its connections end."""

    def __init__(self) -> None:
        super().__init__()
        self.ports = Ports(1)
        self.ends: list[tuple[int | None, int | None]] = []
        """The code that was received, and the one that was sent, of each."""
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._ready = threading.Event()

    async def _echo(self, tunnel: websockets.ServerConnection) -> None:
        try:
            async for message in tunnel:
                await tunnel.send(message)
        finally:
            heard = tunnel.protocol
            received, sent = heard.close_rcvd, heard.close_sent
            self.ends.append((received and received.code, sent and sent.code))

    async def _serve(self) -> None:
        async with websockets.serve(self._echo, HOST, self.ports.numbers[0], ping_interval=None):
            self._ready.set()
            await self._over.wait()

    def run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    def __enter__(self) -> "Server":
        self.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self.join()
        self.ports.close()


@contextmanager
def tunnels(tmp_path: Path) -> Iterator[tuple[Edge, Server]]:
    """An edge in front of a WebSocket server, which drains for a minute if it has to."""
    routes = [{"name": "ws", "path": "/*", "upstream": "api", "auth": "none"}]
    with (
        Server() as server,
        closing(Edge(tmp_path / "edge", server.ports.numbers[0], routes=routes, drain="60s")) as edge,
    ):
        yield edge.start(), server


def test_draining_edge_closes_websockets_with_going_away(tmp_path: Path) -> None:
    async def scene(edge: Edge) -> list[int | None]:
        url = f"ws://{HOST}:{edge.port}/"
        async with asyncio.timeout(20):
            clients = [await websockets.connect(url, proxy=None, ping_interval=None) for _ in range(6)]
            for number, client in enumerate(clients):
                await client.send(f"hello {number}" * number * 1000)
                assert await client.recv() == f"hello {number}" * number * 1000
            edge.supervisor.terminate()
            codes = []
            for client in clients:
                with pytest.raises(ConnectionClosed) as closed:
                    await client.recv()
                codes.append(closed.value.rcvd and closed.value.rcvd.code)
        return codes

    with tunnels(tmp_path) as (edge, server):
        assert asyncio.run(scene(edge)) == [1001] * 6
        assert edge.supervisor.wait(20) == 0
        until(lambda: len(server.ends) == 6, "the server has seen every end")
        assert server.ends == [(1001, 1001)] * 6
