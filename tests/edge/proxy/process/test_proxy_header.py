"""Connections that begin with a header of the PROXY protocol, version 1 or 2."""

import struct
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.proxy.transport.proxy_header import (
    LOCAL,
    PROXY,
    SIGNATURE,
    V2_BYTES_MAX,
    InvalidProxyHeaderError,
    ProxyHeader,
    format_proxy_header,
    parse_proxy_header,
)
from tests.edge.proxy.authority import Authority
from tests.edge.proxy.tls_wire import TlsWire
from tests.support.transcript import Edge, get, ok

LINE = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n"


def binary(source: str = "192.0.2.7", *, command: int = PROXY, more: bytes = b"") -> bytes:
    """Return a header of version 2 with `more` extensions behind its addresses."""
    address = ip_address(source)
    target = ip_address("198.51.100.1" if isinstance(address, IPv4Address) else "2001:db8::1")
    family = 0x11 if isinstance(address, IPv4Address) else 0x21
    body = address.packed + target.packed + struct.pack(">HH", 40000, 443) + more
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


# ---- the parser


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (LINE, "192.0.2.7"),
        (b"PROXY TCP6 2001:0DB8:0::7 2001:db8::1 1 65535\r\n", "2001:db8::7"),
        (binary(), "192.0.2.7"),
        (binary("2001:db8::7", more=bytes(300)), "2001:db8::7"),
        (binary(command=LOCAL), None),
        (SIGNATURE + struct.pack(">BBH", LOCAL, 0, 0), None),
    ],
)
def test_header_is_read_whole_and_cut_at_each_byte(data: bytes, source: str | None) -> None:
    for end in range(len(data)):
        assert parse_proxy_header(data[:end]) is None
    for rest in (b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01"):
        assert parse_proxy_header(data + rest) == ProxyHeader(source, len(data))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (get(), "no header"),
        (b"\x16\x03\x01\x02\x00", "no header"),
        (b"PROXY UNKNOWN\r\n", "does not know"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 040000 443\r\n", "cannot be read"),
        (b"PROXY TCP4 192.0.2.7  198.51.100.1 40000 443\r\n", "cannot be read"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\n", "cannot be read"),
        (b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 65536\r\n", "port"),
        (b"PROXY TCP4 192.0.2.777 198.51.100.1 40000 443\r\n", "address that cannot be read"),
        (b"PROXY TCP4 192.0.2.7 2001:db8::1 40000 443\r\n", "another family"),
        (b"PROXY TCP6 192.0.2.7 198.51.100.1 40000 443\r\n", "another family"),
        (b"PROXY TCP4 " + b"1" * 100, "too long"),
        (binary(command=0x22), "not known"),
        (binary(command=0x11), "not known"),
        (SIGNATURE + struct.pack(">BBH", PROXY, 0, 0), "does not know"),
        (SIGNATURE + struct.pack(">BBH", PROXY, 0x12, 12) + bytes(12), "does not know"),
        (SIGNATURE + struct.pack(">BBH", PROXY, 0x21, 12) + bytes(12), "without its addresses"),
        (SIGNATURE + struct.pack(">BBH", PROXY, 0x11, V2_BYTES_MAX), "more than 4096 bytes"),
    ],
)
def test_invalid_header_is_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(InvalidProxyHeaderError, match=why):
        parse_proxy_header(data)


@given(data=st.one_of(st.binary(), st.binary().map(SIGNATURE.__add__), st.binary().map(b"PROXY TCP4 ".__add__)))
def test_any_bytes_yield_a_header_an_error_or_a_wait_for_more(data: bytes) -> None:
    try:
        header = parse_proxy_header(data)
    except InvalidProxyHeaderError:
        return
    assert header is None or header.size <= len(data)


# ---- headers of the edge's own


@given(client=st.ip_addresses(), version=st.sampled_from(["v1", "v2"]), zone=st.sampled_from(["", "%eth0"]))
def test_header_of_the_edge_is_read_as_the_client_that_it_states(
    client: IPv4Address | IPv6Address, version: str, zone: str
) -> None:
    text = str(client) + (zone if client.version == 6 else "")
    mapped = client.ipv4_mapped if isinstance(client, IPv6Address) else None
    header = format_proxy_header(version, text)
    assert parse_proxy_header(header + b"GET") == ProxyHeader(str(mapped or client), len(header))
    assert (header[:5] == b"PROXY") == (version == "v1")


@pytest.mark.parametrize("client", [None, "unix:", ""])
def test_header_without_a_client_states_none(client: str | None) -> None:
    assert format_proxy_header("v1", client) == b"PROXY UNKNOWN\r\n"
    assert parse_proxy_header(format_proxy_header("v2", client)) == ProxyHeader(None, 16)


# ---- connections


@pytest.fixture
def proxied(edge: Edge) -> Edge:
    """An edge behind a proxy at 127.0.0.2, which sends headers."""
    edge.config["trusted_proxies"] = ["127.0.0.2"]
    edge.config["listen"] = {"address": "127.0.0.1:0", "proxy_protocol": True}
    return edge


@pytest.mark.parametrize("header", [LINE, binary()])
@pytest.mark.parametrize("is_split", [False, True])
async def test_client_of_the_header_is_the_client_of_the_request(proxied: Edge, header: bytes, is_split: bool) -> None:
    client = await proxied.client("127.0.0.2")
    if is_split:
        await client.sends(header[:9])
        await proxied.until(lambda: proxied.runtime.connections.handshakes)
        await client.sends(header[9:])
        await client.sends(get("/public/", "X-Forwarded-For: 203.0.113.9"))
    else:
        await client.sends(header + get("/public/", "X-Forwarded-For: 203.0.113.9"))
    upstream = await proxied.upstream.accepts()
    request = await upstream.gets_request()
    # The client is no trusted proxy, so its own statement is dropped.
    assert request["X-Forwarded-For"] == "192.0.2.7"
    assert (await upstream.tells(client, ok())).status == 200
    assert proxied.count("edge_connections", "client") == 1
    client.closes()
    await proxied.until(lambda: proxied.count("edge_connections", "client") == 0)


async def test_header_precedes_tls(proxied: Edge, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issues("edge.test")
    proxied.config["listen"]["tls"] = {"cert": str(cert), "key": str(key)}
    plain = await proxied.client("127.0.0.2")
    await plain.sends(binary(more=b"\x20\x00\x05\x01\0\0\0\0"))
    proxied.clients.remove(plain)
    client = TlsWire(plain._end, authority.trusted(), name="edge.test")
    proxied.clients.append(client)
    await client.shakes_hands()
    await client.sends(get())
    upstream = await proxied.upstream.accepts()
    assert (await upstream.gets_request())["X-Forwarded-For"] == "192.0.2.7"
    assert (await upstream.tells(client, ok())).status == 200


async def test_health_check_of_the_proxy_has_the_proxy_s_address(proxied: Edge) -> None:
    client = await proxied.client("127.0.0.2")
    await client.sends(binary(command=LOCAL) + get())
    upstream = await proxied.upstream.accepts()
    assert (await upstream.gets_request())["X-Forwarded-For"] == "127.0.0.2"
    assert (await upstream.tells(client, ok())).status == 200


@pytest.mark.parametrize(
    ("address", "sent", "reason"),
    [
        ("127.0.0.3", LINE, "network"),
        ("127.0.0.2", get(), "proxy_header"),
        ("127.0.0.2", b"PROXY \0\r\n", "proxy_header"),
    ],
)
async def test_connection_without_a_trusted_header_ends(proxied: Edge, address: str, sent: bytes, reason: str) -> None:
    client = await proxied.client(address)
    with suppress(ConnectionError):  # It may be closed before it has sent.
        await client.sends(sent)
    assert await client.gets_cut() == b""
    assert proxied.count("edge_connections_refused_total", reason) == 1
    await proxied.until(lambda: proxied.count("edge_connections", "client") == 0)


async def test_limits_of_connections_hold_the_client_of_the_header(proxied: Edge) -> None:
    proxied.config["limits"] = {"connections_per_ip": 1}
    first, second, other = [await proxied.client("127.0.0.2") for _ in range(3)]
    assert (await first.asks(LINE + get("/nowhere"))).status == 404
    assert (await second.asks(LINE + get("/nowhere"))).status == 429
    assert (await other.asks(binary("192.0.2.8") + get("/nowhere"))).status == 404


@pytest.mark.parametrize("tls", [False, True])
async def test_refused_client_leaves_the_count_and_ends_no_later(proxied: Edge, tmp_path: Path, tls: bool) -> None:
    """Otherwise refused clients would wear the count of connections down, or a drain would wait for them."""
    proxied.config["networks"] = {"deny": ["192.0.2.0/24"]}
    if tls:
        cert, key = Authority(tmp_path).issues("edge.test")
        proxied.config["listen"]["tls"] = {"cert": str(cert), "key": str(key)}
    served = await proxied.client("127.0.0.2")
    await served.sends(binary("2001:db8::7"))
    connections = proxied.runtime.connections
    await proxied.until(lambda: connections.handshakes if tls else connections.clients)
    for _ in range(3):
        refused = await proxied.client("127.0.0.2")
        with suppress(ConnectionError):  # It may be closed before it has sent.
            await refused.sends(LINE + get())
        assert (await refused.gets_cut() == b"") == tls
        refused.closes()
        await proxied.until(lambda: proxied.count("edge_connections", "client") == 1)
    served.closes()
    await proxied.until(lambda: proxied.count("edge_connections", "client") == 0)
    assert connections._empty.is_set()


async def test_edge_without_room_reads_no_header(proxied: Edge) -> None:
    proxied.config["limits"] = {"connections": 1}
    first, second = [await proxied.client("127.0.0.2") for _ in range(2)]
    assert (await first.asks(LINE + get("/nowhere"))).status == 404
    assert await second.gets_cut() == b""


async def test_late_header_is_given_up(proxied: Edge) -> None:
    proxied.config["limits"] = {"header_timeout": "100ms"}
    client = await proxied.client("127.0.0.2")
    await client.sends(LINE[:9])
    assert await client.gets_cut() == b""
    assert proxied.count("edge_connections_refused_total", "proxy_header") == 1


async def test_drain_shortens_the_wait_for_a_header(proxied: Edge) -> None:
    client = await proxied.client("127.0.0.2")
    await client.sends(LINE[:9])
    await proxied.until(lambda: proxied.runtime.connections.handshakes)
    await proxied.runtime.connections.drain(5.0)
    assert await client.gets_cut() == b""


async def test_each_request_has_a_connection_that_states_its_client(edge: Edge) -> None:
    """A kept connection would state the client of an earlier request."""
    edge.config["upstreams"]["api"]["proxy_protocol"] = "v1"
    first, second = await edge.client("127.0.0.5"), await edge.client("127.0.0.6")
    for client, address in ((first, b"127.0.0.5"), (second, b"127.0.0.6"), (first, b"127.0.0.5")):
        await client.sends(get())
        upstream = await edge.upstream.accepts()
        await upstream.gets(b"PROXY TCP4 %b 0.0.0.0 0 0\r\n" % address)
        await upstream.gets_request()
        assert (await upstream.tells(client, ok())).status == 200
        assert await upstream.gets_cut() == b""


async def test_proxy_of_a_header_may_ask_for_authorization(proxied: Edge) -> None:
    """Proxies may reach the edge through a balancer that states their addresses. Others are refused as ever."""
    proxied.config["trusted_proxies"] = ["127.0.0.2", "192.0.2.7"]
    proxied.config["listen"]["authorize"] = "path"
    for source, status in (("192.0.2.7", 200), ("192.0.2.8", 403)):
        client = await proxied.client("127.0.0.2")
        answer = await client.asks(binary(source) + get("/v1/authorize/public/", "X-Forwarded-For: 203.0.113.9"))
        assert answer.status == status
