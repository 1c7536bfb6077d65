"""The lifetime of connections on both sides: reuse, its bounds, and the time of closing (RFC 9112 section 9)."""

import pytest

from edgeproxy.edge.proxy.connections import probe_schedule
from tests.support.transcript import Edge, get, head, ok
from tests.support.wire import Wire


async def exchanged(client: Wire, upstream: Wire, answer: bytes = b"") -> None:
    """One ordinary exchange over connections that are there."""
    await client.sends(get())
    assert (await upstream.serves(client, answer or ok())).status == 200


async def test_clients_share_the_connections_to_an_upstream(edge: Edge) -> None:
    first, second = await edge.client(), await edge.client()
    upstream = await edge.brings(first, get())
    await upstream.tells(first, ok())
    await exchanged(second, upstream)
    await exchanged(first, upstream)


async def test_requests_at_the_same_time_have_connections_of_their_own(edge: Edge) -> None:
    first, second = await edge.client(), await edge.client()
    await first.sends(get("/public/1"))
    one = await edge.upstream.accepts()
    assert (await one.gets_request()).first.split()[1] == "/public/1"
    await second.sends(get("/public/2"))
    other = await edge.upstream.accepts()
    assert (await other.gets_request()).first.split()[1] == "/public/2"
    assert edge.endpoint().outstanding == 2
    assert (await other.tells(second, ok(b"2"))).body == b"2"
    assert (await one.tells(first, ok(b"1"))).body == b"1"
    # The one that was used last is used next.
    await exchanged(first, one)


async def test_idle_connections_are_bounded_by_the_pool_size(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["pool"] = 1
    first, second = await edge.client(), await edge.client()
    await first.sends(get())
    one = await edge.upstream.accepts()
    await second.sends(get())
    other = await edge.upstream.accepts()
    for client, upstream in ((first, one), (second, other)):
        await upstream.serves(client, ok())
    await other.gets_eof()
    await exchanged(second, one)


async def test_an_idle_connection_that_the_upstream_closes_is_used_no_more(edge: Edge) -> None:
    client, upstream = await edge.serves()
    assert len(edge.endpoint().idle) == 1
    upstream.closes()
    await edge.until(lambda: not edge.endpoint().idle)
    another = await edge.brings(client, get())
    assert (await another.tells(client, ok())).status == 200


async def test_an_idle_upstream_connection_is_closed_after_its_time(edge: Edge) -> None:
    edge.config["upstreams"]["api"]["timeouts"] = {"idle": "50ms"}
    client, upstream = await edge.serves()
    await upstream.gets_eof()
    assert not edge.endpoint().idle
    assert not client.at_end()


async def test_a_half_closed_client_gets_the_answers_to_all_that_it_has_sent(edge: Edge) -> None:
    edge.upstream.answers(lambda request: ok(request.first.encode()))
    client = await edge.client()
    await client.sends(*(get(f"/public/{n}") for n in range(5)))
    client.sends_eof()
    for n in range(5):
        assert (await client.gets_answer()).body == b"GET /public/%d HTTP/1.1" % n
    await client.gets_eof()


async def test_half_closed_client_is_closed_after_a_refused_last_request(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_schedule, "PROBE_SECONDS", (3600.0,))  # A busy machine would see a probe.
    edge.upstream.answers(lambda request: ok())
    client = await edge.client()
    await client.sends(get("/public/1"), get("/nowhere"))
    client.sends_eof()
    assert (await client.gets_answer()).status == 200
    assert (await client.gets_answer()).status == 404
    await client.gets_eof()


@pytest.mark.parametrize(
    ("fields", "kept"),
    [(("Content-Length: 5",), True), (("Transfer-Encoding: chunked",), True), ((), False)],
    ids=["length", "chunked", "neither"],
)
async def test_head_answer_with_framing_allows_connection_reuse(
    edge: Edge, fields: tuple[str, ...], kept: bool
) -> None:
    """Without that a server may send the body, against the rules, and close. Found by tests/fuzz."""
    client, upstream = await edge.forwards(head("HEAD /public/ HTTP/1.1", "Host: h"))
    await upstream.tells(client, head("HTTP/1.1 200 OK", *fields), to="HEAD")
    assert bool(edge.endpoint().idle) is kept
    if not kept:
        await upstream.gets_eof()
