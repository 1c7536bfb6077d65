"""Reports of traffic at a real collector: each counts once, for its own edge alone, and missing ones are seen."""

import time
from typing import Any
from unittest.mock import ANY

import pytest

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.wire.traffic_report import (
    BUCKETS,
    ERRORS_MAX,
    ErrorGroup,
    TrafficCounts,
    build_report,
    dump_report,
)
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, EDGE, ONE, OWN, READ, SERVICE, Collector
from loadtest.testbed.http_client import Answer

pytestmark = pytest.mark.both_databases

BEGIN = (int(time.time()) - 600) // 3600 * 3600
"""The beginning of an hour, 10 to 70 minutes ago: its first minutes are over, and not too old to be reported."""


def counts(requests: int, limited: int = 0, failed: int = 0, bucket: int = 5) -> TrafficCounts:
    """So many requests, all of one duration."""
    return TrafficCounts(requests, limited, 0, failed, tuple(requests * (n == bucket) for n in range(BUCKETS)))


def known(collector: Collector) -> Chain:
    """An edge that has shipped a batch."""
    chain = Chain()
    assert collector.post(chain.next()).status == 200
    return chain


def send(collector: Collector, chain: Chain, minute: int, token: str = EDGE, **routes: TrafficCounts) -> Answer:
    """Send the report of a minute since BEGIN."""
    body = dump_report(build_report(BEGIN + 60 * minute, chain.region, routes))
    return collector.send("POST", "/v1/traffic", body, token=token, Edge_Id=chain.edge)


def read(collector: Collector, minutes: int, **query: str) -> dict[str, Any]:
    """Read the first minutes since BEGIN."""
    span = {"from": format_timestamp(1000 * BEGIN), "to": format_timestamp(1000 * (BEGIN + 60 * minutes))}
    answer = collector.get("/v1/traffic", **span, **query)
    assert answer.status == 200, answer
    body: dict[str, Any] = answer.json()
    return body


def test_a_report_counts_once_and_a_minute_without_one_is_missing(collector: Collector) -> None:
    one, other = known(collector), known(collector)
    for minute in (0, 1, 1, 4):
        answer = send(collector, one, minute, v1=counts(90, limited=9, failed=1), v2=counts(10, bucket=10))
        assert answer.json() == {"recorded": True} or minute == 1
    assert send(collector, other, 0, v1=counts(5)).json() == {"recorded": True}
    assert send(collector, other, 0, v1=counts(700)).json() == {"recorded": False}

    told = read(collector, 5, by="edge", step="1min")
    by_edge = {group["edge"]: group for group in told["groups"]}
    assert by_edge[one.edge] == {
        "edge": one.edge,
        "requests": 300,
        "rate_limited": 27,
        "client_errors": 0,
        "server_errors": 3,
        # 90 of 100 are within 2 to 5 ms, and 10 within 80 to 150: half of all are 50/90 of the way through the first.
        "p50_ms": pytest.approx(2 + 3 * 50 / 90, abs=0.01),
        "p95_ms": pytest.approx(115, abs=0.01),
    }
    assert by_edge[other.edge]["requests"] == 5
    starts = [row["start"] for row in told["rows"] if row["edge"] == one.edge]
    assert starts == [format_timestamp(1000 * (BEGIN + 60 * minute)) for minute in (0, 1, 4)]
    assert told["edges"]
    assert read(collector, 5, by="edge", step="1min", coverage="false") == told | {"edges": [], "as_of": ANY}
    coverage = {edge["edge"]: (edge["minutes"], edge["missing"]) for edge in told["edges"]}
    assert [coverage[chain.edge] for chain in (one, other)] == [(3, 2), (1, 4)], "the lost minutes are reported"

    routes = read(collector, 5, by="region,route", step="5min")
    assert [row["requests"] for row in routes["rows"] if row["region"] == one.region] == [270, 30]
    # The sums by hour are equal, each counted once.
    now = format_timestamp(1000 * (BEGIN + 3600))
    hours = collector.get("/v1/traffic", step="1h", by="region", to=now, **{"from": format_timestamp(0)}).json()
    assert [row["requests"] for row in hours["rows"] if row["region"] == one.region] == [300]
    assert [edge["missing"] for edge in hours["edges"] if edge["edge"] == one.edge] == [0], (
        "the edge started within the hour"
    )


def test_edge_without_any_report_has_no_missing_minutes(collector: Collector) -> None:
    silent = known(collector)
    coverage = {edge["edge"]: (edge["minutes"], edge["missing"]) for edge in read(collector, 5)["edges"]}
    assert coverage[silent.edge] == (0, None)


def test_traffic_report_is_accepted_only_with_the_token_of_its_edge(collector: Collector) -> None:
    chain, fresh = known(collector), Chain()
    for token, status in ((READ, 403), (ADMIN, 403), (SERVICE, 403), (OWN, 403), (ONE, 403), ("no-token", 401)):
        assert send(collector, chain, 0, token, v1=counts(1)).status == status, token
    elsewhere = Chain(edge=chain.edge, region="elsewhere")
    assert send(collector, elsewhere, 0, v1=counts(1)).status == 403, "its batches come from another region"
    assert send(collector, fresh, 0, v1=counts(1)).status == 409, "the token may belong to another edge"
    for minute in (-120, 200, 10**9):
        assert send(collector, chain, minute, v1=counts(1)).status == 422
    assert not [group for group in read(collector, 5, by="edge")["groups"] if group["edge"] in (chain.edge, fresh.edge)]
    for token, status in ((OWN, 403), (EDGE, 403), (SERVICE, 403), (READ, 200)):
        assert collector.get("/v1/traffic", token=token).status == status


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("requests", value) for value in (-1, 1.5, "1", True, 10**13, None)),
        *(("buckets", value) for value in ([0] * 17, [0] * 19, [-1] * 18, "0" * 18, None)),
    ],
)
def test_a_report_with_a_number_that_cannot_be_is_refused(collector: Collector, field: str, value: object) -> None:
    chain = known(collector)
    body: dict[str, Any] = dump_report(build_report(BEGIN, chain.region, {"v1": counts(1)}))
    body["total"][field] = value
    answer = collector.send("POST", "/v1/traffic", body, token=EDGE, Edge_Id=chain.edge)
    assert answer.status == 422, answer
    body["total"][field] = dump_report(build_report(BEGIN, chain.region, {"v1": counts(1)}))["total"][field]  # type: ignore[call-overload, index]
    body["later"] = "a field of a later version"
    assert collector.send("POST", "/v1/traffic", body, token=EDGE, Edge_Id=chain.edge).json() == {"recorded": True}


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ({"step": "7min"}, "step"),
        ({"step": "90s"}, "step"),
        ({"by": "customer"}, "by"),
        ({"by": "edge,edge"}, "by"),
        ({"from": "2027-02-30"}, "from"),
        ({"from": "2999-01-01"}, "from"),
        ({"from": "2020-01-01", "step": "1min"}, "minutes are not kept"),
    ],
)
def test_a_query_that_cannot_be_answered_says_why(collector: Collector, query: dict[str, str], why: str) -> None:
    answer = collector.get("/v1/traffic", **query)
    assert answer.status == 400, answer
    assert why in answer.body.decode()


def send_errors(collector: Collector, chain: Chain, minute: int, errors: dict[ErrorGroup, int], unnamed: int) -> Answer:
    """Report the errors of a minute that began so many minutes ago."""
    begin = int(time.time()) // 60 * 60 - 60 * minute
    body = dump_report(build_report(begin, chain.region, {}, errors, unnamed))
    return collector.send("POST", "/v1/traffic", body, token=EDGE, Edge_Id=chain.edge)


def test_customer_reads_own_errors_by_status_route_and_region(collector: Collector) -> None:
    near, far = known(collector), Chain(region="far")
    assert collector.post(far.next()).status == 200
    name = f"failing-{near.edge}"
    assert collector.send("POST", "/v1/customers", {"name": name, "tier": "basic"}).status == 201
    down, refused = ErrorGroup(name, "v1", 503, "upstream"), ErrorGroup(name, "v2", 403, "edge")
    other = ErrorGroup("acme", "v1", 503, "upstream")
    for minute, errors in ((30, {down: 5, other: 99}), (2, {down: 2, refused: 1}), (2, {down: 50})):
        send_errors(collector, near, minute, errors, unnamed=minute)
    assert send_errors(collector, far, 29, {down: 4}, unnamed=0).json() == {"recorded": True}
    body = collector.get(f"/v1/customers/{name}/errors", hours="1").json()
    fields = ("status", "by", "route", "region", "requests", "recent")
    assert [
        (*(error[field] for field in fields), error["first_at"] < error["last_at"]) for error in body["errors"]
    ] == [
        (503, "upstream", "v1", near.region, 7, 2, True),
        (503, "upstream", "v1", "far", 4, 0, False),
        (403, "edge", "v2", near.region, 1, 1, False),
    ], "a minute that is sent twice counts once"
    assert body["unnamed"] == {"requests": 32, "minutes": 2}
    for token, status in ((OWN, 403), (EDGE, 403), (SERVICE, 403), (READ, 200)):
        assert collector.get(f"/v1/customers/{name}/errors", token=token).status == status
    assert collector.get("/v1/customers/nobody-here/errors").status == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [("by", "nobody"), ("status", 200), ("requests", -1), ("customer", "a b"), ("customer", ""), ("route", "x" * 500)],
)
def test_a_report_of_errors_that_cannot_be_is_refused(collector: Collector, field: str, value: object) -> None:
    chain = known(collector)
    body: dict[str, Any] = dump_report(
        build_report(BEGIN, chain.region, {}, {ErrorGroup("acme", "v1", 503, "upstream"): 1})
    )
    body["errors"] *= ERRORS_MAX + 1
    assert collector.send("POST", "/v1/traffic", body, token=EDGE, Edge_Id=chain.edge).status == 422
    body["errors"] = body["errors"][:1]
    body["errors"][0][field] = value
    assert collector.send("POST", "/v1/traffic", body, token=EDGE, Edge_Id=chain.edge).status == 422
