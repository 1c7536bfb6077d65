"""An open-loop load generator: requests at a set rate, whether or not answers arrive.

A program of its own: `python paced.py FILE` with settings in JSON prints JSON. Gaps between requests are exponential (a
Poisson process, as independent clients make). A latency counts from the moment at which the request was *due*, so that
a stalled proxy cannot hide behind requests that were not sent. It needs nothing but the standard library, and about 15
µs of its core a request.
"""

import gc
import itertools
import json
import math
import random
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_DRAIN_SECONDS = 2.0
_SPIN_BELOW = 20e-6
REFUSAL_ENDING = b'"}'
"""The end of problem details."""
WARM_UP_SECONDS = 0.3
"""Seconds of load before the measurement, at the measured rate."""


@dataclass(frozen=True)
class Pace:
    """Latencies in seconds. `late`: the generator started 99 % of the requests within this time after they were due."""

    requests: int
    seconds: float
    wrong: int
    unanswered: int
    p50: float
    p95: float
    p99: float
    late: float


class Generator:
    """Keep-alive connections with at most one request under way on each; further due requests queue."""

    def __init__(
        self, port: int, connections: int, requests: Sequence[bytes], ending: bytes, refused: Sequence[bytes] = ()
    ) -> None:
        """Send these requests in turn, whose answers have this `ending`. If there are `refused` ones, every other
        request is one of them, whose answers are no latencies and have the status 401.
        """
        own = itertools.cycle((request, ending, b"HTTP/1.1 200") for request in requests)
        others = itertools.cycle((request, REFUSAL_ENDING, b"HTTP/1.1 401") for request in refused)
        self._requests = itertools.chain.from_iterable(zip(own, others)) if refused else own  # noqa: B905, no ends
        self._expected: dict[int, tuple[bytes, bytes]] = {}
        """The ending and the beginning of the answer to come on each connection."""
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        for _ in range(connections):
            sock = socket.create_connection(("127.0.0.1", port), timeout=5)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            self._sockets[sock.fileno()] = sock
            self._poll.register(sock, select.EPOLLIN)
        self._idle = list(self._sockets)
        self._pending: dict[int, float] = {}
        self._parts: dict[int, bytes] = {}
        self._queue: deque[float] = deque()
        self._lateness: list[float] = []
        self._latencies: list[float] = []
        self._wrong = 0

    def run(self, rate: float, seconds: float) -> Pace:
        """Send `rate` requests a second for `seconds`, and wait for requests under way. Earlier runs do not count."""
        self._latencies, self._lateness, self._wrong = [], [], 0
        gap = random.Random(1).expovariate
        clock = time.perf_counter
        began = due = clock()
        ends = began + seconds
        while (now := clock()) < ends + _DRAIN_SECONDS:
            while due <= now and due < ends:
                self._queue.append(due)
                self._lateness.append(now - due)
                due += gap(rate)
            while self._queue and self._idle:
                self._send(self._queue.popleft())
            if due >= ends and not self._pending and not self._queue:
                break
            self._receive(due - clock() if due < ends else 0.001)
        unanswered = len(self._pending) + len(self._queue)
        return Pace(
            requests=len(self._latencies),
            seconds=seconds,
            wrong=self._wrong,
            unanswered=unanswered,
            p50=quantile(self._latencies, 0.5),
            p95=quantile(self._latencies, 0.95),
            p99=quantile(self._latencies, 0.99),
            late=quantile(self._lateness, 0.99),
        )

    def _send(self, due: float) -> None:
        number = self._idle.pop()
        self._pending[number] = due
        request, ending, beginning = next(self._requests)
        self._expected[number] = ending, beginning
        self._sockets[number].send(request)

    def _receive(self, patience: float) -> None:
        """Receive available data; wait at most `patience` seconds for it."""
        if patience > _SPIN_BELOW:
            # epoll waits in whole milliseconds; select does in microseconds.
            select.select([self._poll], (), (), patience)
        for number, _ in self._poll.poll(0):
            data = self._sockets[number].recv(65536)
            if not data:
                raise ConnectionError("a connection was closed under load")
            whole = self._parts.pop(number, b"") + data
            ending, beginning = self._expected[number]
            if not whole.endswith(ending):
                self._parts[number] = whole
                continue
            latency = time.perf_counter() - self._pending.pop(number)
            if ending != REFUSAL_ENDING:
                self._latencies.append(latency)
            self._idle.append(number)
            if not whole.startswith(beginning):
                self._wrong += 1


def quantile(values: list[float], share: float) -> float:
    """Return the smallest value that at least this share of them does not exceed; NaN if there are none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


def main(settings: dict[str, Any]) -> None:
    # Timers of ordinary processes are late by up to 50 µs, to save power.
    Path("/proc/self/timerslack_ns").write_text("1")
    gc.disable()
    generator = Generator(
        settings["port"],
        settings["connections"],
        [request.encode() for request in settings["requests"]],
        settings["ending"].encode(),
        [request.encode() for request in settings.get("refused", ())],
    )
    generator.run(settings["rate"], WARM_UP_SECONDS)
    print(json.dumps(asdict(generator.run(settings["rate"], settings["seconds"]))))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
