"""Flags: a route that has one exists for those who have it, and for nobody else."""

import math
import random
from typing import Any

import pytest

from edgeproxy.config.customers import Flag
from edgeproxy.edge.proxy.flags import has_flag
from tests.edge.proxy.asking import asks
from tests.support.transcript import EXPIRED, KEY, UNLIMITED, Edge, digest, ok, post
from tests.support.wire import Message, Wire

NEW = {"name": "new", "path": "/new/*", "upstream": "api", "flag": "new-api"}


def flagged(edge: Edge, flag: dict[str, Any], **route: Any) -> None:
    """There is a route that this flag opens."""
    edge.config["flags"] = {"new-api": flag}
    edge.config["routes"] = [each for each in edge.config["routes"] if each["name"] != "new"] + [NEW | route]


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.upstream.answers(lambda request: ok())
    flagged(edge, {"customers": ["acme"]})
    return edge


def bare(answer: Message) -> tuple[str, list[tuple[str, str]], bytes]:
    """An answer without what is different each time: its request id and its date."""
    rid = answer["X-Request-Id"]
    fields = [(name, value) for name, value in answer.fields if name not in ("X-Request-Id", "Date")]
    return answer.first, fields, answer.body.replace(rid.encode(), b"")


async def statuses(client: Wire, path: str = "/new/x") -> dict[str, int]:
    """What each who asks is answered."""
    return {key: (await asks(client, path, key=key)).status for key in (KEY, UNLIMITED, "", "nobody", EXPIRED)}


# ---- who has it


async def test_it_is_there_for_the_tiers_that_it_names(edge: Edge) -> None:
    flagged(edge, {"tiers": ["free"]})
    client = await edge.client()
    assert await statuses(client) == {KEY: 404, UNLIMITED: 200, "": 404, "nobody": 404, EXPIRED: 404}


async def test_a_flag_that_names_nobody_is_nobodys(edge: Edge) -> None:
    flagged(edge, {})
    client = await edge.client()
    assert set((await statuses(client)).values()) == {404}


async def test_a_share_of_the_customers_has_it_whatever_their_key(edge: Edge) -> None:
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


def test_a_larger_share_has_all_of_a_smaller_one(seed: int) -> None:
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


def test_who_is_in_a_share_stays_in_it_for_ever() -> None:
    """What these are follows from their names and the flag's alone, in every version."""
    have = [n for n in range(60) if has_flag("new-api", Flag(percent=10), "free", f"customer-{n}")]
    assert have == [19, 20, 22, 26, 28, 30, 35, 45, 47, 52, 54, 56]


# ---- what the others see


@pytest.mark.parametrize("auth", ["required", "optional"])
@pytest.mark.parametrize("key", ["", "nobody", EXPIRED, UNLIMITED])
async def test_for_those_without_it_a_route_looks_like_none(edge: Edge, key: str, auth: str) -> None:
    """Nothing tells them that there is one: no challenge, no other words, no other fields."""
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
async def test_nor_does_it_tell_of_its_methods(edge: Edge, methods: list[str]) -> None:
    flagged(edge, {"customers": ["acme"]}, methods=methods)
    client = await edge.client()
    for key in (UNLIMITED, "", "nobody"):
        answer = await asks(client, "/new/x", key=key)
        assert answer.status == 404
        assert "Allow" not in answer
        assert (await client.asks(post(b"abc", "/new/x", f"X-API-Key: {key}"))).status == 404
    assert (await client.asks(post(b"abc", "/new/x", f"X-API-Key: {KEY}"))).status == 200


# ---- routes that ask for no key


async def test_where_no_key_is_looked_at_only_the_tier_of_those_without_one_can_have_it(edge: Edge) -> None:
    flagged(edge, {"customers": ["acme"], "percent": 100}, auth="none")
    client = await edge.client()
    assert set((await statuses(client)).values()) == {404}
    edge.config["tiers"]["anonymous"] = {}
    flagged(edge, {"tiers": ["anonymous"]}, auth="none")
    await edge.reloads()
    assert set((await statuses(client)).values()) == {200}


async def test_where_a_key_is_optional_everybody_has_what_is_theirs(edge: Edge) -> None:
    flagged(edge, {"customers": ["acme"]}, auth="optional")
    client = await edge.client()
    assert await statuses(client) == {KEY: 200, UNLIMITED: 404, "": 404, "nobody": 404, EXPIRED: 404}
    edge.config["tiers"]["anonymous"] = {}
    flagged(edge, {"tiers": ["anonymous"]}, auth="optional")
    await edge.reloads()
    assert await statuses(client) == {KEY: 404, UNLIMITED: 404, "": 200, "nobody": 404, EXPIRED: 404}


# ---- before all else


async def test_a_reload_gives_and_takes_it_on_an_open_connection(edge: Edge) -> None:
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
