"""Requests on a dead reused connection are sent again if that is safe, and only then (RFC 9112 section 9.3)."""

from typing import Any

import pytest

from edgeproxy.edge.proxy.connections import connector
from edgeproxy.edge.proxy.connections.upstream import UpstreamConnection
from edgeproxy.edge.proxy.upstreams.pool import Endpoint
from tests.edge.proxy.failing import is_fault
from tests.support.transcript import Edge, get, head, ok, post


@pytest.mark.parametrize("how", ["closes", "aborts"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
async def test_a_safe_request_is_sent_again_over_a_new_connection(edge: Edge, how: str, method: str) -> None:
    client, stale = await edge.serves()
    await client.sends(head(f"{method} /public/x HTTP/1.1", "Host: h"))
    first = await stale.gets_request()
    getattr(stale, how)()
    another = await edge.upstream.accepts()
    again = await another.gets_request()
    assert again.raw == first.raw
    assert (await another.tells(client, ok(b"") if method == "HEAD" else ok(), to=method)).status == 200
    assert edge.metrics("edge_upstream_errors_total") == {}


async def test_request_lost_twice_on_new_connections_answers_502(edge: Edge) -> None:
    client, stale = await edge.serves()
    await client.sends(get())
    await stale.gets_request()
    stale.closes()
    for _ in range(2):
        another = await edge.upstream.takes()
        another.closes()
    is_fault(await client.gets_answer(), 502, "connection_terminated")


@pytest.mark.parametrize("retry", [{"attempts": 1}, {"budget": "0%"}])
async def test_retry_after_a_stale_connection_costs_no_retry_budget(edge: Edge, retry: dict[str, Any]) -> None:
    edge.config["upstreams"]["api"]["retry"] = retry
    client, stale = await edge.serves()
    for _ in range(40):
        await client.sends(get())
        await stale.gets_request()
        stale.closes()
        stale = await edge.upstream.takes()
        assert (await stale.tells(client, ok())).status == 200
    assert edge.count("edge_upstream_stale_total", "api") == 40
    assert edge.count("edge_upstream_retries_total", "api") == 0


async def test_a_retry_is_one_request_to_the_client_the_limit_and_the_bill(edge: Edge) -> None:
    client, stale = await edge.serves()
    before = edge.usage()
    await client.sends(get())
    await stale.gets_request()
    stale.closes()
    another = await edge.upstream.takes()
    await another.tells(client, ok())
    assert edge.usage() == {key: n + 1 for key, n in before.items()}
    assert edge.count("edge_requests_total", "public", "-", "200") == 2


async def test_a_connection_closed_while_the_answer_is_awaited_by_many_frees_each(edge: Edge) -> None:
    """Two clients meet two dead reused connections. Each request gets a new connection."""
    clients = [await edge.client() for _ in range(2)]
    wires = []
    for client in clients:
        await client.sends(get())
        wires.append(await edge.upstream.accepts())
    for client, wire in zip(clients, wires, strict=True):
        await wire.serves(client, ok())
    for client in clients:
        await client.sends(get())
    for wire in wires:
        await wire.gets_request()
        wire.aborts()
    for _ in clients:
        another = await edge.upstream.takes()
        await another.sends(ok())
    for client in clients:
        assert (await client.gets_answer()).status == 200


async def test_a_post_finds_no_connection_that_is_known_to_be_closed(edge: Edge) -> None:
    client, stale = await edge.serves()
    stale.closes()
    await edge.until(lambda: not edge.endpoint().idle)
    await client.sends(post(b"abc"))
    another = await edge.upstream.accepts()
    assert (await another.gets_request()).body == b"abc"
    assert (await another.tells(client, ok())).status == 200


@pytest.mark.parametrize("how", ["closes", "aborts"])
@pytest.mark.parametrize(("method", "length"), [("POST", 3), ("POST", 4), ("GET", 4)])
async def test_a_request_without_retry_gets_no_connection_that_may_close_soon(
    edge: Edge, how: str, method: str, length: int
) -> None:
    """The connection has ended, but the loop serves the client before it reads the end."""
    client, stale = await edge.serves()
    (protocol,) = edge.runtime.connections.clients
    getattr(stale, how)()
    protocol.data_received(head(f"{method} /public/ HTTP/1.1", "Host: h", f"Content-Length: {length}") + b"abc")
    another = await edge.upstream.accepts()
    assert (await another.gets_head()).first.startswith(f"{method} ")
    await another.gets(b"abc")
    await client.reaches(another, b"d" * (length - 3))
    assert (await another.tells(client, ok())).status == 200
    assert edge.metrics("edge_upstream_errors_total") == {}


async def test_answer_received_before_a_failed_write_is_delivered(edge: Edge) -> None:
    """The upstream has answered and closed without reading on, so the edge's next write breaks the connection."""
    client, upstream = await edge.opens(
        head("POST /public/ HTTP/1.1", "Host: h", "Content-Length: 1000000"), b"a" * 1000
    )
    (protocol,) = edge.runtime.connections.clients
    assert protocol.exchange is not None
    upstream.sends_now(head("HTTP/1.1 413 Content Too Large", "Content-Length: 4") + b"long")
    upstream.aborts()  # It has not read all that came.
    protocol.data_received(b"a" * 1000)
    answer = await client.gets_answer()
    assert (answer.status, answer.body, answer["Connection"]) == (413, b"long", "close")
    await client.gets_eof()


# ---- which endpoint, how often


async def test_retry_prefers_another_endpoint(edge: Edge) -> None:
    other = edge.adds_endpoint()
    await edge.starts()
    edge.endpoint(1).outstanding += 1
    client = await edge.client()
    await client.sends(get())
    first = await edge.upstream.accepts()
    request = await first.gets_request()
    edge.endpoint(0).outstanding += 7
    first.closes()
    edge.endpoint(1).outstanding -= 1
    second = await other.accepts()
    assert (await second.gets_request()).raw == request.raw
    assert (edge.endpoint(0).outstanding, edge.endpoint(1).outstanding) == (7, 1)
    edge.endpoint(0).outstanding -= 7
    assert (await second.tells(client, ok())).status == 200


@pytest.mark.parametrize("attempts", [1, 2, 4])
async def test_retry_attempts_follow_the_setting(edge: Edge, attempts: int) -> None:
    edge.config["upstreams"]["api"]["retry"] = {"attempts": attempts}
    client = await edge.client()
    await client.sends(get())
    for _ in range(attempts):
        upstream = await edge.upstream.takes()
        upstream.closes()
    is_fault(await client.gets_answer(), 502, "connection_terminated")
    assert edge.count("edge_upstream_retries_total", "api") == attempts - 1
    assert edge.count("edge_upstream_errors_total", "api", "connection_terminated") == attempts


async def test_every_endpoint_is_tried_before_one_is_tried_twice(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["retry"] = {"attempts": 4}
    others = [edge.adds_endpoint() for _ in range(2)]
    for each in (edge.upstream, *others[:1]):
        each.refuses()
    client = await edge.client()
    others[1].answers(lambda request: ok(b"last " + request.body))
    others[1].begins()
    for _ in range(4):
        assert (await client.asks(post(b"body"))).body == b"last body"


async def test_connection_closed_before_any_write_allows_a_retry_of_post(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The edge had sent nothing, so it may send even a POST again."""
    other = edge.adds_endpoint()
    other.answers(lambda request: ok(b"took " + request.body))
    await edge.starts()
    dial = connector.dial

    async def closed(endpoint: Endpoint, server: UpstreamConnection, *others: Any) -> None:
        await dial(endpoint, server, *others)
        if endpoint is edge.endpoint(0):
            server.transport.abort()

    monkeypatch.setattr(connector, "dial", closed)
    edge.endpoint(1).outstanding += 1
    client = await edge.client()
    await client.sends(post(b"once"))
    edge.upstream.wires.append(await edge.upstream.accepts())
    edge.endpoint(1).outstanding -= 1
    assert (await client.gets_answer()).body == b"took once"
    assert edge.count("edge_upstream_errors_total", "api", "connection_terminated") == 1
    assert edge.count("edge_upstream_retries_total", "api") == 1


async def test_idle_connection_reset_in_the_same_turn_is_not_reused(edge: Edge) -> None:
    """The loop reports a reset one turn late.

    A POST over such a connection would be lost, and could not be repeated.
    """
    client, stale = await edge.serves()
    (server,) = edge.endpoint().idle
    (protocol,) = edge.runtime.connections.clients
    server.transport.abort()
    protocol.data_received(post(b"abc"))
    another = await edge.upstream.accepts()
    assert (await another.gets_request()).body == b"abc"
    assert (await another.tells(client, ok())).status == 200
    assert edge.count("edge_upstream_retries_total", "api") == 0
    await stale.gets_cut()


# ---- the budget


async def test_beyond_the_budget_nothing_is_sent_again(edge: Edge) -> None:
    other = edge.adds_endpoint()
    edge.config["upstreams"]["api"] |= {"retry": {"budget": "10%"}, "eject": "off"}
    edge.upstream.refuses()
    other.answers(lambda request: ok())
    client = await edge.client()
    edge.endpoint(1).outstanding += 1
    for _ in range(30):
        assert (await client.asks(get())).status == 200
    is_fault(await client.asks(get()), 502, "connection_refused")
    assert edge.count("edge_upstream_retries_total", "api") == 30
    edge.endpoint(1).outstanding -= 2
    for _ in range(400):
        assert (await client.asks(get())).status == 200
    edge.endpoint(1).outstanding += 2
    assert (await client.asks(get())).status == 200
    assert edge.count("edge_upstream_retries_total", "api") == 31
    edge.endpoint(1).outstanding -= 1
