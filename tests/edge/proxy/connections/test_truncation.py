"""Answers delimited by the end of their connection: if the upstream fails, the client must not see a clean end."""

from pathlib import Path

from edgeproxy.edge.proxy.connections.client_states import LAST, RESETTING
from tests.edge.proxy.authority import Authority
from tests.support.transcript import Edge, head
from tests.support.wire import Wire

MIB = 1 << 20
LARGE = bytes(6 * MIB)
"""More than two kernels hold."""
OLD = head("GET /public/ HTTP/1.0", "Host: h")
"""Its client knows no chunks."""


async def begun(edge: Edge, client: Wire, request: bytes) -> Wire:
    """The upstream's side of an answer that has begun, and that its client has had until there."""
    await client.sends(request)
    upstream = await edge.upstream.accepts()
    await upstream.gets_head()
    await upstream.sends(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), b"5\r\nhello\r\n")
    await client.gets_head()
    await client.gets(b"hello")
    return upstream


async def test_an_answer_that_is_not_taken_in_time_ends_with_a_reset(edge: Edge) -> None:
    edge.config["limits"] = {"body_idle": "100ms"}
    client = await edge.client(receives=4096)
    upstream = await begun(edge, client, OLD)
    (held,) = edge.runtime.connections.clients
    held.transport.set_write_buffer_limits(high=16 * MIB)
    await upstream.sends(b"%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE))
    await edge.until(lambda: held.state > LAST)
    assert held.transport.get_write_buffer_size()
    await edge.until(lambda: not edge.runtime.connections.clients)
    await client.gets_reset()


async def test_half_closed_client_gets_a_delayed_reset(edge: Edge) -> None:
    client = await edge.client(receives=4096)
    upstream = await begun(edge, client, OLD)
    (held,) = edge.runtime.connections.clients
    held.transport.set_write_buffer_limits(high=16 * MIB)
    await upstream.sends(b"%x\r\n%b\r\n" % (len(LARGE), LARGE))
    upstream.closes()
    await edge.until(lambda: held.state == RESETTING)
    client.sends_eof()
    assert await client.gets_reset() == LARGE


async def test_half_close_within_a_body_ends_in_a_reset(edge: Edge) -> None:
    client = await edge.client()
    upstream = await begun(edge, client, head("POST /public/ HTTP/1.0", "Host: h", "Content-Length: 9") + b"part")
    client.sends_eof()
    await upstream.gets_cut()
    assert edge.endpoint().outstanding == 0
    await client.gets_reset()


async def test_a_last_word_of_tls_within_an_answer_is_not_returned(edge: Edge, tmp_path: Path) -> None:
    """Its client may have meant no more than the end of its requests (RFC 8446 section 6.1)."""
    authority = Authority(tmp_path)
    cert, key = authority.issues("edge.test")
    edge.config["listen"] = {"address": "127.0.0.1:0", "tls": {"cert": str(cert), "key": str(key)}}
    client = await edge.secure_client(authority.trusted())
    upstream = await begun(edge, client, OLD)
    client.says_last_word()
    await upstream.gets_cut()
    assert edge.endpoint().outstanding == 0
    await client.gets_truncated()
