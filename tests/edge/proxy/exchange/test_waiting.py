"""Requests that wait for the hub: their outcome, pipelined requests behind them, and clients that leave."""

import asyncio
import gc
import json
import socket
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from edgeproxy.base.tasks import Tasks
from edgeproxy.edge import messages
from edgeproxy.edge.channel import Channel
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.limits.gate import WAIT_SECONDS_MAX
from edgeproxy.edge.messages import Drain, HubAnswered, LimitRow
from edgeproxy.edge.proxy.process import revocation
from edgeproxy.edge.proxy.process.worker import wait_until_drain
from tests.edge.proxy.asking import asks, is_limited, request
from tests.edge.proxy.sharing import LIMIT, Shared
from tests.support.transcript import UNLIMITED, Edge, get, ok

PASSES = 1
"""Requests that pass before the first report of another host."""


@pytest.fixture
def shared(edge: Edge) -> Shared:
    edge.uses = []
    edge.config["tiers"]["basic"] = {"limits": [{"name": "basic", "rate": f"{LIMIT}/min"}], "concurrency": 5}
    return Shared(edge)


async def test_a_waiting_request_goes_on_with_a_claim(edge: Edge, shared: Shared) -> None:
    upstream = await shared.begins()
    client, gate = await shared.asked(request("/v1/waits"))
    assert shared.wanted(gate) == 1
    assert edge.uses
    assert not upstream.has()
    shared.grants(gate)
    assert (await upstream.gets_request()).first == "GET /v1/waits HTTP/1.1"
    assert (await upstream.tells(client, ok())).status == 200
    assert gate.unspent_claims == gate.waiting == 0
    assert edge.used()["basic"] == 2
    assert edge.count("edge_limit_waits_total", "basic") == 1
    # The connection stays usable.
    assert (await client.asks(request("/v1/next", key=""))).status == 401
    assert client.open


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_waiting_request_is_refused_after_its_time(edge: Edge, shared: Shared, method: str) -> None:
    await shared.begins()
    client = await edge.client()
    answer = await asks(client, "/v1/x", method=method)
    assert answer.status == 429
    assert answer["Retry-After"] == "1"
    if method == "GET":
        is_limited(answer, "basic")
    assert edge.count("edge_limit_waits_total", "basic") == 1
    assert edge.used()["basic"] == 1, "a refused request is not counted"
    assert not shared.gates()
    assert (await asks(client, "/v1/x", key="")).status == 401, "the connection is served"


async def test_waiting_time_does_not_count_as_overhead(edge: Edge, shared: Shared) -> None:
    def seconds() -> dict[str, float]:
        names = ("edge_request_seconds", "edge_overhead_seconds", "edge_upstream_seconds", "edge_limit_wait_seconds")
        return {name: sum(words[-1] for words in edge.metrics(name).values()) / 1e9 for name in names}

    upstream = await shared.begins()
    before = seconds()
    client, gate = await shared.asked(request())
    for _ in range(2):  # The first answer brings no claim.
        began = monotonic()
        await edge.until(lambda began=began: monotonic() > began + 0.02, "time passes")
        shared.grants(gate, 0)
    shared.grants(gate)
    await upstream.serves(client, ok())
    whole, own, its, wait = [after - before[name] for name, after in seconds().items()]
    assert wait >= 0.04
    assert own + its + wait == pytest.approx(whole, abs=1e-6)
    (words,) = edge.metrics("edge_limit_wait_seconds").values()
    assert sum(words[:-1]) == edge.count("edge_limit_waits_total", "basic") == 1, "both count as one wait"


async def test_a_client_that_leaves_stops_waiting(edge: Edge, shared: Shared, tmp_path: Path) -> None:
    edge.config["access_log"] = {"file": str(tmp_path / "access.log")}
    upstream = await shared.begins()
    client, gate = await shared.asked(request("/v1/left"))
    client.aborts()
    await edge.until(lambda: not shared.gates(), "no request waits")
    assert shared.wanted(gate) == gate.waiting == 0
    shared.grants(gate)
    await edge.settles()
    assert not upstream.has()
    assert edge.used()["basic"] == 1
    access = edge.runtime.snapshot.access_log
    assert access is not None
    access.close(5.0)
    said = [json.loads(line) for line in (tmp_path / "access.log").read_text().splitlines()]
    assert said[-1]["path"] == "/v1/left"
    assert said[-1]["aborted"]
    assert said[-1]["request_id"]
    assert "status" not in said[-1]


async def test_pipelined_requests_wait_for_their_turn(edge: Edge, shared: Shared) -> None:
    upstream = await shared.begins()
    client, gate = await shared.asked(request("/v1/one") + get("/public/two"))
    await client.sends(get("/public/three"))
    shared.grants(gate)
    for path in ("/v1/one", "/public/two", "/public/three"):
        assert (await upstream.gets_request()).first == f"GET {path} HTTP/1.1"
        assert (await upstream.tells(client, ok(path.encode()))).body == path.encode()


BODY = b"x" * 1000


@pytest.mark.parametrize("first", [0, 10, 1000])
async def test_a_body_may_arrive_during_the_wait(edge: Edge, shared: Shared, first: int) -> None:
    upstream = await shared.begins()
    client, gate = await shared.asked(request("/v1/x", "Content-Length: 1000", method="POST") + BODY[:first])
    await client.sends(BODY[first:])
    await edge.settles()
    shared.grants(gate)
    assert (await upstream.gets_request()).body == BODY
    assert (await upstream.tells(client, ok())).status == 200


async def test_a_malformed_body_is_refused_and_releases_everything(edge: Edge, shared: Shared) -> None:
    await shared.begins()
    client = await edge.client()
    await client.sends(request("/v1/x", "Transfer-Encoding: chunked", method="POST") + b"nonsense\r\n")
    shared.grants(await shared.waits())
    assert (await client.gets_answer()).status == 400
    await client.gets_eof()


@pytest.mark.parametrize("first", [0, 10])
async def test_a_refusal_with_an_unread_body_closes_the_connection(edge: Edge, shared: Shared, first: int) -> None:
    upstream = await shared.begins()
    client = await edge.client()
    body = get("/public/smuggled") * 2
    await client.sends(request("/v1/x", f"Content-Length: {len(body)}", method="POST") + body[:first])
    await shared.waits()
    await client.sends(body[first : first + 20])
    await edge.settles()
    exchange: Any = next(iter(edge.runtime.connections.clients)).exchange
    revocation.end_exchange(exchange, RejectedError(401, "The key was revoked"))
    answer = await client.gets_answer()
    assert (answer.status, answer["Connection"]) == (401, "close")
    await client.sends(body[first + 20 :])
    await client.gets_eof()
    assert not upstream.has()


async def test_a_large_body_may_arrive_during_the_wait(edge: Edge, shared: Shared) -> None:
    upstream = await shared.begins()
    client = await edge.client()
    body = bytes(300_000)
    await client.sends(request("/v1/x", f"Content-Length: {len(body)}", method="POST"))
    gate = await shared.waits()
    await client.sends(body[:100_000])
    await edge.until(
        lambda: len(next(iter(edge.runtime.connections.clients)).buffer) > 64 << 10, "the edge has read ahead"
    )
    shared.grants(gate)
    await client.sends(body[100_000:])
    assert (await upstream.gets_request()).body == body
    assert (await upstream.tells(client, ok())).status == 200


async def test_a_refused_expectation_of_100_closes_the_connection(edge: Edge, shared: Shared) -> None:
    await shared.begins()
    client = await edge.client()
    asked = request("/v1/x", "Content-Length: 5", "Expect: 100-continue", method="POST")
    assert (await client.asks(asked, to="POST")).status == 429
    await client.gets_eof()


async def test_a_drain_waits_for_a_waiting_request(edge: Edge, shared: Shared) -> None:
    upstream = await shared.begins()
    client, gate = await shared.asked(request("/v1/x"))
    for each in tuple(edge.runtime.connections.clients):
        each.drain()
    shared.grants(gate)
    answer = await upstream.serves(client, ok())
    assert answer.status == 200
    assert answer["Connection"] == "close"
    await client.gets_eof()


@pytest.mark.parametrize("supervisor", ["answers", "dies"])
async def test_a_draining_worker_receives_the_answer_of_the_hub(
    edge: Edge, shared: Shared, monkeypatch: pytest.MonkeyPatch, supervisor: str
) -> None:
    monkeypatch.setitem(WAIT_SECONDS_MAX, "bounded", 60.0)
    upstream = await shared.begins()
    above, below = socket.socketpair()
    mine, its = await Channel.from_socket(above, messages.SUPERVISOR), await Channel.from_socket(below, messages.WORKER)
    stop = asyncio.Event()
    tasks = Tasks()
    told = tasks.start("told", wait_until_drain(its, edge.worker, own=1, orphan_deadline=0.0, stop=stop))
    await mine.send(Drain(5.0))
    await stop.wait()
    assert await told == 5.0
    client, gate = await shared.asked(request())
    if supervisor == "answers":
        shared.gives(gate)
        await mine.send(HubAnswered())
    else:
        mine.close()
    assert (await upstream.serves(client, ok())).status == 200
    mine.close()
    its.close()
    await edge.runtime.tasks.cancel()


async def test_a_reload_during_the_wait_applies_to_the_next_request(edge: Edge, shared: Shared) -> None:
    edge.config["trusted_proxies"] = ["127.0.0.1/32"]
    upstream = await shared.begins()
    client, gate = await shared.asked(request("/v1/x"))
    edge.config["trusted_proxies"] = []
    await edge.reloads()
    shared.grants(gate)
    assert (await upstream.serves(client, ok())).status == 200
    await client.sends(get("/public/", "X-Forwarded-For: 192.0.2.1"))
    assert (await upstream.gets_request())["X-Forwarded-For"] == "127.0.0.1", "the proxy is no longer trusted"
    assert (await upstream.tells(client, ok())).status == 200


async def test_each_claim_serves_one_request_in_order(edge: Edge, shared: Shared) -> None:
    upstream = await shared.begins()
    clients = []
    for number in range(3):
        clients.append(await edge.client())
        await clients[-1].sends(request(f"/v1/{number}"))
        gate = await shared.waits(number + 1)
    for number, client in enumerate(clients):
        shared.grants(gate)
        assert (await upstream.gets_request()).first == f"GET /v1/{number} HTTP/1.1"
        assert gate.waiting == 2 - number
        assert (await upstream.tells(client, ok())).status == 200
    assert edge.used()["basic"] == 4


async def test_an_answer_without_claims_keeps_the_order_of_waiting_requests(edge: Edge, shared: Shared) -> None:
    upstream = await shared.begins()
    clients = []
    for number in range(3):
        clients.append(await edge.client())
        await clients[-1].sends(request(f"/v1/{number}"))
        gate = await shared.waits(number + 1)
    waiting = edge.runtime.claim_waiter._waiting
    first, second, third = waiting[gate]
    edge.runtime.claim_waiter.on_hub_answer()
    assert list(waiting[gate]) == [first, second, third], "the answer brings no news"
    shared.grants(gate, 0)
    again, *behind = waiting[gate]
    assert again.who is first.who
    assert behind == [second, third], "the requests behind were not tried"
    assert shared.wanted(gate) == gate.waiting == 3
    shared.grants(gate, 3)
    for number, client in enumerate(clients):
        assert (await upstream.gets_request()).first == f"GET /v1/{number} HTTP/1.1"
        assert (await upstream.tells(client, ok())).status == 200
        if number < 2:
            upstream = await edge.upstream.accepts()


async def test_a_claim_wakes_only_requests_of_its_row(edge: Edge, shared: Shared) -> None:
    edge.config["customers"]["free"] = {"tier": "basic"}
    upstream = await shared.begins()
    one, other = await edge.client(), await edge.client()
    await one.sends(request("/v1/one"))
    gate = await shared.waits()
    await other.sends(request("/v1/passes", key=UNLIMITED))
    assert (await upstream.serves(other, ok())).status == 200
    await other.sends(request("/v1/other", key=UNLIMITED))
    await edge.until(lambda: len(shared.gates()) == 2, "both wait")
    (its,) = [each for each in shared.gates() if each is not gate]
    waiting = edge.runtime.claim_waiter._waiting
    (before,) = waiting[its]
    shared.grants(gate)
    assert (await upstream.gets_request()).first == "GET /v1/one HTTP/1.1"
    assert waiting[its][0] is before
    assert (await upstream.tells(one, ok())).status == 200
    shared.grants(its)
    assert (await upstream.gets_request()).first == "GET /v1/other HTTP/1.1"
    assert (await upstream.tells(other, ok())).status == 200


async def test_late_claims_are_returned(edge: Edge, shared: Shared) -> None:
    await shared.begins()
    client, gate = await shared.asked(request("/v1/left"))
    client.aborts()
    await edge.until(lambda: not shared.gates(), "no request waits")
    shared.grants(gate, 2)
    await edge.settles()
    assert gate.unspent_claims == 2
    shared.says_unused(gate)
    assert gate.unspent_claims == 0
    assert edge.used()["basic"] == 1, "the request is not charged"


async def test_claims_of_a_row_with_waiting_requests_are_not_returned(edge: Edge, shared: Shared) -> None:
    upstream = await shared.begins()
    client, gate = await shared.asked(request("/v1/waits"))
    shared.says_unused(gate)
    assert shared.wanted(gate) == 1
    shared.grants(gate)
    assert (await upstream.serves(client, ok())).status == 200
    words = shared.table.words
    for wrong in (("nothing", 1, 0, 0), ("customers", 99, gate.row, 2), ("customers", 1, gate.row, 99)):
        words[gate.row + edge.worker.store.customers.head_at + at.GIVEN] += 1
        edge.runtime.claim_waiter.return_claims([LimitRow(*wrong)])
        assert gate.unspent_claims == 1, "the message names another row or table"
        shared.says_unused(gate)


async def test_a_refusal_by_a_third_limit_releases_the_claims_of_two(edge: Edge, shared: Shared) -> None:
    limits = [{"name": name, "rate": f"{LIMIT}/{unit}"} for name, unit in (("basic", "min"), ("hourly", "h"))]
    edge.config["tiers"]["basic"] = {"limits": limits, "concurrency": 1}
    upstream = await shared.begins()
    held, refused = await edge.client(), await edge.client()
    gates = []
    for client in (held, refused):
        await client.sends(request())
        for _ in limits:
            gates.append(await shared.waits())
            # This serves both requests: a claim unused after a refusal is there for the next request.
            shared.grants(gates[-1])
        if client is held:
            await upstream.gets_request()
    assert gates[0] is gates[2]
    assert gates[1] is gates[3]
    assert gates[0] is not gates[1]
    is_limited(await refused.gets_answer(), "concurrency")
    assert [gate.unspent_claims for gate in gates[:2]] == [1, 1]
    for gate in gates[:2]:
        shared.says_unused(gate)
    assert [gate.unspent_claims for gate in gates[:2]] == [0, 0]
    assert (await upstream.tells(held, ok())).status == 200
    assert edge.used()["basic"] == edge.used()["hourly"] == 2


async def test_without_a_supervisor_the_worker_decides_alone(edge: Edge, shared: Shared) -> None:
    upstream = await shared.begins()
    client = await edge.client()
    await client.sends(request("/v1/x"))
    await shared.waits()
    edge.runtime.claim_waiter.on_supervisor_lost()
    for _ in range(LIMIT - PASSES):
        assert (await upstream.serves(client, ok())).status == 200
        await client.sends(request("/v1/x"))
    is_limited(await client.gets_answer(), "basic")
    assert edge.count("edge_limit_waits_total", "basic") == 1


def loses_the_hub(shared: Shared, on_loss: int) -> None:
    """Write the loss of the hub as the supervisor does."""
    shared.table.words[at.ON_LOSS] = on_loss
    shared.table.words[at.HOSTS] = 2 | at.AWAY


@pytest.mark.parametrize("sync", ["bounded", "eventual"])
@pytest.mark.parametrize("limit", [{}, {"cost_header": "X-Cost"}], ids=["asked", "charged later"])
async def test_with_deny_and_without_the_hub_requests_are_refused_at_once(
    edge: Edge, shared: Shared, sync: str, limit: dict[str, str]
) -> None:
    edge.config["tiers"]["basic"]["limits"] = [{"name": "basic", "rate": f"{LIMIT}/min", "sync": sync, **limit}]
    await edge.starts()
    loses_the_hub(shared, at.DENY)
    client = await edge.client()
    is_limited(await asks(client), "basic")
    assert edge.count("edge_limit_waits_total", "basic") == 0
    await edge.until(lambda: edge.uses, "the supervisor hears of it")


@pytest.mark.parametrize(("on_loss", "passed"), [(at.FULL, 5), (at.SHARE, 5), (at.DENY, 0)])
async def test_without_hub_and_supervisor_a_worker_applies_on_loss(
    edge: Edge, shared: Shared, on_loss: int, passed: int
) -> None:
    edge.config["tiers"]["basic"]["limits"][0]["rate"] = f"{LIMIT if on_loss else 5}/min"
    edge.upstream.answers(lambda _: ok())
    await edge.starts()
    loses_the_hub(shared, on_loss)
    edge.runtime.claim_waiter.on_supervisor_lost()
    client = await edge.client()
    assert [(await asks(client)).status for _ in range(8)] == [200] * passed + [429] * (8 - passed)


async def test_addresses_that_left_leave_no_state(edge: Edge, shared: Shared) -> None:
    edge.config["tiers"]["anonymous"] = {"limits": [{"rate": "100/min"}]}
    edge.upstream.answers(lambda _: ok())
    await edge.starts()
    for last in range(1, 20):
        client = await edge.client(f"127.0.1.{last}")
        assert (await client.asks(get())).status == 200
        client.closes()
    await edge.until(lambda: not edge.runtime.connections.clients, "all clients have left")
    assert edge.runtime.claim_waiter._gates
    edge.runtime.snapshot.addresses._cached.clear()
    gc.collect()
    assert not [gate for gate in edge.runtime.claim_waiter._gates.values() if not gate.waiting]
