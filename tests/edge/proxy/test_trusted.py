"""Behind trusted proxies: whom they speak for is believed, and only that."""

from typing import Any

import pytest

from tests.support.transcript import Edge, get, head, ok
from tests.support.wire import Message


@pytest.fixture
def edge(edge: Edge) -> Edge:
    """Every client here is a proxy that is trusted."""
    edge.config["trusted_proxies"] = ["127.0.0.0/8", "10.0.0.0/8"]
    return edge


async def passes(edge: Edge, *fields: str, path: str = "/public/x") -> tuple[Message, Message]:
    return await edge.passes(head(f"GET {path} HTTP/1.1", "Host: edge.test", *fields), ok())


async def test_invalid_request_id_is_replaced(edge: Edge) -> None:
    for id_ in ("", "a b", "x" * 129, "ü"):
        request, answer = await passes(edge, f"X-Request-Id: {id_}")
        assert request["X-Request-Id"] == answer["X-Request-Id"] != id_
        assert len(request["X-Request-Id"]) == 36


async def test_the_proxys_request_id_is_in_errors_too(edge: Edge) -> None:
    answer = await edge.refuses(get("/nowhere", "X-Request-Id: from-the-proxy"))
    assert answer["X-Request-Id"] == "from-the-proxy"
    assert b'"instance":"from-the-proxy"' in answer.body


async def test_each_request_of_a_connection_is_its_own_clients(edge: Edge) -> None:
    """A proxy sends many clients' requests over one connection, often with equal other fields."""
    edge.upstream.answers(lambda request: ok(request["X-Forwarded-For"].encode()))
    client = await edge.client()
    for name in ("192.0.2.1", "192.0.2.2", None, "192.0.2.1"):
        text = (await client.asks(get("/public/", *([f"X-Forwarded-For: {name}"] if name else [])))).body.decode()
        assert text == (f"{name}, 127.0.0.1" if name else "127.0.0.1")


async def test_the_guard_counts_the_client_and_not_the_proxy(edge: Edge) -> None:
    edge.config["per_ip"] = {"rate": "2/min"}
    edge.upstream.answers(lambda request: ok())
    client = await edge.client()

    async def asks(*fields: str) -> int:
        return (await client.asks(get("/public/", *fields))).status

    one, other = "X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2"
    assert [await asks(one) for _ in range(3)] == [200, 200, 429]
    assert [await asks(other) for _ in range(3)] == [200, 200, 429]
    # A client's own entries are further left, so they have no effect.
    assert await asks("X-Forwarded-For: 198.51.100.1, 192.0.2.1") == 429
    # All that an access network gives one customer is one.
    assert await asks("X-Forwarded-For: 2001:db8::1") == 200
    assert await asks("X-Forwarded-For: 2001:db8::2") == 200
    assert await asks("X-Forwarded-For: 2001:db8::3") == 429


async def test_the_memory_of_heads_does_not_mix_trusted_and_other_peers(edge: Edge) -> None:
    """Equal bytes have one meaning from a proxy and another from other peers."""
    edge.config["trusted_proxies"] = ["127.0.0.2/32"]
    edge.upstream.answers(lambda request: ok(request["X-Forwarded-For"].encode()))
    asked = get("/public/", "X-Forwarded-For: 192.0.2.1")

    async def said(**address: Any) -> bytes:
        client = await edge.client(**address)
        return (await client.asks(asked)).body

    for _ in range(2):
        assert await said() == b"127.0.0.1"
        assert await said(address="127.0.0.2") == b"192.0.2.1, 127.0.0.2"
