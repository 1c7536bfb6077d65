"""Failing endpoints are ejected for a while. A client's behaviour never counts against an endpoint."""

import pytest

from edgeproxy.edge.proxy.upstreams.endpoint_states import EJECTED, HEALTHY
from tests.edge.proxy.failing import is_fault
from tests.support.transcript import Edge, Upstream, get, head, ok
from tests.support.wire import Message, Wire

BROKEN = head("HTTP/1.1 503 Service Unavailable", "Content-Length: 0")


def two(edge: Edge, errors: int = 3, seconds: str = "1min") -> tuple[Upstream, Upstream]:
    """Two endpoints: the test controls the first one, and the other always answers."""
    edge.config["upstreams"]["api"]["eject"] = {"errors": errors, "for": seconds}
    good = edge.adds_endpoint()
    good.answers(lambda request: ok(b"good"))
    return edge.upstream, good


async def asks(edge: Edge, times: int) -> list[Message]:
    """So many answers to a client, one after another."""
    client = await edge.client()
    answers = []
    for _ in range(times):
        answers.append(await client.asks(get()))
    client.closes()
    return answers


async def test_an_endpoint_that_does_not_answer_in_time_is_left_out(edge: Edge) -> None:
    bad, good = two(edge, errors=1)
    edge.config["upstreams"]["api"]["timeouts"] = {"response_head": "50ms"}
    client = await edge.client()
    good_one = edge.endpoint(1)
    good_one.outstanding += 1
    await client.sends(get())
    await bad.takes()
    is_fault(await client.gets_answer(), 504, "http_response_timeout")
    good_one.outstanding -= 1
    assert edge.endpoint().state is EJECTED
    assert len(good.requests) == 0


async def test_returned_endpoint_is_ejected_again_after_one_error(edge: Edge) -> None:
    bad, _ = two(edge, seconds="50ms")
    bad.answers(lambda request: BROKEN)
    await asks(edge, 60)
    for _ in range(2):
        await edge.until(lambda: edge.endpoint().state is not EJECTED, "the endpoint is back")
        await edge.until(lambda: edge.endpoint().service.list_available() == list(edge.endpoint().service.endpoints))
        asked = len(bad.requests)
        while len(bad.requests) == asked:
            await asks(edge, 1)
        assert edge.endpoint().state is EJECTED


# ---- whose fault it is


async def ask(edge: Edge, request: bytes = b"", errors: int = 1) -> tuple[Wire, Wire]:
    """A client and the endpoint that its request went to, which so many errors eject. There is another endpoint."""
    edge.config["upstreams"]["api"] |= {"eject": {"errors": errors, "for": "1min"}, "retry": {"attempts": 1}}
    edge.adds_endpoint()
    await edge.starts()
    edge.endpoint(1).outstanding += 1
    client, upstream = await edge.opens(request or get())
    edge.endpoint(1).outstanding -= 1
    return client, upstream


@pytest.mark.parametrize("begun", [b"", head("HTTP/1.1 200 OK", "Content-Length: 10") + b"12345"])
async def test_a_client_that_leaves_says_nothing_of_the_upstream(edge: Edge, begun: bytes) -> None:
    client, upstream = await ask(edge)
    if begun:
        await upstream.sends(begun)
        await client.gets_head()
        await client.gets(b"12345")
    client.aborts()
    await upstream.gets_eof()
    assert (edge.endpoint().state, edge.endpoint().errors) == (HEALTHY, 0)


async def test_a_client_that_sends_a_bad_body_says_nothing_of_the_upstream(edge: Edge) -> None:
    client, upstream = await ask(edge, head("POST /public/ HTTP/1.1", "Host: h", "Transfer-Encoding: chunked"))
    assert (await client.asks(b"no chunk\r\n")).status == 400
    await upstream.gets_eof()
    assert edge.endpoint().state is not EJECTED


async def test_a_closed_kept_connection_with_a_retry_is_no_failure(edge: Edge) -> None:
    client, stale = await ask(edge)
    edge.endpoint().service.attempts = 2
    await stale.tells(client, ok())
    edge.endpoint(1).outstanding += 1
    await client.sends(get())
    await stale.gets_request()
    edge.endpoint(1).outstanding -= 1
    stale.closes()
    another = await edge.upstream.takes()
    assert (await another.tells(client, ok())).status == 200
    assert edge.endpoint().state is not EJECTED
    assert edge.metrics("edge_upstream_errors_total") == {}


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nConte", b""])
async def test_invalid_answer_counts_towards_ejection(edge: Edge, answer: bytes) -> None:
    client, upstream = await ask(edge)
    await upstream.sends(answer)
    upstream.closes()
    assert (await client.gets_answer()).status == 502
    assert edge.endpoint().state is EJECTED


@pytest.mark.parametrize(
    "answer",
    [
        head("HTTP/1.1 200 OK", "Content-Length: 10") + b"half",
        head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"zz\r\n",
    ],
    ids=["cut off", "bad chunk"],
)
async def test_truncated_answer_counts_towards_ejection(edge: Edge, answer: bytes) -> None:
    client, upstream = await ask(edge)
    await upstream.sends(answer)
    await client.gets_head()
    upstream.closes()
    await client.gets_reset()
    assert edge.endpoint().state is EJECTED


async def test_an_error_cut_off_is_one_error(edge: Edge) -> None:
    client, upstream = await ask(edge, errors=2)
    await upstream.sends(head("HTTP/1.1 500 Internal Server Error", "Content-Length: 10") + b"half")
    await client.gets_head()
    upstream.closes()
    await client.gets_reset()
    assert edge.endpoint().errors == 1


async def test_truncated_answer_is_a_failure_and_no_success(edge: Edge) -> None:
    client, upstream = await ask(edge, errors=2)
    edge.endpoint().record_failure(0.0)
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 10") + b"half")
    await client.gets_head()
    upstream.closes()
    await client.gets_reset()
    assert edge.endpoint().state is EJECTED
