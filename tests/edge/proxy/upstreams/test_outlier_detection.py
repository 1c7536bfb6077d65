"""Ejection of endpoints and its duration. Time is an argument, so no test waits."""

from pathlib import Path

import pytest

from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.proxy.upstreams.circuit_breaker import CircuitBreaker
from edgeproxy.edge.proxy.upstreams.endpoint_states import DOWN, DRAINING, EJECTED, HEALTHY, PROBING
from edgeproxy.edge.proxy.upstreams.pool import Endpoint
from tests.edge.proxy.failing import is_fault
from tests.edge.proxy.services import at, chosen, service, told
from tests.support.transcript import Edge, chunks, get, head, ok, post
from tests.support.wire import Wire


def fails(endpoint: Endpoint, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        endpoint.record_failure(now)


def test_consecutive_errors_eject_an_endpoint_for_the_configured_time() -> None:
    of = service(2, eject={"errors": 3, "for": "30s"})
    bad, good = of.endpoints
    fails(bad, 2, 100.0)
    assert {of.select() for _ in range(100)} == {bad, good}
    fails(bad, 1, 100.0)
    assert {of.select() for _ in range(100)} == {good}
    of.sweep(129.9)
    assert {of.select() for _ in range(100)} == {good}
    of.sweep(130.0)
    assert {of.select() for _ in range(100)} == {bad, good}


def test_success_resets_the_count_of_consecutive_errors() -> None:
    of = service(2, eject={"errors": 3})
    bad, _ = of.endpoints
    for _ in range(10):
        fails(bad, 2)
        bad.record_success(0.0)
    assert bad.state is not EJECTED
    assert not bad.wants_results


def test_error_on_probation_ejects_again_and_success_ends_it() -> None:
    of = service(2, eject={"errors": 3, "for": "30s"})
    bad, _ = of.endpoints
    fails(bad, 3)
    of.sweep(30.0)
    assert bad.wants_results
    fails(bad, 1, 31.0)
    assert bad.state is EJECTED
    of.sweep(61.0)
    assert bad.state is not EJECTED
    bad.record_success(61.0)
    fails(bad, 2, 62.0)
    assert bad.state is not EJECTED
    fails(bad, 1, 62.0)
    assert bad.state is EJECTED


def test_requests_sent_before_an_ejection_do_not_change_it() -> None:
    of = service(2, eject={"errors": 3, "for": "30s"})
    bad, _ = of.endpoints
    fails(bad, 3, 0.0)
    fails(bad, 20, 20.0)
    bad.record_success(20.0)
    of.sweep(30.0)
    assert bad.state is not EJECTED
    fails(bad, 1, 31.0)
    assert bad.state is EJECTED


def test_the_only_endpoint_that_is_up_is_never_left_out() -> None:
    of = service(2, eject={"errors": 2})
    first, second = of.endpoints
    of.update_addresses(told("10.0.0.1", "-10.0.0.1"))
    fails(first, 50)
    assert first.state is not EJECTED
    of.update_addresses(told("10.0.0.1", "10.0.0.1"))
    fails(first, 1)
    assert {of.select() for _ in range(50)} == {second}


def test_all_ejected_endpoints_are_asked_until_one_succeeds() -> None:
    near, far = [at("10.0.0.1"), at("10.0.0.2")], at("10.0.0.3", region="us-east")
    of = service(endpoints=[*near, far], eject={"errors": 2, "for": "30s"})
    first, second, third = of.endpoints
    for endpoint in of.endpoints:
        fails(endpoint, 2, 1.0)
    assert all(endpoint.state is EJECTED for endpoint in of.endpoints)
    assert {of.select() for _ in range(50)} == {first, second, third}
    assert third.wants_results
    third.record_response(500, 2.0, 3.0)
    third.record_response(200, 0.5, 3.0)  # It was sent before the ejection.
    assert {of.select() for _ in range(50)} == {first, second, third}
    third.record_response(200, 2.0, 3.0)
    assert {of.select() for _ in range(50)} == {third}
    second.record_response(200, 2.0, 3.0)  # It was asked while all were out; now one is there.
    assert {of.select() for _ in range(50)} == {third}
    of.sweep(31.0)
    assert {of.select() for _ in range(50)} == {first, second}


def test_an_address_that_is_gone_or_down_is_not_back_for_an_answer() -> None:
    of = service(2, eject={"errors": 1})
    gone, down = of.endpoints
    fails(gone, 1)
    fails(down, 1)
    of.update_addresses(told("", "-10.0.0.1"))
    for endpoint in (gone, down):
        endpoint.record_success(1.0)
        endpoint.record_failure(1.0)
    assert (gone.state, down.state) == (DRAINING, DOWN)


@pytest.mark.parametrize("eject", [{"errors": 2, "for": "30s"}, "off"])
def test_without_probes_an_endpoint_that_was_down_is_a_last_resort(eject: object) -> None:
    of = service(3, eject=eject)
    first, second, third = of.endpoints
    of.update_addresses(told("10.0.0.1", "-10.0.0.1", "-10.0.0.1"))
    of.on_supervisor_lost(0.0)
    assert {of.select() for _ in range(50)} == {first}
    assert of.select_other([first]) in {second, third}
    fails(first, 2)
    assert {of.select() for _ in range(50)} == ({first} if eject == "off" else {first, second, third})
    of.update_addresses(told("10.0.0.1", "10.0.0.1", "-10.0.0.1"))
    of.on_supervisor_lost(1.0)
    assert second.state is (HEALTHY if eject == "off" else EJECTED), "the last result of the endpoint was a success"


def test_endpoint_in_another_region_suffices_for_an_ejection() -> None:
    of = service(endpoints=[at("10.0.0.1"), at("10.0.0.2", region="us-east")], eject={"errors": 2})
    fails(of.endpoints[0], 2)
    assert set(chosen(of)) == {"10.0.0.2"}


def test_ejected_endpoint_is_asked_if_no_other_is_up() -> None:
    of = service(2, eject={"errors": 2})
    fails(of.endpoints[0], 2)
    of.update_addresses(told("10.0.0.1", "-10.0.0.1"))
    assert of.select() is of.endpoints[0]


def test_ejection_off_ejects_no_endpoint_and_wants_no_results() -> None:
    of = service(2, eject="off")
    fails(of.endpoints[0], 1000)
    of.sweep(1.0)
    assert of.endpoints[0].state is not EJECTED
    assert not of.endpoints[0].wants_results


def test_an_answer_below_500_is_a_success_and_the_others_are_errors() -> None:
    of = service(2, eject={"errors": 2})
    bad, _ = of.endpoints
    for status in (500, 404, 503, 200, 599):
        bad.record_response(status, 0.0, 0.0)
    assert bad.state is not EJECTED
    bad.record_response(500, 0.0, 0.0)
    assert bad.state is EJECTED


def test_each_ejection_ends_at_its_own_time() -> None:
    of = service(3, eject={"errors": 1, "for": "30s"})
    first, second, _ = of.endpoints
    fails(first, 1, 0.0)
    fails(second, 1, 10.0)
    of.sweep(30.0)
    assert (first.state, second.state) == (PROBING, EJECTED)
    of.sweep(40.0)
    assert second.state is not EJECTED


def test_passed_health_check_ends_an_ejection_early() -> None:
    of = service(2, eject={"errors": 2, "for": "30s"})
    bad, good = of.endpoints
    fails(bad, 2)
    of.update_addresses(told("-10.0.0.1", "10.0.0.1"))
    assert {of.select() for _ in range(50)} == {good}
    of.update_addresses(told("10.0.0.1", "10.0.0.1"))
    assert {of.select() for _ in range(50)} == {bad, good}
    fails(bad, 1)
    assert bad.state is not EJECTED  # Not on probation: the count began anew.
    of.sweep(30.0)
    fails(bad, 1)
    assert bad.state is EJECTED


# ---- the circuit breaker


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
