"""What the beacon answers. Pages of any origin may ask it; it sets no cookie, and reads none."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Any

import orjson
from aiohttp import web

from edgeproxy.base.addresses import IP
from edgeproxy.base.web_listener import PEER, WebListener
from edgeproxy.config.collector.regions import BeaconSettings
from edgeproxy.regions.beacon.collector import Away, Collector
from edgeproxy.regions.beacon.countries import Countries, code_of
from edgeproxy.regions.latencies import MS_MAX, Report
from edgeproxy.regions.networks import client_of, is_in, network_of, voter_of
from edgeproxy.regions.pace import Pace
from edgeproxy.regions.ticket import Refused, Tickets

TIMES = 5
"""Measurements of each region that a client makes, beside one that opens the connection."""
REPORT_BYTES_MAX = 4096
REPORT_SECONDS_MAX = 5.0
"""Seconds that a report may take to arrive."""
FIELDS = {
    "Access-Control-Allow-Origin": "*",
    "Timing-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
"""Fields of every answer. With any origin, browsers send no credentials (Fetch, section 3.3.5)."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Beacon:
    """Answers clients."""

    def __init__(self, settings: BeaconSettings, collector: Collector, countries: Countries | None) -> None:
        self._settings = settings
        self._collector = collector
        self._countries = countries
        country = settings.country
        self._header = None if country is None else country.header
        own = None if country is None else country.set_by
        self._set_by = settings.trusted_proxies if own is None else own
        """Networks of the proxies that set the header."""
        self._secret = (settings.secret or secrets.token_hex(32)).encode()
        self._tickets = Tickets(self._secret)
        self._reports, self._questions = Pace(time.monotonic()), Pace(time.monotonic())
        self._script = files("edgeproxy.regions.beacon").joinpath("beacon.js").read_bytes()

    def application(self, connections: WebListener) -> web.Application:
        """Make the application with all paths."""
        made = web.Application(
            middlewares=[connections.track_request, self._open_to_all], client_max_size=REPORT_BYTES_MAX
        )
        path = self._settings.path.rstrip("/")
        made.router.add_get(f"{path}/ping", self.ping)
        made.router.add_get(f"{path}/ticket", self.ticket)
        made.router.add_post(f"{path}/report", self.report)
        made.router.add_get(f"{path}/best", self.best)
        made.router.add_get(f"{path}/beacon.js", self.script)
        made.router.add_get("/healthz", self.healthz)
        return made

    async def ping(self, _: web.Request) -> web.Response:
        """Answer at once: this is what clients measure."""
        return web.Response(status=204)

    async def script(self, _: web.Request) -> web.Response:
        """Send the script that measures and reports."""
        headers = {"Cache-Control": "public, max-age=3600"}
        return web.Response(body=self._script, content_type="text/javascript", charset="utf-8", headers=headers)

    async def healthz(self, _: web.Request) -> web.Response:
        """Alive."""
        return web.Response(text="ok")

    async def ticket(self, request: web.Request) -> web.Response:
        """Give a ticket, and say what is to be measured."""
        ticket = self._tickets.give(network_of(self._client(request)[0]), secrets.token_hex(8), time.time())
        return told(200, {"ticket": ticket, "regions": self._settings.regions, "times": TIMES})

    async def report(self, request: web.Request) -> web.Response:
        """Take `{ticket, measured: {REGION: MS}}` of a client, for its own network."""
        client, proxy = self._client(request)
        network = network_of(client)
        if not self._reports.admits(network, time.monotonic()):
            return told(429, {"detail": "too many reports come from your network"}, {"Retry-After": "60"})
        ticket, measured = self._read(await body_of(request))
        try:
            self._tickets.take(ticket, network, time.time())
        except Refused as error:
            return told(403, {"detail": str(error)})
        self._collector.put(
            Report(network, voter_of(client, self._secret), measured, self._country(request, client, proxy))
        )
        return web.Response(status=204)

    async def best(self, request: web.Request) -> web.Response:
        """Say which region is the best for this client's network, and where it is."""
        (client, proxy), now = self._client(request), time.monotonic()
        network, country = network_of(client), self._country(request, client, proxy)
        found = self._collector.known(network, country, now)
        if found is None and not self._questions.admits(network, now):
            return told(429, {"detail": "too many questions come from your network"}, {"Retry-After": "60"})
        try:
            found = found or await self._collector.best(network, country, now)
            region, because, order = found["region"], found["because"], list(found["order"])
        except (Away, LookupError, TypeError):
            return told(503, {"detail": "the best region is not known now"}, {"Retry-After": "10"})
        urls = {region: self._settings.regions[region] for region in order if region in self._settings.regions}
        return told(200, {"region": region, "because": because, "order": order, "regions": urls})

    def _read(self, body: bytes) -> tuple[str, dict[str, float]]:
        """Return the ticket and the measurements of a report; raises HTTPBadRequest."""
        try:
            said = orjson.loads(body)
            ticket, measured = said["ticket"], said["measured"]
        except (orjson.JSONDecodeError, LookupError, TypeError):
            raise web.HTTPBadRequest(text="send {ticket, measured: {REGION: MS}}") from None
        if not isinstance(ticket, str) or not isinstance(measured, dict) or not measured:
            raise web.HTTPBadRequest(text="send {ticket, measured: {REGION: MS}}")
        for region, ms in measured.items():
            if region not in self._settings.regions:
                raise web.HTTPBadRequest(text="a region is not one of those that are to be measured")
            if type(ms) not in (int, float) or not 0 < ms <= MS_MAX:
                raise web.HTTPBadRequest(text=f"what is measured is in milliseconds, from above 0 to {MS_MAX:g}")
        return ticket, measured

    def _client(self, request: web.Request) -> tuple[IP, IP | None]:
        """Return the address of the client, and that of the trusted proxy to which it connected, None where it came by
        itself; raises HTTPBadRequest where a proxy says none."""
        forwarded = ", ".join(request.headers.getall("X-Forwarded-For", []))
        client, proxy = client_of(request[PEER].address, forwarded, self._settings.trusted_proxies)
        if client is None:
            raise web.HTTPBadRequest(text="X-Forwarded-For has something else than addresses")
        return client, proxy

    def _country(self, request: web.Request, client: IP, proxy: IP | None) -> str | None:
        """Return the country of a client, where the database says it, or the proxy to which the client connected.

        Whoever connects to another proxy, such as an edge that hands the field on, has written the field itself.
        """
        if self._countries is not None:
            return self._countries.of(client)
        values = request.headers.getall(self._header, []) if self._header and is_in(proxy, self._set_by) else []
        return code_of(values[0]) if len(values) == 1 else None

    @web.middleware
    async def _open_to_all(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Give every answer the fields by which pages of any origin may read it; every error is JSON."""
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            answer = told(error.status, {"detail": error.text}, allow)
        for name, value in FIELDS.items():
            answer.headers.setdefault(name, value)
        return answer


async def body_of(request: web.Request) -> bytes:
    """Return what is sent; raises HTTPRequestEntityTooLarge and HTTPRequestTimeout."""
    try:
        async with asyncio.timeout(REPORT_SECONDS_MAX):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(headers={"Connection": "close"}) from None


def told(status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with JSON."""
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json", headers=headers)
