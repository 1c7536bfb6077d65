"""Open requests and connections of a key when it is revoked."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from edgeproxy.collector.directory import hub_push
from edgeproxy.config.edge.load import load_customers
from loadtest.testbed.customers import TIERS, key_line, key_of
from loadtest.testbed.edge import StartEdge
from loadtest.testbed.ports import HOST, Ports
from loadtest.testbed.redis import SERVER, Redis
from tests.e2e.site import Site

pytestmark = pytest.mark.skipif(SERVER is None, reason="there is no redis-server on this machine")

REVOKED_SECONDS = 20.0
"""Three for the word and two for the end, on a machine with other work."""


@pytest.mark.parametrize("revoked", ["close", "finish"])
def test_removed_key_ends_only_its_own_streams_and_websockets(
    start_edge: StartEdge, tmp_path: Path, revoked: str
) -> None:
    ports, redis = Ports(1), Redis(tmp_path)
    file = tmp_path / "people.yaml"

    def pushes(*with_key: str) -> None:
        said = {name: {"tier": "free"} for name in ("dora", "eve")}
        whole = {"hub": redis.url, "tiers": TIERS, "customers": said, "keys": [key_line(name) for name in with_key]}
        file.write_text(json.dumps(whole))
        hub_push.run_push(load_customers(file, {}), hub_push.PushOptions(force=True))

    async def scene() -> None:
        site = Site()
        edge = await asyncio.to_thread(
            start_edge, port=ports.numbers[0], hub=redis.url, directory={"from": "hub", "revoked": revoked}
        )
        url = f"http://{HOST}:{edge.port}"
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(site.open(ports.numbers[0]))
            open_for = {}
            for name in ("dora", "eve"):
                session = await stack.enter_async_context(aiohttp.ClientSession(headers={"X-API-Key": key_of(name)}))
                tunnel = await stack.enter_async_context(session.ws_connect(f"{url}/socket", protocols=["echo"]))
                events = await stack.enter_async_context(session.get(f"{url}/events"))
                assert await events.content.readline() == b"retry: 10\n"
                open_for[name] = tunnel, events
            await asyncio.to_thread(pushes, "eve")
            tunnel, events = open_for["dora"]
            if revoked == "close":
                async with asyncio.timeout(REVOKED_SECONDS):
                    closed = await tunnel.receive()
                    assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1008)
                    with pytest.raises(aiohttp.ClientPayloadError):
                        await events.content.read()
            else:
                while True:  # Until the word has come.
                    async with aiohttp.request("GET", f"{url}/cookies", headers={"X-API-Key": key_of("dora")}) as now:
                        if now.status == 401:
                            break
                    await asyncio.sleep(0.05)
                await tunnel.send_str("still")
                assert await tunnel.receive_str() == "still"
            tunnel, events = open_for["eve"]
            await tunnel.send_str("still")
            assert await tunnel.receive_str() == "still"
            site.cue.set()
            while await events.content.readline() != b"data: event 0\n":
                assert not events.content.at_eof()

    try:
        pushes("dora", "eve")
        asyncio.run(asyncio.wait_for(scene(), 60))
    finally:
        redis.kill()
        ports.close()
