"""A page of one origin in Chromium calls a keyed API of another, through the edge."""

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from loadtest.testbed.customers import key_of, people
from loadtest.testbed.edge import Edge
from loadtest.testbed.ports import HOST, Ports
from tests.e2e.browser import Chromium, Tab, tab
from tests.e2e.site import Site

pytestmark = pytest.mark.chromium

KEY = key_of("pages")


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    with closing(Ports(1)) as ports:
        yield ports


@pytest.fixture(scope="module")
def edge(folder: Path, ports: Ports) -> Iterator[Edge]:
    (site,) = ports.numbers
    with closing(Edge(folder / "api-of-pages", site)) as edge:
        yield edge.start(
            cors={"origins": [f"http://{HOST}:{site}"], "expose": ["X-Own"]},
            auth={"websocket_protocol": True},
            **people(pages="free", few=["1/min"]),
        )


ASK = """
    window.ask = async (path, key, more = {}) => {
        try {
            const headers = {...(key && {'X-API-Key': key}), ...more.headers};
            const answer = await fetch('%s' + path, {...more, headers});
            const shown = name => answer.headers.get(name);
            return [answer.status, shown('X-Own'), shown('Retry-After') !== null, shown('X-Request-Id') !== null];
        } catch (error) {
            return [error.name];
        }
    };
"""


def test_cors_page_calls_streams_uploads_and_opens_a_websocket(browser: Chromium, ports: Ports, edge: Edge) -> None:
    api, size = f"http://{HOST}:{edge.port}", 3 << 20

    async def calls(page: Tab, site: Site) -> None:
        await page.run(ASK % api)
        for method in ("GET", "PUT", "DELETE"):  # each after a preflight, which no service sees
            assert await page.run(f"return await ask('/keyed/echo', '{KEY}', {{method: '{method}'}})") == [
                *(200, "yes", False, True)
            ]
        assert "OPTIONS" not in {request.method for request in site.asked}

        digest = hashlib.sha256(bytes(number % 251 for number in range(size))).hexdigest()
        upload = f"""
            const body = new Uint8Array({size}).map((_, at) => at % 251);
            const headers = {{'X-API-Key': '{KEY}', 'Content-Type': 'application/octet-stream'}};
            return await (await fetch('{api}/upload', {{method: 'POST', body, headers}})).json();
        """
        assert await page.run(upload) == {"length": size, "sha256": digest}

        await page.run(f"""
            window.got = '';
            const answer = await fetch('{api}/events', {{headers: {{'Authorization': 'Bearer {KEY}'}}}});
            const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
            (async () => {{
                for (let piece = await reader.read(); !piece.done; piece = await reader.read()) got += piece.value;
                got += 'END';
            }})();
        """)
        for number in range(3):
            await page.until(f"got.split('data: event').length === {number + 1}")
            site.cue.set()
        await page.until("got.endsWith('END')")

        await page.run(f"""
            window.said = [];
            window.socket = new WebSocket('ws://{HOST}:{edge.port}/socket', ['echo', 'api-key.{KEY}']);
            socket.onmessage = event => said.push(event.data);
            await new Promise((opened, failed) => {{ socket.onopen = opened; socket.onerror = failed; }});
            socket.send('Grüße');
        """)
        await page.until("said.length === 1")
        assert await page.run("return [said[0], socket.protocol]") == ["Grüße", "echo"]
        await page.run("socket.close()")
        assert await site.gone.get()
        assert page.troubles == []

    async def refusals(page: Tab, site: Site) -> None:
        """A page sees why it was refused, which it may do something about."""
        asked = site.paths().count("/keyed/echo")
        assert await page.run("return await ask('/keyed/echo', '')") == [401, None, False, True]
        assert await page.run("return await ask('/keyed/echo', 'wrong')") == [401, None, False, True]
        few = f"return await ask('/keyed/echo', '{key_of('few')}')"
        assert await page.run(few) == [200, "yes", False, True]
        assert await page.run(few) == [429, None, True, True]
        odd = f"return await ask('/keyed/echo', '{KEY}', {{headers: {{'X-Odd': 'a'}}}})"
        assert await page.run(odd) == ["TypeError"]  # a field that no page was told it may send
        assert site.paths().count("/keyed/echo") == asked + 1

    async def stranger(page: Tab, site: Site) -> None:
        """A page of this site under another name has another origin."""
        asked = [path for path in site.paths() if path != "/favicon.ico"]
        await page.run(ASK % api)
        assert await page.run(f"return await ask('/keyed/echo', '{KEY}')") == ["TypeError"]
        opened = f"""
            const socket = new WebSocket('ws://{HOST}:{edge.port}/socket', ['echo', 'api-key.{KEY}']);
            return await new Promise(tell => {{
                socket.onopen = () => tell(true);
                socket.onerror = () => tell(false);
            }});
        """
        assert await page.run(opened) is False
        assert [path for path in site.paths() if path != "/favicon.ico"] == asked

    async def whole() -> None:
        async with asyncio.timeout(60), Site().open(ports.numbers[0]) as site:
            async with tab(browser) as page:
                await page.goto(f"http://{HOST}:{ports.numbers[0]}/")
                await calls(page, site)
                await refusals(page, site)
            async with tab(browser) as page:
                await page.goto(f"http://localhost:{ports.numbers[0]}/")
                await stranger(page, site)

    asyncio.run(whole())
