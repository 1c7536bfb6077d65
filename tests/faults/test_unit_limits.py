"""Limits in tokens while workers are killed, over several workers and over two hosts with a real hub.

Each response takes more tokens than its request reserved. So the limit is exceeded, at most by the documented amount:
the excess of the responses in progress over their reservations. Charges equal counts, each once.
"""

import math
import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from http.client import HTTPException
from pathlib import Path
from time import monotonic

import pytest

from loadtest.testbed.customers import MINUTE, key_line
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.fault_load import whole_crew
from loadtest.testbed.http_client import ask
from loadtest.testbed.process import kill
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.waiting import SLOWNESS, until
from tests.support.service import Service

RESERVE, TOKENS = 100, 150
"""Tokens that a request reserves, and tokens that its response takes."""
CLIENTS = 24
KILLS = 4
LIMIT = 600_000 * math.ceil(SLOWNESS)
"""The limit is so high that workers are killed and replaced before it is reached."""
SECONDS_MAX = 50.0 * SLOWNESS
"""Seconds during which clients make requests, less than the limit's minute."""
PATH = f"/model?ms=20&n={TOKENS}"


def settings(limit: int) -> dict[str, object]:
    return {
        "meters": {"requests": {"count": "requests"}, "tokens": {"count": "total_tokens"}},
        "tiers": {"paid": {"limits": [{"name": "t", "rate": f"{limit}/{MINUTE}", "of": "tokens", "reserve": RESERVE}]}},
        "customers": {"acme": {"tier": "paid"}},
        "keys": [key_line("acme")],
        "routes": [{"name": "all", "path": "/*", "upstream": "api", "response_usage": "openai"}],
    }


class Asking:
    """Clients that make requests until the block has ended and each client was refused `refusals` times."""

    def __init__(self, edges: list[Edge], refusals: int = 3) -> None:
        self.passed = self.lost = 0
        self.faults: list[object] = []
        self._lock, self._refusals = threading.Lock(), refusals
        self._over = threading.Event()
        ports = [edges[number % len(edges)].port for number in range(CLIENTS * len(edges))]
        self._threads = [threading.Thread(target=self._ask, args=(port,)) for port in ports]
        self._until = monotonic() + SECONDS_MAX

    def __enter__(self) -> "Asking":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert not self.faults

    def _ask(self, port: int) -> None:
        refused = 0
        while (refused < self._refusals or not self._over.is_set()) and monotonic() < self._until:
            try:
                status = ask(port, PATH, key="key-of-acme").status
            except (OSError, HTTPException):
                status = 0  # Its worker was killed.
            with self._lock:
                self.passed += status == 200
                self.lost += status == 0
                if status not in (0, 200, 429):
                    self.faults.append(status)
            refused += status == 429
            if status != 200:
                self._over.wait(0.05)


def count_tokens(edge: Edge) -> int:
    """Return the tokens that this edge has counted."""
    rows = ask(edge.admin, "/usage").json()["rows"]
    return sum(number for customer, meter, _, number in rows if (customer, meter) == ("acme", "tokens"))


def test_with_killed_workers_charges_equal_counts_and_the_excess_is_bounded(
    start_edge: StartEdge, service: Service, seed: int
) -> None:
    chance, workers = random.Random(seed), 3
    edge = start_edge(port=service.port, workers=workers, **settings(LIMIT))
    with Asking([edge]) as asking:
        for _ in range(KILLS):
            before = count_tokens(edge)
            until(lambda before=before: count_tokens(edge) > before + 20 * TOKENS, "there is a load")  # type: ignore[misc]
            victim = chance.choice(edge.worker_pids())
            kill(victim)
            until(lambda victim=victim: whole_crew(edge, {victim}), "there is a new worker")  # type: ignore[misc]
        before = count_tokens(edge)
        assert before < LIMIT - CLIENTS * TOKENS, "all kills happened before the limit was reached"
    counted = count_tokens(edge)
    used = edge.limit("acme")["used"]
    print(f"{counted} tokens of {LIMIT}; {asking.passed} answers, {asking.lost} lost with {KILLS} workers")
    assert asking.lost, "killed workers had requests in progress"
    assert counted == used, "charges equal counts"
    assert asking.passed * TOKENS <= counted <= service.stated, "each complete response counts once"
    assert counted <= asking.passed * TOKENS + asking.lost * TOKENS
    most_at_once = CLIENTS + workers - 1
    assert LIMIT - RESERVE < counted <= LIMIT + most_at_once * (TOKENS - RESERVE) + (workers - 1) * TOKENS
    assert ask(edge.port, PATH, key="key-of-acme").status == 429
    until(lambda: not service.of("acme").now, "no request is in progress")


@pytest.fixture
def hosts(tmp_path: Path, service: Service, redis: Redis) -> Iterator[list[Edge]]:
    """Two hosts with two workers each."""
    with ExitStack() as ends:
        edges = []
        for number in (1, 2):
            shared = settings(LIMIT) | {"hub": redis.url, "workers": 2}
            edges.append(ends.enter_context(closing(Edge(tmp_path / f"edge-{number}", service.port, **shared))))
        for edge in edges:
            edge.start()
        for edge in edges:
            until(lambda edge=edge: edge.status()["hub"].get("hosts") == 2, "both are on the hub")  # type: ignore[misc]
        yield edges


@pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")
def test_two_hosts_share_one_limit_and_know_the_charges_of_both(hosts: list[Edge], service: Service) -> None:
    def know() -> bool:
        charged = sum(map(count_tokens, hosts))
        return charged >= LIMIT * 0.95 and all(edge.limit("acme")["used"] == charged for edge in hosts)

    begun = monotonic()
    with Asking(hosts) as asking:
        # Both hosts keep getting requests, because a host without use for three seconds may admit unreported requests.
        until(know, "each host knows the charges of both", step=0.1)
    counted = [count_tokens(edge) for edge in hosts]
    seconds = monotonic() - begun
    print(f"{counted} tokens of {LIMIT} in {seconds:.1f} s")
    assert not asking.lost
    assert sum(counted) == asking.passed * TOKENS == service.stated
    assert min(counted) > 0
    assert LIMIT * 0.95 <= sum(counted) <= LIMIT * 1.1
    assert [ask(edge.port, PATH, key="key-of-acme").status for edge in hosts] == [429, 429]
