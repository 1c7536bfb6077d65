"""Limits in use at a real collector, reported only for watched customers, to them and to operators."""

import time
from typing import Any

from edgeproxy.wire.limit_usage import LIMITS_MAX, WATCHED_MAX
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, EDGE, ONE, OWN, READ, Collector
from loadtest.testbed.http_client import Answer


def row(used: int, **more: object) -> dict[str, Any]:
    """A limit of 100 in 10 seconds."""
    window = {"mode": "enforce", "count": 100, "window_s": 10}
    return {"limit": "burst", "scope": "customer", "used": used, "peak": 3 * used, **window, **more}


def report(collector: Collector, chain: Chain, token: str = EDGE, **usage: list[dict[str, Any]]) -> Answer:
    """Send what customers use at an edge."""
    body = {"region": chain.region, "usage": [{"customer": who, "limits": limits} for who, limits in usage.items()]}
    return collector.send("POST", "/v1/limit-usage", body, token=token, Edge_Id=chain.edge)


def live(collector: Collector, customer: str, token: str = READ) -> dict[str, list[tuple[str, int, int]]]:
    """Return the usage by edge that this token may read."""
    answer = collector.get(f"/v1/customers/{customer}/limits", token=token)
    assert answer.status == 200, answer
    edges = answer.json()["live"]
    return {
        edge["edge"]: [(limit["limit"], limit["used"], limit["peak"]) for limit in edge["limits"]] for edge in edges
    }


def known(collector: Collector) -> Chain:
    """An edge that has shipped a batch."""
    chain = Chain()
    assert collector.post(chain.next()).status == 200
    return chain


def test_limit_usage_is_reported_while_watched_and_shown_to_its_customer(collector: Collector) -> None:
    one, other = known(collector), known(collector)
    assert "bolt" not in report(collector, one).json()["watched"]
    assert live(collector, "bolt") == {}
    assert live(collector, "bound", OWN) == {}
    assert {"bolt", "bound"} <= set(report(collector, one).json()["watched"])
    trial = row(50, limit="trial", mode="shadow")
    assert report(collector, one, bolt=[row(12)], bound=[row(7), trial]).status == 200
    assert report(collector, other, bolt=[row(2)]).status == 200
    assert live(collector, "bolt") == {one.edge: [("burst", 12, 36)], other.edge: [("burst", 2, 6)]}
    assert live(collector, "bound") == {one.edge: [("burst", 7, 21), ("trial", 50, 150)]}
    assert live(collector, "bound", OWN) == {one.edge: [("burst", 7, 21)]}, "limits on trial are no matter of customers"
    assert collector.get("/v1/customers/bolt/limits", token=OWN).status == 403
    report(collector, one, bolt=[row(5)])
    assert live(collector, "bolt")[one.edge] == [("burst", 5, 15)], "in the place of the report before"
    assert live(collector, "bound") == {}


def test_access_has_the_limits_of_routes_that_edges_report(collector: Collector) -> None:
    chain, other = known(collector), known(collector)
    path = "/v1/customers/mole/access"
    assert collector.send("POST", "/v1/customers", {"name": "mole", "tier": "basic"}).status == 201
    assert collector.get(path).json()["may_call"] == "yes"
    of_route = {"scope": "route", "route": "stream"}
    full, trial = row(100, limit="stream", **of_route), row(100, limit="trial", **of_route, mode="shadow")
    assert report(collector, chain, mole=[full, trial]).status == 200
    assert report(collector, other, mole=[full | {"used": 3}]).status == 200
    answer = collector.get(path).json()
    (limit,) = [one for one in answer["limits"] if one["routes"] == ["stream"]]
    assert (limit["name"], limit["kind"], limit["state"], limit["used"]) == ("stream", "rate", "reached", 100)
    assert answer["may_call"] == "partly"


def test_limit_report_counts_only_from_its_own_edge_and_for_watched_customers(collector: Collector) -> None:
    chain, fresh = known(collector), Chain()
    for token, status in ((READ, 403), (ADMIN, 403), (OWN, 403), (ONE, 403), ("no-token", 401)):
        assert report(collector, chain, token, acme=[row(1)]).status == status, token
    assert report(collector, Chain(edge=chain.edge, region="elsewhere")).status == 403
    assert report(collector, fresh).status == 409, "the token may belong to another edge"
    assert report(collector, chain, nobody=[row(99)], acme=[row(99)]).status == 200
    assert live(collector, "acme") == {}, "a report sent before the watch is dropped"
    for limits in ([row(1)] * (LIMITS_MAX + 1), [row(-1)], [row(10**16)], [row(1, route="a b")], [row(1, mode="x")]):
        assert report(collector, chain, acme=limits).status == 422
    many: dict[str, list[dict[str, Any]]] = {f"c{n}": [] for n in range(WATCHED_MAX + 1)}
    assert report(collector, chain, **many).status == 422


def test_operator_watch_displaces_one_of_a_thousand_customer_watches(sqlite_collector: Collector) -> None:
    chain, now = known(sqlite_collector), int(time.time())
    rows = [(f"crowd-{n}", now + 3600, 0) for n in range(1000)]
    sqlite_collector.execute("INSERT INTO limit_watches VALUES (?, ?, ?)", *rows)
    live(sqlite_collector, "bolt")
    watched = report(sqlite_collector, chain).json()["watched"]
    assert len(watched) == WATCHED_MAX
    assert "bolt" in watched
