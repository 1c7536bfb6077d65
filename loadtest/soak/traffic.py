"""The soak test's clients: a process that sends every kind of traffic until SIGTERM and then writes an account.

Run as `python -m loadtest.soak.traffic PLAN` with the Plan as JSON. It waits for requests under way before it writes
the account. The load is moderate on purpose, so that errors are the edge's fault and not the machine's.
"""

import asyncio
import random
import signal
import ssl
import sys
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic

import orjson
import uvloop

from loadtest.soak.account import Account, Seen, Trouble
from loadtest.soak.kinds import COMER, DETOUR, KINDS, SECURE, Kind
from loadtest.soak.line import Broken, Head, Line, request, says
from loadtest.testbed.customers import key_of
from loadtest.testbed.frames import BINARY, close, frame
from loadtest.testbed.upstream import content

PATIENCE = 25.0
"""Seconds for a whole exchange; none should take more than five."""
PIECE = 1 << 16
BLOCK = content(4 << 20)
GOING_AWAY = 1001
HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


@dataclass
class Plan:
    """The plan that the process receives."""

    port: int
    secure_port: int
    authority: str
    seed: int
    told: str
    """The file for the account."""
    slower: float = 1.0
    """A factor on the pauses of each kind, except kinds whose requests are refused."""


class Clients:
    """All clients of the process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.account = Account(seen={COMER: [], DETOUR: []})
        self.over = asyncio.Event()
        self._tls = ssl.create_default_context(cafile=plan.authority)

    async def run(self) -> None:
        """Run all clients until SIGTERM, and write the account."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.over.set)
        async with asyncio.TaskGroup() as group:
            for kind in KINDS.values():
                for number in range(kind.clients):
                    group.create_task(Client(self, kind, number).run())
        self.account.write(Path(self.plan.told))

    async def connect(self, kind: Kind) -> Line:
        """Open a connection for this kind; raises Broken."""
        secure = kind.name == SECURE
        line = await Line.open(self.plan.secure_port if secure else self.plan.port, self._tls if secure else None)
        self.account.connections[kind.name] += 1
        return line


class Client:
    """A client that sends one request after another."""

    def __init__(self, clients: Clients, kind: Kind, number: int) -> None:
        self._clients, self._account = clients, clients.account
        self.kind = kind
        self.draw = random.Random(f"{clients.plan.seed} {kind.name} {number}")
        self._key = key_of(kind.name)
        self._slower = 1.0 if kind.refusal else clients.plan.slower
        self._line: Line | None = None
        self._heard: Head | None = None

    async def run(self) -> None:
        """Run until the end of the load."""
        conduct = CONDUCTS.get(self.kind.name, get)
        while not self._clients.over.is_set():
            await self._one(conduct)
            try:
                await asyncio.wait_for(self._clients.over.wait(), self.draw.uniform(*self.kind.pause) * self._slower)
            except TimeoutError:
                pass
        if self._line is not None:
            self._line.close()

    async def _one(self, conduct: "Conduct") -> None:
        """Send one request and record its result."""
        account, name = self._account, self.kind.name
        began, line = monotonic(), None
        self._heard = None
        account.asked[name] += 1
        try:
            async with asyncio.timeout(PATIENCE):
                line = await self._connected()
                await conduct(self, line)
        except Broken as broken:
            self._went_wrong(broken, began, line)
        except TimeoutError:
            self._went_wrong(Broken("timeout"), began, line)
        else:
            line.idle_since = monotonic()
            account.whole[name] += bool(self._heard and self._heard.endpoint)
        heard = self._heard
        if heard is not None:
            if heard.endpoint:
                (account.answered if heard.status < 500 else account.unbilled)[name] += 1
            account.refused[name] += not heard.endpoint and heard.status == self.kind.refusal
            if name in account.seen:
                account.seen[name].append(Seen(began, monotonic(), heard.status, bool(heard.endpoint)))

    @property
    def status(self) -> int:
        """The status of the answer; 0 without an answer."""
        return 0 if self._heard is None else self._heard.status

    async def _connected(self) -> Line:
        if self._line is None or not self._line.usable:
            self._line = await self._clients.connect(self.kind)
        return self._line

    def done(self) -> None:
        """Send no further request over this connection."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _went_wrong(self, broken: Broken, began: float, line: Line | None) -> None:
        self.done()
        endpoint = self._heard.endpoint if self._heard is not None else ""
        port = broken.port if line is None else line.port
        trouble = Trouble(self.kind.name, broken.how, began, monotonic(), port, endpoint, self.status, broken.detail)
        trouble.new = self._heard is None and (line is None or line.requests <= 1)
        if line is not None and line.idle_since:
            trouble.idle = began - line.idle_since
        self._account.troubles.append(trouble)

    # ---- what conducts are made of

    def head_of(self, method: str, query: str, *fields: str) -> bytes:
        """Return the head of a request of this client."""
        return request(method, f"/{self.kind.name}/{self.draw.randrange(100)}?{query}", self._key, fields)

    async def hear(self, line: Line) -> Head | None:
        """Return the head of an answer. For a refusal that the kind expects, read the body and return None."""
        self._heard = head = await line.head()
        if not head.endpoint:
            body = await line.body(head)
            if head.status != self.kind.refusal:
                raise Broken("status", head.fields.get("proxy-status") or body.decode())
            if head.last:
                self.done()
            return None
        return head

    async def whole(self, line: Line, wanted: bytes) -> None:
        """Read the whole answer, which must be equal to `wanted`."""
        head = await self.hear(line)
        if head is None:
            return
        body = await line.body(head)
        if body != wanted:
            raise Broken("wrong", f"{len(body)} bytes instead of {len(wanted)}: {body[:80]!r}")
        if head.last:
            self.done()


Conduct = Callable[[Client, Line], Awaitable[None]]


async def get(client: Client, line: Line) -> None:
    """Get a small body over a persistent connection."""
    size = client.draw.choice((2, 200, 30_000))
    wait = client.draw.choice((0, 0, 1, 20, 60))
    status = client.draw.choice((200, 200, 200, 404, 204))
    await line.send(client.head_of("GET", f"size={size}&wait={wait}&status={status}"))
    await client.whole(line, b"" if status == 204 else BLOCK[:size])


async def get_once(client: Client, line: Line) -> None:
    """Get a small or unbilled answer and close the connection, from either side."""
    fields = ["Connection: close"] if client.draw.random() < 0.5 else []
    status = client.draw.choice((200, 200, 200, 200, 404, 503))
    await line.send(client.head_of("GET", f"size=100&status={status}", *fields))
    await client.whole(line, BLOCK[:100])
    client.done()


async def get_ten(client: Client, line: Line) -> None:
    """Get ten answers per connection, so that there are handshakes too."""
    await get(client, line)
    if line.requests >= 10:
        client.done()


async def download(client: Client, line: Line) -> None:
    """Get a large body."""
    size = client.draw.randrange(1 << 20, len(BLOCK))
    chunked = client.draw.choice(("", "&chunked=1"))
    await line.send(client.head_of("GET", f"size={size}{chunked}"))
    await client.whole(line, BLOCK[:size])


async def upload(client: Client, line: Line, *, chunked: bool, slow: bool = False) -> None:
    """Send a body and check the length and sum that the service reports."""
    size = client.draw.randrange(5_000, 50_000) if slow else client.draw.randrange(1 << 20, 3 << 20)
    body = BLOCK[:size]
    step = size // 10 if slow else PIECE
    pieces = [body[at : at + step] for at in range(0, size, step)]
    pause = client.draw.uniform(0.1, 0.3) if slow else 0
    if chunked:
        pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
        framing = "Transfer-Encoding: chunked"
    else:
        framing = f"Content-Length: {size}"
    # Sent beside the reading: who is refused in the middle hears of it, and sends no more.
    sending = asyncio.get_running_loop().create_task(
        line.send(client.head_of("POST", "take", framing), *pieces, pause=pause)
    )
    try:
        await client.whole(line, b"%d %d" % (size, zlib.crc32(body)))
    finally:
        sending.cancel()


async def events(client: Client, line: Line) -> None:
    """Get a stream of events, all of which must arrive."""
    count = client.draw.randrange(10, 40)
    await line.send(client.head_of("GET", f"events={count}"))
    await client.whole(line, b"".join(b"data: %d\n\n" % number for number in range(count)))


async def socket(client: Client, line: Line) -> None:
    """Use a WebSocket: messages are echoed, then the client closes and the close is answered."""
    await line.send(client.head_of("GET", "socket", *HANDSHAKE))
    head = await client.hear(line)
    if head is None or head.status != 101:
        raise Broken("wrong", f"status {client.status} instead of 101")
    until = monotonic() + client.draw.uniform(1, 5)
    while monotonic() < until:
        message = BLOCK[: client.draw.choice((1, 100, 1000, 70_000))]
        await line.send(frame(BINARY, message), pause=client.draw.uniform(0.02, 0.15))
        heard = await line.frame()
        if says(heard) == GOING_AWAY:
            await line.send(close(GOING_AWAY))
            raise Broken("told", heard.payload[2:])
        if heard.payload != message:
            raise Broken("wrong", f"another message: {heard.opcode} {heard.payload[:80]!r}")
    await line.send(close(1000))
    while not (code := says(await line.frame())):
        pass
    if code == GOING_AWAY:
        raise Broken("told", "as the client closed")
    await line.ended()
    client.done()


CONDUCTS: dict[str, Conduct] = {
    "once": get_once,
    "sized": partial(upload, chunked=False),
    "chunked": partial(upload, chunked=True),
    "slow": partial(upload, chunked=True, slow=True),
    "events": events,
    "socket": socket,
    "download": download,
    SECURE: get_ten,
}

if __name__ == "__main__":
    uvloop.run(Clients(Plan(**orjson.loads(sys.argv[1]))).run())
