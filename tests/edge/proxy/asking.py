"""Requests of customers with a plan, and checks of refusals."""

import json
import re
from typing import Any

from tests.support.transcript import KEY, Edge, head
from tests.support.wire import Message, Wire


def request(path: str = "/v1/x", *fields: str, key: str = KEY, method: str = "GET") -> bytes:
    """Return a request without a body, with this key, or without a key if it is empty."""
    return head(f"{method} {path} HTTP/1.1", "Host: edge.test", *([f"X-API-Key: {key}"] if key else []), *fields)


async def asks(client: Wire, path: str = "/v1/x", *fields: str, key: str = KEY, method: str = "GET") -> Message:
    """Send a request over an open connection and return the answer."""
    return await client.asks(request(path, *fields, key=key, method=method), to=method)


async def asked(edge: Edge, data: bytes = b"", address: str = "127.0.0.1") -> tuple[Wire, Wire]:
    """Send a request from a new client. Return the client and the upstream's connection after the head."""
    client = await edge.client(address)
    await client.sends(data or request())
    upstream = await edge.upstream.accepts()
    await upstream.gets_head()
    return client, upstream


def limited(edge: Edge, *limits: dict[str, Any], tier: str = "basic", **besides: Any) -> None:
    """Set the limits of a tier."""
    edge.config["tiers"][tier] = {"limits": list(limits), **besides}


def is_limited(answer: Message, *policies: str) -> dict[str, Any]:
    """Check a 429 that names these policies. Return its parsed body."""
    said = is_problem(answer, 429)
    assert said["violated-policies"] == list(policies)
    assert said["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert int(answer["Retry-After"]) >= 1
    assert said == json.loads(answer.body)
    return said


def is_problem(answer: Message, status: int) -> dict[str, object]:
    """Check an error of the edge (RFC 9457). Return its parsed body."""
    assert answer.status == status
    assert answer["Content-Type"] == "application/problem+json"
    body = json.loads(answer.body)
    assert set(body) >= {"type", "title", "status", "detail", "instance"}
    assert body["status"] == status
    assert body["instance"] == answer["X-Request-Id"]
    assert body["type"]
    assert body["title"]
    assert body["detail"]
    return dict(body)


def left(answer: Message) -> tuple[str, int, int]:
    """Return (policy, remaining, seconds) of the RateLimit field."""
    match = LEFT.fullmatch(answer["RateLimit"])
    assert match is not None, answer["RateLimit"]
    return match[1], int(match[2]), int(match[3])


LEFT = re.compile(r'"([A-Za-z0-9_-]+)";r=(\d+);t=(\d+)')
