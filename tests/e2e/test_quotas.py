"""Quotas over reported usage and the counts of all edges: real edges, and the collector that informs them."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from loadtest.testbed.collector import EDGE, READ, SERVICE, Collector
from loadtest.testbed.customers import key_line, key_of
from loadtest.testbed.edge import Edge
from loadtest.testbed.process import kill
from loadtest.testbed.redis import SERVER, Redis
from loadtest.testbed.upstream import Upstream
from loadtest.testbed.waiting import until, wait_until
from tests.support.collector_fixtures import StartCollector

INCLUDED = 1000
TIERS = {
    "pro": {"quotas": [{"meter": "tokens", "per": "month", "included": INCLUDED, "cap": "hard"}]},
    "soft": {"quotas": [{"meter": "tokens", "per": "month", "included": INCLUDED}]},
    "calls": {"quotas": [{"meter": "requests", "per": "day", "included": 10, "cap": "hard"}]},
}
NAMES = {"acme": "pro", "bolt": "pro", "late": "pro", "mild": "soft", "busy": "calls"}
SHARED: dict[str, Any] = {
    "meters": {"requests": {"count": "requests"}, "tokens": {"count": "events"}},
    "tiers": TIERS,
    "customers": {name: {"tier": tier} for name, tier in NAMES.items()},
}
SECONDS_MAX = 1.0
"""Seconds until a hard cap holds everywhere; ten times that in a run with other tests."""
MANY = [f"customer-{number}" for number in range(50)]


@pytest.fixture
def start_edges(tmp_path: Path, upstream: Upstream) -> Iterator[Any]:
    """Start an edge of a region, without a hub, which ships to the collector."""
    with ExitStack() as ends:

        def start(region: str, collector: Collector, **settings: Any) -> Edge:
            given = {
                **SHARED,
                "region": region,
                "workers": 1,
                "keys": [key_line(name) for name in NAMES],
                "usage": {"collector": f"http://127.0.0.1:{collector.port}", "token": EDGE, "every": "200ms"},
                **settings,
            }
            given = {name: value for name, value in given.items() if value is not None}
            return ends.enter_context(closing(Edge(tmp_path / region, upstream.port, **given))).start()

        yield start


def asks(edge: Edge, customer: str) -> int:
    return edge.ask(fields={"Authorization": f"Bearer {key_of(customer)}"}).status


def is_over(edge: Edge, customer: str) -> bool:
    """Return whether an answer states that a soft quota is used up."""
    answer = edge.ask(fields={"Authorization": f"Bearer {key_of(customer)}"})
    assert answer.status == 200
    return answer.all("x-quota") == ['"tokens-month";over']


def report(collector: Collector, number: int, customer: str, value: int) -> None:
    event = {"id": f"{customer}-{number}", "source": "test", "customer": customer, "meter": "tokens", "value": value}
    answer = collector.send("POST", "/v1/events", event, token=SERVICE)
    assert (answer.status, answer.json()["accepted"]) == (202, 1), answer


def quota_of(collector: Collector, customer: str) -> dict[str, Any]:
    answer = collector.get(f"/v1/customers/{customer}/quotas", token=READ)
    assert answer.status == 200, answer
    (told,) = answer.json()["quotas"]
    return dict(told)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_hard_cap_holds_at_every_edge(start_edges: Any, start_collector: StartCollector) -> None:
    collector = start_collector(**SHARED)
    edges = [start_edges(region, collector) for region in ("eu-a", "us-b")]
    assert [asks(edge, name) for edge in edges for name in ("acme", "mild")] == [200] * 4
    report(collector, 1, "acme", INCLUDED - 1)
    assert quota_of(collector, "acme")["percent"] == 99.9
    assert [asks(edge, "acme") for edge in edges] == [200, 200], "there is one left"
    report(collector, 2, "acme", 1)
    began = time.monotonic()
    until(
        lambda: {asks(edge, "acme") for edge in edges} == {429}, "the quota refuses requests", seconds=10 * SECONDS_MAX
    )
    print(f"the cap held at {len(edges)} edges {time.monotonic() - began:.3f} s after the event")
    # A customer who has not asked here before, and one of a soft quota.
    report(collector, 1, "bolt", 2 * INCLUDED)
    report(collector, 1, "mild", 2 * INCLUDED)
    until(lambda: all(is_over(edge, "mild") for edge in edges), "a soft one says so")
    assert [asks(edge, "bolt") for edge in edges] == [429, 429]
    told = quota_of(collector, "bolt")
    assert (told["used"], told["limit"], told["percent"], told["cap"]) == (2 * INCLUDED, INCLUDED, 200.0, "hard")
    # A file does not say since when its customers exist, so six days without usage and today's usage count.
    assert (told["projected"]["days"], told["projected"]["low"]) == (7, told["used"])
    # Counts of one edge reach the other once they are shipped, so no quota can be used twice.
    passed = 0
    while asks(edges[0], "busy") == 200:
        passed += 1
    assert passed == 10
    until(lambda: asks(edges[1], "busy") == 429, "the other edge knows")
    # An edge started in the middle of the month learns all usage, and without a collector customers stay refused.
    new = start_edges("ap-c", collector)
    until(lambda: [asks(new, name) for name in ("acme", "bolt", "busy")] == [429] * 3, "a new edge knows")
    collector.kill()
    assert [asks(edge, "acme") for edge in (*edges, new)] == [429] * 3
    assert asks(new, "late") == 200
    # More may be included at any time.
    more = {**TIERS, "pro": {"quotas": [{**TIERS["pro"]["quotas"][0], "included": 2 * INCLUDED}]}}
    assert new.reload(tiers=more).status == 200
    until(lambda: asks(new, "acme") == 200, "twice as much is included")
    assert asks(new, "bolt") == 429
    for edge in (*edges, new):
        kill(edge.supervisor.pid)  # It would wait for a collector that takes the rest.


@pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_edges_learn_quotas_through_a_failing_hub(
    start_edges: Any, start_collector: StartCollector, tmp_path: Path
) -> None:
    """These edges ship to no collector, so only the hub can inform them."""
    directory_signatures.create_key_file(tmp_path / "directory.key")
    signer = Signer.load(tmp_path / "directory.key")
    redis = Redis(tmp_path)
    try:
        collector = start_collector(**SHARED, directory={"key": str(tmp_path / "directory.key"), "hub": redis.url})
        own = {"hub": redis.url, "directory": {"from": "hub", "trust": signer.public_key}, "usage": None}
        edge = start_edges("eu-a", collector, **own)
        assert asks(edge, "acme") == 200
        report(collector, 1, "acme", INCLUDED)
        until(lambda: asks(edge, "acme") == 429, "the quota refuses requests")
        redis.kill()
        report(collector, 1, "bolt", INCLUDED)
        assert [asks(edge, name) for name in ("acme", "bolt")] == [429, 200], "known counts stay in force"
        redis.start()  # It keeps nothing on disk.
        until(lambda: asks(edge, "bolt") == 429, "the hub is told again")
        new = start_edges("us-b", collector, **own)
        until(lambda: [asks(new, name) for name in ("acme", "bolt")] == [429, 429], "all of it")
        assert asks(new, "late") == 200
    finally:
        redis.kill()


@pytest.mark.soak
@pytest.mark.parametrize("database", ["sqlite", "postgresql"], indirect=True)
def test_a_hard_cap_holds_in_three_regions_within_a_second(start_edges: Any, start_collector: StartCollector) -> None:
    """Half of the customers send requests continuously, the others a first request a second after their event."""
    people = {"customers": {name: {"tier": "pro"} for name in MANY}}
    collector = start_collector(**{**SHARED, **people})
    keys = [key_line(name) for name in MANY]
    edges = [start_edges(region, collector, keys=keys, **people) for region in ("eu-a", "us-b", "ap-c")]
    took = []
    for name in MANY[::2]:
        assert {asks(edge, name) for edge in edges} == {200}
        report(collector, 1, name, INCLUDED)
        began = time.monotonic()
        until(lambda name=name: {asks(edge, name) for edge in edges} == {429}, "the quota refuses requests")  # type: ignore[misc]
        took.append(time.monotonic() - began)
    for name in MANY[1::2]:
        report(collector, 1, name, INCLUDED)
    wait_until(time.monotonic() + SECONDS_MAX)
    assert {asks(edge, name) for edge in edges for name in MANY[1::2]} == {429}
    took.sort()
    print(f"{collector.settings['database']}: median {took[len(took) // 2]:.3f} s, longest {took[-1]:.3f} s")
    assert took[-1] <= SECONDS_MAX
