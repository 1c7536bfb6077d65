"""Chromium without a screen, driven over its DevTools protocol, and all problems that it reports about a page.

Playwright and Puppeteer use the protocol too, and the few commands here have been in it for a decade. Playwright for
Python cannot be in one environment with httpbin on Python 3.11: they need different releases of greenlet.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from loadtest.testbed.process import Process
from loadtest.testbed.waiting import until
from tests.support.visitor import Visitor

FLAGS = (
    "--headless",
    "--no-sandbox",  # which root cannot have; it sees pages of the tests' own only
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-features=RenderDocument,Translate,PreloadTopChromeWebUI",  # a new frame a page; texts; own pages
    "--remote-debugging-port=0",
)
ARRIVE_SECONDS = 30.0
"""The longest time for pages that redirect by themselves, on a busy machine."""


class Chromium(Process):
    """The running browser; `devtools` is the address of its protocol."""

    def __init__(self, binary: str, folder: Path) -> None:
        profile = folder / "profile"
        profile.mkdir(parents=True)
        super().__init__([binary, *FLAGS, f"--user-data-dir={profile}", "about:blank"], folder / "log")
        told = profile / "DevToolsActivePort"
        until(lambda: not self.running or (told.exists() and told.read_text().count("\n")), "Chromium listens")
        assert self.running, self.output
        port, path = told.read_text().split()
        self.devtools = f"ws://127.0.0.1:{port}{path}"


class Tab:
    """A page in its own context, without cookies, connections or cached answers of other tests."""

    def __init__(self, tunnel: aiohttp.ClientWebSocketResponse) -> None:
        self.troubles: list[str] = []
        """Errors and warnings of the console, uncaught exceptions, and failed loads."""
        self.responses: list[dict[str, Any]] = []
        """The answers to the page as `Network.Response`, in order."""
        self.connections: Counter[int] = Counter()
        """Answers by connection."""
        self._tunnel = tunnel
        self._session: str | None = None
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()

    # ---- what tests do

    async def goto(self, url: str) -> None:
        """Load this page; returns after its `load` event."""
        self._loaded.clear()
        gone = await self.call("Page.navigate", url=url)
        assert not gone.get("errorText"), gone
        await self._loaded.wait()

    async def reload(self) -> None:
        """Reload the page as its user would: fresh cached files are used."""
        self._loaded.clear()
        await self.call("Page.reload")
        await self._loaded.wait()

    @asynccontextmanager
    async def loading(self) -> AsyncIterator[None]:
        """Expect the actions in this context to load another page; returns after its `load` event."""
        self._loaded.clear()
        yield
        await self._loaded.wait()

    async def arrive(self, part: str) -> None:
        """Wait until pages that redirect by themselves have loaded an address with this part."""
        deadline, url = time.monotonic() + ARRIVE_SECONDS, ""
        while part not in url or not url.endswith(" complete"):
            assert time.monotonic() < deadline, f"{url} leads not to {part}"
            await asyncio.sleep(0.01)
            with suppress(RuntimeError):  # The page is just left.
                expression = "`${location.href} ${document.readyState}`"
                url = (await self.call("Runtime.evaluate", expression=expression))["result"]["value"]

    async def run(self, script: str) -> Any:
        """Run this body of an async JavaScript function and return its result, which must be valid JSON."""
        expression = f"(async () => {{{script}}})()"
        done = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait for this JavaScript expression to be true in the page."""
        await self.run(f"while (!({condition})) await new Promise(again => setTimeout(again, 5));")

    async def lend(self, visitor: Visitor) -> None:
        """Give the page a visitor's session."""
        for name, value in visitor.client.cookies.items():
            await self.call("Network.setCookie", name=name, value=value, url=visitor.site, httpOnly=True)

    async def look(self, width: int, scheme: str) -> None:
        """Set the width and the colour scheme of the page."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    # ---- the protocol

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command to the page, or to the browser before there is a page. Returns its result."""
        number = len(self._calls)
        self._calls[number] = asked = asyncio.get_running_loop().create_future()
        session = {"sessionId": self._session} if self._session else {}
        await self._tunnel.send_json({"id": number, "method": method, "params": parameters, **session})
        return await asked

    async def open(self, painted: bool) -> None:
        """Create the page and subscribe to its events."""
        context = (await self.call("Target.createBrowserContext", disposeOnDetach=True))["browserContextId"]
        wanted = {"url": "about:blank", "browserContextId": context, "hidden": not painted}
        made = await self.call("Target.createTarget", **wanted)
        attached = await self.call("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")

    async def hear(self) -> None:
        """Read the browser's messages until the connection ends."""
        async for frame in self._tunnel:
            message = frame.json()
            if "id" in message:
                asked = self._calls[message["id"]]
                if "error" in message:
                    asked.set_exception(RuntimeError(str(message["error"])))
                else:
                    asked.set_result(message["result"])
            else:
                self._happened(message["method"], message["params"])

    def _happened(self, event: str, told: dict[str, Any]) -> None:
        match event:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.responseReceived":
                response = told["response"]
                self.responses.append(response)
                self.connections[response["connectionId"]] += 1
            case "Network.loadingFailed" if not told.get("canceled"):
                self.troubles.append(f"failed: {told}")
            case "Runtime.exceptionThrown":
                self.troubles.append(f"exception: {told['exceptionDetails']}")
            case "Runtime.consoleAPICalled" if told["type"] in ("error", "warning", "assert"):
                self.troubles.append(f"console: {told['type']} {told['args']}")
            case "Log.entryAdded" if told["entry"]["level"] in ("error", "warning"):
                self.troubles.append(f"log: {told['entry']}")


@asynccontextmanager
async def tab(chromium: Chromium, *, painted: bool = True) -> AsyncIterator[Tab]:
    """Yield a new page, which is closed at the end. A page that is not painted has a layout, but no keys and no
    animation frames.
    """
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(chromium.devtools, max_msg_size=0, compress=0) as tunnel,
    ):
        page = Tab(tunnel)
        hearing = asyncio.get_running_loop().create_task(page.hear())
        try:
            await page.open(painted)
            yield page
        finally:
            await tunnel.close()
            await hearing
