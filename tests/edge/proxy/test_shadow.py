"""Limits in shadow mode: they report requests that they would have refused, and refuse none."""

import json

import pytest

from tests.edge.proxy.asking import asks, is_limited, left, limited
from tests.support.transcript import Edge

FIELD = "X-Edge-Shadow"


def shadowed(edge: Edge, tier: str = "basic", name: str = "trial") -> int:
    """Return the number of requests that this limit would have refused."""
    return edge.count("edge_rate_limited_total", tier, name, "shadow")


TRIAL = {"name": "trial", "rate": "2/min", "mode": "shadow"}


@pytest.fixture
def edge(edge: Edge) -> Edge:
    limited(edge, TRIAL)
    return edge


async def test_a_request_that_a_shadow_limit_would_refuse_is_served_and_marked(answering: Edge) -> None:
    client = await answering.client()
    for n in range(6):
        answer = await asks(client)
        assert answer.status == 200
        assert answer.all(FIELD) == (['"trial"'] if n >= 2 else [])
        assert not [name for name, _ in answer.fields if "ratelimit" in name.lower()], (
            "a shadow limit has no RateLimit fields"
        )
    assert shadowed(answering) == 4
    assert answering.count("edge_rate_limited_total", "basic", "trial", "enforce") == 0
    assert answering.count("edge_requests_total", "v1", "basic", "200") == 6
    assert answering.usage() == {("acme", "requests", "v1"): 6}
    assert answering.used() == {"trial": 2}, "only requests that it would have admitted are charged"
    answering.passes_time(65)
    assert FIELD not in await asks(client)


async def test_an_enforced_and_a_shadow_limit_count_separately(answering: Edge) -> None:
    """The two limits differ only in their mode, so they have two rows."""
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
    assert answering.used() == {"basic": 4, "trial": 2}, "a refused request is charged in no limit"
    assert shadowed(answering) == 2


async def test_a_shadow_limit_that_becomes_enforced_starts_at_zero(answering: Edge) -> None:
    """The counts of a shadow limit exclude requests that it would have refused, so an enforced limit starts at zero."""
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
