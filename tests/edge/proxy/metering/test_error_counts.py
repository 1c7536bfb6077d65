"""Customers' errors as a worker counts them: by customer, route, status, and source of the answer."""

import pytest

from edgeproxy.edge.messages import ErrorsCounted
from edgeproxy.edge.proxy.metering import error_counts
from edgeproxy.edge.proxy.metering.error_counts import ErrorCounts
from tests.edge.proxy.asking import asks, request
from tests.support.transcript import READER, UNLIMITED, Edge, chunks, get, head, ok


async def started(edge: Edge) -> None:
    """Serve, with a supervisor that takes nothing meanwhile."""
    await edge.starts()
    edge.runtime.metrics.errors.offer = lambda _: False


def taken(edge: Edge) -> dict[tuple[str, str, int, str], int]:
    """Return the counts that the worker sends to its supervisor."""
    message = edge.runtime.metrics.errors.take()
    return {} if message is None else {tuple(names): requests for *names, requests in message.errors}


async def test_errors_are_counted_by_customer_and_answer_and_nothing_else_is(edge: Edge) -> None:
    await started(edge)
    failed = head("HTTP/1.1 503 Service Unavailable", "Content-Length: 0")
    piecewise = head("HTTP/1.1 500 Internal Server Error", "Transfer-Encoding: chunked")
    for answer in (failed, failed, ok(), head("HTTP/1.1 404 Not Found", "Content-Length: 0")):
        await edge.passes(request(), answer)
    await edge.passes(request(), piecewise + chunks(b"sorry"))
    await edge.passes(get("/public/x"), failed)
    client = await edge.client()
    assert (await asks(client, "/read/x", key=UNLIMITED)).status == 403
    assert (await asks(client, key="nobody")).status == 401
    assert taken(edge) == {
        ("acme", "v1", 503, "upstream"): 2,
        ("acme", "v1", 500, "upstream"): 1,
        ("free", "read", 403, "edge"): 1,
    }
    assert taken(edge) == {}


async def test_error_counts_include_a_down_upstream_and_exclude_limits(edge: Edge) -> None:
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "1/min"}]}
    edge.upstream.refuses()
    await started(edge)
    client = await edge.client()
    assert [(await asks(client)).status, (await asks(client)).status] == [502, 429]
    assert taken(edge) == {("acme", "v1", 502, "edge"): 1}


async def test_refusal_of_a_known_customer_counts_for_that_customer(edge: Edge) -> None:
    edge.config["customers"]["free"]["paused"] = {"why": "unpaid", "status": 402}
    await started(edge)
    client = await edge.client()
    assert (await asks(client, key=READER)).status == 402
    assert taken(edge) == {("free", "v1", 402, "edge"): 1}


def test_untaken_error_counts_wait_and_surplus_groups_count_unnamed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(error_counts, "GROUPS_MAX", 2)
    errors, given = ErrorCounts(), []

    def offer(message: ErrorsCounted) -> bool:
        given.append(message)
        return len(given) > 1

    errors.offer = offer
    errors.flush()
    assert not given, "an idle worker says nothing"
    for customer in ("one", "two", "three", "two", "-"):
        errors.count_own(customer, "v1", 502)
    for counter in errors.list_counters("four", "v1", 500):
        counter.add(3)
    for _ in range(3):
        errors.flush()
    told = ErrorsCounted([("one", "v1", 502, "edge", 1), ("two", "v1", 502, "edge", 2)], 4)
    assert given == [told, told], "once more where it was not taken, and then no more"
