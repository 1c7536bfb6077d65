"""What customers may spend: by a request, in a day, and in any session."""

import json
from typing import Any

import pytest

from tests.proxy.asking import asks
from tests.support.transcript import Edge, ok

COST = {"cost": {"count": "response_header", "header": "X-Cost"}}


def capped(edge: Edge, caps: dict[str, Any], **route: Any) -> None:
    """These are the caps of the tier `basic`, and each answer has cost 400."""
    edge.config["meters"] = COST
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "100000/60min"}], "caps": caps}
    edge.config["routes"][0].update(route)
    edge.upstream.answers(lambda _: ok(b"", "X-Cost: 400"))


@pytest.mark.parametrize(("caps", "name"), [({"session": "1000/60min"}, "session"), ({"day": 1000}, "cost-day")])
async def test_what_answers_cost_is_spent_until_nothing_is_left(edge: Edge, caps: dict[str, Any], name: str) -> None:
    capped(edge, caps)
    client = await edge.client()
    for _ in range(3):
        answer = await asks(client)
        assert (answer.status, "X-Cost" in answer) == (200, False)
    refused = await asks(client)
    assert refused.status == 429
    assert json.loads(refused.body)["violated-policies"] == [name]
    assert int(refused["Retry-After"]) > 0
    assert edge.usage() == {("acme", "cost", "v1"): 1200}


async def test_a_request_that_costs_too_much_is_refused_at_any_time(edge: Edge) -> None:
    capped(edge, {"request": 500}, cost=501)
    refused = await asks(await edge.client())
    assert refused.status == 429
    assert json.loads(refused.body)["violated-policies"] == ["request"]
    assert "Retry-After" not in refused


async def test_one_that_may_turn_out_dearer_passes_and_counts_in_full(edge: Edge) -> None:
    capped(edge, {"request": 300}, cost=300)
    assert (await asks(await edge.client())).status == 200
    assert edge.usage() == {("acme", "cost", "v1"): 400}
