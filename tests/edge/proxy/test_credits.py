"""Burst credits: saved up while unused, and spent on what passes beyond the limits of a plan."""

from typing import Any

import pytest

from tests.edge.proxy.asking import asked, asks, is_limited, left
from tests.edge.proxy.shedding import Shedding
from tests.support.transcript import UNLIMITED, Edge, ok


def plan(edge: Edge, *limits: dict[str, Any], **besides: Any) -> None:
    """Give the tier `basic` these limits and five credits. One credit is restored each minute."""
    edge.config["tiers"]["basic"] = {
        "limits": list(limits),
        "burst_credits": {"earn": "1/min", "max": 5},
        **besides,
    }


@pytest.fixture
def edge(edge: Edge) -> Edge:
    plan(edge, {"rate": "3/10min"})
    edge.upstream.answers(lambda request: ok())
    return edge


def spent(edge: Edge, tier: str = "basic") -> int:
    return edge.count("edge_burst_credits_spent_total", tier)


async def test_burst_credits_admit_requests_beyond_the_window(edge: Edge) -> None:
    client = await edge.client()
    answers = [await asks(client) for _ in range(9)]
    assert [answer.status for answer in answers] == [200] * 8 + [429]
    assert [left(answer)[:2] for answer in answers] == [("basic", n) for n in (2, 1, 0, 0, 0, 0, 0, 0, 0)]
    said = is_limited(answers[-1], "basic")
    assert said["violated-policies"] == ["basic"]
    assert edge.used() == {"basic": 3, "burst-credits": 5}, "purchased requests are not counted in the window"
    assert spent(edge) == 5
    assert edge.count("edge_rate_limited_total", "basic", "basic", "enforce") == 1


async def test_retry_after_is_of_the_limit_if_it_frees_before_credits(edge: Edge) -> None:
    plan(edge, {"rate": "3/10s"}, burst_credits={"earn": "1/h", "max": 1})
    client = await edge.client()
    for _ in range(4):
        await asks(client)
    refused = await asks(client)
    assert 1 <= int(refused["Retry-After"]) <= 11
    edge.passes_time(int(refused["Retry-After"]))
    assert (await asks(client)).status == 200
    # The cells of the first three requests decide how many of them have left the window.
    assert edge.used()["burst-credits"] == 1, "none is spent where the limit has room"


# ---- limits that credits do not extend


async def test_a_limit_of_the_route_is_not_bought_off(edge: Edge) -> None:
    edge.config["routes"][0]["limits"] = [{"rate": "2/min"}]
    client = await edge.client()
    assert [(await asks(client)).status for _ in range(3)] == [200, 200, 429]
    is_limited(await asks(client), "v1")
    assert edge.used() == {"basic": 2, "v1": 2, "burst-credits": 0}
    edge.passes_time(65)
    assert [(await asks(client)).status for _ in range(3)] == [200, 200, 429]
    assert edge.used() == {"basic": 3, "v1": 2, "burst-credits": 1}
    is_limited(await asks(client), "v1")


async def test_slots_are_not_bought_off(edge: Edge) -> None:
    plan(edge, concurrency=1)
    await edge.upstream.rests()
    await asked(edge)
    client = await edge.client()
    is_limited(await asks(client), "concurrency")
    assert edge.used() == {"concurrency": 1, "burst-credits": 0}


# ---- other configurations


async def test_saved_burst_credits_survive_a_reload(edge: Edge) -> None:
    client = await edge.client()
    for _ in range(5):
        await asks(client)
    assert edge.used() == {"basic": 3, "burst-credits": 2}
    plan(edge, {"rate": "3/10min"}, burst_credits={"earn": "2/min", "max": 3}, message="another")
    await edge.reloads()
    # Two of three credits are spent, as two of five were.
    statuses = [(await asks(client)).status for _ in range(5)]
    assert statuses == [200, 429, 429, 429, 429]
    plan(edge, {"rate": "3/10min"}, burst_credits="off")
    await edge.reloads()
    is_limited(await asks(client), "basic")


# ---- plans without a limit


async def test_without_limits_they_are_for_when_the_edge_sheds(edge: Edge) -> None:
    plan(edge)
    client = await edge.client()
    for _ in range(7):
        assert (await asks(client)).status == 200
    assert edge.used() == {"burst-credits": 0}
    Shedding(edge, 1)
    assert [(await asks(client)).status for _ in range(7)] == [200] * 5 + [503] * 2
    assert edge.used() == {"burst-credits": 5}
    assert edge.count("edge_shed_total", "0") == 2
    assert (await asks(client, key=UNLIMITED)).status == 503
    edge.runtime.overload.shedding = False
    assert (await asks(client)).status == 200
