"""Sessions: messages of a WebSocket count as they pass, over HTTP/1.1 and HTTP/2, and limits hold between answers."""

import json
from base64 import b64encode
from typing import Any, Protocol

import pytest
from h2.events import DataReceived

from tests.edge.body_usage.test_dialects import ANSWERS
from tests.edge.body_usage.test_messages import frame
from tests.support.http2_wire import http2, opens_websocket
from tests.support.transcript import KEY, Edge, get, head
from tests.support.wire import Wire

CLOSE = b"\x88\x02\x03\xf0"
"""The close frame of a session with the status 1008 (RFC 6455 section 7.4.1): a policy is violated."""
FIELDS = (
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    f"Sec-WebSocket-Key: {b64encode(b'0' * 16).decode()}",
)
USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
DONE = {
    "realtime": {"type": "response.done", "response": {"status": "completed", "usage": USAGE}},
    "responses": {"type": "response.completed", "response": {"object": "response", "model": "m", "usage": USAGE}},
}
LIMITS: dict[str, dict[str, Any]] = {
    "limit": {"limits": [{"name": "tokens", "rate": "12/min", "of": "out", "reserve": 1}]},
    "quota": {"quotas": [{"meter": "out", "per": "day", "included": 12, "cap": "hard"}]},
}


class Session(Protocol):
    """The client's side and the service's side of a session."""

    upstream: Wire

    async def gets(self, size: int) -> bytes:
        """The next bytes that the client gets."""


class UpgradedSession:
    """A session that HTTP/1.1 was upgraded to."""

    def __init__(self, client: Wire, upstream: Wire) -> None:
        self.client, self.upstream = client, upstream

    async def gets(self, size: int) -> bytes:
        return await self.client.gets_bytes(size)


class StreamedSession:
    """A session over a stream of HTTP/2 (RFC 8441)."""

    def __init__(self, client: Any, number: int, upstream: Wire) -> None:
        self.client, self.number, self.upstream = client, number, upstream
        self.held = b""

    async def gets(self, size: int) -> bytes:
        while len(self.held) < size:
            self.held += (await self.client.next_event(self.number, DataReceived)).data
        data, self.held = self.held[:size], self.held[size:]
        return data


async def opens(edge: Edge, protocol: str, path: str = "/v1/realtime") -> Session:
    if protocol == "HTTP/2":
        client = await http2(edge)
        fields = ("x-api-key", KEY), ("sec-websocket-version", "13")
        number, upstream = await opens_websocket(edge, client, *fields[:1], path=path)
        return StreamedSession(client, number, upstream)
    wire = await edge.client()
    await wire.sends(get(path, f"X-API-Key: {KEY}", *FIELDS))
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(head("HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"))
    assert (await wire.gets_head()).status == 101
    return UpgradedSession(wire, upstream)


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def edge(edge: Edge, protocol: str) -> Edge:
    edge.config["meters"] = {"in": {"count": "input_tokens"}, "out": {"count": "output_tokens"}}
    (route,) = (route for route in edge.config["routes"] if route["path"] == "/v1/*")
    route |= {"response_usage": "openai", "upgrade": ["websocket"]}
    if protocol == "HTTP/2":
        edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    return edge


def counted(edge: Edge) -> dict[str, int]:
    assert edge._supervisor is not None
    return {row[1]: row[3] for row in edge._supervisor.usage_totals() if row[0] == "acme" and row[3]}


@pytest.mark.parametrize("kind", DONE)
@pytest.mark.parametrize("limit", LIMITS)
async def test_limit_ends_a_session_between_its_answers_and_refuses_the_next(
    edge: Edge, protocol: str, kind: str, limit: str
) -> None:
    edge.config["tiers"]["basic"] = LIMITS[limit]
    session = await opens(edge, protocol)
    done = frame(json.dumps(DONE[kind]).encode())
    for number in (1, 2):
        await session.upstream.sends(done)
        assert await session.gets(len(done)) == done
        assert counted(edge) == {"in": 10 * number, "out": 5 * number}
    await session.upstream.sends(done)
    assert await session.gets(len(done + CLOSE)) == done + CLOSE
    assert (await session.upstream.gets_bytes(8))[:2] == b"\x88\x82"
    if protocol == "HTTP/1.1":
        client = await edge.client()
        await client.sends(get("/v1/realtime", f"X-API-Key: {KEY}", *FIELDS))
        assert (await client.gets_answer()).status == 429


@pytest.mark.parametrize("step", [None, 1])
async def test_recorded_messages_count_over_either_protocol(edge: Edge, protocol: str, step: int | None) -> None:
    (route,) = (route for route in edge.config["routes"] if route["path"] == "/v1/*")
    recorded = [answer for answer in ANSWERS if answer["type"] == "websocket"]
    assert recorded
    route["response_usage"] = "any"
    session = await opens(edge, protocol)
    expected = {"in": 0, "out": 0}
    for answer in recorded:
        message = frame(answer["body"].encode())
        for at in range(0, len(message), step or len(message)):
            await session.upstream.sends(message[at : at + (step or len(message))])
        assert await session.gets(len(message)) == message
        expected["in"] += answer["counts"]["input_tokens"] or 0
        expected["out"] += answer["counts"]["output_tokens"] or 0
        assert counted(edge) == {name: number for name, number in expected.items() if number}
