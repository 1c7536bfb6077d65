"""A worker that leaves: it finishes what it has begun, takes what is queued, and tells its clients."""

import asyncio
import socket
from time import monotonic

import pytest

from edgeproxy.tasks import Tasks
from tests.proxy.test_backpressure import narrow
from tests.proxy.test_tunnel import tunnel
from tests.proxy.transcript import UNLIMITED, Edge, chunks, get, head, ok, post
from tests.proxy.wire import Wire


@pytest.fixture(autouse=True)
def moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeproxy.proxy.client.LAST_MOMENT", 0.05)


class Drain:
    """A drain that goes on beside the test."""

    def __init__(self, edge: Edge, seconds: float = 5.0) -> None:
        self._tasks = Tasks()
        self._task = self._tasks.start("drain", edge.worker.drain(seconds))

    @property
    def done(self) -> bool:
        return self._task.done()

    async def ends(self) -> None:
        async with asyncio.timeout(5):
            await self._task


async def asked(edge: Edge, request: bytes = b"") -> tuple[Wire, Wire]:
    client = await edge.client()
    await client.sends(request or get())
    upstream = await edge.upstream.accepts()
    await upstream.gets_head()
    return client, upstream


async def test_with_nobody_there_it_ends_at_once(edge: Edge) -> None:
    await edge.starts()
    begun = monotonic()
    await edge.worker.drain(5.0)
    assert monotonic() - begun < 1.0


async def test_nobody_new_is_accepted(edge: Edge) -> None:
    await edge.starts()
    await edge.worker.drain(5.0)
    await edge.settles()
    with pytest.raises(OSError):
        await edge.client()


async def test_an_idle_client_is_closed_without_a_word(edge: Edge) -> None:
    client, upstream = await asked(edge)
    await upstream.sends(ok())
    await client.gets_answer()
    silent = await edge.client()
    drain = Drain(edge)
    await client.gets_eof()
    await silent.gets_eof()
    client.closes()
    silent.closes()
    await drain.ends()


async def test_a_request_that_was_on_its_way_to_an_idle_connection_is_served(edge: Edge) -> None:
    """Closed at once, the client could not know whether it was."""
    client, upstream = await asked(edge)
    await upstream.sends(ok())
    await client.gets_answer()
    drain = Drain(edge)
    await edge.settles()
    await client.sends(get("/public/late"))
    assert (await upstream.gets_request()).first == "GET /public/late HTTP/1.1"
    await upstream.sends(ok(b"late"))
    answer = await client.gets_answer()
    assert (answer.body, answer["Connection"]) == (b"late", "close")
    await client.gets_eof()
    client.closes()
    await drain.ends()


@pytest.mark.parametrize(
    "answered",
    [ok(), head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(b"hello")],
    ids=["whole", "chunked"],
)
async def test_a_request_under_way_is_answered_and_told_that_the_connection_ends(edge: Edge, answered: bytes) -> None:
    client, upstream = await asked(edge)
    drain = Drain(edge)
    await edge.settles()
    assert not drain.done
    await upstream.sends(answered)
    answer = await client.gets_answer()
    assert (answer.body, answer["Connection"]) == (b"hello", "close")
    await client.gets_eof()
    client.closes()
    await drain.ends()


async def test_an_answer_that_has_begun_is_finished(edge: Edge) -> None:
    client, upstream = await asked(edge)
    await upstream.sends(head("HTTP/1.1 200 OK", "Content-Length: 6"), b"abc")
    await client.gets_head()
    drain = Drain(edge)
    await edge.settles()
    await upstream.sends(b"def")
    await client.gets(b"abcdef")
    await client.gets_eof()
    client.closes()
    await drain.ends()


async def test_an_upload_that_has_begun_is_finished(edge: Edge) -> None:
    client, upstream = await asked(edge, post(b"abcdef")[:-3])
    drain = Drain(edge)
    await edge.settles()
    await client.sends(b"def")
    await upstream.gets(b"abcdef")
    await upstream.sends(ok())
    answer = await client.gets_answer()
    assert (answer.status, answer["Connection"]) == (200, "close")
    await client.gets_eof()
    client.closes()
    await drain.ends()


async def test_of_requests_in_line_the_one_under_way_is_the_last(edge: Edge) -> None:
    client, upstream = await asked(edge, get("/public/1") + get("/public/2"))
    drain = Drain(edge)
    await edge.settles()
    await upstream.sends(ok())
    answer = await client.gets_answer()
    assert (answer.status, answer["Connection"]) == (200, "close")
    await client.gets_eof()
    await edge.settles()
    assert upstream.has() == b""
    client.closes()
    await drain.ends()


async def test_a_head_that_has_begun_to_arrive_is_served(edge: Edge) -> None:
    client = await edge.client()
    request = get()
    await client.sends(request[:20])
    await edge.settles()
    drain = Drain(edge)
    await edge.settles()
    await client.sends(request[20:])
    upstream = await edge.upstream.accepts()
    await upstream.gets_request()
    await upstream.sends(ok())
    assert (await client.gets_answer())["Connection"] == "close"
    await client.gets_eof()
    client.closes()
    await drain.ends()


@pytest.mark.parametrize("refused", [get("/nowhere"), get("/v1/x"), get("/read/x", f"X-API-Key: {UNLIMITED}")])
async def test_a_refused_request_is_told_that_the_connection_ends(edge: Edge, refused: bytes) -> None:
    client = await edge.client()
    await client.sends(refused[:5])
    await edge.settles()
    drain = Drain(edge)
    await edge.settles()
    await client.sends(refused[5:])
    assert (await client.gets_answer())["Connection"] == "close"
    await client.gets_eof()
    client.closes()
    await drain.ends()


async def test_a_fault_is_told_that_the_connection_ends(edge: Edge) -> None:
    client, upstream = await asked(edge, post(b""))
    drain = Drain(edge)
    await edge.settles()
    upstream.closes()
    answer = await client.gets_answer()
    assert (answer.status, answer["Connection"]) == (502, "close")
    await client.gets_eof()
    client.closes()
    await drain.ends()


async def test_connections_that_wait_to_be_accepted_are_served(edge: Edge) -> None:
    await edge.starts()
    queued = []
    for n in range(5):
        end = socket.create_connection(edge.address)
        end.sendall(get(f"/public/{n}"))
        queued.append(Wire(end))
    edge.clients += queued
    edge.upstream.answers(lambda request: ok(request.first.encode()))
    edge.upstream.begins()
    drain = Drain(edge)
    for n, client in enumerate(queued):
        answer = await client.gets_answer()
        assert answer.body == b"GET /public/%d HTTP/1.1" % n
        assert answer["Connection"] == "close"
        await client.gets_eof()
        client.closes()
    await drain.ends()


async def test_what_is_not_finished_in_time_is_cut(edge: Edge) -> None:
    waiting, first = await asked(edge)
    begun, second = await asked(edge)
    await second.sends(head("HTTP/1.1 200 OK", "Content-Length: 6"), b"abc")
    await begun.gets_head()
    await begun.gets(b"abc")
    drain = Drain(edge, 0.1)
    assert await waiting.gets_cut() == b""
    assert await begun.gets_cut() == b""
    await first.gets_cut()
    await second.gets_cut()
    await drain.ends()


async def test_a_tunnel_lasts_until_the_drain_is_over(edge: Edge) -> None:
    client, upstream = await tunnel(edge)
    drain = Drain(edge, 0.2)
    await edge.settles()
    await client.sends(b"still")
    await upstream.gets(b"still")
    await upstream.sends(b"there")
    await client.gets(b"there")
    await client.gets_cut()
    await upstream.gets_cut()
    await drain.ends()


async def test_it_ends_as_soon_as_the_last_client_has_left(edge: Edge) -> None:
    client, upstream = await asked(edge)
    drain = Drain(edge, 60.0)
    await edge.settles()
    await upstream.sends(ok())
    await client.gets_answer()
    client.closes()
    await drain.ends()


async def test_an_answer_that_is_still_on_its_way_out_is_not_cut(edge: Edge) -> None:
    """The exchange is over and the connection idle, but its client has yet to take what was written."""
    client, upstream = await asked(edge)
    (held,) = edge.worker._clients
    narrow(held.transport)
    held.transport.set_write_buffer_limits(high=1 << 20)
    await upstream.sends(ok(bytes(600_000)))
    await edge.until(lambda: held.exchange is None)
    assert held.transport.get_write_buffer_size()
    drain = Drain(edge)
    await edge.until(lambda: held.gone)
    await edge.settles()
    assert len((await client.gets_answer()).body) == 600_000
    await client.gets_eof()
    await drain.ends()
