"""Limits in shadow mode: they say whom they would have refused, and refuse nobody."""

import json

import pytest

from tests.edge.proxy.asking import asks, is_limited, left, limited
from tests.support.transcript import Edge

FIELD = "X-Edge-Shadow"


def shadowed(edge: Edge, tier: str = "basic", name: str = "trial") -> int:
    """How many requests this limit would have refused."""
    return edge.count("edge_rate_limited_total", tier, name, "shadow")


TRIAL = {"name": "trial", "rate": "2/min", "mode": "shadow"}


@pytest.fixture
def edge(edge: Edge) -> Edge:
    limited(edge, TRIAL)
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
