"""One limit over several hosts: real edges with workers, a real Redis as their hub."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import Edge, total
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")

KEY = {"Authorization": "Bearer key-of-acme"}
LIMIT = 60
CREDITS = 40


@pytest.fixture
def edges(tmp_path: Path, upstream: Upstream, redis: Redis, request: pytest.FixtureRequest) -> Iterator[list[Edge]]:
    """Two hosts with two workers each. The parameter holds further settings of the tier."""
    tier = {"limits": [{"rate": f"{LIMIT}/min"}], **getattr(request, "param", {})}
    with ExitStack() as ends:
        made = []
        for number in (1, 2):
            said: dict[str, Any] = people(acme="held") | {"hub": redis.url, "workers": 2}
            said["tiers"] = {**said["tiers"], "held": tier}
            edge = ends.enter_context(closing(Edge(tmp_path / f"edge-{number}", upstream.port, **said)))
            made.append(edge)
        for edge in made:
            edge.start()
        for edge in made:
            until(lambda edge=edge: edge.status()["hub"].get("hosts") == 2, "both are on the hub")
        yield made


def asked(edge: Edge, times: int) -> int:
    """Return how many of these requests pass."""
    answers = [edge.ask(fields=KEY).status for _ in range(times)]
    assert set(answers) <= {200, 429}
    return answers.count(200)


def have_heard(edges: list[Edge]) -> None:
    """Send requests to both until each knows nearly as many of the other's requests as it had itself."""

    def heard() -> bool:
        assert [asked(edge, 1) for edge in edges] == [1] * len(edges)
        own = [(edge.usage()["acme"], edge.limit("acme")["used"]) for edge in edges]
        return all(used - counted >= max(5, counted * 0.75) for counted, used in own)

    until(heard, "each edge has heard of the other", step=0.3)  # A host reports each second.


def test_a_limit_holds_for_both_together(edges: list[Edge]) -> None:
    one, other = edges
    passed = sum(asked(edge, 5) for _ in range(12) for edge in (one, other))
    assert LIMIT * 0.95 <= passed <= LIMIT + 6
    assert asked(one, 10) + asked(other, 10) <= 3, "nor does more pass then"
    samples = one.metrics()
    assert total(samples, "edge_hub_up") == 1
    assert total(samples, "edge_hub_hosts") == 2


@pytest.mark.parametrize("edges", [{"burst_credits": {"earn": "1/h", "max": CREDITS}}], indirect=True)
def test_credits_are_spent_once_by_both_together(edges: list[Edge]) -> None:
    one, other = edges
    passed = sum(asked(edge, 5) for _ in range(24) for edge in (one, other))
    # Unreported requests may exceed the limit and the credits slightly.
    assert (LIMIT + CREDITS) * 0.95 <= passed <= LIMIT + CREDITS + 12
    assert asked(one, 10) + asked(other, 10) <= 3, "nor does more pass then"
    spent = [total(edge.metrics(), "edge_burst_credits_spent_total") for edge in edges]
    assert CREDITS <= sum(spent) <= CREDITS + 6
    assert min(spent) > 0
    for edge in edges:
        used = {policy["name"]: policy["used"] for policy in edge.limits("acme")}
        assert used["burst-credits"] >= CREDITS - 1, "each edge knows the credits spent on both"


def test_usage_on_one_host_counts_on_the_other(edges: list[Edge]) -> None:
    one, other = edges
    assert LIMIT <= asked(one, LIMIT + 20) <= LIMIT + 2
    assert asked(other, 20) <= 6, "few requests pass before the edge hears of the usage"


def test_without_the_hub_each_keeps_its_part(edges: list[Edge], redis: Redis) -> None:
    one = edges[0]
    have_heard(edges)
    redis.kill()
    for edge in edges:
        until(lambda edge=edge: edge.status()["hub"]["state"] == "away", "the hub is away")
        assert edge.ready()
    for edge in edges:
        assert asked(edge, LIMIT) >= 10, "a part is still there"
    passed = sum(sum(edge.usage().values()) for edge in edges)
    # Each host may use its own part, or an equal part if that is larger, but not twice the limit.
    assert passed <= LIMIT * 1.5
    assert total(one.metrics(), "edge_hub_up") == 0
    redis.start()
    for edge in edges:
        until(lambda edge=edge: edge.status()["hub"]["state"] == "up", "the hub is back")


def burst(edge: Edge, customer: str) -> int:
    """Return how many of a hundred nearly simultaneous requests pass."""
    with ThreadPoolExecutor(10) as threads:
        fields = {"Authorization": f"Bearer {key_of(customer)}"}
        answers = list(threads.map(lambda _: edge.ask(fields=fields).status, range(100)))
    assert set(answers) <= {200, 429}
    return answers.count(200)


def test_hub_outage_limits_each_edge_to_its_share_across_a_restart(edges: list[Edge], redis: Redis) -> None:
    one, other = edges
    for edge in edges:
        added = people(acme="held", first="held", later="held", last="held")
        edge.reload(customers=added["customers"], keys=added["keys"])
    have_heard(edges)
    redis.kill()
    part, more = LIMIT // 2, 2
    for edge in edges:
        until(lambda edge=edge: edge.status()["hub"]["state"] == "away", "the hub is away")
        assert part <= burst(edge, "first") <= part + more, "no edge has counted this customer before"
    one.end()
    one.start()
    other.supervisor.wait_after(signal.SIGKILL, 10.0)
    other.start()
    for edge in edges:
        assert (edge.status()["hub"]["state"], edge.status()["hub"]["hosts"]) == ("away", 2)
        assert part <= burst(edge, "later") <= part + more
        assert burst(edge, "first") <= more
        burst(edge, "acme")
    assert LIMIT * 0.8 <= sum(edge.usage()["acme"] for edge in edges) <= LIMIT * 1.15, "earlier usage counts"
    for edge in edges:
        edge.reload(hub={"url": redis.url, "on_loss": "deny"})
        assert burst(edge, "last") == 0


def in_use(edge: Edge) -> int:
    """Return a host's number of the customer's requests under way."""
    return next(int(policy["used"]) for policy in edge.limits("acme") if policy["name"] == "concurrency")


@pytest.mark.parametrize("edges", [{"concurrency": 2}], indirect=True)
def test_finished_requests_do_not_block_the_customer_on_another_host(edges: list[Edge]) -> None:
    one, other = edges
    with ThreadPoolExecutor(2) as threads:
        slow = [threads.submit(one.ask, "/?wait=5000", fields=KEY) for _ in range(2)]
        until(lambda: in_use(one) == 2, "both are under way")
        asked(other, 1)
        until(lambda: in_use(other) == 2, "the other host knows the active requests")
        assert asked(other, 3) == 0
        assert [one.result().status for one in slow] == [200, 200]
    until(lambda: asked(other, 1) == 1, "there is room", seconds=8.0)
    one.ask(fields=KEY)
    until(lambda: in_use(other) == 0, "the edge knows of no use", seconds=8.0)


INCLUDED = 24
"""More than a host admits in 10 s, at one request in 0.5 s, before it knows the other host's count."""
QUOTA = {"limits": [], "quotas": [{"meter": "requests", "included": INCLUDED, "per": "day", "cap": "hard"}]}


@pytest.mark.parametrize("edges", [QUOTA], indirect=True)
def test_quota_released_on_one_host_is_free_on_the_other(edges: list[Edge], upstream: Upstream) -> None:
    one, other = edges
    with ThreadPoolExecutor(INCLUDED - 1) as threads:
        # They fail in the end, and are given back.
        slow = [threads.submit(one.ask, "/?held=1&status=502", fields=KEY) for _ in range(INCLUDED - 1)]
        try:
            until(lambda: one.limit("acme")["used"] == INCLUDED - 1, "all are charged")
            assert asked(other, 1) == 1
            # The host learns the count when it gets requests, perhaps not all of it at once.
            until(lambda: asked(other, 1) == 0, "the other host knows the active requests", seconds=10.0, step=0.5)
        finally:
            upstream.release()
        assert {one.result().status for one in slow} == {502}
    until(lambda: asked(other, 1) == 1, "there is room", seconds=8.0)
