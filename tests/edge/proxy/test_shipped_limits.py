"""Each limit that is shipped, once it is used up: the routes of config/ and of `init` that answer 429 then."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from edgeproxy import cli
from loadtest.testbed.process import ROOT
from tests.edge.proxy.asking import asks
from tests.support.http2_wire import http2
from tests.support.transcript import Edge, digest, head, ok, post
from tests.support.wire import Message

CONFIG = ROOT / "config"
PATHS = {
    "anything": "/anything/x",
    "get": "/get",
    "post": "/post",
    "status": "/status/200",
    "priced": "/response-headers",
    "stream": "/stream/1",
    "bytes": "/bytes/1",
    "headers": "/headers",
    "ip": "/ip",
}
KEYED = ["anything", "bytes", "get", "post", "priced", "status", "stream"]
WORK = ["anything", "post", "priced", "stream"]
REFUSED = {
    "rate": KEYED,
    "rate on trial": [],
    "concurrency": WORK,
    "executions a day": WORK,
    "cap of a request": [],
    "cap of a day": WORK,
    "cap of a session": WORK,
    "route": ["stream"],
    "plan: agent_executions": WORK,
    "plan: api_calls": WORK,
    "plan: llm_tokens": WORK,
    "key budget of executions": WORK,
    "anonymous": ["headers", "ip"],
}
"""The routes that answer 429, by the limit that is used up. Only rates refuse reads, for a minute."""
ROUTE_REQUESTS = 4
"""Requests of a customer that a route lets pass here: more than each other limit has of them."""
Status = Callable[[str, str], Awaitable[int]]
"""Returns the status of a request on this route with the key of this limit."""


def read(name: str) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load((CONFIG / name).read_text())
    return settings


def build_tiers() -> dict[str, dict[str, Any]]:
    """The shipped limits, each in a tier of its own, with an amount that is soon used up."""
    shipped, plans = read("tiers.yaml")["tiers"], read("plans.yaml")["plans"]
    free, pro = shipped["free"], shipped["pro"]
    caps = free["caps"]
    named = {"routes": caps["routes"]}
    (executions,) = [quota for quota in free["quotas"] if quota["meter"] == "agent_executions"]
    tiers: dict[str, dict[str, Any]] = {
        "rate": {"limits": [{**free["limits"][0], "rate": "1/min"}]},
        "rate on trial": {"limits": [{**pro["limits"][1], "rate": "1/min", "burst": 1}]},
        "concurrency": {"concurrency": {**free["concurrency"], "max": 1}},
        "executions a day": {"quotas": [{**executions, "included": 0}]},
        "cap of a request": {"caps": {**named, "request": 4}},
        "cap of a day": {"caps": {**named, "day": 1}},
        "cap of a session": {"caps": {**named, "session": "1/60min"}},
        "route": {},
        "anonymous": {**shipped["anonymous"], "limits": [{"rate": "1/min"}]},
        "key budget of executions": {
            "quotas": [{"meter": "agent_executions", "per": "month", "included": 0, "cap": "hard"}]
        },
    }
    for meter, price in plans["free@1"]["meters"].items():
        if "cap" in price and meter not in ("storage_gb", "seats"):  # The collector holds what exists.
            quota = {"meter": meter, "per": "month", "included": 0, "cap": "hard"}
            tiers[f"plan: {meter}"] = {
                "quotas": [{**quota, **{name: price[name] for name in price if name == "routes"}}]
            }
    return tiers


def get_name(limit: str) -> str:
    """The name of a tier and a customer for a limit."""
    return limit.replace(": ", "-").replace(" ", "-")


def configure(edge: Edge) -> None:
    """Give the edge the shipped routes, meters and limits, and a customer with a key for each limit."""
    tiers = build_tiers()
    assert tiers.keys() == REFUSED.keys(), "each limit of the files is tested"
    edge.config["routes"], edge.config["meters"] = read("edge.yaml")["routes"], read("tiers.yaml")["meters"]
    for route in edge.config["routes"]:
        for limit in route.get("limits", ()):
            limit |= {"rate": f"{ROUTE_REQUESTS}/min", "burst": ROUTE_REQUESTS}
    edge.config["tiers"] = {get_name(limit): tier for limit, tier in tiers.items()}
    edge.config["customers"] = {get_name(limit): {"tier": get_name(limit)} for limit in tiers}
    edge.config["keys"] = [
        {"sha256": digest(f"key-{get_name(limit)}"), "customer": get_name(limit), "scopes": ["read"]} for limit in tiers
    ]
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    edge.config["trusted_proxies"] = ["127.0.0.3"]


async def list_refused(ask: Status) -> dict[str, list[str]]:
    """Return the routes that each limit refuses. Open routes have no customer, so requests to them carry no key."""
    refused = {}
    for limit in REFUSED:
        routes = PATHS if limit == "anonymous" else KEYED
        statuses = {route: await ask(limit, route) for route in routes}
        refused[limit] = sorted(route for route, status in statuses.items() if status == 429)
        assert set(statuses.values()) <= {200, 401, 429}, (limit, statuses)
    return refused


async def test_exhausted_limit_refuses_only_its_routes_and_reads_pass(edge: Edge) -> None:
    configure(edge)

    def answer(request: Message) -> bytes:
        return ok(b"", "X-Cost: 1000") if "/response-headers" in request.first else ok()

    edge.upstream.answers(answer)
    client, newer = await edge.client("127.0.0.2"), await http2(edge)

    def fields(limit: str) -> str:
        return "" if limit == "anonymous" else f"key-{get_name(limit)}"

    def method(route: str) -> str:
        return "POST" if route == "post" else "GET"

    async def ask(limit: str, route: str) -> int:
        return (await asks(client, PATHS[route], key=fields(limit), method=method(route))).status

    async def ask_newer(limit: str, route: str) -> int:
        secret = [("x-api-key", fields(limit))] if fields(limit) else []
        return (await newer.asks(PATHS[route], *secret, method=method(route))).status

    used = [("rate", "get"), ("rate on trial", "get"), ("anonymous", "ip"), *[("route", "stream")] * ROUTE_REQUESTS]
    for limit, route in used:
        assert await ask(limit, route) == 200
    for limit in ("cap of a day", "cap of a session"):
        assert await ask(limit, "priced") == 200
    assert await ask_newer("anonymous", "ip") == 200  # From another address.
    busy = await edge.client("127.0.0.2")
    await busy.sends(post(b"x", "/post", f"X-API-Key: {fields('concurrency')}")[:-1])
    await edge.until(edge.in_use, "a request is under way")
    assert await list_refused(ask) == REFUSED
    assert await list_refused(ask_newer) == REFUSED

    await edge.listens_for_questions()
    proxy = await edge.client("127.0.0.3")

    async def ask_for_another(limit: str, route: str) -> int:
        lines = [f"X-Original-Method: {method(route)}", f"X-Original-URI: {PATHS[route]}", "X-Forwarded-For: 127.0.0.2"]
        lines += [f"X-API-Key: {fields(limit)}"] if fields(limit) else []
        return (await proxy.asks(head("GET /v1/authorize HTTP/1.1", "Host: edge.test", *lines))).status

    assert await list_refused(ask_for_another) == REFUSED
    await busy.sends(b"x")
    assert (await busy.gets_answer("POST")).status == 200


async def test_limits_of_init_hold_the_api_and_leave_open_routes(edge: Edge, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    assert CliRunner().invoke(cli.app, ["init", str(folder)]).exit_code == 0
    site = {name: yaml.safe_load((folder / f"{name}.yaml").read_text()) for name in ("edge", "tiers", "plans")}
    free, (plan,) = site["tiers"]["tiers"]["free"], site["plans"]["plans"]["free@1"]["meters"]
    tiers: dict[str, dict[str, Any]] = {
        "rate": {"limits": [{**free["limits"][0], "rate": "1/min"}]},
        "concurrency": {"concurrency": {**free["concurrency"], "max": 1}},
        "plan": {"quotas": [{"meter": plan, "per": "month", "included": 0, "cap": "hard"}]},
        "anonymous": {"limits": [{**site["tiers"]["tiers"]["anonymous"]["limits"][0], "rate": "1/min"}]},
    }
    assert free.keys() == {"limits", "concurrency", "analytics"}, "each limit of the tier is tested above"
    edge.config |= {"routes": site["edge"]["routes"], "meters": site["tiers"]["meters"], "tiers": tiers}
    edge.config["customers"] = {limit: {"tier": limit} for limit in tiers}
    edge.config["keys"] = [{"sha256": digest(f"key-{limit}"), "customer": limit} for limit in tiers]
    edge.upstream.answers(lambda request: ok())
    client, busy = await edge.client("127.0.0.2"), await edge.client("127.0.0.2")

    async def ask(path: str, limit: str) -> int:
        return (await asks(client, path, key="" if limit == "anonymous" else f"key-{limit}")).status

    assert await ask("/v1/x", "rate") == 200
    await busy.sends(post(b"x", "/v1/x", "X-API-Key: key-concurrency")[:-1])
    await edge.until(edge.in_use, "a request is under way")
    for limit in ("rate", "concurrency", "plan"):
        assert await ask("/v1/x", limit) == 429, limit
    assert [await ask("/public/x", "anonymous") for _ in range(2)] == [200, 429]
    await busy.sends(b"x")
    assert (await busy.gets_answer("POST")).status == 200
    assert await ask("/v1/x", "concurrency") == 200
