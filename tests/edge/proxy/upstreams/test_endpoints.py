"""Endpoint updates of the supervisor take effect on requests: no address, no address up, changing addresses."""

import asyncio
import socket

import pytest
import uvloop
from h2.errors import ErrorCodes

from edgeproxy.edge.messages import Drain, EndpointAddresses, Ready, SetEndpoints
from edgeproxy.edge.proxy.upstreams.endpoint_states import (
    CHOSEN,
    DOWN,
    DRAINING,
    EJECTED,
    HEALTHY,
    PROBING,
    TRANSITIONS,
    UP,
    EndpointEvent,
    EndpointState,
    advance,
)
from tests.edge.proxy.failing import is_fault
from tests.edge.proxy.worker_process import Process
from tests.support.http2_server import Http2Server
from tests.support.transcript import Edge, get, head, ok, post
from tests.support.wire import Wire


def named(edge: Edge) -> None:
    """Configure the upstream's endpoint by a name."""
    edge.config["upstreams"]["api"]["endpoints"] = [f"http://api.internal:{edge.upstream.port}"]


def tell(edge: Edge, *listing: tuple[str, str]) -> None:
    """Update endpoints as a supervisor does: for each endpoint, all addresses and the addresses that are up."""
    entries = [EndpointAddresses(every.split(), up.split()) for every, up in listing]
    edge.runtime.snapshot.update_endpoints({"api": entries})


def another_address(edge: Edge) -> socket.socket:
    """Let the upstream also listen on 127.0.0.2, with an equal port."""
    listening = socket.create_server(("127.0.0.2", edge.upstream.port))
    listening.setblocking(False)
    return listening


async def test_a_name_without_an_address_answers_502_until_an_update(edge: Edge) -> None:
    named(edge)
    client = await edge.client()
    for _ in range(2):
        is_fault(await client.asks(get()), 502, "dns_error")
    assert edge.count("edge_upstream_errors_total", "api", "dns_error") == 2
    assert edge.count("edge_requests_total", "public", "-", "502") == 2
    tell(edge, ("127.0.0.1", "127.0.0.1"))
    await client.sends(get())
    upstream = await edge.upstream.accepts()
    assert (await upstream.gets_request())["Host"] == "edge.test"
    assert (await upstream.tells(client, ok())).status == 200


async def test_without_an_endpoint_up_requests_answer_503_and_the_connection_stays(edge: Edge) -> None:
    client = await edge.client()
    tell(edge, ("127.0.0.1", ""))
    await client.sends(get(), post(b"body"), get())
    for _ in range(3):
        answer = await client.gets_answer()
        is_fault(answer, 503, "destination_unavailable")
        assert answer["Retry-After"] == "1"
        assert "Connection" not in answer
    assert edge.count("edge_upstream_errors_total", "api", "destination_unavailable") == 3
    assert edge.usage() == {}
    tell(edge, ("127.0.0.1", "127.0.0.1"))
    upstream = await edge.brings(client, get())
    assert (await upstream.tells(client, ok())).status == 200


async def test_idle_connections_to_a_removed_address_are_closed(edge: Edge) -> None:
    named(edge)
    client = await edge.client()
    tell(edge, ("127.0.0.1", "127.0.0.1"))
    upstream = await edge.brings(client, get())
    await upstream.tells(client, ok())
    with another_address(edge) as listening:
        tell(edge, ("127.0.0.2", "127.0.0.2"))
        await upstream.gets_eof()
        await client.sends(get())
        async with asyncio.timeout(5):
            end, _ = await asyncio.get_running_loop().sock_accept(listening)
        with end:
            end.setblocking(False)
            loop = asyncio.get_running_loop()
            assert (await loop.sock_recv(end, 1000)).startswith(b"GET /public/ ")
            await loop.sock_sendall(end, ok(b"moved"))
            assert (await client.gets_answer()).body == b"moved"


async def test_a_busy_connection_to_a_removed_address_serves_only_its_request(edge: Edge) -> None:
    named(edge)
    client = await edge.client()
    tell(edge, ("127.0.0.1", "127.0.0.1"))
    upstream = await edge.brings(client, get())
    retired = edge.endpoint()
    tell(edge, ("", ""))
    assert (await upstream.tells(client, ok(b"still"))).body == b"still"
    await upstream.gets_eof()
    assert (retired.idle, retired.outstanding) == ([], 0)
    is_fault(await client.asks(get()), 502, "dns_error")


async def test_streams_finish_at_a_removed_address_and_new_ones_use_the_new_address(edge: Edge) -> None:
    """The name changes its address while three streams are open: one with a response in progress, one with a request
    body in progress, and one that the old address then refuses."""
    named(edge)
    edge.config["upstreams"]["api"]["protocol"] = "h2c"
    answered, uploading, refused, later = [await edge.client() for _ in range(4)]
    await edge.starts()
    tell(edge, ("127.0.0.1", "127.0.0.1"))
    await answered.sends(get("/public/answered"))
    old = await Http2Server(await edge.upstream.accepts()).begins()
    await old.gets_request(1)
    await old.sends_head(1, 200, ("content-length", "10"))
    await old.sends_data(1, b"first")
    await uploading.sends(head("POST /public/up HTTP/1.1", "Host: edge.test", "Content-Length: 10"), b"first")
    await old.gets_head(3)
    await refused.sends(post(b"refused"))
    await old.gets_request(5)
    with another_address(edge) as listening:
        tell(edge, ("127.0.0.2", "127.0.0.2"))
        await later.sends(get("/public/later"))
        async with asyncio.timeout(5):
            end, _ = await asyncio.get_running_loop().sock_accept(listening)
        new = await Http2Server(Wire(end)).begins()
        assert (await new.gets_request(1))[0][":path"] == "/public/later"
        await old.resets(5, ErrorCodes.REFUSED_STREAM)
        assert (await new.gets_request(3))[1] == b"refused"
        for stream, client in ((1, later), (3, refused)):
            await new.sends_head(stream, 204, ended=True)
            assert (await client.gets_answer()).status == 204
        await old.sends_data(1, b" last", ended=True)
        assert (await answered.gets_answer()).body == b"first last"
        await uploading.sends(b" last")
        assert (await old.gets_body(3))[0] == b"first last"
        await old.sends_head(3, 204, ended=True)
        assert (await uploading.gets_answer()).status == 204
        new.closes()
    assert edge.metrics("edge_upstream_ejections_total") == {}


async def test_updates_of_unconfigured_services_are_ignored(edge: Edge) -> None:
    await edge.starts()
    edge.runtime.snapshot.update_endpoints({"other": [], "api": [EndpointAddresses([], [])]})
    assert edge.endpoints() == []


def test_a_worker_starts_with_its_first_endpoint_update_and_follows_later_ones(edge: Edge) -> None:
    named(edge)
    process = Process(edge)

    async def scene() -> None:
        told = SetEndpoints(1, {"api": [EndpointAddresses(["127.0.0.1"], [])]})
        assert await process.begins(60.0, told) == Ready(0)
        assert await process.asks(get()) == 503
        edge.upstream.listening.close()
        await process.channel.send(SetEndpoints(1, {"api": [EndpointAddresses(["127.0.0.1"], ["127.0.0.1"])]}))
        async with asyncio.timeout(10):
            while await process.asks(get()) != 502:
                pass
        await process.channel.send(Drain(5.0))
        async with asyncio.timeout(10):
            await process.hangs_up()

    uvloop.run(scene())
    assert process.ends()[0] == 0
    process.close()


# ---- the table of an endpoint's states


def test_every_state_is_reached_from_the_first() -> None:
    reached = {HEALTHY}
    while more := {after for state in reached for after in TRANSITIONS[state].values()} - reached:
        reached |= more
    assert reached == set(EndpointState) == set(TRANSITIONS)


@pytest.mark.parametrize("event", EndpointEvent)
def test_removed_endpoint_stays_draining_after_any_event(event: EndpointEvent) -> None:
    for state in EndpointState:
        assert advance(advance(state, EndpointEvent.ADDRESS_REMOVED), event) is DRAINING


@pytest.mark.parametrize(
    ("state", "events"),
    [
        (DOWN, {EndpointEvent.CHECK_PASSED}),
        (EJECTED, {EndpointEvent.CHECK_PASSED, EndpointEvent.SUCCEEDED, EndpointEvent.EJECTION_EXPIRED}),
    ],
)
def test_only_listed_events_bring_an_endpoint_back(state: EndpointState, events: set[EndpointEvent]) -> None:
    assert {event for event in EndpointEvent if advance(state, event) in CHOSEN} == events


def test_an_event_that_a_state_has_no_row_for_changes_nothing() -> None:
    assert advance(DOWN, EndpointEvent.ERRORS_EXCEEDED) is DOWN
    assert advance(HEALTHY, EndpointEvent.EJECTION_EXPIRED) is HEALTHY


def test_failed_health_check_takes_down_each_up_state() -> None:
    assert {state for state in EndpointState if advance(state, EndpointEvent.CHECK_FAILED) is DOWN} == {*UP, DOWN}
    assert advance(PROBING, EndpointEvent.ERRORS_EXCEEDED) is EJECTED
