"""Limits on the number of connections, and the refusal of excess connections."""

import ssl
from pathlib import Path

import pytest

from tests.edge.proxy.authority import Authority
from tests.edge.proxy.second import Second
from tests.support.transcript import Edge, get, ok
from tests.support.wire import Message, Wire


async def turned_away(edge: Edge, address: str = "127.0.0.1") -> Message:
    """Open a connection that the edge refuses. Return its answer after its end."""
    client = await edge.client(address)
    answer = await client.asks(get())
    await client.gets_eof()
    client.closes()
    return answer


async def let_in(edge: Edge, address: str = "127.0.0.1") -> Wire:
    """Open a connection that the edge serves."""
    client = await edge.client(address)
    assert (await client.asks(get("/nowhere"))).status == 404
    return client


async def test_connections_per_ip_bounds_an_address(edge: Edge) -> None:
    edge.config["limits"] = {"connections_per_ip": 3}
    clients = [await let_in(edge) for _ in range(3)]
    answer = await turned_away(edge)
    assert answer.status == 429
    assert answer["Content-Type"] == "application/problem+json"
    assert answer["Retry-After"] == "1"
    assert answer["Connection"] == "close"
    assert f'"instance":"{answer["X-Request-Id"]}"'.encode() in answer.body
    assert edge.count("edge_connections_refused_total", "address") == 1
    assert edge.count("edge_connections", "client") == 3
    await let_in(edge, "127.0.0.2")
    clients[0].closes()
    await edge.until(lambda: edge.count("edge_connections", "client") == 3)
    await let_in(edge)
    assert (await turned_away(edge)).status == 429


async def test_many_idle_connections_of_one_address_do_not_affect_others(edge: Edge) -> None:
    """A small version of a test with five thousand connections. The first and the last one are served normally."""
    edge.upstream.answers(lambda request: ok())
    idle = [await edge.client() for _ in range(700)]
    for client in (await edge.client("127.0.0.2"), idle[0], idle[-1], await edge.client()):
        assert (await client.asks(get())).status == 200
    assert edge.count("edge_connections_refused_total", "address") == 0


async def test_a_new_bound_after_a_reload_counts_open_connections(edge: Edge) -> None:
    clients = [await let_in(edge) for _ in range(3)]
    edge.config["limits"] = {"connections_per_ip": 3}
    await edge.reloads()
    assert (await turned_away(edge)).status == 429
    clients[0].closes()
    await edge.until(lambda: edge.count("edge_connections", "client") == 2)
    await let_in(edge)


async def test_connections_bounds_the_whole_edge(edge: Edge) -> None:
    edge.config["limits"] = {"connections": 3}
    clients = [await let_in(edge, f"127.0.0.{n}") for n in (1, 2, 3)]
    answer = await turned_away(edge, "127.0.0.4")
    assert answer.status == 503
    assert answer["Retry-After"] == "1"
    assert edge.count("edge_connections_refused_total", "total") == 1
    clients[1].closes()
    await edge.until(lambda: edge.count("edge_connections", "client") == 2)
    await let_in(edge, "127.0.0.4")


async def test_a_trusted_proxy_is_not_bound_by_connections_per_ip(edge: Edge) -> None:
    edge.config["limits"] = {"connections_per_ip": 1, "connections": 4}
    edge.config["trusted_proxies"] = ["127.0.0.1"]
    for _ in range(3):
        await let_in(edge)
    await let_in(edge, "127.0.0.2")
    assert (await turned_away(edge, "127.0.0.2")).status == 503
    assert (await turned_away(edge)).status == 503


async def test_unread_input_does_not_destroy_the_refusal(edge: Edge) -> None:
    """A close with unread input resets the connection, which may destroy the answer sent just before."""
    edge.config["limits"] = {"connections_per_ip": 1}
    await let_in(edge)
    client = await edge.client()
    assert (await client.asks(bytes(200_000))).status == 429
    await client.gets_eof()


async def test_a_refused_connection_that_stays_is_cut(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.edge.proxy.process.acceptor.LINGER_SECONDS", 0.05)
    edge.config["limits"] = {"connections_per_ip": 1}
    await let_in(edge)
    client = await edge.client()
    await client.gets_answer()
    (held,) = edge.runtime.connections.limits.lingering
    await edge.until(lambda: held not in edge.runtime.deadlines.timed)
    assert not edge.runtime.connections.limits.lingering


async def test_a_flood_of_connections_is_refused_with_bounded_memory(
    edge: Edge, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edgeproxy.edge.proxy.process.acceptor.LINGERING_MAX", 5)
    edge.config["limits"] = {"connections_per_ip": 1}
    await let_in(edge)
    flood = [await edge.client() for _ in range(50)]
    for client in flood:
        assert (await client.gets_answer()).status == 429
        await client.gets_eof()
    assert len(edge.runtime.connections.limits.lingering) <= 5
    assert len(edge.runtime.connections.clients) == 1
    assert edge.count("edge_connections_refused_total", "address") == 50
    assert "".join(capsys.readouterr()).count("connections refused") == 1


async def test_a_handshake_counts_as_a_connection(edge: Edge, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issues("edge.test")
    edge.config["listen"] = {"address": "127.0.0.1:0", "tls": {"cert": str(cert), "key": str(key)}}
    edge.config["limits"] = {"connections_per_ip": 2}
    silent, inside = await edge.client(), await edge.secure_client(authority.trusted())
    assert edge.count("edge_connections", "client") == 2
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await edge.secure_client(authority.trusted())
    assert edge.count("edge_connections_refused_total", "address") == 1
    assert edge.count("edge_tls_handshake_failures_total") == 0
    silent.closes()
    await edge.until(lambda: edge.count("edge_connections", "client") == 1)
    await edge.secure_client(authority.trusted())
    inside.closes()


# ---- several workers


async def test_a_bound_holds_over_all_workers(edge: Edge) -> None:
    edge.config["limits"] = {"connections_per_ip": 3}
    await let_in(edge)
    second = Second(edge)
    await second.starts()
    there = [await second.client() for _ in range(2)]
    for client in there:
        assert (await client.asks(get("/nowhere"))).status == 404
    assert (await turned_away(edge)).status == 429
    refused = await second.client()
    assert (await refused.gets_answer()).status == 429
    refused.closes()
    there[0].closes()
    await edge.until(lambda: edge.count("edge_connections", "client") == 2)
    await let_in(edge)
    assert (await turned_away(edge)).status == 429
    there[1].closes()
    await second.ends()
