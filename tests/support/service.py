"""An upstream that reports its requests under way, served in a thread of the test.

    /quick                 answers at once
    /hold?ms=20            answers after this many milliseconds
    /held                  answers once the test releases it
    /stream?ms=2&n=50      a head, then this many pieces, with a pause in milliseconds before each
    /model?ms=20&n=150     answers after this many milliseconds, in OpenAI's format with this many tokens

If a request has the field `X-Cost: N`, the answer has it too.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from time import monotonic
from urllib.parse import parse_qsl, urlsplit

from loadtest.testbed.ports import HOST
from loadtest.testbed.threaded_server import Threaded

PIECE = b"5\r\npiece\r\n"


class Under:
    """A history of the requests under way."""

    def __init__(self) -> None:
        self.changes: list[tuple[float, int]] = []
        """The time of each begin (+1) or end (-1), in seconds of the monotonic clock."""

    def begins(self) -> None:
        self.changes.append((monotonic(), 1))

    def ends(self) -> None:
        self.changes.append((monotonic(), -1))

    @property
    def now(self) -> int:
        """The number of requests under way."""
        return sum([change for _, change in self.changes])

    @property
    def begun(self) -> list[float]:
        """When each request began."""
        return [moment for moment, change in tuple(self.changes) if change > 0]

    def above(self, most: int) -> list[tuple[float, float, int]]:
        """Return the finished times with more requests than `most`: (from, until, highest number)."""
        spans = []
        under = peak = 0
        since = 0.0
        for moment, change in tuple(self.changes):
            before, under = under, under + change
            if before <= most < under:
                since, peak = moment, under
            elif under <= most < before:
                spans.append((since, moment, peak))
            peak = max(peak, under)
        return spans


class Service(Threaded):
    """The service's thread, from `with` to its end. `under` is by customer; requests without a customer are under
    `-`.
    """

    def __init__(self) -> None:
        super().__init__("service")
        self.port = 0
        self.under: dict[str, Under] = {}
        self.held: list[Callable[[], None]] = []
        """Functions that answer the held requests."""
        self.stated = 0
        """The tokens stated in answers."""

    def let_go(self) -> None:
        """Answer all held requests."""
        held, self.held = self.held, []
        for answer in held:
            self._loop.call_soon_threadsafe(answer)

    def of(self, customer: str) -> Under:
        """Return this customer's requests under way."""
        return self.under.setdefault(customer, Under())

    async def _begin(self) -> None:
        self._server = await self._loop.create_server(lambda: Connection(self), HOST, 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()


class Connection(asyncio.Protocol):
    """One connection of the edge; its requests have no body."""

    transport: asyncio.Transport

    def __init__(self, service: Service) -> None:
        self._service = service
        self._buffer = b""
        self._under: Under | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._under is None and b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            self._begin(head.decode("latin-1"))

    def _begin(self, head: str) -> None:
        line, *lines = head.split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        target = urlsplit(line.split(" ")[1])
        query = {name: int(value) for name, value in parse_qsl(target.query)}
        self._under = self._service.of(fields.get("x-customer-id", "-"))
        self._under.begins()
        cost = f"X-Cost: {fields['x-cost']}\r\n" if "x-cost" in fields else ""
        later = asyncio.get_running_loop().call_later
        if target.path == "/stream":
            self.transport.write(f"HTTP/1.1 200 OK\r\n{cost}Transfer-Encoding: chunked\r\n\r\n".encode())
            self._stream(query["ms"] / 1000, query["n"])
        elif target.path == "/hold":
            self._timer = later(query["ms"] / 1000, self._answer, cost)
        elif target.path == "/model":
            self._timer = later(query["ms"] / 1000, self._state, query["n"])
        elif target.path == "/held":
            self._service.held.append(partial(self._answer, cost))
        else:
            self._answer(cost)

    def _stream(self, pause: float, left: int) -> None:
        if left:
            self.transport.write(PIECE)
            self._timer = asyncio.get_running_loop().call_later(pause, self._stream, pause, left - 1)
        else:
            self._end()
            self.transport.write(b"0\r\n\r\n")

    def _answer(self, cost: str) -> None:
        self._end()
        self.transport.write(f"HTTP/1.1 200 OK\r\n{cost}Content-Length: 2\r\n\r\nok".encode())

    def _state(self, tokens: int) -> None:
        self._end()
        self._service.stated += tokens
        body = b'{"usage":{"prompt_tokens":0,"completion_tokens":%d}}' % tokens
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        self.transport.write(head % len(body) + body)

    def _end(self) -> None:
        if self._under is not None:
            self._under.ends()
            self._under = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._end()
