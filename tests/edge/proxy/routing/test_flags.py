"""Flags: a route with a flag exists only for customers with the flag."""

import math
import random
from typing import Any

import pytest

from edgeproxy.config.customers import Flag
from edgeproxy.edge.proxy.routing.flags import has_flag
from tests.edge.proxy.asking import asks
from tests.support.transcript import EXPIRED, KEY, UNLIMITED, Edge, digest, ok, post
from tests.support.wire import Message, Wire

NEW = {"name": "new", "path": "/new/*", "upstream": "api", "flag": "new-api"}


def flagged(edge: Edge, flag: dict[str, Any], **route: Any) -> None:
    """Configure a route with this flag."""
    edge.config["flags"] = {"new-api": flag}
    edge.config["routes"] = [route for route in edge.config["routes"] if route["name"] != "new"] + [NEW | route]


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.upstream.answers(lambda request: ok())
    flagged(edge, {"customers": ["acme"]})
    return edge


def bare(answer: Message) -> tuple[str, list[tuple[str, str]], bytes]:
    """Return an answer without its request id and its date, which differ each time."""
    rid = answer["X-Request-Id"]
    fields = [(name, value) for name, value in answer.fields if name not in ("X-Request-Id", "Date")]
    return answer.first, fields, answer.body.replace(rid.encode(), b"")


async def statuses(client: Wire, path: str = "/new/x") -> dict[str, int]:
    """Return the status of a request with each key."""
    return {key: (await asks(client, path, key=key)).status for key in (KEY, UNLIMITED, "", "nobody", EXPIRED)}


# ---- customers with a flag


async def test_a_flag_opens_its_route_to_the_named_tiers(edge: Edge) -> None:
    flagged(edge, {"tiers": ["free"]})
    client = await edge.client()
    assert await statuses(client) == {KEY: 404, UNLIMITED: 200, "": 404, "nobody": 404, EXPIRED: 404}


async def test_empty_flag_hides_its_route_from_all_customers(edge: Edge) -> None:
    flagged(edge, {})
    client = await edge.client()
    assert set((await statuses(client)).values()) == {404}


async def test_percent_chooses_customers_independently_of_their_keys(edge: Edge) -> None:
    names = [f"customer-{n}" for n in range(40)]
    edge.config["customers"] = {name: {"tier": "free"} for name in names}
    edge.config["keys"] = [
        {"sha256": digest(f"{which} of {name}"), "customer": name} for name in names for which in ("one", "other")
    ]
    flagged(edge, {"percent": 50})
    client = await edge.client()
    flag = edge.settings().flags["new-api"]
    have = {name for name in names if has_flag("new-api", flag, "free", name)}
    assert 0 < len(have) < 40
    for name in names:
        for which in ("one", "other"):
            answer = await asks(client, "/new/x", key=f"{which} of {name}")
            assert answer.status == (200 if name in have else 404)


def test_a_larger_percentage_includes_the_customers_of_a_smaller_one(seed: int) -> None:
    chance = random.Random(seed)
    names = [f"{chance.getrandbits(64):x}" for _ in range(600)]
    before: set[str] = set()
    for percent in range(101):
        have = {name for name in names if has_flag("new-api", Flag(percent=percent), "free", name)}
        assert before <= have
        # Five standard deviations of a binomial distribution.
        spread = 5 * math.sqrt(600 * percent / 100 * (1 - percent / 100))
        assert abs(len(have) - 6 * percent) <= spread
        before = have
    assert before == set(names)
    assert not any(has_flag("new-api", Flag(), "free", name) for name in names)


def test_percent_chooses_these_customers_in_every_version() -> None:
    """The choice depends only on the names of customer and flag, so it must stay equal in every version."""
    have = [n for n in range(60) if has_flag("new-api", Flag(percent=10), "free", f"customer-{n}")]
    assert have == [19, 20, 22, 26, 28, 30, 35, 45, 47, 52, 54, 56]


# ---- customers without the flag


@pytest.mark.parametrize("auth", ["required", "optional"])
@pytest.mark.parametrize("key", ["", "nobody", EXPIRED, UNLIMITED])
async def test_without_the_flag_a_route_looks_like_a_missing_one(edge: Edge, key: str, auth: str) -> None:
    """No challenge, text or field of the response shows that the route exists."""
    flagged(edge, {"customers": ["acme"]}, auth=auth, scopes=["read"], limits=[{"rate": "1/min"}], cost=3)
    edge.config["per_ip"] = {"rate": "1000/s"}
    client = await edge.client()
    none = await asks(client, "/nowhere/x", key=key)
    assert none.status == 404
    for _ in range(3):
        hidden = await asks(client, "/new/x", key=key)
        assert "WWW-Authenticate" not in hidden
        one, other = bare(hidden), bare(none)
        assert (one[0], one[2]) == (other[0], other[2])
        assert [name for name, _ in one[1]] == [name for name, _ in other[1]]
    assert edge.metrics("edge_auth_failures_total") == {}
    assert not edge.upstream.requests
    assert edge.usage() == {}


@pytest.mark.parametrize("methods", [["POST"], ["POST", "PUT"]])
async def test_without_the_flag_a_route_does_not_show_its_methods(edge: Edge, methods: list[str]) -> None:
    flagged(edge, {"customers": ["acme"]}, methods=methods)
    client = await edge.client()
    for key in (UNLIMITED, "", "nobody"):
        answer = await asks(client, "/new/x", key=key)
        assert answer.status == 404
        assert "Allow" not in answer
        assert (await client.asks(post(b"abc", "/new/x", f"X-API-Key: {key}"))).status == 404
    assert (await client.asks(post(b"abc", "/new/x", f"X-API-Key: {KEY}"))).status == 200


# ---- routes without a required key


async def test_a_route_without_keys_opens_only_by_the_anonymous_tier(edge: Edge) -> None:
    flagged(edge, {"customers": ["acme"], "percent": 100}, auth="none")
    client = await edge.client()
    assert set((await statuses(client)).values()) == {404}
    edge.config["tiers"]["anonymous"] = {}
    flagged(edge, {"tiers": ["anonymous"]}, auth="none")
    await edge.reloads()
    assert set((await statuses(client)).values()) == {200}


async def test_a_route_with_an_optional_key_applies_the_flag_to_each_client(edge: Edge) -> None:
    flagged(edge, {"customers": ["acme"]}, auth="optional")
    client = await edge.client()
    assert await statuses(client) == {KEY: 200, UNLIMITED: 404, "": 404, "nobody": 404, EXPIRED: 404}
    edge.config["tiers"]["anonymous"] = {}
    flagged(edge, {"tiers": ["anonymous"]}, auth="optional")
    await edge.reloads()
    assert await statuses(client) == {KEY: 404, UNLIMITED: 404, "": 200, "nobody": 404, EXPIRED: 404}


# ---- reloads


async def test_a_reload_changes_a_flag_on_open_connections(edge: Edge) -> None:
    client = await edge.client()
    for have in (["acme"], ["free"], ["acme", "free"], []):
        flagged(edge, {"customers": have})
        await edge.reloads()
        for key, customer in ((KEY, "acme"), (UNLIMITED, "free")):
            for _ in range(2):
                assert (await asks(client, "/new/x", key=key)).status == (200 if customer in have else 404)
    flagged(edge, {})
    del edge.config["routes"][-1]["flag"]
    await edge.reloads()
    assert (await asks(client, "/new/x", key=UNLIMITED)).status == 200
