"""Limits, quotas, caps and meters with a list of routes: the requests that they count and refuse."""

import json
from typing import Any

import pytest

from edgeproxy.config.problems import ConfigError
from tests.edge.proxy.asking import asks, limited
from tests.support.transcript import READER, Edge, ok, post

COST = {"cost": {"count": "response_header", "header": "X-Cost"}}
USAGE = {"usage": {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}}


def add_route(edge: Edge, name: str = "chat", **settings: Any) -> None:
    """There is one more route, of the path /NAME/*."""
    edge.config["routes"].append({"name": name, "path": f"/{name}/*", "upstream": "api", **settings})


async def list_statuses(edge: Edge, *paths: str, key: str | None = None) -> list[int]:
    client = await edge.client()
    more = {} if key is None else {"key": key}
    return [(await asks(client, path, **more)).status for path in paths]


async def test_rate_limit_counts_only_requests_of_its_routes(answering: Edge) -> None:
    add_route(answering)
    limited(answering, {"rate": "2/min", "name": "talk", "routes": ["chat"]}, {"rate": "4/min", "name": "all"})
    statuses = await list_statuses(answering, "/v1/a", "/v1/a", "/chat/a", "/chat/a", "/chat/a")
    assert statuses == [200, 200, 200, 200, 429]
    assert answering.used() == {"talk": 2, "all": 4}


async def test_a_limit_of_a_scope_is_of_the_routes_that_ask_for_it(answering: Edge) -> None:
    limited(answering, {"rate": "1/min", "scopes": ["read"]}, tier="free")
    assert await list_statuses(answering, "/v1/a", "/read/a", "/v1/a", "/read/a", key=READER) == [200, 200, 200, 429]


async def test_a_reload_with_other_routes_restarts_the_count_but_not_spending(
    answering: Edge,
) -> None:
    add_route(answering)
    answering.config["meters"] = COST
    answering.upstream.answers(lambda _: ok(b"", "X-Cost: 1000"))
    caps = {"session": "1000/60min", "routes": ["v1"]}
    limited(answering, {"rate": "1/min", "routes": ["chat"]}, caps=caps)
    assert await list_statuses(answering, "/chat/a", "/chat/a") == [200, 429]
    limited(answering, {"rate": "1/min", "routes": ["ch*"]}, caps=caps | {"routes": ["chat"]})
    await answering.reloads()
    refused = await asks(await answering.client(), "/chat/a")
    assert json.loads(refused.body)["violated-policies"] == ["session"]
    assert await list_statuses(answering, "/v1/a") == [200]


async def test_reload_with_a_renamed_limit_route_fails_and_names_it(answering: Edge) -> None:
    add_route(answering)
    limited(answering, {"rate": "1/min", "routes": ["chat"]})
    assert await list_statuses(answering, "/chat/a", "/chat/a") == [200, 429]
    answering.config["routes"][-1]["name"] = "talk"
    with pytest.raises(ConfigError, match=r"tiers\.basic\.limits\.0\.routes\.0: there is no route chat"):
        await answering.prepares()
    assert await list_statuses(answering, "/chat/a") == [429], "the configuration in use goes on"


@pytest.mark.parametrize(("caps", "name"), [({"session": "1000/60min"}, "session"), ({"day": 1000}, "cost-day")])
async def test_spending_on_all_routes_counts_for_a_cap_of_one_route(
    answering: Edge, caps: dict[str, Any], name: str
) -> None:
    add_route(answering)
    answering.config["meters"] = COST
    limited(answering, {"rate": "100/min"}, caps={**caps, "routes": ["chat"]})
    answering.upstream.answers(lambda _: ok(b"", "X-Cost: 600"))
    client = await answering.client()
    for _ in range(3):
        answer = await asks(client, "/v1/a")
        assert (answer.status, "X-Quota" in answer, "r=9" in answer["RateLimit"]) == (200, False, True)
    refused = await asks(client, "/chat/a")
    assert refused.status == 429
    assert json.loads(refused.body)["violated-policies"] == [name]
    assert answering.usage() == {("acme", "cost", "v1"): 1800}


async def test_a_cap_of_a_request_is_of_its_routes(answering: Edge) -> None:
    answering.config["meters"] = COST
    add_route(answering, cost=5)
    answering.config["routes"][0]["cost"] = 5
    limited(answering, caps={"request": 4, "routes": ["chat"]})
    assert await list_statuses(answering, "/v1/a", "/chat/a") == [200, 429]


async def test_quota_limits_the_routes_of_its_meter_unless_others_are_named(answering: Edge) -> None:
    add_route(answering)
    answering.config["meters"] = {
        "talks": {"count": "requests", "routes": ["chat"]},
        "runs": {"count": "events", "routes": ["read"]},
        "requests": {"count": "requests"},
    }

    def hold(**quota: Any) -> None:
        limited(answering, quotas=[{"per": "day", "cap": "hard", "included": 1, **quota}])

    hold(meter="talks")
    assert await list_statuses(answering, "/chat/a", "/chat/a", "/v1/a", "/v1/a") == [200, 429, 200, 200]
    assert answering.usage() == {
        ("acme", "talks", "chat"): 1,
        ("acme", "requests", "chat"): 1,
        ("acme", "requests", "v1"): 2,
    }
    hold(meter="talks", routes=["v1"])
    await answering.reloads()
    assert await list_statuses(answering, "/chat/a", "/v1/a") == [200, 429]
    hold(meter="runs", included=0)
    await answering.reloads()
    assert await list_statuses(answering, "/chat/a", "/v1/a", "/read/a") == [200, 200, 403]
    hold(meter="requests", included=3, routes=["chat"])
    await answering.reloads()
    assert await list_statuses(answering, "/v1/a", "/v1/a", "/v1/a", "/chat/a") == [200, 200, 200, 429]


async def test_two_quotas_of_one_meter_limit_different_routes_and_charge_once(answering: Edge) -> None:
    add_route(answering)
    quota = {"meter": "requests", "per": "day", "cap": "hard"}
    limited(answering, quotas=[{**quota, "included": 1, "routes": ["chat"]}])
    answering.config["customers"]["acme"]["quotas"] = [
        {**quota, "included": 2, "routes": ["chat"]},
        {**quota, "included": 4, "routes": ["v1"], "timezone": "Europe/Berlin"},
    ]
    assert await list_statuses(answering, "/v1/a", "/v1/a", "/chat/a") == [200, 200, 429]
    assert await list_statuses(answering, "/v1/a", "/v1/a", "/v1/a") == [200, 200, 429]
    assert answering.used() == {"requests-day": 8}, "each quota counts four"


async def test_a_route_that_feeds_two_meters_is_held_by_the_quota_of_each(answering: Edge) -> None:
    answering.config["meters"] = {
        name: {"count": "response_header", "header": f"X-{name}", "routes": ["v1"]} for name in ("in", "out")
    }
    limited(answering, quotas=[{"meter": name, "per": "day", "included": 10, "cap": "hard"} for name in ("in", "out")])
    answering.upstream.answers(lambda _: ok(b"", "X-in: 4", "X-out: 10"))
    refused = (await list_statuses(answering, "/v1/a")), await asks(await answering.client())
    assert json.loads(refused[1].body)["violated-policies"] == ["out-day"]


async def test_token_quota_limits_only_routes_that_report_tokens(answering: Edge) -> None:
    answering.config["meters"] = {"tokens": {"count": "total_tokens"}}
    add_route(answering, response_usage="openai")
    limited(answering, quotas=[{"meter": "tokens", "per": "day", "included": 10, "cap": "hard"}])
    answering.upstream.answers(lambda _: ok(json.dumps(USAGE).encode(), "Content-Type: application/json"))
    assert await list_statuses(answering, "/chat/a", "/chat/a", "/v1/a") == [200, 429, 200]


async def test_concurrency_counts_the_requests_of_its_routes(edge: Edge) -> None:
    add_route(edge)
    limited(edge, concurrency={"max": 1, "routes": ["chat"]})
    edge.upstream.answers(lambda _: ok())
    busy = await edge.client()
    await busy.sends(post(b"x", "/chat/a", "X-API-Key: key-of-acme")[:-1])
    await edge.until(edge.in_use)
    assert await list_statuses(edge, "/v1/a", "/chat/a", "/v1/a") == [200, 429, 200]
    await busy.sends(b"x")
    assert (await busy.gets_answer("POST")).status == 200
