"""The Autobahn WebSocket cases, restated in websocket_cases.py, end through the edge as they end directly.

Each case is played twice, over raw sockets: against an echo server, and against that server behind the edge. Both
must return equal bytes with an equal end, and both must pass the case.
"""

import asyncio
import base64
import hashlib
import logging
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import websockets
from aiohttp import web

from loadtest.testbed.edge import Edge
from loadtest.testbed.frames import CLOSE, COMPRESSED, CONTINUATION, Deflate, Frame, close, fragments, read
from loadtest.testbed.ports import HOST, Ports
from tests.e2e.websocket_cases import GROUPS, Case, Chops, Compressed, Event, Heard

SERVERS = ("websockets", "aiohttp")
NOT_PASSED = {"websockets": {"7.1.5"}, "aiohttp": {"7.9.5"}}
"""Cases that a server fails even without the edge; the edge must still make no difference. One server treats a close
within a message as a protocol error, the other accepts code 1006.
"""
NOT_PLAYED = {"websockets": {"9.3.1"}, "aiohttp": set()}
"""One server accepts at most 4,096 fragments. The other server covers these cases."""
PATIENCE = 60.0
"""Seconds for one case."""
AT_ONCE = 8
WAYS = ("directly", "through the edge")
KEY = base64.b64encode(b"the sample nonce")
ACCEPT = base64.b64encode(hashlib.sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
ABNORMAL = 1006
"""The code for a connection that ends without a close frame (RFC 6455 section 7.1.5)."""


# ---- servers


async def echo_of_websockets(tunnel: websockets.ServerConnection) -> None:
    """Send every message back."""
    async for message in tunnel:
        await tunnel.send(message)


async def echo_of_aiohttp(request: web.Request) -> web.WebSocketResponse:
    """Send every message back. aiohttp itself answers invalid ones."""
    tunnel = web.WebSocketResponse(max_msg_size=0)
    await tunnel.prepare(request)
    async for message in tunnel:
        if message.type is aiohttp.WSMsgType.BINARY:
            await tunnel.send_bytes(message.data)
        elif message.type is aiohttp.WSMsgType.TEXT:
            await tunnel.send_str(message.data)
    return tunnel


@asynccontextmanager
async def serving(ports: dict[str, int]) -> AsyncIterator[None]:
    """Run both echo servers."""
    app = web.Application()
    app.router.add_get("/{any:.*}", echo_of_aiohttp)
    runner = web.AppRunner(app, shutdown_timeout=1, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, ports["aiohttp"]).start()
    try:
        silent = logging.getLogger("tests.silent")  # it logs each failure that a case brings about
        silent.setLevel(logging.CRITICAL)
        settings = {"max_size": None, "ping_interval": None, "logger": silent}
        async with websockets.serve(echo_of_websockets, HOST, ports["websockets"], **settings):
            yield
    finally:
        await runner.cleanup()


@pytest.fixture(scope="module")
def ports() -> Iterator[dict[str, int]]:
    with closing(Ports(len(SERVERS))) as ports:
        yield dict(zip(SERVERS, ports.numbers, strict=True))


@pytest.fixture(scope="module")
def edge(folder: Path, ports: dict[str, int]) -> Iterator[Edge]:
    """Run an edge with one worker: the clients need the other cores."""
    upstreams = {name: {"endpoints": [f"http://{HOST}:{port}"]} for name, port in ports.items()}
    routes = [{"name": name, "path": f"/{name}", "upstream": name, "auth": "none"} for name in ports]
    with closing(Edge(folder / "tunnels", 0, upstreams=upstreams, routes=routes, workers=1)) as edge:
        yield edge.start()


# ---- a client


@dataclass
class Played:
    """The result of a case: the server's head, the bytes after it, and the end of the connection."""

    head: bytes
    data: bytearray
    frames: list[Frame]
    end: str
    quiet: bool = False
    """The client sent nothing after its close frame. Later bytes may meet a closed socket and cause a reset."""

    @property
    def accepted(self) -> bytes | None:
        """The extensions that the server has accepted."""
        match = re.search(rb"(?i)\r\nsec-websocket-extensions: *([^\r]*)", self.head)
        return match and match[1]

    @property
    def code(self) -> int | None:
        """The code of the server's close frame: None if the frame has no code, 1006 if there is no frame."""
        for frame in self.frames:
            if frame.opcode == CLOSE:
                return int.from_bytes(frame.payload[:2], "big") if frame.payload else None
        return ABNORMAL

    def events(self) -> tuple[Event, ...]:
        """Return the messages and pongs before the close frame."""
        found: list[Event] = []
        inflating = Deflate()
        opcode, packed, parts = 0, False, []
        for frame in self.frames:
            if frame.opcode == CLOSE:
                break
            if frame.opcode > CLOSE:
                found.append((frame.opcode, frame.payload))
                continue
            if frame.opcode != CONTINUATION:
                opcode, packed, parts = frame.opcode, frame.rsv == COMPRESSED, []
            parts.append(frame.payload)
            if frame.fin:
                whole = b"".join(parts)
                found.append((opcode, inflating.inflate(whole) if packed else whole))
        return tuple(found)


class Player:
    """A raw client that plays one case."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._heard = asyncio.Condition()
        self._parsed = 0
        self._closed = False
        """The client has sent a close frame."""
        self._refused: Frame | None = None
        """The server's close frame, if the server closed first: the client then sends no more steps of the case."""
        self.played = Played(b"", bytearray(), [], "")

    async def shake(self, path: str, offer: str | None) -> None:
        """Do the opening handshake."""
        extensions = f"Sec-WebSocket-Extensions: {offer}\r\n" if offer else ""
        text = (
            f"GET {path} HTTP/1.1\r\nHost: tunnels.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY.decode()}\r\n{extensions}\r\n"
        )
        await self._loop.sock_sendall(self._sock, text.encode())
        data = b""
        while b"\r\n\r\n" not in data:
            piece = await self._loop.sock_recv(self._sock, 1 << 16)
            assert piece, f"ended in the handshake: {data!r}"
            data += piece
        self.played.head, _, rest = data.partition(b"\r\n\r\n")
        self.played.data += rest

    async def hear(self) -> None:
        """Receive bytes until the connection ends."""
        played = self.played
        while not played.end:
            try:
                piece = await self._loop.sock_recv(self._sock, 1 << 18)
            except (BrokenPipeError, ConnectionResetError):  # EPIPE if the other side had closed before
                piece, played.end = b"", "reset"
            else:
                played.data += piece
                played.end = "" if piece else "end"
            for frame, after in read(played.data, self._parsed):
                self._parsed = after
                played.frames.append(frame)
                if frame.opcode == CLOSE and not self._closed:
                    self._refused = frame
            async with self._heard:
                self._heard.notify_all()

    async def play(self, case: Case) -> None:
        """Send the steps of the case until the server ends it. The server's close frame is answered."""
        accepted = self.played.accepted or b""
        bits = re.search(rb"client_max_window_bits=(\d+)", accepted)
        deflate = Deflate(int(bits[1]) if bits else 15, takeover=b"client_no_context_takeover" not in accepted)
        for step in case.steps:
            match step:
                case Heard(count):
                    await self._until(lambda count=count: len(self.played.frames) >= count)
                case Chops(data, size):
                    await self._send_in_chops(data, size)
                case Compressed(opcode, payload, size):
                    packed = deflate.deflate(payload) if accepted else payload
                    rsv = COMPRESSED if accepted else 0
                    await self._send(b"".join(fragments(opcode, packed, size, rsv=rsv)))
                case _:
                    self.played.quiet = step[:1] == close()[:1]
                    self._closed = self._closed or self.played.quiet
                    await self._send(step)
            if self._refused or self.played.end:
                break
        await self._until(lambda: self._closed)
        if self._refused:
            self.played.quiet = False
            await self._send(close(reason=self._refused.payload))

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._heard:
            await self._heard.wait_for(lambda: condition() or self._refused or self.played.end)

    async def _send_in_chops(self, data: bytes, size: int) -> None:
        for at in range(0, len(data), size):
            await self._send(data[at : at + size])
            await asyncio.sleep(0)
            if self._refused:
                break

    async def _send(self, data: bytes) -> None:
        try:
            await self._loop.sock_sendall(self._sock, data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the bytes read show how it ended


async def play(case: Case, port: int, path: str) -> Played:
    """Play a case over a connection of its own."""
    loop = asyncio.get_running_loop()
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with asyncio.timeout(PATIENCE):
            await loop.sock_connect(sock, (HOST, port))
            player = Player(sock)
            await player.shake(path, case.offer)
            async with asyncio.TaskGroup() as both:
                both.create_task(player.hear())
                both.create_task(player.play(case))
    return player.played


def not_passed(case: Case, played: Played) -> Iterator[str]:
    """Yield the reasons why a case failed."""
    if not played.head.startswith(b"HTTP/1.1 101 ") or ACCEPT not in played.head:
        yield f"{played.head!r}"
    if played.events() not in case.outcomes:
        yield shown(played)
    if played.code not in (*case.codes, None) and (case.clean or played.code != ABNORMAL):
        yield f"closed with {played.code}"


def unlike(case: Case, through: Played, direct: Played) -> Iterator[str]:
    """Yield the differences that the edge made."""
    if through.accepted != direct.accepted:
        yield f"extensions {through.accepted!r}, but directly {direct.accepted!r}"
    quiet = through.quiet and direct.quiet
    if not case.informational and (through.data != direct.data or (quiet and through.end != direct.end)):
        yield f"{shown(through)}, but directly {shown(direct)}"


def shown(played: Played) -> str:
    """Return a short description."""
    return f"{len(played.data)} bytes {bytes(played.data[:80])!r}…, then {played.end}"


async def compare(server: str, cases: Iterable[Case], direct: int, through: int) -> tuple[int, list[str]]:
    """Play all cases both ways, some at once. Returns their number and the errors."""
    places = asyncio.Semaphore(AT_ONCE)
    wrong: list[str] = []
    count = 0

    async def one(case: Case) -> None:
        try:
            both = await asyncio.gather(play(case, direct, f"/{server}"), play(case, through, f"/{server}"))
        except TimeoutError:
            wrong.append(f"{case.number}: no end within {PATIENCE} s")
        else:
            found = [*unlike(case, both[1], both[0])]
            if case.number not in NOT_PASSED[server]:
                for way, played in zip(WAYS, both, strict=True):
                    found += [f"{way}: {why}" for why in not_passed(case, played)]
            wrong.extend(f"{case.number} {why}" for why in found)
        finally:
            places.release()

    async with asyncio.TaskGroup() as group:
        for case in cases:
            if case.number not in NOT_PLAYED[server]:
                await places.acquire()
                group.create_task(one(case))
                count += 1
    return count, wrong


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("server", SERVERS)
def test_a_websocket_case_ends_through_the_edge_as_it_does_directly(
    server: str, group: str, edge: Edge, ports: dict[str, int]
) -> None:
    async def run() -> tuple[int, list[str]]:
        async with serving(ports):
            return await compare(server, GROUPS[group](), ports[server], edge.port)

    count, wrong = asyncio.run(run())
    assert not wrong, "\n".join(wrong)
    assert count > 0
