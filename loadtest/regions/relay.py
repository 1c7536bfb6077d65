"""A link between an edge and its hub with an ocean's latency, which can be cut, slowed down or made to lose
connections.
"""

import asyncio
import random
import re
import selectors
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable

from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.threaded_server import Threaded

KEPT = 1 << 20
"""The most bytes under way in one direction; beyond them the sender waits."""
KEY = re.compile(rb"\brl:\{([^}]+)\}:(?:total|quota|gauge)\r")
"""The limited customer in a call of the edge. Each call contains one such key (hub/redis.py)."""
LONGEST_KEY = 200
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with a time of zero: closing sends a reset."""


class Link(Threaded):
    """A link thread, from `with` to its end: a port with the hub's port behind it, `rtt` seconds away (round trip).

    Data is passed on half of that later, piece by piece and in order. The methods may be called from other threads
    at any time, and their effect lasts until `heal`.
    """

    def __init__(self, target: int, rtt: float, seed: object = 0) -> None:
        """`target` is the hub's port."""
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        # epoll waits for whole milliseconds, which is a round trip of the nearest region.
        super().__init__(f"link {self.port}", lambda: asyncio.SelectorEventLoop(selectors.SelectSelector()))
        self.state = "up"
        self.calls: Counter[str] = Counter()
        """The edge's calls to the hub, by limited customer."""
        self.bytes = [0, 0]
        """Bytes to the hub, and from it."""
        self.delay = self._usual = rtt / 2
        self.stands_still = False
        self._target = target
        self._chance = random.Random(f"{seed} link")
        self._sides: set[Side] = set()

    # ---- from outside

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._ports.close()

    def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        self._do(self._cut)

    def hole(self) -> None:
        """Accept all connections, but pass nothing on. After `heal`, the data arrives late, as with TCP."""
        self._do(self._hole)

    def slow(self, rtt: float) -> None:
        """Set the round trip in seconds."""
        self._do(lambda: self._set(f"{1000 * rtt:g} ms", delay=rtt / 2))

    def drop(self, every: float) -> None:
        """Lose connections at random, one every `every` seconds on average."""
        self._do(lambda: self._drop(every))

    def heal(self) -> None:
        """Restore the initial state."""
        self._do(lambda: self._set("up"))

    def _do(self, what: Callable[[], None]) -> None:
        """Run this in the loop; returns once it is done."""

        async def done() -> None:
            what()
            await self._listen()

        asyncio.run_coroutine_threadsafe(done(), self._loop).result(10)

    # ---- in its loop

    async def _begin(self) -> None:
        self._server: asyncio.Server | None = None
        self._dropping: asyncio.TimerHandle | None = None
        await self._listen()

    async def _end(self) -> None:
        self._set("closed")
        await self._listen()
        self._reset()

    async def _listen(self) -> None:
        """Start or stop listening."""
        expected = self.state not in ("cut", "closed")
        if expected and self._server is None:
            made = lambda: Side(self, None)  # noqa: E731
            self._server = await self._loop.create_server(made, HOST, self.port, reuse_port=True)
        elif not expected and self._server is not None:
            self._server.close()
            self._server = None

    def _set(self, state: str, *, delay: float | None = None, stands_still: bool = False) -> None:
        self.state, self.stands_still = state, stands_still
        self.delay = self._usual if delay is None else delay
        if self._dropping is not None:
            self._dropping.cancel()
            self._dropping = None
        for side in self._sides:
            side.deliver()

    def _cut(self) -> None:
        self._set("cut")
        self._reset()

    def _hole(self) -> None:
        self._set("no answer", stands_still=True)

    def _drop(self, every: float) -> None:
        self._set(f"lost every {every:g} s")
        self._dropping = self._loop.call_later(self._chance.expovariate(1 / every), self._dropped, every)

    def _dropped(self, every: float) -> None:
        self._reset()
        self._drop(every)

    def _reset(self) -> None:
        for side in tuple(self._sides):
            side.reset()

    def opened(self, side: "Side") -> None:
        """Register a side of a new connection. For an edge's side, connect to the hub."""
        self._sides.add(side)
        if side.to_hub:
            self._loop.create_task(self._connect(side)).add_done_callback(_looked_at)

    def closed(self, side: "Side") -> None:
        """Remove a closed side."""
        self._sides.discard(side)

    async def _connect(self, side: "Side") -> None:
        try:
            await self._loop.create_connection(lambda: Side(self, side), HOST, self._target)
        except OSError:
            side.reset()

    def heard(self, side: "Side", data: bytes) -> None:
        """Count the bytes and calls that pass."""
        self.bytes[not side.to_hub] += len(data)
        if side.to_hub:
            data = side.rest + data
            end = 0
            for found in KEY.finditer(data):
                self.calls[found[1].rpartition(b":")[2].decode()] += 1
                end = found.end()
            side.rest = data[max(end, len(data) - LONGEST_KEY) :]


def _looked_at(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        task.exception()


class Side(asyncio.Protocol):
    """One end of a connection. Data received here leaves at the other end later."""

    transport: asyncio.Transport

    def __init__(self, link: Link, other: "Side | None") -> None:
        self.to_hub = other is None
        """The data received here goes to the hub."""
        self.rest = b""
        """Bytes that may be the beginning of a key."""
        self._link = link
        self._other = other
        if other is not None:
            other._other = self
        self._under_way: deque[tuple[float, bytes | None]] = deque()
        """Data with the time of its arrival; None marks the end."""
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._link.opened(self)
        if self._other is not None:
            self._other.deliver()

    def data_received(self, data: bytes) -> None:
        self._link.heard(self, data)
        self._size += len(data)
        if self._size > KEPT:
            self.transport.pause_reading()
        self._send(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._link.closed(self)
        self._send(None)

    def _send(self, data: bytes | None) -> None:
        due = asyncio.get_running_loop().time() + self._link.delay
        if self._under_way:
            due = max(due, self._under_way[-1][0])
        self._under_way.append((due, data))
        if self._timer is None:
            self.deliver()

    def deliver(self) -> None:
        """Pass on the data that has arrived by now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop, other = asyncio.get_running_loop(), self._other
        if other is None or not hasattr(other, "transport") or self._link.stands_still:
            return
        while self._under_way and self._under_way[0][0] <= loop.time():
            _, data = self._under_way.popleft()
            if data is None:
                other.transport.close()
                return
            self._size -= len(data)
            if not other.transport.is_closing():
                other.transport.write(data)
        if self._size <= KEPT and not self.transport.is_closing():
            self.transport.resume_reading()
        if self._under_way:
            self._timer = loop.call_at(self._under_way[0][0], self.deliver)

    def reset(self) -> None:
        """Reset both ends at once; data under way is lost."""
        for side in (self, self._other):
            if side is not None and hasattr(side, "transport"):
                side._under_way.clear()
                if (raw := side.transport.get_extra_info("socket")) is not None and raw.fileno() >= 0:
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                side.transport.abort()
