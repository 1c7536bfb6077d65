"""Limits in shadow mode: they say whom they would have refused, and refuse nobody."""

import json
from typing import Any

import pytest

from tests.proxy.asking import asked, asks, is_limited, request
from tests.proxy.test_limits import left
from tests.proxy.test_tunnel import SWITCH, UPGRADE, ends
from tests.support.transcript import KEY, UNLIMITED, Edge, chunks, get, head, ok

WITH_KEY = f"X-API-Key: {KEY}"
FIELD = "X-Edge-Shadow"


def limited(edge: Edge, *limits: dict[str, Any], **besides: Any) -> None:
    """These are the limits of the tier `basic`."""
    edge.config["tiers"]["basic"] = {"limits": list(limits), **besides}


def shadowed(edge: Edge, tier: str = "basic", name: str = "trial") -> int:
    """How many requests this limit would have refused."""
    return edge.count("edge_rate_limited_total", tier, name, "shadow")


TRIAL = {"name": "trial", "rate": "2/min", "mode": "shadow"}


@pytest.fixture
def edge(edge: Edge) -> Edge:
    limited(edge, TRIAL)
    return edge


@pytest.fixture
def answering(edge: Edge) -> Edge:
    """An edge whose upstream answers by itself."""
    edge.upstream.answers(lambda request: ok())
    return edge


async def test_whom_it_would_have_refused_is_served_and_told(answering: Edge) -> None:
    client = await answering.client()
    for n in range(6):
        answer = await asks(client)
        assert answer.status == 200
        assert answer.all(FIELD) == (['"trial"'] if n >= 2 else [])
        assert not [name for name, _ in answer.fields if "ratelimit" in name.lower()], "it holds nobody"
    assert shadowed(answering) == 4
    assert answering.count("edge_rate_limited_total", "basic", "trial", "enforce") == 0
    assert answering.count("edge_requests_total", "v1", "basic", "200") == 6
    assert answering.usage() == {("acme", "requests", "v1"): 6}
    assert answering.used() == {"trial": 2}, "charged for what it would have let through"
    answering.passes_time(65)
    assert FIELD not in await asks(client)


ANSWERS = {
    "whole": ok(),
    "chunked": head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(b"abc"),
    "no content": head("HTTP/1.1 204 No Content"),
    "not modified": head("HTTP/1.1 304 Not Modified"),
    "an error": head("HTTP/1.1 500 Oh", "Content-Length: 0"),
    "the last": ok(b"hello", "Connection: close"),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_every_kind_of_answer_tells(edge: Edge, name: str, method: str) -> None:
    answered = ANSWERS[name] if method == "GET" else ANSWERS[name].partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    for told in ([], [], ['"trial"']):
        _, answer = await edge.passes(request(method=method), answered, method)
        assert answer.all(FIELD) == told


async def spent(edge: Edge) -> None:
    """What the trial would let through is used up."""
    for _ in range(2):
        client, upstream = await asked(edge)
        await upstream.sends(ok(b"", "Connection: close"))
        await client.gets_answer()
        client.closes()


async def test_a_stream_and_a_tunnel_tell(edge: Edge) -> None:
    await spent(edge)
    client, upstream = await asked(edge)
    await upstream.sends(head("HTTP/1.1 200 OK"), b"abc")
    assert (await client.gets_head())[FIELD] == '"trial"'
    await client.gets_until(b"abc\r\n")
    client.aborts()
    client, upstream = await asked(edge, get("/v1/ws", *UPGRADE, WITH_KEY))
    await upstream.sends(SWITCH)
    assert (await client.gets_head())[FIELD] == '"trial"'
    await ends(client, upstream)


async def test_an_interim_answer_does_not(edge: Edge) -> None:
    await spent(edge)
    client, upstream = await asked(edge)
    await upstream.sends(head("HTTP/1.1 103 Early Hints"))
    assert FIELD not in await client.gets_head()
    await upstream.sends(ok())
    assert (await client.gets_answer())[FIELD] == '"trial"'


async def test_beside_one_that_is_held_to_neither_is_in_the_others_way(answering: Edge) -> None:
    """The same but for its mode: two rows."""
    limited(answering, {"rate": "4/min"}, TRIAL)
    client = await answering.client()
    for n in range(4):
        answer = await asks(client)
        assert left(answer)[:2] == ("basic", 3 - n)
        assert answer.all(FIELD) == (['"trial"'] if n >= 2 else [])
    for _ in range(3):
        answer = await asks(client)
        is_limited(answer, "basic")
        assert FIELD not in answer
    assert answering.used() == {"basic": 4, "trial": 2}, "who is refused is charged nowhere"
    assert shadowed(answering) == 2


async def test_routes_and_addresses_may_have_them(answering: Edge) -> None:
    limited(answering)
    answering.config["routes"][0]["limits"] = [{**TRIAL, "rate": "3/min"}]
    answering.config["tiers"]["anonymous"] = {"limits": [{**TRIAL, "rate": "1/min"}]}
    client = await answering.client()
    assert [(await asks(client)).all(FIELD) for _ in range(4)] == [[], [], [], ['"trial"']]
    assert FIELD not in await asks(client, key=UNLIMITED), "each customer's on the route is its own"
    assert [(await asks(client, "/public/x", key="")).all(FIELD) for _ in range(2)] == [[], ['"trial"']]
    assert shadowed(answering, "anonymous") == 1


async def test_it_stands_beside_all_other_fields(answering: Edge) -> None:
    limited(
        answering,
        {"rate": "100/min"},
        {**TRIAL, "rate": "1/h"},
        quotas=[{"meter": "requests", "per": "day", "included": 1}],
    )
    answering.config |= {"security_headers": True, "legacy_headers": True}
    answering.upstream.answer = lambda request: ok(b"hello", "X-Frame-Options: DENY")
    client = await answering.client()
    await asks(client)
    answer = await asks(client)
    assert answer.body == b"hello"
    assert answer[FIELD] == '"trial"'
    assert answer["X-Quota"] == '"requests-day";over'
    assert left(answer)[:2] == ("basic", 98)
    assert answer["X-RateLimit-Remaining"] == "98"
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["X-Request-Id"]


async def test_one_that_is_to_be_held_to_begins_anew(answering: Edge) -> None:
    """What it counted on trial is not what it would have: it is another limit."""
    client = await answering.client()
    for _ in range(4):
        await asks(client)
    limited(answering, {"name": "trial", "rate": "2/min"})
    await answering.reloads()
    assert [left(await asks(client))[1] for _ in range(2)] == [1, 0]
    answer = await asks(client)
    assert json.loads(answer.body)["violated-policies"] == ["trial"]
    assert answering.count("edge_rate_limited_total", "basic", "trial", "enforce") == 1
    assert shadowed(answering) == 2
