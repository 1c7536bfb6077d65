"""Clients of all regions. Each load sends requests at random moments at a set rate, whether or not answers arrive.

It runs as a process (`python -m loadtest.regions.load FILE PLAN`), with some 40 µs of a core per request. A request
uses an idle connection, or a new one if none is idle. Latencies count from the due moment.
"""

import asyncio
import gc
import heapq
import math
import random
import signal
import sys
from array import array
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

import orjson
import uvloop

from loadtest.testbed.customers import key_of
from loadtest.testbed.load_clients import content_length
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import Process
from loadtest.testbed.waiting import turned

CONNECTIONS = 400
"""The most connections to one region; further requests queue. An edge allows 500 from one address."""
OPENED = 8
"""Connections that are opened before the start."""
LAST_ANSWERS = 3.0
"""Seconds to wait for outstanding answers after the last request."""
GRACE = 30.0


class Load(NamedTuple):
    """A customer's requests per second to a port, from one moment (seconds after the beginning) to another."""

    customer: str
    port: int
    begin: float
    end: float
    rate: float
    account: str = ""
    """The name of the account; by default the customer."""


@dataclass
class Account:
    """The results of a customer's requests. Times are monotonic, durations seconds."""

    asked: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    """Requests without an answer."""
    longest: float = 0.0
    took: list[float] = field(default_factory=list)
    refused_at: list[float] = field(default_factory=list)
    """When each refusal arrived. This and `took` are recorded only for customers that are watched closely."""


class Counted:
    """A growing account."""

    __slots__ = ("answers", "asked", "closely", "longest", "refused_at", "took")

    def __init__(self, closely: bool) -> None:
        self.closely = closely
        self.asked = 0
        self.longest = 0.0
        self.answers: Counter[int] = Counter()
        self.took, self.refused_at = array("d"), array("d")

    def heard(self, status: int, due: float) -> None:
        """Record a whole answer."""
        now = monotonic()
        self.answers[status] += 1
        if now - due > self.longest:
            self.longest = now - due
        if self.closely:
            self.took.append(now - due)
            if status == 429:
                self.refused_at.append(now)

    def account(self) -> Account:
        answers = {str(status): count for status, count in self.answers.items()}
        lost = self.asked - sum(answers.values())
        return Account(self.asked, answers, lost, self.longest, self.took.tolist(), self.refused_at.tolist())


class Connection(asyncio.Protocol):
    """One connection to a region: a request, its answer, the next request."""

    transport: asyncio.Transport

    def __init__(self, region: "Region") -> None:
        self._region = region
        self._rest = b""
        self._counted: Counted | None = None
        self._due = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self._region.free(self)

    def ask(self, request: bytes, counted: Counted, due: float) -> None:
        """Send a request and record its due time."""
        self._counted, self._due = counted, due
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        end = data.find(b"\r\n\r\n")
        if end < 0 or len(data) < end + 4 + content_length(data[: end + 2]):
            self._rest = data
            return
        self._rest = b""
        assert self._counted is not None
        self._counted.heard(int(data[9:12]), self._due)
        self._counted = None
        if b"\r\nconnection: close\r\n" in data[: end + 2].lower():
            self.transport.close()
        else:
            self._region.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._region.gone(self)


class Region:
    """The connections to one region. They take turns, so that all of its workers have work."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._count = 0
        self._idle: deque[Connection] = deque()
        self._queue: deque[tuple[bytes, Counted, float]] = deque()
        self._opening: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Open one more connection."""
        self._count += 1
        try:
            await asyncio.get_running_loop().create_connection(lambda: Connection(self), HOST, self._port)
        except OSError:
            self._count -= 1

    def ask(self, request: bytes, counted: Counted, due: float) -> None:
        """Send a request, at once or as soon as a connection is free."""
        if self._idle:
            self._idle.popleft().ask(request, counted, due)
            return
        self._queue.append((request, counted, due))
        if self._count < CONNECTIONS:
            task = asyncio.get_running_loop().create_task(self.open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def free(self, connection: Connection) -> None:
        """Record that a connection is idle."""
        if self._queue:
            connection.ask(*self._queue.popleft())
        else:
            self._idle.append(connection)

    def gone(self, connection: Connection) -> None:
        """Record that a connection was lost."""
        self._count -= 1
        if connection in self._idle:
            self._idle.remove(connection)


async def play(loads: Sequence[Load], begin: float, closely: Sequence[str], seed: object) -> dict[str, Account]:
    """Play all loads, from `begin` (monotonic) on. Returns the accounts by name."""
    chance = random.Random(f"{seed} load")
    names = [load.account or load.customer for load in loads]
    counts = {name: Counted(name in closely) for name in names}
    requests = [request(load.customer) for load in loads]
    regions = {load.port: Region(load.port) for load in loads}
    for region in regions.values():
        await asyncio.gather(*(region.open() for _ in range(OPENED)))
    gc.disable()
    over = asyncio.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(ending, over.set)
    due = []
    for number, load in enumerate(loads):
        first = begin + load.begin + chance.expovariate(load.rate)
        if first < begin + load.end:
            due.append((first, number))
    heapq.heapify(due)
    while due and not over.is_set():
        now = monotonic()
        while due and due[0][0] <= now:
            at, number = due[0]
            load, counted = loads[number], counts[names[number]]
            counted.asked += 1
            regions[load.port].ask(requests[number], counted, at)
            following = at - math.log(1.0 - chance.random()) / load.rate
            if following < begin + load.end:
                heapq.heapreplace(due, (following, number))
            else:
                heapq.heappop(due)
        if due:
            await asyncio.sleep(max(0.0, min(1.0, due[0][0] - now)))
    try:
        all_answered = lambda: all(count.asked == count.answers.total() for count in counts.values())  # noqa: E731
        await turned(all_answered, "all are answered", seconds=LAST_ANSWERS)
    except AssertionError:
        pass  # The accounts tell.
    return {name: counted.account() for name, counted in counts.items()}


def request(customer: str) -> bytes:
    """Return the bytes of one request of this customer."""
    return f"GET / HTTP/1.1\r\nHost: load.test\r\nX-API-Key: {key_of(customer)}\r\n\r\n".encode()


def sleep_until(moment: float) -> None:
    """Sleep until this moment (monotonic), if it is in the future."""
    sleep(max(0.0, moment - monotonic()))


class Clients(Process):
    """The running client process."""

    def __init__(
        self, folder: Path, loads: Sequence[Load], begin: float, closely: Sequence[str] = (), seed: object = 0
    ) -> None:
        self._told = folder / f"clients-{begin}.json"
        self._seconds = max(load.end for load in loads)
        self._begin = begin
        plan = folder / f"loads-{begin}.json"
        plan.write_bytes(orjson.dumps([[list(load) for load in loads], begin, closely, str(seed)]))
        super().__init__([sys.executable, "-m", "loadtest.regions.load", self._told, plan], folder / "clients.log")

    def accounts(self) -> dict[str, Account]:
        """Wait for the end; return the accounts by name."""
        assert self.wait(self._begin + self._seconds - monotonic() + LAST_ANSWERS + GRACE) == 0, self.output
        body = orjson.loads(self._told.read_bytes())
        return {name: Account(**account) for name, account in body.items()}


if __name__ == "__main__":
    said, begin, closely, seed = orjson.loads(Path(sys.argv[2]).read_bytes())
    accounts = uvloop.run(play([Load(*load) for load in said], begin, closely, seed))
    Path(sys.argv[1]).write_bytes(orjson.dumps({name: asdict(account) for name, account in accounts.items()}))
