"""Budgets of tokens behind a real edge and a real collector, under concurrency."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from loadtest.testbed.collector import sha256
from loadtest.testbed.customers import key_of
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.models import Models
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import StartCollector
from tests.support.edge_fixtures import start_follower

CHAT = "/v1/chat/completions"
MAX_TOKENS = 60
METERS: dict[str, Any] = {
    "input_tokens": {"count": "input_tokens", "dimensions": {"key": 5, "model": 5}},
    "output_tokens": {"count": "output_tokens", "dimensions": {"key": 5, "model": 5}},
}


@pytest.fixture
def port() -> Iterator[int]:
    with closing(Ports(1)) as ports:
        yield ports.numbers[0]


def build_settings(port: int, **usage: Any) -> dict[str, Any]:
    """An edge before a service that listens here."""
    return {
        "upstreams": {"models": {"endpoints": [f"http://{HOST}:{port}"]}},
        "routes": [
            {"name": "models", "path": "/v1/*", "upstream": "models", "response_usage": {"format": "any", **usage}}
        ],
        "meters": METERS,
    }


async def ask(session: aiohttp.ClientSession, edge: Edge, **more: Any) -> tuple[int, bytes]:
    body = {"model": "gpt-1", "max_tokens": MAX_TOKENS, "messages": [{"role": "user", "content": "one two"}], **more}
    headers = {"Authorization": f"Bearer {key_of('acme')}", "Accept-Encoding": "identity"}
    async with session.post(f"http://{HOST}:{edge.port}{CHAT}", json=body, headers=headers) as answer:
        return answer.status, await answer.read()


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_concurrent_calls_exceed_a_key_budget_by_one_reservation_at_most(
    tmp_path: Path, port: int, start_collector: StartCollector, start_edge: StartEdge
) -> None:
    collector, edge = start_follower(tmp_path, start_collector, start_edge, tiers={"basic": {}}, **build_settings(port))
    assert collector.send("POST", "/v1/customers", {"name": "acme", "tier": "basic"}).status == 201
    budget = {"amount": 100, "per": "day", "meter": "output_tokens"}
    key = {"sha256": sha256(key_of("acme")), "name": "acme", "budget": budget}
    created = collector.send("POST", "/v1/customers/acme/keys", key)
    assert created.status == 201, created
    fields = {"Authorization": f"Bearer {key_of('acme')}"}
    until(lambda: edge.ask("/v1/models", fields=fields).status != 401, "the key is known")

    async def ask_at_once(models: Models) -> list[int]:
        async with models.open(port), aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            async with asyncio.timeout(60):
                answers = []
                for _ in range(4):
                    answers += await asyncio.gather(
                        *[ask(session, edge, stream=True, stream_options={"include_usage": True}) for _ in range(20)]
                    )
        return [status for status, _ in answers]

    models = Models(pause=0.002)
    statuses = asyncio.run(ask_at_once(models))
    assert set(statuses) == {200, 429}
    served = statuses.count(200) * MAX_TOKENS
    assert budget["amount"] <= served <= budget["amount"] + MAX_TOKENS
    path = "/v1/customers/acme/key-budgets"
    until(
        lambda: collector.get(path, token="admin-token").json()["budgets"][0]["used"] == served,
        "the ledger has the same",
    )
