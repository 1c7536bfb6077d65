"""An export that does not come to its end: whoever asked for it can tell."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from edgeproxy.collector.api.request_limits import CustomerTurns
from edgeproxy.collector.api.usage import csv_export
from edgeproxy.collector.api.usage.csv_export import CsvExporter, TooManyExportsError
from edgeproxy.collector.ledger.queries import LedgerQuery
from loadtest.testbed.ports import HOST

QUESTION = LedgerQuery(None, None, 0, 60, ("route",))
ROWS = [{"route": "x" * 255, "value": 1}] * 2000


class Nowhere:
    """A database that is not asked for anything."""

    @asynccontextmanager
    async def reading(self, *, whole: bool) -> AsyncIterator[None]:
        """A transaction."""
        assert whole
        yield


@asynccontextmanager
async def served(
    monkeypatch: pytest.MonkeyPatch, stream: Callable[[], Any]
) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Yield the port of a server that exports the rows of `stream`, and an event set at the end of an export."""
    monkeypatch.setattr(csv_export, "stream_usage", lambda *_: stream())
    exports, ended = CsvExporter(Nowhere()), asyncio.Event()  # type: ignore[arg-type]

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await exports.send(request, QUESTION)
        finally:
            ended.set()

    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    with socket.create_server((HOST, 0)) as listening:
        await web.SockSite(runner, listening).start()
        yield listening.getsockname()[1], ended
        await runner.cleanup()


async def failing() -> AsyncGenerator[list[dict[str, Any]], None]:
    yield ROWS
    raise OSError("the database is gone")


async def endless() -> AsyncGenerator[list[dict[str, Any]], None]:
    while True:
        yield ROWS


async def test_an_export_that_fails_is_cut_off_within_its_body(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(monkeypatch, failing) as (port, _), aiohttp.ClientSession() as client:
        for _ in range(csv_export.EXPORTS_AT_ONCE + 1):  # Its place is free again.
            answer = await client.get(f"http://{HOST}:{port}/")
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientError):
                await answer.read()


async def test_a_customer_leaves_places_to_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    sent, turns = CsvExporter(Nowhere()), CustomerTurns(2)  # type: ignore[arg-type]
    begun: list[str | None] = []
    may_end = asyncio.Event()

    async def wait(*_: object) -> web.StreamResponse:
        await may_end.wait()
        return web.Response()

    async def read(customer: str | None) -> None:
        async with turns.take(customer):
            begun.append(customer)
            await may_end.wait()

    monkeypatch.setattr(sent, "_send", wait)
    request = make_mocked_request("GET", "/")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sent.send(request, QUESTION, customer="acme"))
        for customer in (*["acme"] * 3, *["bolt"] * 3, *[None] * 3):
            tasks.create_task(read(customer))
        await asyncio.sleep(0)
        with pytest.raises(TooManyExportsError):
            await sent.send(request, QUESTION, customer="acme")
        tasks.create_task(sent.send(request, QUESTION, customer="bolt"))
        await asyncio.sleep(0)
        assert begun == [*["acme"] * 2, *["bolt"] * 2, *[None] * 3]
        may_end.set()
    assert (begun.count("acme"), begun.count("bolt")) == (3, 3), "the waiting customer has had its turn"


@pytest.mark.parametrize("bound", ["WRITE_SECONDS_MAX", "EXPORT_SECONDS_MAX"])
async def test_export_ends_when_the_reader_stalls(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(csv_export, bound, 0.2)

    async with served(monkeypatch, endless) as (port, ended):
        reader, writer = await asyncio.open_connection(HOST, port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        async with asyncio.timeout(10):
            await ended.wait()
        got = b""
        with suppress(ConnectionError):
            while piece := await reader.read(1 << 20):
                got = (got + piece)[-10:]
        writer.close()
        last = got
    assert last
    assert not last.endswith(b"0\r\n\r\n")
