"""One limit over two hosts on a Redis Cluster, one of whose primaries is killed."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import START, Edge, total
from loadtest.testbed.redis import SERVER, Cluster, Redis
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until
from tests.support.hub_state import sum_cells

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")

LIMIT = 60
MANY = [f"customer-{letter}" for letter in "abcdefghijkl"]
"""Customers who stay far below their limits; each node holds some of them."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    started = Cluster(folder, replicas=1)
    yield started
    started.kill()


@pytest.fixture
def edges(tmp_path: Path, upstream: Upstream, cluster: Cluster) -> Iterator[list[Edge]]:
    """Two hosts with two workers each."""
    with ExitStack() as ends:
        made = []
        for number in (1, 2):
            said: dict[str, Any] = people(acme="basic", **dict.fromkeys(MANY, "pro")) | {"hub": cluster.url}
            edge = Edge(tmp_path / f"edge-{number}", upstream.port, **said)
            made.append(ends.enter_context(closing(edge)))
        for edge in made:
            edge.begin()
        for edge in made:
            until(edge.ready, "the edge is ready", seconds=START)
        for edge in made:
            until(lambda edge=edge: edge.status()["hub"].get("hosts") == 2, "both are on the hub")
        yield made


def ask(edge: Edge, customer: str) -> tuple[int, float]:
    """Return the status and the duration of a request."""
    began = monotonic()
    status = edge.ask(fields={"Authorization": f"Bearer {key_of(customer)}"}).status
    return status, monotonic() - began


def at_hub(cluster: Cluster, customer: str) -> int:
    """Return the count of all hosts, from the primary that has it; -1 if none has it."""
    for node in cluster.primaries():
        for key in cluster.tell(node, "KEYS", f"rl:{{*{customer}*}}:total"):
            return int(sum_cells(cluster.tell(node, "GET", key)))
    return -1


def counted(edges: list[Edge], customer: str) -> int:
    return sum(edge.usage().get(customer, 0) for edge in edges)


def nodes_of(edge: Edge) -> dict[str, str]:
    return {node["node"]: node["state"] for node in edge.status()["hub"]["nodes"]}


def told(edges: list[Edge], cluster: Cluster) -> bool:
    return all(at_hub(cluster, customer) == counted(edges, customer) for customer in MANY)


def test_limit_holds_without_loss_or_delay_when_a_primary_is_killed(edges: list[Edge], cluster: Cluster) -> None:
    passed = [ask(edge, "acme")[0] for _ in range(60) for edge in edges].count(200)
    assert LIMIT * 0.95 <= passed <= LIMIT + 6
    assert {ask(edge, customer)[0] for customer in MANY for edge in edges} == {200}
    until(lambda: told(edges, cluster), "the hub knows of everything")
    waits = [total(edge.metrics(), "edge_limit_waits_total") for edge in edges]

    killed = fullest(cluster)
    gone = f"127.0.0.1:{killed.port}"
    assert all(nodes_of(edge)[gone] == "up" for edge in edges)
    killed.kill()
    answers = []

    def is_replaced() -> bool:
        answers.extend(ask(edge, customer) for customer in MANY for edge in edges)
        assert all(edge.ready() and edge.status()["hub"]["state"] == "up" for edge in edges)
        return all(gone not in (nodes := nodes_of(edge)) and set(nodes.values()) == {"up"} for edge in edges)

    until(is_replaced, "the replica has taken its place")
    assert {status for status, _ in answers} == {200}
    # A busy machine delays a request now and then. The lost node has a third of the customers.
    assert sum(seconds >= 1 for _, seconds in answers) <= len(answers) / 20
    assert [total(edge.metrics(), "edge_limit_waits_total") for edge in edges] == waits, "no request waited for the hub"
    until(lambda: told(edges, cluster), "every request is counted at the hub, and once")


def fullest(cluster: Cluster) -> Redis:
    """Return the primary with the counts of most customers."""
    return max(cluster.primaries(), key=lambda node: len(cluster.tell(node, "KEYS", "rl:*:total")))
