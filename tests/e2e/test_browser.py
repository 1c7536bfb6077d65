"""Chromium in front, a site with all that pages use behind: the page works, and its console stays empty."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from loadtest.testbed.customers import UNLIMITED, key_of
from loadtest.testbed.edge import Edge
from loadtest.testbed.ports import HOST, Ports
from tests.e2e.browser import Chromium, Tab, tab
from tests.e2e.site import ASSETS, IMAGES, SCRIPTS, SHEETS, Site

pytestmark = pytest.mark.chromium

Visit = Callable[[Tab, Site], Awaitable[None]]
See = Callable[[Visit], None]

MOST_CONNECTIONS = 6
"""That Chromium opens to one HTTP/1.1 server."""


@pytest.fixture(scope="module")
def ports() -> Iterator[Ports]:
    with closing(Ports(1)) as ports:
        yield ports


@pytest.fixture(scope="module")
def edge(folder: Path, ports: Ports) -> Iterator[Edge]:
    routes = [
        {"name": "keyed", "path": "/keyed/*", "upstream": "api"},
        {"name": "pages", "path": "/*", "upstream": "api", "auth": "none"},
    ]
    with closing(Edge(folder / "browsed", ports.numbers[0], routes=routes)) as edge:
        yield edge.start()


VISIT_SECONDS_MAX = 90
"""Seconds for a visit, some 2 on a quiet machine."""


@pytest.fixture
def see(browser: Chromium, ports: Ports, edge: Edge) -> See:
    """Run a visit: a coroutine with a page that is at the site's front, through the edge, and the site."""

    def run(visit: Visit) -> None:
        async def whole() -> None:
            async with asyncio.timeout(VISIT_SECONDS_MAX), Site().open(ports.numbers[0]) as site, tab(browser) as page:
                await page.goto(f"http://{HOST}:{edge.port}/")
                await visit(page, site)
                assert page.troubles == []
                assert not set(site.statuses) - {200, 101, 302, 303, 304}

        asyncio.run(whole())

    return run


def test_a_page_and_all_that_it_refers_to_arrive_over_a_few_connections(see: See) -> None:
    async def visit(page: Tab, site: Site) -> None:
        assert await page.run("return document.querySelector('p').firstChild.data") == "Grüße, 世界"
        heights = await page.run("return [...document.images].map(image => image.naturalHeight)")
        assert heights == [number + 1 for number in range(IMAGES)]
        assert await page.run("return window.ran") == SCRIPTS
        style = "getComputedStyle(document.body).getPropertyValue('--sheet-' + n)"
        assert await page.run(f"return [0, 1, 2, 3].map(n => {style})") == ["1", "2", "3", "4"][:SHEETS]
        assert {response["protocol"] for response in page.responses} == {"http/1.1"}
        assert all(response["headers"].get("X-Request-Id") for response in page.responses)
        assert len(page.connections) <= MOST_CONNECTIONS
        asked = [path for path in site.paths() if path != "/favicon.ico"]
        assert len(set(asked)) == len(asked) == 1 + ASSETS, "each once, and nothing else"

    see(visit)


def test_a_page_that_is_loaded_again_is_revalidated_and_not_sent_again(see: See) -> None:
    async def visit(page: Tab, site: Site) -> None:
        assert site.statuses[304] == 0
        await page.reload()
        assert site.statuses[304] == ASSETS
        heights = await page.run("return [...document.images].map(image => image.naturalHeight)")
        assert heights == [number + 1 for number in range(IMAGES)]
        assert await page.run("return window.ran") == SCRIPTS

    see(visit)


def test_redirects_are_followed_and_cookies_are_kept_and_sent(see: See) -> None:
    async def visit(page: Tab, site: Site) -> None:
        home = await page.run("return location.href")
        await page.goto(f"{home}moved")
        assert await page.run("return location.href") == home
        assert await page.run("return await (await fetch('/cookies')).json()") == {}
        sent = "const answer = await fetch('/log-in'); return [answer.redirected, answer.url, await answer.json()]"
        assert await page.run(sent) == [True, f"{home}cookies", {"session": "of-the-test", "theme": "dark"}]
        assert await page.run("return document.cookie") == "theme=dark"  # the other one is HttpOnly

    see(visit)


def test_uploads_of_some_megabytes_arrive_whole_as_body_and_as_form(see: See) -> None:
    size = 5 << 20
    expected = hashlib.sha256(bytes(number % 251 for number in range(size))).hexdigest()

    async def visit(page: Tab, site: Site) -> None:
        await page.run(f"""
            window.body = new Uint8Array({size}).map((_, at) => at % 251);
            window.post = async (path, body) => (await fetch(path, {{method: 'POST', body}})).json();
        """)
        told = {"length": size, "sha256": expected}
        assert await page.run("return await post('/upload', body)") == told
        several = "return await Promise.all([1, 2, 3].map(() => post('/upload', body)))"
        assert await page.run(several) == [told] * 3
        form = """
            const form = new FormData();
            form.append('name', 'Zoë');
            form.append('file', new File([body], 'all.bin', {type: 'application/x-tests'}));
            return await post('/form', form);
        """
        file = ["all.bin", "application/x-tests", size, expected]
        assert await page.run(form) == {"name": "Zoë", "file": file}

    see(visit)


def test_methods_and_fields_pass_and_the_page_may_use_a_key(see: See) -> None:
    async def visit(page: Tab, site: Site) -> None:
        await page.run(f"""
            window.ask = async (method, body) => {{
                const fields = {{'X-API-Key': '{key_of(UNLIMITED)}', 'X-Asked': 'äöü'}};
                const answer = await fetch('/keyed/echo', {{method, body, headers: fields}});
                const told = await answer.text();
                return [answer.status, answer.headers.get('X-Own'), told && JSON.parse(told)];
            }};
        """)
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            body = "undefined" if method == "GET" else "'{}'"
            status, own, told = await page.run(f"return await ask('{method}', {body})")
            assert (status, own, told["method"]) == (200, "yes", method)
            assert told["fields"]["X-Customer-Id"] == UNLIMITED
            assert told["fields"]["X-Asked"].encode("utf-8", "surrogateescape") == "äöü".encode("latin-1")
            assert "X-API-Key" not in told["fields"]
            assert told["length"] == (0 if method == "GET" else 2)
        assert await page.run("return await ask('HEAD')") == [200, "yes", ""]

    see(visit)


def test_server_sent_events_arrive_one_by_one_and_the_browser_reconnects(see: See) -> None:
    async def visit(page: Tab, site: Site) -> None:
        await page.run("""
            window.got = [], window.opened = 0;
            window.source = new EventSource('/events');
            source.onopen = () => opened++;
            source.onmessage = event => got.push([event.lastEventId, event.data]);
        """)
        for number in range(6):
            await page.until(f"opened === {number // 3 + 1} && got.length === {number}")
            site.cue.set()
        await page.until("got.length === 6")
        assert await page.run("return got") == [[str(number), f"event {number}"] for number in range(6)]
        await page.run("source.close()")

    see(visit)


def test_a_stream_is_read_piece_by_piece_and_its_service_hears_of_the_end(see: See) -> None:
    async def visit(page: Tab, site: Site) -> None:
        await page.run("""
            window.got = '', window.control = new AbortController();
            const answer = await fetch('/pieces', {signal: control.signal});
            const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
            (async () => {
                try {
                    while (true) got += (await reader.read()).value;
                } catch (error) {
                    got += error.name;
                }
            })();
        """)
        for number in range(1, 6):
            await page.until(f"got === 'piece '.repeat({number})")
            site.cue.set()
        await page.until("got === 'piece '.repeat(6)")
        await page.run("control.abort()")
        await page.until("got.endsWith('AbortError')")
        site.cue.set()  # an event after the end of the stream has no receiver
        while site.gone.empty():
            site.cue.set()
            await asyncio.sleep(0.01)

    see(visit)


def test_a_websocket_echoes_text_and_binary_and_closes_cleanly_from_either_side(see: See) -> None:
    connect = """
        window.got = [], window.ended = null;
        window.socket = new WebSocket(`ws://${location.host}/socket`, ['other', 'echo']);
        socket.binaryType = 'arraybuffer';
        socket.onmessage = event => got.push(event.data);
        socket.onclose = event => ended = [event.wasClean, event.code, event.reason];
        await new Promise((opened, failed) => { socket.onopen = opened; socket.onerror = failed; });
    """

    async def visit(page: Tab, site: Site) -> None:
        assert await page.run(f"{connect} return [socket.protocol, socket.extensions]") == [
            "echo",
            "permessage-deflate",
        ]
        await page.run("['', 'Grüße, 世界 🙂', 'x'.repeat(1 << 20)].forEach(text => socket.send(text))")
        await page.until("got.length === 3")
        assert await page.run("return [got[0], got[1], got[2] === 'x'.repeat(1 << 20)]") == ["", "Grüße, 世界 🙂", True]
        await page.run("window.sent = new Uint8Array(3 << 20).map((_, at) => at * at % 251); socket.send(sent)")
        await page.until("got.length === 4")
        assert await page.run("const back = new Uint8Array(got[3]); return sent.every((byte, at) => byte === back[at])")
        await page.run("socket.close(4000, 'enough')")
        await page.until("ended")
        assert await page.run("return ended") == [True, 1000, ""]  # aiohttp answers every close with 1000
        assert await site.gone.get() == "closed 4000"

        await page.run(f"{connect} socket.send('bye')")
        await page.until("ended")
        assert await page.run("return ended") == [True, 4001, "à bientôt"]

        await page.run(connect)
        await page.goto(await page.run("return location.href"))  # and from one who just goes elsewhere
        assert (await site.gone.get()).startswith("closed")

    see(visit)
