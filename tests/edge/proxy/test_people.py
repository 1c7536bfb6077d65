"""Customers that are paused, bound to regions, or have plans of their own, and their refusals."""

import json
from collections import Counter
from typing import Any

import pytest

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.limits.gate import Gate
from edgeproxy.edge.messages import EndpointAddresses
from tests.edge.proxy.asking import asks, is_limited, is_problem, left, request
from tests.edge.proxy.sharing import LIMIT, Shared
from tests.edge.proxy.shedding import Shedding
from tests.support.transcript import KEY, READER, UNLIMITED, Edge, digest, get, head, ok

PAUSED = {"why": "The invoice of May is unpaid"}


def customer(edge: Edge, name: str = "acme", **settings: Any) -> None:
    """Configure a customer with these settings."""
    edge.config["customers"][name] = {"tier": edge.config["customers"][name]["tier"], **settings}


# ---- paused


@pytest.mark.parametrize("status", [None, 403, 402])
async def test_a_paused_customer_gets_the_reason(answering: Edge, status: int | None) -> None:
    customer(answering, paused=PAUSED | ({} if status is None else {"status": status}))
    client = await answering.client()
    for path in ("/v1/x", "/maybe/x"):
        said = is_problem(await asks(client, path), status or 403)
        assert said["detail"] == "The invoice of May is unpaid"
    assert answering.count("edge_auth_failures_total", "paused") == 2
    assert answering.count("edge_requests_total", "v1", "basic", str(status or 403)) == 1
    assert not answering.upstream.requests
    assert answering.usage() == {}
    assert answering.used() == {"basic": 0}
    assert (await asks(client, key=UNLIMITED)).status == 200


async def test_a_paused_customer_may_use_open_routes(answering: Edge) -> None:
    customer(answering, paused=PAUSED)
    client = await answering.client()
    assert (await asks(client, "/public/x")).status == 200


async def test_a_pause_begins_and_ends_with_a_reload(answering: Edge) -> None:
    client = await answering.client()
    assert (await asks(client)).status == 200
    for paused, status in ((PAUSED, 403), (PAUSED | {"status": 402}, 402), (None, 200)):
        customer(answering, **({"paused": paused} if paused else {}))
        await answering.reloads()
        assert (await asks(client)).status == status
    assert left(await asks(client))[:2] == ("basic", 57), "refused requests were not counted"


# ---- regions


async def test_a_customer_of_another_region_is_refused(answering: Edge) -> None:
    customer(answering, regions={"allow": ["eu-west", "eu-north"]})
    client = await answering.client()
    said = is_problem(await asks(client), 403)
    assert said["detail"] == "This customer is not served in the region test"
    assert answering.count("edge_auth_failures_total", "region") == 1
    assert not answering.upstream.requests
    assert answering.used() == {"basic": 0}
    assert (await asks(client, key=UNLIMITED)).status == 200
    customer(answering, regions={"allow": ["eu-west", "test"]})
    await answering.reloads()
    assert (await asks(client)).status == 200


async def test_regions_bind_customers_and_not_addresses(answering: Edge) -> None:
    customer(answering, regions={"allow": ["eu-west"]})
    client = await answering.client()
    assert (await asks(client, "/public/x")).status == 200
    assert (await asks(client, "/maybe/x")).status == 403
    assert (await asks(client, "/maybe/x", key="")).status == 200


async def test_the_first_of_several_reasons_is_named(answering: Edge) -> None:
    """The order is flag, pause, scopes, region."""
    answering.config["flags"] = {"new": {}}
    answering.config["routes"][3]["flag"] = "new"
    customer(answering, paused=PAUSED, regions={"allow": ["eu-west"]})
    client = await answering.client()

    async def told() -> tuple[int, str]:
        answer = await asks(client, "/read/x")
        return answer.status, json.loads(answer.body)["detail"]

    assert (await told())[0] == 404
    del answering.config["routes"][3]["flag"]
    await answering.reloads()
    assert await told() == (403, "The invoice of May is unpaid")
    customer(answering, regions={"allow": ["eu-west"]})
    await answering.reloads()
    assert await told() == (403, "The API key lacks the scope read")
    answering.config["keys"][0]["scopes"] = ["read"]
    await answering.reloads()
    assert await told() == (403, "This customer is not served in the region test")
    customer(answering)
    await answering.reloads()
    assert (await asks(client, "/read/x")).status == 200


async def test_limits_apply_after_all_other_reasons(answering: Edge) -> None:
    answering.config["tiers"]["basic"] = {"limits": [{"rate": "1/min"}], "concurrency": 1}
    client = await answering.client()
    assert (await asks(client)).status == 200
    is_limited(await asks(client), "basic")
    customer(answering, paused=PAUSED)
    await answering.reloads()
    assert (await asks(client)).status == 403


# ---- endpoints of regions


@pytest.fixture
def regions(edge: Edge) -> Edge:
    """An edge of the region `test` with three endpoints in two regions. Each answers with its number."""
    edge.adds_endpoint()
    edge.adds_endpoint()
    names = ("test", "far", "far")
    edge.config["upstreams"]["api"]["endpoints"] = [
        {"url": upstream.url, "region": name} for upstream, name in zip(edge.upstreams, names, strict=True)
    ]
    for n, upstream in enumerate(edge.upstreams):
        upstream.answers(lambda request, n=n: ok(b"%d" % n))
    return edge


async def servers(edge: Edge, key: str = KEY, times: int = 60) -> Counter[int]:
    """Return how often each endpoint answers a customer."""
    client = await edge.client()
    counts = Counter([int((await asks(client, key=key)).body) for _ in range(times)])
    client.closes()
    return counts


async def test_a_customer_is_served_by_its_preferred_region(regions: Edge) -> None:
    customer(regions, regions={"prefer": "far"})
    shared = await servers(regions)
    assert set(shared) == {1, 2}
    assert min(shared.values()) > 10, "all endpoints of the region serve"
    assert set(await servers(regions, UNLIMITED)) == {0}


async def test_the_nearest_region_serves_if_the_preferred_one_is_down(regions: Edge) -> None:
    customer(regions, regions={"prefer": "far"})
    await regions.starts()
    listing = [EndpointAddresses(["127.0.0.1"], up) for up in (["127.0.0.1"], [], [])]
    regions.worker.runtime.snapshot.update_endpoints({"api": listing})
    assert set(await servers(regions, times=10)) == {0}
    listing[1] = listing[0]
    regions.worker.runtime.snapshot.update_endpoints({"api": listing})
    assert set(await servers(regions, times=10)) == {1}


@pytest.mark.parametrize("prefer", ["test", "nowhere"])
async def test_an_own_or_unknown_preferred_region_means_the_nearest(regions: Edge, prefer: str) -> None:
    customer(regions, regions={"prefer": prefer})
    assert set(await servers(regions, times=10)) == {0}


async def test_an_unreachable_endpoint_of_the_preferred_region_is_replaced(regions: Edge) -> None:
    customer(regions, regions={"prefer": "far"})
    regions.upstreams[1].refuses()
    assert set(await servers(regions, times=10)) <= {0, 2}


async def test_x_edge_region_is_the_region_of_the_edge(regions: Edge) -> None:
    customer(regions, regions={"prefer": "far"})
    await servers(regions, times=5)
    asked_there = [request for upstream in regions.upstreams[1:] for request in upstream.requests]
    assert {request["X-Edge-Region"] for request in asked_there} == {"test"}


# ---- messages of refusals


@pytest.mark.parametrize("fits", [True, False])
async def test_the_message_of_a_tier_stands_in_a_429(answering: Edge, fits: bool) -> None:
    words = "Write to sales@example.com" if fits else 'Größere "Pläne" \\ mehr: </script> ' + "x" * 400
    answering.config["tiers"]["basic"] = {"limits": [{"rate": "1/min"}], "message": words}
    client = await answering.client()
    await asks(client)
    for _ in range(2):
        said = is_limited(await asks(client), "basic")
        assert said["detail"].startswith("The rate limit is reached (basic: 1 of 1 in 60 s); try again in ")
        assert said["detail"].endswith(f" s. {words}")
    answer = await asks(client, method="HEAD")
    assert (answer.status, answer.body) == (429, b"")
    assert int(answer["Content-Length"]) == len((await asks(client)).body)


async def test_the_message_of_a_customer_replaces_that_of_its_tier(answering: Edge) -> None:
    answering.config["tiers"]["basic"] = {"limits": [{"rate": "1/min"}], "message": "of the tier"}
    answering.config["customers"]["other"] = {"tier": "basic"}
    answering.config["keys"].append({"sha256": digest("key of other"), "customer": "other"})
    customer(answering, message="of the customer")
    client = await answering.client()
    for key, words in ((KEY, "of the customer"), ("key of other", "of the tier")):
        await asks(client, key=key)
        assert is_limited(await asks(client, key=key), "basic")["detail"].endswith(f" s. {words}")


async def test_messages_stand_only_in_refusals_by_limits(answering: Edge) -> None:
    answering.config["tiers"]["free"] = {"message": "Write to us"}
    answering.config["per_ip"] = {"rate": "3/min"}
    client = await answering.client()
    assert b"Write to us" not in (await asks(client, "/read/x", key=UNLIMITED)).body
    answering.upstream.answer = lambda request: head("HTTP/1.1 404 No", "Content-Length: 4") + b"none"
    assert (await asks(client, "/read/x", key=READER)).body == b"none"
    assert (await asks(client, "/nowhere", key=UNLIMITED)).status == 404
    answer = await asks(client, key=UNLIMITED)
    # The customer is not identified yet at this point.
    assert is_limited(answer, "per_ip")["detail"].startswith("The rate limit is reached (per_ip: 3 of 3 in 60 s)")


# ---- priorities during load shedding


async def test_the_priority_of_a_customer_replaces_that_of_its_tier(answering: Edge) -> None:
    answering.config["tiers"]["basic"] |= {"priority": 4, "message": "Come back"}
    answering.config["customers"]["other"] = {"tier": "basic", "priority": 7}
    answering.config["keys"].append({"sha256": digest("key of other"), "customer": "other"})
    answering.config["tiers"]["anonymous"] = {"priority": 2}
    await answering.starts()
    shedding = Shedding(answering, 5)
    client = await answering.client()
    answer = await asks(client)
    said = is_problem(answer, 503)
    assert (said["detail"], answer["Retry-After"]) == ("There is more to do than this edge can. Come back", "1")
    assert (await asks(client, key="key of other")).status == 200
    for key in (UNLIMITED, ""):
        said = is_problem(await asks(client, "/maybe/x", key=key), 503)
        assert said["detail"] == "There is more to do than this edge can"
    assert shedding.asked == [4, 7, 0, 2]
    assert answering.metrics("edge_shed_total") == {("4",): [1], ("0",): [1], ("2",): [1]}
    assert answering.used() == {"basic": 0}, "a shed request is not charged"
    assert answering.usage() == {("other", "requests", "v1"): 1}


async def test_other_refusals_come_before_load_shedding(answering: Edge) -> None:
    await answering.starts()
    shedding = Shedding(answering, 5)
    client = await answering.client()
    for path, key, status in (("/nowhere", "", 404), ("/v1/x", "", 401), ("/read/x", UNLIMITED, 403)):
        assert (await asks(client, path, key=key)).status == status
    assert shedding.asked == []


# ---- plans of customers


async def test_a_customer_may_replace_all_settings_of_its_tier(answering: Edge) -> None:
    answering.config["tiers"]["basic"] = {
        "limits": [{"rate": "1/min"}],
        "concurrency": 1,
        "quotas": [{"meter": "requests", "per": "day", "included": 1, "cap": "hard"}],
        "burst_credits": {"earn": "1/h", "max": 1},
        "priority": 1,
        "message": "of the tier",
    }
    customer(answering, limits=[], concurrency="none", quotas=[], burst_credits="off")
    client = await answering.client()
    for _ in range(5):
        answer = await asks(client)
        assert answer.status == 200
        assert not [name for name, _ in answer.fields if name.lower().startswith(("ratelimit", "x-quota"))]
    assert answering.used() == {}
    customer(answering)
    await answering.reloads()
    assert (await asks(client)).status == 200
    is_limited(await asks(client), "requests-day")
    assert answering.used() == {"basic": 1, "concurrency": 0, "requests-day": 1, "burst-credits": 0}


async def test_stamps_name_customer_and_tier_with_an_own_plan(edge: Edge) -> None:
    customer(edge, limits=[], priority=9)
    received, _ = await edge.passes(get("/v1/x", f"X-API-Key: {KEY}"), ok())
    assert (received["X-Customer-Id"], received["X-Customer-Tier"]) == ("acme", "basic")


# ---- credits of several hosts


UNHEARD = 2
"""Credits that are spent before anything was heard of another host."""


@pytest.fixture
def shared(edge: Edge) -> Shared:
    edge.uses = []
    edge.config["tiers"]["basic"] = {
        "limits": [{"name": "basic", "rate": f"{LIMIT}/min"}],
        "burst_credits": {"earn": "1/min", "max": 20},
    }
    edge.upstream.answers(lambda request: ok())
    return Shared(edge)


def says_nothing_is_left(shared: Shared, gate: Gate) -> None:
    """The hub refuses a claim."""
    words = shared.table.words
    words[gate.row + shared.table.layout.head(shared.table.layout.columns - 1) + at.NO_USE_UNTIL] = 1 << 50
    words[gate.row + at.ROW_SYNC] += 1
    shared.edge.runtime.claim_waiter.on_hub_answer()


def spent(edge: Edge) -> int:
    return edge.count("edge_burst_credits_spent_total", "basic")


async def uses_up(edge: Edge, shared: Shared, requests: int) -> None:
    """So many pass, more than the limit, while there is no other host; then there is one."""
    await edge.starts()
    client = await edge.client()
    for _ in range(requests):
        assert (await asks(client)).status == 200
    shared.table.words[at.HOSTS] = 2


async def test_beyond_the_limit_credits_are_asked_for(edge: Edge, shared: Shared) -> None:
    await uses_up(edge, shared, LIMIT + UNHEARD)
    client = await edge.client()
    await client.sends(request())
    gate = await shared.waits()
    assert shared.wanted(gate) == 1
    assert edge.count("edge_limit_waits_total", "burst-credits") == 1
    assert edge.count("edge_limit_waits_total", "basic") == 0
    shared.grants(gate)
    assert (await client.gets_answer()).status == 200
    assert gate.unspent_claims == gate.waiting == 0
    assert edge.used() == {"basic": LIMIT, "burst-credits": UNHEARD + 1}
    assert spent(edge) == UNHEARD + 1


async def test_request_without_shared_credits_is_refused_by_the_limit(edge: Edge, shared: Shared) -> None:
    await uses_up(edge, shared, LIMIT + UNHEARD)
    client = await edge.client()
    await client.sends(request())
    says_nothing_is_left(shared, await shared.waits())
    answer = await client.gets_answer()
    is_limited(answer, "basic")
    assert answer["RateLimit"].startswith('"basic";r=0;')
    assert spent(edge) == UNHEARD
    assert not shared.gates()


async def test_credits_pay_once_the_hub_has_nothing_left_of_the_limit(edge: Edge, shared: Shared) -> None:
    await uses_up(edge, shared, 1)
    client = await edge.client()
    await client.sends(request())
    gate = await shared.waits()
    says_nothing_is_left(shared, gate)
    answer = await client.gets_answer()
    assert answer.status == 200
    assert answer["RateLimit"].startswith('"basic";r=0;')
    assert edge.used() == {"basic": 1, "burst-credits": 1}
    # Nobody waits again for what there is not.
    assert (await asks(client)).status == 200
    assert edge.count("edge_limit_waits_total", "basic") == 1
    # Then for credits.
    await client.sends(request())
    shared.grants(await shared.waits())
    assert (await client.gets_answer()).status == 200
    assert edge.used() == {"basic": 1, "burst-credits": 3}


async def test_worker_without_a_supervisor_spends_the_credits_it_knows(edge: Edge, shared: Shared) -> None:
    await uses_up(edge, shared, LIMIT + UNHEARD)
    edge.runtime.claim_waiter.on_supervisor_lost()
    client = await edge.client()
    assert (await asks(client)).status == 200
    assert spent(edge) == UNHEARD + 1


async def test_answer_costs_are_reported_to_the_supervisor(edge: Edge, shared: Shared) -> None:
    edge.config["tiers"]["basic"] = {"limits": [{"name": "tokens", "rate": "100/min", "cost_header": "X-Cost"}]}
    edge.upstream.answers(lambda request: ok(b"", "X-Cost: 60"))
    await edge.starts()
    shared.table.words[at.HOSTS] = 2
    client = await edge.client()
    assert (await asks(client)).status == 200
    await edge.until(lambda: bool(edge.uses), "the supervisor is told")
    assert edge.uses is not None
    said = edge.uses[0].rates[0]
    assert (said.limit, said.span) == (100, 60.0)
    assert (said.mode, said.refused) == ("eventual", True), "the edge reads the use of other hosts before the charge"
    told = len(edge.uses)
    await edge.until(lambda: edge.used()["tokens"] == 60, "the tokens are charged")
    assert (await asks(client)).status == 200, "no matter that the hub was never asked"
    await edge.until(
        lambda: edge.used()["tokens"] == 120 and len(edge.uses or ()) > told, "the usage is reported again"
    )
    is_limited(await asks(client), "tokens")
