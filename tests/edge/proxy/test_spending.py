"""Customers' spending limits: per request, per day and per session."""

import json
from typing import Any

import pytest

from edgeproxy.config.meters import OVER_CAP
from edgeproxy.edge.counters.index import TableFullError
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.metering.meters import CappedCounter
from tests.edge.proxy.asking import asks
from tests.support.transcript import Edge, ok

COST = {"cost": {"count": "response_header", "header": "X-Cost"}}


def capped(edge: Edge, caps: dict[str, Any], **route: Any) -> None:
    """These are the caps of the tier `basic`, and each answer has cost 400."""
    edge.config["meters"] = COST
    edge.config["tiers"]["basic"] = {"limits": [{"rate": "100000/60min"}], "caps": caps}
    edge.config["routes"][0].update(route)
    edge.upstream.answers(lambda _: ok(b"", "X-Cost: 400"))


@pytest.mark.parametrize(("caps", "name"), [({"session": "1000/60min"}, "session"), ({"day": 1000}, "cost-day")])
async def test_cap_refuses_once_the_costs_of_answers_reach_it(edge: Edge, caps: dict[str, Any], name: str) -> None:
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


@pytest.mark.parametrize(("most", "above"), [(400, {}), (300, {("acme", OVER_CAP, "v1"): 200})])
async def test_request_above_its_cap_counts_in_full_and_records_the_excess(
    edge: Edge, most: int, above: dict[tuple[str, str, str], int]
) -> None:
    capped(edge, {"request": most}, cost=300)
    client = await edge.client()
    assert [(await asks(client)).status for _ in range(2)] == [200, 200]
    assert edge.usage() == {("acme", "cost", "v1"): 800, **above}


async def test_cap_counts_answers_split_by_model(edge: Edge) -> None:
    capped(edge, {"request": 300})
    edge.config["meters"] = {"cost": {**COST["cost"], "dimensions": {"model": {"header": "X-Model", "values": 5}}}}
    edge.upstream.answers(lambda _: ok(b"", "X-Cost: 400", "X-Model: m1"))
    assert (await asks(await edge.client())).status == 200
    assert edge._supervisor is not None
    counted = sorted(row for row in edge._supervisor.usage_totals() if row[3])
    assert counted == [("acme", "cost", "v1", 400, '{"model":"m1"}'), ("acme", OVER_CAP, "v1", 100)]


def test_capped_counter_survives_a_busy_or_full_table() -> None:
    class Tally:
        def __init__(self) -> None:
            self.total = 0

        def add(self, n: int = 1) -> None:
            self.total += n

    counter, above = Tally(), Tally()
    rows: list[Exception | Tally] = [RejectedError(503, "busy"), TableFullError("usage"), above]

    def row() -> Tally:
        found = rows.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    capped = CappedCounter(counter, 300, row)
    for _ in range(3):
        capped.add(400)
    assert (counter.total, above.total) == (1200, 100)
