"""Two supervisors on one state directory, as in an upgrade, and another host share one limit; one reports to the
hub.
"""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from redis import Redis as Client

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.control import Control
from edgeproxy.edge.counters.file import TableFile
from edgeproxy.edge.counters.rows import LimitTable
from edgeproxy.edge.counters.setup import file_name
from loadtest.testbed.customers import people
from loadtest.testbed.edge import Edge
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.support.hub_state import parse_state

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")

KEY = {"Authorization": "Bearer key-of-acme"}
LIMIT = 40
SPEAKS = "told to the hub by this supervisor"


@pytest.fixture
def edges(tmp_path: Path, upstream: Upstream, redis: Redis) -> Iterator[list[Edge]]:
    """Two hosts; two supervisors on the first, each with a worker."""
    with ExitStack() as ends:
        made = []
        for number in (1, 2):
            said = people(acme="held") | {"hub": redis.url, "workers": 1}
            said["tiers"] = {**said["tiers"], "held": {"limits": [{"rate": f"{LIMIT}/min", "sync": "strict"}]}}
            made.append(ends.enter_context(closing(Edge(tmp_path / f"edge-{number}", upstream.port, **said))))
        for edge in (made[0], *made):
            edge.start()
        until(lambda: len({pids(made[0]) for _ in range(20)}) == 2, "both supervisors of the first serve")
        for edge in made:
            until(lambda edge=edge: knows_both(edge), "both are on the hub")
        yield made


def pids(edge: Edge) -> tuple[int, ...]:
    """Return the workers of the supervisor that answers."""
    return tuple(edge.worker_pids())


def knows_both(edge: Edge) -> bool:
    """Return whether the host knows both hosts, with every answering supervisor."""
    return all(edge.status()["hub"].get("hosts") == 2 for _ in range(20))


def asked(edges: list[Edge], times: int) -> int:
    """Return how many of these requests to each pass, several at once."""
    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(lambda edge: edge.ask(fields=KEY).status, [*edges] * times))
    assert set(answers) <= {200, 429}
    return answers.count(200)


class Books:
    """The claims that the hub has granted to a host for the only rate, and the claims given to its columns."""

    def __init__(self, edge: Edge, redis: Redis) -> None:
        state = Path(edge.settings["state"])
        control = Control.open(state / "control")
        self._host = f"rl:*:host:{control.instance}"
        name = file_name("customers", control.generation("customers"))
        self._table = LimitTable(TableFile.open(state / name, kind="customers", instance=control.instance))
        self._redis = Client(port=redis.port)
        control.close()

    def granted(self) -> int:
        (key,) = self._redis.keys(self._host)
        return int(parse_state(self._redis.get(key)).get("g", 0))

    def given(self) -> int:
        (row,) = self._table.rows()
        layout = self._table.layout
        heads = [row + layout.head(column) for column in range(layout.columns - 1)]
        return sum(self._table.words[head + at.GIVEN] for head in heads)

    def close(self) -> None:
        self._redis.close()
        self._table.file.close()


def spoken(edge: Edge) -> int:
    """Return how often a supervisor has started to report to the hub."""
    return edge.output.count(SPEAKS)


def test_limit_spans_two_supervisors_and_survives_the_end_of_one(edges: list[Edge], redis: Redis) -> None:
    one, _ = edges
    assert spoken(one) == 1
    passed = asked(edges, 12)
    assert passed >= 12, "the workers of both are granted what they ask for"
    with closing(Books(one, redis)) as books:
        assert books.granted() > 0
        until(lambda: books.given() == books.granted(), "what was granted is given, once")
    older, newer = one.supervisors
    older.send_signal(signal.SIGKILL)
    until(lambda: spoken(one) == 2, "the other supervisor takes over")
    until(lambda: len(one.supervisor.family()) == 2, "workers leave whose supervisor is gone")
    assert newer.running
    # Well within the minute. Claims that arrive too late for their request return unused after 10 s.
    give_up = time.monotonic() + 25
    while passed < LIMIT * 0.9 and time.monotonic() < give_up:
        passed += asked(edges, 12)
    passed += asked(edges, 12)
    assert LIMIT * 0.9 <= passed <= LIMIT, "strict: nothing passes that was not granted, and nothing was granted twice"
