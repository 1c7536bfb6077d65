"""Silent, slow or many clients of a listener do not keep others out."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
import uvloop
from aiohttp import ClientSession, TCPConnector, web

from edgeproxy.base import web_listener
from edgeproxy.base.web_listener import FIELD_BYTES_MAX, FIELDS_MAX, PEER, TARGET_BYTES_MAX, Bounds, Peer, WebListener
from loadtest.testbed.authority import Authority
from loadtest.testbed.ports import HOST

DEADLINE_SECONDS = 60.0


class Scene:
    """A listener on a free port, whose `/wait` answers once `go` is set."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.go = asyncio.Event()
        self.under_way = 0
        self.held = ExitStack()

    def silent(self, *, sends: bytes = b"") -> socket.socket:
        """Connect, and send no whole head."""
        created = self.held.enter_context(socket.create_connection((HOST, self.port)))
        created.sendall(sends)
        created.setblocking(False)
        return created

    async def answer(self, path: str = "/") -> str:
        """Ask over a connection of its own."""
        async with (
            ClientSession(connector=TCPConnector(force_close=True)) as client,
            client.get(f"http://{HOST}:{self.port}{path}") as answer,
        ):
            return await answer.text()


async def closed(connection: socket.socket) -> bool:
    """Wait until the listener has closed a connection."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        try:
            return await asyncio.get_running_loop().sock_recv(connection, 1) == b""
        except ConnectionResetError:
            return True


def play(bounds: Bounds, scene: Callable[[Scene], Awaitable[None]], context: ssl.SSLContext | None = None) -> None:
    async def run() -> None:
        listener = WebListener(bounds)
        application = web.Application(middlewares=[listener.track_request])
        with socket.create_server((HOST, 0)) as listening:
            stage = Scene(listening.getsockname()[1])

            async def who(request: web.Request) -> web.Response:
                return web.Response(text=f"{request[PEER].address} at {request[PEER].local}")

            async def wait(_: web.Request) -> web.Response:
                stage.under_way += 1
                await stage.go.wait()
                return web.Response(text="done")

            application.router.add_get("/", who)
            application.router.add_get("/wait", wait)
            runner = web.AppRunner(application)
            await runner.setup()
            listener.accept(runner, listening, lambda: context)
            with stage.held:
                await scene(stage)
            await listener.end()
            await runner.cleanup()

    uvloop.run(run())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - the other end is in this loop
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("bounds", [Bounds(10, 20), Bounds(100, 10)])
def test_web_listener_closes_silent_connections_for_new_requests(bounds: Bounds) -> None:
    async def scene(stage: Scene) -> None:
        silent = [stage.silent(sends=b"GET / HTTP/1.1\r\n") for _ in range(30)]
        assert await stage.answer() == f"{HOST} at {HOST}"
        assert await closed(silent[0]), "the one that has waited longest"

    play(bounds, scene)


def test_web_listener_keeps_active_requests_at_its_bound() -> None:
    async def scene(stage: Scene) -> None:
        asked = [asyncio.get_running_loop().create_task(stage.answer("/wait")) for _ in range(2)]
        await until(lambda: stage.under_way == 2)
        assert await closed(stage.silent()), "there is no room"
        stage.go.set()
        assert await asyncio.gather(*asked) == ["done", "done"]
        assert await stage.answer() == f"{HOST} at {HOST}", "and then there is"

    play(Bounds(10, 2), scene)


def test_a_network_of_ipv6_counts_as_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    peers = (Peer(f"2001:db8::{number}", "::1") for number in count(1))
    monkeypatch.setattr(web_listener, "get_peer", lambda _: next(peers))

    async def scene(stage: Scene) -> None:
        silent = [stage.silent() for _ in range(2)]
        assert await stage.answer() == "2001:db8::3 at ::1"
        assert await closed(silent[0])

    play(Bounds(10, 2), scene)


@pytest.mark.parametrize(
    "head", [b"GET /?\xff HTTP/1.1\r\nHost: a", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: zstd"]
)
def test_bad_http_fills_no_log(head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scene(stage: Scene) -> None:
        bad = stage.silent(sends=head + b"\r\n\r\n")
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert b" 400 " in await asyncio.get_running_loop().sock_recv(bad, 1000)

    play(Bounds(10, 10), scene)
    assert caplog.text == ""


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEAD_SECONDS", "IDLE_SECONDS", "SWEEP_SECONDS"):
        monkeypatch.setattr(web_listener, name, 0.3)


@pytest.mark.usefixtures("hasty")
def test_web_listener_enforces_a_deadline_for_each_head() -> None:
    async def trickle(connection: socket.socket) -> None:
        while True:
            await asyncio.get_running_loop().sock_sendall(connection, b"a")
            await asyncio.sleep(0.02)

    async def scene(stage: Scene) -> None:
        assert await closed(stage.silent())
        slow = stage.silent(sends=b"GET / HTTP/1.1\r\nHost: a\r\nSlow: ")
        with pytest.raises(OSError):
            async with asyncio.timeout(DEADLINE_SECONDS):
                await trickle(slow)
        again = stage.silent(sends=b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert (await asyncio.get_running_loop().sock_recv(again, 1000)).startswith(b"HTTP/1.1 200")
        assert await closed(again)

    play(Bounds(10, 10), scene)


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    pair = Authority(tmp_path).issue("edge.test")
    created = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    created.load_cert_chain(pair.cert, pair.key)
    return created


@pytest.mark.usefixtures("hasty")
def test_a_handshake_is_part_of_the_deadline(context: ssl.SSLContext) -> None:
    async def scene(stage: Scene) -> None:
        assert await closed(stage.silent())
        assert await closed(stage.silent(sends=b"\x16\x03\x01"))

    play(Bounds(10, 10), scene, context)


def test_web_listener_closes_pending_handshakes_at_its_bound(context: ssl.SSLContext) -> None:
    async def scene(stage: Scene) -> None:
        silent = [stage.silent() for _ in range(8)]
        assert await closed(silent[0])

    play(Bounds(4, 10), scene, context)


HEADS = {
    "target": (b"GET /?%b HTTP/1.1\r\nHost: a\r\n", TARGET_BYTES_MAX - 2, 414),
    "field": (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: %b\r\n", FIELD_BYTES_MAX, 431),
}
"""A head, how many bytes may be inserted, and the status if there is one more."""


def test_heads_beyond_a_bound_get_the_status_that_names_it() -> None:
    async def ask(scene: Scene, head: bytes) -> int:
        reader, writer = await asyncio.open_connection(HOST, scene.port)
        writer.write(head + b"\r\n")
        status = int((await reader.readline()).split()[1])
        writer.close()
        return status

    async def scene(scene: Scene) -> None:
        for head, most, status in HEADS.values():
            assert await ask(scene, head % (b"a" * most)) == 200
            assert await ask(scene, head % (b"a" * (most + 1))) == status
        fields = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X-A: b\r\n" * (FIELDS_MAX - 1)
        assert await ask(scene, fields) == 200
        assert await ask(scene, fields + b"X-A: b\r\n") == 431

    play(Bounds(10, 10), scene)
