"""Data flows through the edge at once in both directions, and stalled clients cost little memory."""

import asyncio
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import websockets
from aiohttp import web

from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.http_client import PATIENCE, Wire, send_until_stalled
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.process import memory_of
from loadtest.testbed.upstream import content
from tests.support.clients import own_session

KEY = {"X-API-Key": key_of(UNLIMITED)}
HOARD = 16 << 20
"""Bytes that a worker may gain for stalled clients: the buffers of its sockets and its own, with a margin."""


class Stage:
    """An aiohttp service in the loop of the test, which can see both sides of the edge at once."""

    def __init__(self) -> None:
        self.cue = asyncio.Event()
        self.seen: asyncio.Queue[Any] = asyncio.Queue()
        self.app = web.Application(client_max_size=0)
        self.app.router.add_get("/events", self.events)
        self.app.router.add_get("/heartbeats", self.heartbeats)
        self.app.router.add_post("/upload", self.upload)
        self.app.router.add_get("/socket", self.socket)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Send server-sent events, each on the test's cue."""
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await answer.prepare(request)
        for number in range(5):
            await answer.write(b"id: %d\ndata: event %d\n\n" % (number, number))
            await self.cue.wait()
            self.cue.clear()
        return answer

    async def heartbeats(self, request: web.Request) -> web.StreamResponse:
        """Send comments for ever, some fifty a second."""
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b": still here\n\n")
                await asyncio.sleep(0.02)
        finally:
            self.seen.put_nowait("gone")

    async def upload(self, request: web.Request) -> web.Response:
        """Report each received piece to the test."""
        async for piece in request.content.iter_any():
            self.seen.put_nowait(piece)
        return web.Response(text="done")

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        """Echo, until the test ends it."""
        tunnel = web.WebSocketResponse(protocols=["chat"])
        await tunnel.prepare(request)
        async for message in tunnel:
            if message.type is aiohttp.WSMsgType.BINARY:
                await tunnel.send_bytes(message.data[::-1])
            elif message.data == "bye":
                await tunnel.close(code=4000, message=b"as you wish")
            else:
                await tunnel.send_str(f"you said {message.data}")
        self.seen.put_nowait(tunnel.close_code)
        return tunnel

    @asynccontextmanager
    async def open(self, port: int) -> Any:
        """Serve on this port, beside a client's session."""
        runner = web.AppRunner(self.app, handler_cancellation=True, shutdown_timeout=1, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, HOST, port).start()
        try:
            async with aiohttp.ClientSession(headers=KEY) as session:
                yield session
        finally:
            await runner.cleanup()


Play = Callable[[Stage, aiohttp.ClientSession, str], Awaitable[None]]


@pytest.fixture(scope="module")
def play(folder: Path) -> Iterator[Callable[[Play], int]]:
    """Run a play: a coroutine with a stage behind an edge, a client's session, and the edge's authority. Returns how
    many of its requests the edge has counted.
    """
    with closing(Ports(1)) as ports, closing(Edge(folder / "stage", ports.numbers[0])) as edge:
        edge.start()

        def run(scene: Play) -> int:
            before = edge.usage().get(UNLIMITED, 0)

            async def whole() -> None:
                stage = Stage()
                async with asyncio.timeout(30), stage.open(ports.numbers[0]) as session:
                    await scene(stage, session, f"{HOST}:{edge.port}")

            asyncio.run(whole())
            return edge.usage()[UNLIMITED] - before

        yield run


def test_each_server_sent_event_arrives_before_the_next_is_made(play: Callable[[Play], int]) -> None:
    async def scene(stage: Stage, session: aiohttp.ClientSession, edge: str) -> None:
        async with session.get(f"http://{edge}/events") as answer:
            assert answer.headers["Content-Type"] == "text/event-stream"
            for number in range(5):
                assert await answer.content.readuntil(b"\n\n") == b"id: %d\ndata: event %d\n\n" % (number, number)
                stage.cue.set()
            assert await answer.content.read() == b""

    assert play(scene) == 1


async def lines_of_curl(url: str) -> AsyncIterator[str]:
    """Yield the lines as a shell script reads them."""
    command = [
        "curl",
        "-sN",
        "--noproxy",
        "*",
        "--max-time",
        str(PATIENCE),
        "-H",
        f"X-API-Key: {KEY['X-API-Key']}",
        url,
    ]
    curl = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert curl.stdout is not None
    async for line in curl.stdout:
        yield line.decode().rstrip("\n")
    assert await curl.wait() == 0


async def lines_of_httpx(url: str) -> AsyncIterator[str]:
    async with httpx.AsyncClient(trust_env=False) as client, client.stream("GET", url, headers=KEY) as answer:
        async for line in answer.aiter_lines():
            yield line


async def lines_of_requests(url: str) -> AsyncIterator[str]:
    with own_session() as session:
        answer = await asyncio.to_thread(session.get, url, headers=KEY, stream=True, timeout=PATIENCE)
        lines = answer.iter_lines(chunk_size=None, decode_unicode=True)
        while (line := await asyncio.to_thread(next, lines, None)) is not None:
            yield line


@pytest.mark.parametrize("lines_of", [lines_of_curl, lines_of_httpx, lines_of_requests])
def test_each_line_of_a_stream_reaches_its_reader_before_the_next_is_made(
    lines_of: Callable[[str], AsyncIterator[str]], play: Callable[[Play], int]
) -> None:
    if lines_of is lines_of_curl and shutil.which("curl") is None:
        pytest.skip("curl is not on this machine")

    async def scene(stage: Stage, session: aiohttp.ClientSession, edge: str) -> None:
        number = 0
        async for line in lines_of(f"http://{edge}/events"):
            if line.startswith("data:"):
                assert line == f"data: event {number}"
                number += 1
                stage.cue.set()
        assert number == 5

    assert play(scene) == 1


def test_streaming_service_learns_that_its_client_has_left(play: Callable[[Play], int]) -> None:
    async def scene(stage: Stage, session: aiohttp.ClientSession, edge: str) -> None:
        answer = await session.get(f"http://{edge}/heartbeats")
        await answer.content.readuntil(b"\n\n")
        # A half-close alone may mean that the client only listens; a failed write to it is the proof.
        answer.close()
        assert await stage.seen.get() == "gone"

    play(scene)


def test_each_piece_of_an_upload_arrives_before_the_next_is_sent(play: Callable[[Play], int]) -> None:
    async def scene(stage: Stage, session: aiohttp.ClientSession, edge: str) -> None:
        async def body() -> Any:
            for number in range(5):
                yield b"piece %d" % number
                assert await stage.seen.get() == b"piece %d" % number

        async with session.post(f"http://{edge}/upload", data=body()) as answer:
            assert (answer.status, await answer.text()) == (200, "done")

    play(scene)


def test_a_websocket_is_a_tunnel_and_one_request(play: Callable[[Play], int]) -> None:
    async def scene(stage: Stage, session: aiohttp.ClientSession, edge: str) -> None:
        async with session.ws_connect(f"http://{edge}/socket", protocols=["chat"]) as tunnel:
            assert tunnel.protocol == "chat"
            for number in range(20):
                await tunnel.send_str(str(number))
                assert await tunnel.receive_str() == f"you said {number}"
            large = content(1 << 20)
            await tunnel.send_bytes(large)
            assert await tunnel.receive_bytes() == large[::-1]
            await tunnel.ping()
            await tunnel.send_str("bye")
            message = await tunnel.receive()
            assert (message.type, message.data, message.extra) == (aiohttp.WSMsgType.CLOSE, 4000, "as you wish")

    assert play(scene) == 1


def test_websockets_library_works_through_the_tunnel(play: Callable[[Play], int]) -> None:
    async def scene(stage: Stage, session: aiohttp.ClientSession, edge: str) -> None:
        url = f"ws://{edge}/socket"
        async with websockets.connect(
            url, additional_headers=KEY, subprotocols=["chat"], max_size=None, proxy=None
        ) as tunnel:
            assert tunnel.subprotocol == "chat"
            assert "permessage-deflate" in tunnel.response.headers["Sec-WebSocket-Extensions"]
            for text in ("", "Grüße, 世界 🙂", "x" * (1 << 20)):
                await tunnel.send(text)
                assert await tunnel.recv() == f"you said {text}"
            large = content(1 << 20)
            await tunnel.send(large[at : at + 1000] for at in range(0, len(large), 1000))  # a frame each
            assert await tunnel.recv() == large[::-1]
            await (await tunnel.ping(b"are you there?"))
            await tunnel.close(4000, "enough")
        assert await stage.seen.get() == 4000
        async with websockets.connect(url, additional_headers=KEY, proxy=None) as tunnel:
            await tunnel.send("bye")
            with pytest.raises(websockets.ConnectionClosedError) as ended:
                await tunnel.recv()
            assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (4000, "as you wish")

    assert play(scene) == 2


def test_thirty_websockets_work_and_close_independently(play: Callable[[Play], int]) -> None:
    async def scene(stage: Stage, session: aiohttp.ClientSession, edge: str) -> None:
        tunnels = [await session.ws_connect(f"http://{edge}/socket") for _ in range(30)]
        for number, tunnel in enumerate(tunnels):
            await tunnel.send_str(str(number))
        for number, tunnel in enumerate(tunnels):
            assert await tunnel.receive_str() == f"you said {number}"
        for tunnel in tunnels:
            await tunnel.close(code=4001)
            assert await stage.seen.get() == 4001

    assert play(scene) == 30


def test_only_websockets_are_tunnelled(edge: Edge) -> None:
    fields = {"Connection": "upgrade", "Upgrade": "something/1.0"}
    answer = edge.ask("/?echo=1", key=key_of(UNLIMITED), fields=fields)
    assert answer.status == 200
    assert "upgrade" not in {name.lower() for name, _ in answer.json()["fields"]}


def test_readers_that_stall_cost_no_memory_and_get_everything_in_the_end(start_edge: StartEdge) -> None:
    edge = start_edge()
    size = 32 << 20
    assert edge.ask("/?size=100000", key=key_of(UNLIMITED)).status == 200
    workers = edge.worker_pids()
    before = memory_of(workers)
    wires = [Wire(edge.port) for _ in range(2)]
    for wire in wires:
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        wire.send(f"GET /?size={size} HTTP/1.1\r\nHost: a\r\nX-API-Key: {key_of(UNLIMITED)}\r\n\r\n".encode())
    for _ in range(100):  # others are served meanwhile
        assert edge.ask("/?size=100000", key=key_of(UNLIMITED)).status == 200
    assert memory_of(workers) - before < HOARD
    whole = content(size)
    for wire in wires:
        assert wire.hear().body == whole
        wire.socket.close()
    assert memory_of(workers) - before < HOARD


def test_a_service_that_stalls_stops_the_upload_and_costs_no_memory(start_edge: StartEdge) -> None:
    body = content(32 << 20)
    with socket.create_server((HOST, 0)) as listening:
        listening.settimeout(PATIENCE)
        edge = start_edge(port=listening.getsockname()[1])
        workers = edge.worker_pids()
        before = memory_of(workers)
        with Wire(edge.port) as wire:
            wire.send(f"POST / HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY['X-API-Key']}\r\n".encode())
            wire.send(b"Content-Length: %d\r\n\r\n" % len(body))
            service, _ = listening.accept()
            service.settimeout(PATIENCE)
            sent = send_until_stalled(wire.socket, body)
            assert sent < len(body)
            assert memory_of(workers) - before < HOARD
            received = bytearray()
            reading = threading.Thread(target=take_request, args=(service, len(body), received))
            reading.start()
            wire.send(body[sent:])
            assert wire.hear().status == 200
            reading.join(PATIENCE)
            service.close()
        assert bytes(received) == body
        assert memory_of(workers) - before < HOARD


def take_request(service: socket.socket, length: int, received: bytearray) -> None:
    """Read a whole request, append its body to `received` and answer it."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += service.recv(1 << 16)
    received += data.partition(b"\r\n\r\n")[2]
    while len(received) < length:
        received += service.recv(1 << 20)
    service.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
