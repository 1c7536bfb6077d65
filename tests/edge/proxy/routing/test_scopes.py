"""Scopes of limits, and several limits at once: the edge checks all of them, then charges all or none."""

import json
import random

import pytest

from tests.edge.proxy import asking
from tests.edge.proxy.asking import asks, is_limited, left, limited
from tests.support.transcript import KEY, UNLIMITED, Edge, digest, ok
from tests.support.wire import Wire

SECOND = "second-key-of-acme"
OTHER = "key-of-other"


@pytest.fixture
def edge(edge: Edge) -> Edge:
    """An edge with the customers `acme`, with two keys, and `other`, with one key, both in the tier `basic`."""
    edge.config["customers"]["other"] = {"tier": "basic"}
    edge.config["keys"] += [
        {"sha256": digest(SECOND), "customer": "acme"},
        {"sha256": digest(OTHER), "customer": "other"},
    ]
    edge.upstream.answers(lambda request: ok())
    return edge


async def passing(client: Wire, key: str = KEY, path: str = "/v1/x", *fields: str, most: int = 20) -> int:
    """Send requests until one is refused. Return the number of requests that passed."""
    for n in range(most):
        answer = await asks(client, path, *fields, key=key)
        if answer.status == 429:
            return n
        assert answer.status == 200
    return most


# ---- scopes


@pytest.mark.parametrize(
    ("scope", "asked"),
    [
        ({}, [(KEY, "/v1/x", 3), (SECOND, "/v1/x", 0), (KEY, "/maybe/x", 0), (OTHER, "/v1/x", 3)]),
        ({"scope": "key"}, [(KEY, "/v1/x", 3), (KEY, "/maybe/x", 0), (SECOND, "/v1/x", 3), (OTHER, "/v1/x", 3)]),
        ({"scope": "route"}, [(KEY, "/v1/x", 3), (OTHER, "/v1/x", 0), (OTHER, "/maybe/x", 3), (KEY, "/maybe/x", 0)]),
        (
            {"scope": "customer_route"},
            [(KEY, "/v1/x", 3), (SECOND, "/v1/x", 0), (KEY, "/maybe/x", 3), (OTHER, "/v1/x", 3)],
        ),
    ],
    ids=["customer", "key", "route", "customer and route"],
)
async def test_a_limit_counts_by_its_scope(
    edge: Edge, scope: dict[str, str], asked: list[tuple[str, str, int]]
) -> None:
    """The parameters are keys and paths, in order, with the number of requests that pass."""
    limited(edge, {"rate": "3/min", **scope})
    client = await edge.client()
    for key, path, passed in asked:
        assert await passing(client, key, path) == passed, (key, path)


async def test_the_scope_ip_counts_by_address(edge: Edge) -> None:
    limited(edge, {"rate": "3/min", "scope": "ip"})
    client, elsewhere = await edge.client(), await edge.client("127.0.0.2")
    assert await passing(client) == 3
    assert await passing(client, SECOND) == 0
    assert await passing(client, OTHER) == 0, "all keys share the limit of an address"
    assert await passing(elsewhere) == 3


@pytest.mark.parametrize(
    ("scope", "expected"),
    [("customer", [3, 0, 3, 0]), ("key", [3, 0, 3, 0]), ("ip", [3, 0, 3, 0]), ("route", [3, 3, 0, 0])],
)
async def test_without_a_key_limits_count_by_address_and_those_of_a_route_for_all(
    edge: Edge, scope: str, expected: list[int]
) -> None:
    limited(edge, {"rate": "3/min", "scope": scope}, tier="anonymous")
    clients = [await edge.client(), await edge.client("127.0.0.2")]
    passed = [await passing(client, "", path) for client in clients for path in ("/public/x", "/maybe/x")]
    assert passed == expected


# ---- addresses


async def behind(edge: Edge) -> Wire:
    """Return a client that is a trusted proxy."""
    edge.config["trusted_proxies"] = ["127.0.0.1"]
    return await edge.client()


@pytest.mark.parametrize(("scope", "key", "path"), [("ip", KEY, "/v1/x"), ("customer", "", "/public/x")])
async def test_clients_behind_a_trusted_proxy_count_by_their_own_address(
    edge: Edge, scope: str, key: str, path: str
) -> None:
    limited(edge, {"rate": "3/min", "scope": scope}, tier="basic" if key else "anonymous")
    proxy = await behind(edge)
    for n in range(3):
        assert await passing(proxy, key, path, f"X-Forwarded-For: 192.0.2.{n}") == 3
    # The client wrote the left entry itself.
    assert await passing(proxy, key, path, "X-Forwarded-For: 198.51.100.1, 192.0.2.1") == 0
    direct = await edge.client("127.0.0.2")
    assert await passing(direct, key, path, "X-Forwarded-For: 192.0.2.77") == 3
    assert await passing(direct, key, path, "X-Forwarded-For: 192.0.2.78") == 0, "the edge does not trust this client"


# ---- routes


async def test_limits_of_a_route_count_per_customer(edge: Edge) -> None:
    edge.config["routes"][0]["limits"] = [{"rate": "2/min"}]
    client = await edge.client()
    assert await passing(client) == 2
    assert await passing(client, SECOND) == 0
    assert await passing(client, OTHER) == 2
    assert await passing(client, UNLIMITED) == 2
    answer = await asks(client)
    is_limited(answer, "v1")
    assert answer["RateLimit-Policy"] == '"v1";q=2;w=60'
    assert edge.used() == {"basic": 2, "v1": 2}


async def test_limits_of_a_route_apply_without_an_anonymous_tier(edge: Edge) -> None:
    for route in edge.config["routes"][1:3]:
        route["limits"] = [{"rate": "2/min"}]
    client, elsewhere = await edge.client(), await edge.client("127.0.0.2")
    for path, name in (("/public/x", "public"), ("/maybe/x", "maybe")):
        assert await passing(client, "", path) == 2
        is_limited(await asks(client, path, key=""), name)
        assert await passing(elsewhere, "", path) == 2
    assert edge.count("edge_rate_limited_total", "-", "public", "enforce") == 3


@pytest.mark.parametrize(
    ("scope", "shares"),
    [("route", ["again", "other", "else"]), ("ip", ["again", "other"]), ("key", []), ("customer", ["again"])],
)
async def test_a_routes_limits_may_count_by_any_scope(edge: Edge, scope: str, shares: list[str]) -> None:
    edge.config["routes"][2]["limits"] = [{"rate": "2/h", "scope": scope}]
    client, elsewhere = await edge.client(), await edge.client("127.0.0.2")
    assert await passing(client, KEY, "/maybe/x") == 2
    who = {"again": (client, SECOND), "other": (client, OTHER), "else": (elsewhere, UNLIMITED)}
    shared = [name for name, (wire, key) in who.items() if await passing(wire, key, "/maybe/x") < 2]
    assert shared == shares


async def test_equal_limits_of_plan_and_route_are_charged_once_and_the_lower_applies(edge: Edge) -> None:
    limited(edge, {"rate": "5/min"})
    edge.config["routes"][0]["limits"] = [{"rate": "3/min", "scope": "customer"}]
    client = await edge.client()
    assert [left(await asks(client))[:2] for _ in range(3)] == [("v1", 2), ("v1", 1), ("v1", 0)]
    is_limited(await asks(client), "v1")
    assert [left(await asks(client, "/maybe/x"))[:2] for _ in range(2)] == [("basic", 1), ("basic", 0)]
    is_limited(await asks(client, "/maybe/x"), "basic")


# ---- several at once


async def test_if_one_limit_refuses_no_limit_is_charged(edge: Edge) -> None:
    """Each limit in turn is the one without room."""
    limits = {
        "by-customer": {"rate": "100/min"},
        "by-key": {"rate": "100/min", "scope": "key"},
        "by-route": {"rate": "100/min", "scope": "route"},
        "bucket": {"rate": "100/h", "algorithm": "token_bucket"},
        "both": {"rate": "100/h", "algorithm": "hybrid", "burst": 100},
        "reported": {"rate": "100/h", "cost_header": "X-Cost"},
    }
    besides = {"quotas": [{"meter": "requests", "per": "day", "included": 100, "cap": "hard"}], "concurrency": 100}
    edge.config["routes"][0]["limits"] = [{"name": "of-route", "rate": "100/min"}]
    client = await edge.client()
    limited(edge, *({"name": name, **limit} for name, limit in limits.items()), **besides)
    await edge.reloads()
    expected = dict.fromkeys((*limits, "of-route", "requests-day"), 2) | {"concurrency": 0}
    for _ in range(2):
        assert (await asks(client)).status == 200
    assert edge.used() == expected
    for full in (*limits, "of-route", "requests-day"):
        config = edge.config["tiers"]["basic"]
        rates = {name: {"name": name, **limit} for name, limit in limits.items()}
        if full in rates:
            rates[full] |= {"rate": "2/" + rates[full]["rate"].partition("/")[2]}
            if "algorithm" in rates[full]:
                rates[full]["burst"] = 2
        config["limits"] = list(rates.values())
        config["quotas"][0]["included"] = 2 if full == "requests-day" else 100
        edge.config["routes"][0]["limits"][0]["rate"] = f"{2 if full == 'of-route' else 100}/min"
        await edge.reloads()
        for _ in range(3):
            is_limited(await asks(client), full)
        assert edge.used() == expected, full
    assert edge.usage() == {("acme", "requests", "v1"): 2}


async def test_a_429_names_all_refusing_limits_and_the_longest_wait(edge: Edge) -> None:
    limited(
        edge,
        {"name": "roomy", "rate": "100/min"},
        {"name": "short", "rate": "2/30s"},
        {"name": "hour", "rate": "2/h", "scope": "key"},
        {"name": "bucket", "rate": "2/30s", "algorithm": "token_bucket"},
        quotas=[{"meter": "requests", "per": "day", "included": 2, "cap": "hard"}],
    )
    edge.config["routes"][0]["limits"] = [{"name": "of-route", "rate": "2/10min"}]
    client = await edge.client()
    for _ in range(2):
        assert (await asks(client)).status == 200
    answer = await asks(client)
    said = is_limited(answer, "short", "hour", "bucket", "of-route", "requests-day")
    assert said["detail"].startswith(("The quota is used up (requests-day: 2 of 2)", "The rate limit is reached (hour"))
    tells = {labels[1]: n for labels, n in edge.metrics("edge_rate_limited_total").items()}
    assert tells == {name: [1] for name in said["violated-policies"]}
    assert edge.count("edge_requests_total", "v1", "basic", "429") == 1
    wait = int(answer["Retry-After"])
    assert wait >= 3600
    edge.passes_time(wait)
    assert (await asks(client)).status == 200


async def test_a_429_names_concurrency_beside_rates(edge: Edge) -> None:
    await edge.upstream.rests()
    limited(edge, {"rate": "1/min"}, concurrency=1)
    client, upstream = await asking.asked(edge)
    full = await edge.client()
    answer = await asks(full)
    is_limited(answer, "basic", "concurrency")
    assert int(answer["Retry-After"]) > 30
    assert (await upstream.tells(client, ok())).status == 200
    is_limited(await asks(full), "basic")


async def test_ratelimit_shows_the_limit_closest_to_refusal(edge: Edge) -> None:
    limited(
        edge,
        {"name": "minute", "rate": "10/min"},
        {"name": "hour", "rate": "12/h"},
        {"name": "bucket", "rate": "30/min", "algorithm": "token_bucket", "burst": 11},
    )
    edge.config["routes"][2]["limits"] = [{"name": "few", "rate": "4/min"}]
    edge.config["per_ip"] = {"rate": "1000/s"}
    client = await edge.client()
    told = [left(await asks(client))[:2] for _ in range(3)]
    assert told == [("minute", 9), ("minute", 8), ("minute", 7)]
    told = [left(await asks(client, "/maybe/x"))[:2] for _ in range(4)]
    assert told == [("few", 3), ("few", 2), ("few", 1), ("few", 0)]
    edge.passes_time(65)
    told = [left(await asks(client))[:2] for _ in range(5)]
    assert told == [("hour", n) for n in (4, 3, 2, 1, 0)]
    refused = await asks(client)
    is_limited(refused, "hour")
    assert left(refused)[:2] == ("hour", 0)


async def test_random_requests_count_exactly_the_admitted_ones(edge: Edge, seed: int) -> None:
    """All windows are long, and no time passes, so every count equals the number of requests admitted under it."""
    chance = random.Random(seed)
    limited(
        edge,
        {"name": "all", "rate": "40/h"},
        {"name": "route", "rate": "25/h", "scope": "customer_route"},
        {"name": "shadow", "rate": "10/h", "mode": "shadow"},
        quotas=[{"meter": "requests", "per": "month", "included": 38, "cap": "hard"}],
        concurrency=3,
    )
    edge.config["routes"][0]["limits"] = [{"name": "few", "rate": "9/h"}]
    client = await edge.client()
    passed = {"/v1/x": 0, "/maybe/x": 0}
    names = set()
    for _ in range(120):
        path = chance.choice(tuple(passed))
        answer = await asks(client, path, key=chance.choice((KEY, SECOND)))
        if answer.status == 200:
            passed[path] += 1
        else:
            names |= set(json.loads(answer.body)["violated-policies"])
    assert passed["/v1/x"] == 9
    assert passed["/maybe/x"] == 25
    assert names == {"few", "route"}
    used = edge.used()
    assert used["all"] == used["requests-month"] == sum(passed.values())
    assert (used["few"], used["shadow"], used["concurrency"]) == (9, 10, 0)
    assert edge.usage() == {("acme", "requests", "v1"): 9, ("acme", "requests", "maybe"): 25}
