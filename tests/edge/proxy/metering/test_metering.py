"""The counts for billing and for dashboards. They are complete before the client receives the answer."""

from typing import Any

import pytest

from edgeproxy.base.latency_buckets import LATENCY_BUCKETS
from tests.support.transcript import KEY, UNLIMITED, Edge, chunks, digest, get, head, ok

ALL_METERS = {
    "answered": {"count": "requests"},
    "success": {"count": "requests", "when": "success"},
    "admitted": {"count": "requests", "when": "admitted"},
}


def with_key(path: str = "/v1/x", *fields: str, key: str = KEY) -> bytes:
    return get(path, f"X-API-Key: {key}", *fields)


@pytest.mark.parametrize(
    ("status", "billed"),
    [
        (204, {"answered", "success", "admitted"}),
        (304, {"answered", "success", "admitted"}),
        (429, {"answered", "admitted"}),
    ],
)
async def test_each_meter_counts_its_statuses_without_a_body(edge: Edge, status: int, billed: set[str]) -> None:
    """With one see test_meters."""
    edge.config["meters"] = ALL_METERS
    await edge.passes(with_key(), head(f"HTTP/1.1 {status} X", *(["Content-Length: 0"] if status == 429 else [])))
    assert edge.usage() == {("acme", meter, "v1"): 1 for meter in billed}
    assert edge.metrics("edge_requests_total") == {("v1", "basic", str(status)): [1]}


@pytest.mark.parametrize("statuses", [(204, 429, 204), (429, 204, 429), (204, 503, 503)])
async def test_a_new_binding_counts_the_status_of_its_own_answer(edge: Edge, statuses: tuple[int, ...]) -> None:
    edge.config["meters"] = ALL_METERS
    keys = [KEY, "second key", "third key"]
    edge.config["keys"] += [{"sha256": digest(key), "customer": "acme"} for key in keys[1:]]
    for key, status in zip(keys, statuses, strict=True):
        fields = [] if status == 204 else ["Content-Length: 0"]
        await edge.passes(with_key(key=key), head(f"HTTP/1.1 {status} X", *fields))
    expected = {"answered": sum(status < 500 for status in statuses), "success": statuses.count(204), "admitted": 3}
    assert edge.usage() == {("acme", meter, "v1"): count for meter, count in expected.items()}
    counts = {("v1", "basic", str(status)): [statuses.count(status)] for status in statuses}
    assert edge.metrics("edge_requests_total") == counts


async def test_usage_counts_by_customer_and_route_for_any_key(edge: Edge) -> None:
    edge.config["keys"].append({"sha256": digest("second key"), "customer": "acme"})
    edge.config["routes"].append({"host": "shop.test", "path": "/a/*", "upstream": "api"})
    for request in (
        with_key(),
        with_key(key="second key"),
        with_key(key=UNLIMITED),
        with_key("/maybe/x"),
        get("/maybe/x"),
        get("/public/x"),
        with_key("/public/x"),
        head("GET /a/x HTTP/1.1", "Host: shop.test", f"X-API-Key: {KEY}"),
    ):
        await edge.passes(request, ok())
    assert edge.usage() == {
        ("acme", "requests", "v1"): 2,
        ("free", "requests", "v1"): 1,
        ("acme", "requests", "maybe"): 1,
        ("-", "requests", "maybe"): 1,
        ("-", "requests", "public"): 2,
        ("acme", "requests", "shop.test/a/*"): 1,
    }


ANSWERS = {
    "whole": ok(),
    "empty": ok(b""),
    "chunked": head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(b"abc"),
    "long": head("HTTP/1.1 200 OK", "Content-Length: 100") + b"begun",
    "until close": head("HTTP/1.1 200 OK") + b"begun",
    "not modified": head("HTTP/1.1 304 Not Modified"),
    "after hints": head("HTTP/1.1 103 Early Hints") + ok(),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_is_counted_before_its_head_is_written(edge: Edge, name: str) -> None:
    """A received answer has been counted: the test reads the map at the moment of the write."""
    client, upstream = await edge.forwards(with_key())
    (held,) = edge.runtime.connections.clients
    write, seen = held.write, []

    def looks_then_writes(data: bytes) -> Any:
        seen.append((data[:12], edge.usage().get(("acme", "requests", "v1"), 0)))
        return write(data)

    held.write = looks_then_writes
    await upstream.sends(ANSWERS[name])
    if name == "after hints":
        assert (await client.gets_head()).status == 103
    answer = await client.gets_head()
    counted = dict(seen)
    assert counted[b"HTTP/1.1 %d" % answer.status] == 1
    if name == "after hints":
        assert counted[b"HTTP/1.1 103"] == 0
    client.aborts()
    upstream.closes()
    await edge.settles()
    assert edge.usage() == {("acme", "requests", "v1"): 1}


async def test_request_aborted_before_its_answer_is_not_billed(edge: Edge) -> None:
    client, upstream = await edge.forwards(with_key())
    client.aborts()
    await upstream.gets_cut()
    assert edge.usage() == {}


async def test_requests_are_counted_by_route_tier_and_code(edge: Edge) -> None:
    edge.config["tiers"]["anonymous"] = {"limits": []}
    for request, answered in (
        (with_key(), ok()),
        (with_key(), head("HTTP/1.1 404 No", "Content-Length: 0")),
        (with_key(key=UNLIMITED), ok()),
        (get("/public/x"), head("HTTP/1.1 599 X", "Content-Length: 0")),
        (get("/public/x"), head("HTTP/1.1 598 X", "Content-Length: 0")),
    ):
        await edge.passes(request, answered)
    assert edge.metrics("edge_requests_total") == {
        ("v1", "basic", "200"): [1],
        ("v1", "basic", "404"): [1],
        ("v1", "free", "200"): [1],
        ("public", "anonymous", "5xx"): [2],
    }


@pytest.mark.parametrize(
    "answered", [ok(), head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(b"abc")], ids=["whole", "pieces"]
)
async def test_every_answered_request_is_in_every_histogram_once(edge: Edge, answered: bytes) -> None:
    for _ in range(3):
        await edge.passes(with_key(), answered)
    for name, labels in (
        ("edge_request_seconds", ("v1",)),
        ("edge_overhead_seconds", ()),
        ("edge_upstream_seconds", ("api",)),
    ):
        *buckets, nanoseconds = edge.metrics(name)[labels]
        assert len(buckets) == len(LATENCY_BUCKETS) + 1
        assert sum(buckets) == 3
        assert 0 < nanoseconds < 3e9


async def test_request_time_is_overhead_plus_upstream_time_including_the_connect(edge: Edge) -> None:
    def seconds() -> list[int]:
        names = ("edge_request_seconds", "edge_overhead_seconds", "edge_upstream_seconds")
        return [next(iter(edge.metrics(name).values()))[-1] for name in names]

    client, upstream = await edge.serves(with_key())
    whole, own, waited = seconds()
    assert whole - own - waited > 1000
    await client.sends(with_key())
    await upstream.serves(client, ok())
    again, own_again, waited_again = seconds()
    assert abs((again - whole) - (own_again - own) - (waited_again - waited)) < 1000
