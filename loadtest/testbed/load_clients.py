"""Clients in their own process that send requests as fast as answers arrive, and keep exact accounts.

`python -m loadtest.testbed.load_clients` takes a Plan as JSON on its command line. It ends after a number of
requests or refusals, or after SIGTERM, waits for requests under way, and writes an Account as JSON to a file. So the
account has the result of each request.
"""

import asyncio
import signal
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path

import orjson
import uvloop

from loadtest.testbed.customers import key_of
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import Process
from loadtest.testbed.waiting import SLOWNESS

LAST_ANSWERS = 10.0 * SLOWNESS
"""Seconds to wait for answers after the end of the load."""
RECONNECT = 0.005
"""Seconds between attempts to connect."""


@dataclass
class Plan:
    """The requests, and the condition for the end. Connections use the customers' keys in turn."""

    port: int
    customers: list[str]
    paths: list[str] = field(default_factory=lambda: ["/"])
    """Paths that each connection requests in turn; `POST /path` is sent with a body."""
    connections: int = 8
    requests: int = 0
    """Stop after this many answers in all; 0: never."""
    refusals: int = 0
    """Stop after this many 429; 0: never."""


@dataclass
class Account:
    """The results of the requests."""

    answers: dict[str, dict[str, int]] = field(default_factory=dict)
    """Whole answers, by customer and status."""
    lost: dict[str, int] = field(default_factory=dict)
    """Requests without a whole answer, by customer."""
    refused: int = 0
    """Refused connection attempts: no server listened."""
    reset: int = 0
    """Connections that ended with a request under way."""
    closed: int = 0
    """Connections that ended between two requests."""
    wrong: int = 0
    """Answers followed by unrequested data."""
    silence: float = 0.0
    """The longest time without any answer, in seconds."""
    recovery: float = 0.0
    """The longest time from a lost connection to the first answer over the next, in seconds."""
    seconds: float = 0.0

    def answered(self, customer: str, *statuses: int) -> int:
        """Return the whole answers to this customer with these statuses; by default all below 500 except 429."""
        counts = self.answers.get(customer, {})
        if statuses:
            return sum(counts.get(str(status), 0) for status in statuses)
        return sum(count for status, count in counts.items() if int(status) < 500 and status != "429")


class Clients:
    """All connections of one process."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.account = Account()
        self.answers: dict[str, Counter[int]] = {customer: Counter() for customer in plan.customers}
        self.lost: Counter[str] = Counter()
        self.ended = asyncio.Event()
        self.begun = self.last = time.monotonic()
        self.open: set[Connection] = set()
        self._requests = self._refusals = 0

    def heard(self, customer: str, status: int) -> None:
        """Record a whole answer."""
        now = time.monotonic()
        self.account.silence = max(self.account.silence, now - self.last)
        self.last = now
        self.answers[customer][status] += 1
        self._requests += 1
        self._refusals += status == 429
        plan = self.plan
        if (plan.requests and self._requests >= plan.requests) or (plan.refusals and self._refusals >= plan.refusals):
            self.ended.set()

    async def run(self) -> Account:
        """Run all connections, and return the account."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ended.set)
        customers = cycle(self.plan.customers)
        async with asyncio.TaskGroup() as group:
            drives = [group.create_task(self.drive(next(customers))) for _ in range(self.plan.connections)]
            await self.ended.wait()
            self.account.seconds = time.monotonic() - self.begun
            await asyncio.wait(drives, timeout=LAST_ANSWERS)
            for connection in self.open:
                connection.transport.abort()
        account = self.account
        account.answers = {
            customer: {str(status): count for status, count in counts.items()}
            for customer, counts in self.answers.items()
        }
        account.lost = dict(self.lost)
        return account

    async def drive(self, customer: str) -> None:
        """Open one connection after another, until the end of the load."""
        loop = asyncio.get_running_loop()
        lost_at = 0.0
        while not self.ended.is_set():
            created = partial(Connection, self, customer, lost_at)
            try:
                async with asyncio.timeout(LAST_ANSWERS):
                    _, connection = await loop.create_connection(created, HOST, self.plan.port)
            except ConnectionRefusedError:
                self.account.refused += 1
                await asyncio.sleep(RECONNECT)
                continue
            except OSError:
                self.account.reset += 1
                continue
            await connection.over
            lost_at = time.monotonic()


class Connection(asyncio.Protocol):
    """One connection: a request, its answer, the next request."""

    transport: asyncio.Transport

    def __init__(self, clients: Clients, customer: str, lost_at: float) -> None:
        self._clients = clients
        self._customer = customer
        self._lost_at = lost_at
        self._requests = cycle([request(path, customer) for path in clients.plan.paths])
        self._under_way = False
        self._buffer = b""
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self._clients.open.add(self)
        self._next()

    def _next(self) -> None:
        if self._clients.ended.is_set():
            self.transport.close()
            return
        self._under_way = True
        self.transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        if end < 0 or len(data) < (whole := end + 4 + content_length(data[: end + 2])):
            self._buffer = data
            return
        self._clients.account.wrong += len(data) > whole
        self._buffer = b""
        self._under_way = False
        self._clients.heard(self._customer, int(data[9:12]))
        if self._lost_at:
            account = self._clients.account
            account.recovery = max(account.recovery, time.monotonic() - self._lost_at)
            self._lost_at = 0.0
        if b"\r\nconnection: close\r\n" in data[: end + 2].lower():
            self.transport.close()
        else:
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clients.open.discard(self)
        account = self._clients.account
        if self._under_way:
            self._clients.lost[self._customer] += 1
            account.reset += 1
        elif not self._clients.ended.is_set():
            account.closed += 1
        if not self.over.done():
            self.over.set_result(None)


def request(path: str, customer: str) -> bytes:
    """Return the bytes of one request of this customer."""
    method, _, target = path.rpartition(" ")
    fields = f"Host: load.test\r\nX-API-Key: {key_of(customer)}\r\n"
    if method == "POST":
        return f"POST {target} HTTP/1.1\r\n{fields}Content-Length: 1000\r\n\r\n{'p' * 1000}".encode()
    return f"GET {target} HTTP/1.1\r\n{fields}\r\n".encode()


def content_length(head: bytes) -> int:
    """Return the Content-Length in an answer's head."""
    at = head.lower().find(b"\r\ncontent-length:")
    return int(head[at + 17 : head.index(b"\r\n", at + 2)]) if at >= 0 else 0


class Load(Process):
    """The running client process."""

    def __init__(self, folder: Path, name: str, plan: Plan) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._told = folder / f"{name}.json"
        module = [sys.executable, "-m", "loadtest.testbed.load_clients"]
        super().__init__([*module, self._told, orjson.dumps(asdict(plan)).decode()], folder / f"{name}.log")

    def account(self, seconds: float) -> Account:
        """Wait for the end of the plan; return the account."""
        assert self.wait(seconds) == 0, self.output
        return Account(**orjson.loads(self._told.read_bytes()))

    def finish(self) -> Account:
        """Stop the load now; return the account."""
        self.send_signal(signal.SIGTERM)
        return self.account(LAST_ANSWERS / SLOWNESS + 5)


async def main(plan: Plan) -> Account:
    """Run the process."""
    return await Clients(plan).run()


if __name__ == "__main__":
    account = uvloop.run(main(Plan(**orjson.loads(sys.argv[2]))))
    Path(sys.argv[1]).write_bytes(orjson.dumps(asdict(account)))
