"""The circuit breaker: so many requests may wait for an answer's head, in all workers together, and no more."""

from pathlib import Path

import pytest

from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.proxy.upstreams.circuit_breaker import CircuitBreaker
from tests.edge.proxy.failing import is_fault
from tests.support.transcript import Edge, chunks, get, head, ok, post
from tests.support.wire import Wire


def limited(edge: Edge, pending: int = 1) -> None:
    edge.config["upstreams"]["api"]["breaker"] = {"pending": pending}


def pending(edge: Edge) -> int:
    """As the supervisor sees it."""
    return edge.count("edge_upstream_pending", "api")


async def is_closed(edge: Edge) -> None:
    """There is room for a request: one is served."""
    client, upstream = await edge.forwards()
    assert pending(edge) == 1
    assert (await upstream.tells(client, ok(b"room"))).body == b"room"
    assert pending(edge) == 0


async def is_open(edge: Edge, client: Wire, request: bytes = b"") -> None:
    """There is none."""
    answer = await client.asks(request or get())
    is_fault(answer, 503, "connection_limit_reached")
    assert answer["Retry-After"] == "1"


# ---- across workers


@pytest.fixture
def stores(tmp_path: Path) -> list[Store]:
    Store.prepare(tmp_path, workers=2, customers=10, addresses=10).close()
    return [Store.join(tmp_path) for _ in range(2)]


def test_the_bound_is_that_of_all_workers_together(stores: list[Store]) -> None:
    one, two = (CircuitBreaker(3, store.meters.shared_gauge("edge_upstream_pending", "api")) for store in stores)
    one.enter()
    two.enter()
    one.enter()
    for worker in (one, two):
        with pytest.raises(UpstreamError) as fault:
            worker.enter()
        assert (fault.value.status, fault.value.error) == (503, "connection_limit_reached")
    two.leave()
    one.enter()
    for store in stores:
        store.close()


def test_circuit_breaker_frees_requests_of_a_dead_worker(stores: list[Store]) -> None:
    one, two = (CircuitBreaker(3, store.meters.shared_gauge("edge_upstream_pending", "api")) for store in stores)
    for _ in range(3):
        two.enter()
    stores[1].close()
    for _ in range(3):
        one.enter()
    with pytest.raises(UpstreamError):
        one.enter()
    stores[0].close()


# ---- from request to answer


async def test_circuit_breaker_refuses_an_excess_request_and_keeps_the_connection(edge: Edge) -> None:
    limited(edge)
    client, upstream = await edge.forwards()
    another = await edge.client()
    await is_open(edge, another)
    await is_open(edge, another, post(b"body"))
    assert edge.count("edge_upstream_errors_total", "api", "connection_limit_reached") == 2
    assert edge.count("edge_requests_total", "public", "-", "503") == 2
    await upstream.tells(client, ok(b"", "Connection: close"))
    upstream = await edge.brings(another, get())
    assert (await upstream.tells(another, ok(b"now"))).body == b"now"
    assert pending(edge) == 0


async def test_as_many_as_the_bound_may_wait(edge: Edge) -> None:
    limited(edge, 3)
    waiting = [await edge.forwards() for _ in range(3)]
    assert pending(edge) == 3
    await is_open(edge, await edge.client())
    for client, upstream in waiting:
        await upstream.tells(client, ok(b"", "Connection: close"))
    await is_closed(edge)


async def test_circuit_breaker_frees_a_request_at_its_answers_head(edge: Edge) -> None:
    limited(edge)
    client, upstream = await edge.forwards()
    await upstream.sends(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"))
    await client.gets_head()
    await is_closed(edge)
    await upstream.reaches(client, chunks(b"late"))


async def test_departed_client_releases_its_breaker_slot(edge: Edge) -> None:
    limited(edge)
    client, upstream = await edge.forwards()
    client.aborts()
    await upstream.gets_eof()
    await is_closed(edge)


async def test_an_upstream_that_cannot_be_reached_gives_up_the_place(edge: Edge) -> None:
    limited(edge)
    edge.upstream.refuses()
    client = await edge.client()
    for _ in range(3):
        is_fault(await client.asks(get()), 502, "connection_refused")
    assert pending(edge) == 0


async def test_a_request_that_is_sent_again_keeps_its_place(edge: Edge) -> None:
    limited(edge)
    client, upstream = await edge.forwards()
    upstream.closes()
    again = await edge.upstream.takes()
    assert pending(edge) == 1
    await is_open(edge, await edge.client())
    await again.tells(client, ok(b"", "Connection: close"))
    await is_closed(edge)


async def test_refused_body_releases_its_breaker_slot(edge: Edge) -> None:
    limited(edge)
    client = await edge.client()
    answer = await client.asks(head("POST /public/ HTTP/1.1", "Host: h", "Transfer-Encoding: chunked"), b"no chunk\r\n")
    assert answer.status == 400
    await client.gets_eof()
    await is_closed(edge)
