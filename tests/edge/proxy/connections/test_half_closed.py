"""Clients that have closed their sending side: some wait for their answer, and others are gone."""

from typing import Any

import pytest

from edgeproxy.edge.proxy.connections import probe_schedule
from edgeproxy.edge.proxy.transport import deadlines
from tests.support.transcript import Edge, get, head, ok, post

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def probe_count(client: Any) -> int:
    """Return the number of probes of this client."""
    return 0 if client._probes is None else client._probes.count


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes come a hundred times as soon."""
    monkeypatch.setattr(probe_schedule, "PROBE_SECONDS", (0.01, 0.02, 0.04, 0.08, 0.16))


async def test_closed_client_frees_its_upstream(edge: Edge) -> None:
    client, upstream = await edge.forwards(get())
    client.closes()
    await upstream.gets_cut()
    await edge.until(lambda: not edge.runtime.connections.clients)
    assert edge.endpoint().outstanding == 0


async def test_a_client_that_waits_is_probed_a_few_times_and_gets_its_answer(edge: Edge) -> None:
    client, upstream = await edge.forwards(get())
    client.sends_eof()
    for _ in probe_schedule.PROBE_SECONDS:
        await client.gets(CONTINUE)
    (held,) = edge.runtime.connections.clients
    assert probe_count(held) == len(probe_schedule.PROBE_SECONDS)
    held.send_probe(held._probes.due + 3600)
    assert (await upstream.tells(client, ok())).status == 200
    await client.gets_eof()
    await edge.until(lambda: not edge.runtime.connections.half_closed)


async def test_a_client_that_is_answered_soon_is_not_probed(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_schedule, "PROBE_SECONDS", (3600.0,))
    client, upstream = await edge.forwards(get())
    client.sends_eof()
    await edge.until(lambda: edge.runtime.connections.half_closed)
    (held,) = edge.runtime.connections.clients
    held.send_probe(held._probes.due - 1)
    assert (await upstream.tells(client, ok())).status == 200
    await client.gets_eof()


async def test_a_client_of_http_1_0_is_not_probed(edge: Edge) -> None:
    client, upstream = await edge.forwards(head("GET /public/ HTTP/1.0", "Host: h"))
    client.sends_eof()
    await edge.until(lambda: edge.runtime.connections.half_closed)
    (held,) = edge.runtime.connections.clients
    held.send_probe(held._probes.due + 3600)
    assert probe_count(held) == 0
    assert (await upstream.tells(client, ok())).status == 200
    await client.gets_eof()


async def test_closed_stream_reader_frees_its_upstream(edge: Edge) -> None:
    """As one of server-sent events between two of them."""
    client, upstream = await edge.forwards(get())
    await upstream.sends(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"), b"5\r\nevent\r\n")
    await client.gets_head()
    await client.gets(b"5\r\nevent\r\n")
    client.closes()
    await upstream.gets_cut()
    await edge.until(lambda: not edge.runtime.connections.clients)


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", "X-Until: the end"])
async def test_half_closed_stream_reader_gets_the_whole_stream(edge: Edge, framing: str) -> None:
    client, upstream = await edge.forwards(get())
    event = b"5\r\nevent\r\n" if "chunked" in framing else b"event"
    await upstream.sends(head("HTTP/1.1 200 OK", framing), event)
    answer = await client.gets_head()
    await client.gets(b"5\r\nevent\r\n")
    client.sends_eof()
    (held,) = edge.runtime.connections.clients
    await edge.until(lambda: probe_count(held) == 2)
    await upstream.sends(event)
    await edge.until(lambda: probe_count(held) == len(probe_schedule.PROBE_SECONDS))
    if "chunked" in framing:
        await upstream.sends(b"0\r\n\r\n")
    else:
        upstream.closes()
    await client.gets_chunks(answer)
    assert answer.body == b"event"
    await client.gets_eof()


async def test_a_reader_of_a_known_length_is_not_probed(edge: Edge) -> None:
    client, upstream = await edge.forwards(get())
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 10"), b"hello")
    await client.gets_head()
    await client.gets(b"hello")
    client.sends_eof()
    await edge.until(lambda: edge.runtime.connections.half_closed)
    (held,) = edge.runtime.connections.clients
    held.send_probe(held._probes.due + 3600)
    await upstream.reaches(client, b"world")
    await client.gets_eof()


async def test_reset_after_a_half_close_frees_the_upstream(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_schedule, "PROBE_SECONDS", (3600.0,))
    client, upstream = await edge.forwards(get())
    client.sends_eof()
    await edge.until(lambda: edge.runtime.connections.half_closed)
    client.aborts()
    await upstream.gets_cut()


async def test_the_upstream_hears_at_once_of_a_client_that_left(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """No sweep is waited for, nor a second probe."""
    monkeypatch.setattr(probe_schedule, "PROBE_SECONDS", (0.01, 3600.0))
    monkeypatch.setattr(deadlines, "SWEEP_SECONDS", 3600.0)
    client, upstream = await edge.forwards(get())
    client.closes()
    await upstream.gets_cut()
    await edge.until(lambda: not edge.runtime.connections.clients)


async def test_reset_of_a_half_closed_client_is_noticed_without_a_probe(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_schedule, "PROBE_SECONDS", (3600.0,))
    monkeypatch.setattr(deadlines, "SWEEP_SECONDS", 3600.0)
    first, upstream = await edge.forwards(get())
    other, others = await edge.forwards()
    for client in (first, other):
        client.sends_eof()
    await edge.until(lambda: len(edge.runtime.connections.half_closed) == 2)
    first.aborts()
    await upstream.gets_cut()
    assert (await others.tells(other, ok())).status == 200
    await other.gets_eof()


async def test_resumed_reading_after_a_half_close_loses_no_answer(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transport reports the end once more at each resumption."""
    monkeypatch.setattr(probe_schedule, "PROBE_SECONDS", (3600.0,))
    client, upstream = await edge.forwards(get() + get())
    client.sends_eof()
    await edge.until(lambda: edge.runtime.connections.half_closed)
    (held,) = edge.runtime.connections.clients
    held.pause_reading()
    held.resume_reading()
    await edge.settles()
    assert (await upstream.tells(client, ok())).status == 200
    await upstream.gets_head()
    assert (await upstream.tells(client, ok())).status == 200
    await client.gets_eof()


async def test_incomplete_body_behind_a_served_request_frees_both_connections(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_schedule, "PROBE_SECONDS", (3600.0,))
    client, upstream = await edge.forwards(get() + post(b"whole")[:-1])
    client.sends_eof()
    await edge.until(lambda: edge.runtime.connections.half_closed)
    assert (await upstream.tells(client, ok())).status == 200
    await upstream.gets_cut()
    await client.gets_eof()
