"""The HTTP application of the beacon. Pages of any origin may use it. It neither sets nor reads cookies."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from importlib.resources import files

import orjson
from aiohttp import web

from edgeproxy.base.addresses import IP
from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.web_listener import PEER, WebListener
from edgeproxy.config.collector.regions import BeaconSettings
from edgeproxy.regions.beacon.collector import Collector, CollectorUnavailableError
from edgeproxy.regions.beacon.countries import Countries, parse_country_code
from edgeproxy.regions.latencies import MS_MAX, Report
from edgeproxy.regions.networks import find_client, get_network, get_voter, is_in
from edgeproxy.regions.pace import Pace
from edgeproxy.regions.ticket import InvalidTicketError, Tickets

TIMES = 5
"""Measurements of each region by a client, after one that opens the connection."""
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
    """The handlers of the beacon."""

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
        self._reports, self._queries = Pace(time.monotonic()), Pace(time.monotonic())
        self._script = files("edgeproxy.regions.beacon").joinpath("beacon.js").read_bytes()

    def create_application(self, connections: WebListener) -> web.Application:
        """Create the application with all paths."""
        application = web.Application(
            middlewares=[connections.track_request, self._open_to_all], client_max_size=REPORT_BYTES_MAX
        )
        path = self._settings.path.rstrip("/")
        application.router.add_get(f"{path}/ping", self.ping)
        application.router.add_get(f"{path}/ticket", self.ticket)
        application.router.add_post(f"{path}/report", self.report)
        application.router.add_get(f"{path}/best", self.best)
        application.router.add_get(f"{path}/beacon.js", self.script)
        application.router.add_get("/healthz", self.healthz)
        return application

    async def ping(self, _: web.Request) -> web.Response:
        """Answer at once. Clients measure this request."""
        return web.Response(status=204)

    async def script(self, _: web.Request) -> web.Response:
        """Send the script that measures and reports."""
        headers = {"Cache-Control": "public, max-age=3600"}
        return web.Response(body=self._script, content_type="text/javascript", charset="utf-8", headers=headers)

    async def healthz(self, _: web.Request) -> web.Response:
        """Answer that the process is alive."""
        return web.Response(text="ok")

    async def ticket(self, request: web.Request) -> web.Response:
        """Issue a ticket, and list the regions to be measured."""
        ticket = self._tickets.issue_ticket(
            get_network(self._find_client(request)[0]), secrets.token_hex(8), time.time()
        )
        return create_response(200, {"ticket": ticket, "regions": self._settings.regions, "times": TIMES})

    async def report(self, request: web.Request) -> web.Response:
        """Accept `{ticket, measured: {REGION: MS}}` of a client, for its own network."""
        client, proxy = self._find_client(request)
        network = get_network(client)
        if not self._reports.admits(network, time.monotonic()):
            return create_response(429, {"detail": "too many reports come from your network"}, {"Retry-After": "60"})
        ticket, measured = self._parse_report(await read_body(request))
        try:
            self._tickets.redeem_ticket(ticket, network, time.time())
        except InvalidTicketError as error:
            return create_response(403, {"detail": str(error)})
        self._collector.enqueue(
            Report(network, get_voter(client, self._secret), measured, self._find_country(request, client, proxy))
        )
        return web.Response(status=204)

    async def best(self, request: web.Request) -> web.Response:
        """Answer with the best region of the client's network, and its URL."""
        (client, proxy), now = self._find_client(request), time.monotonic()
        network, country = get_network(client), self._find_country(request, client, proxy)
        best = self._collector.find_cached_best(network, country, now)
        if best is None and not self._queries.admits(network, now):
            return create_response(429, {"detail": "too many questions come from your network"}, {"Retry-After": "60"})
        try:
            best = best or await self._collector.fetch_best(network, country, now)
            region, because, order = best["region"], best["because"], best["order"]
        except (CollectorUnavailableError, LookupError):
            return create_response(503, {"detail": "the best region is not known now"}, {"Retry-After": "10"})
        regions = self._settings.regions
        urls = {name: regions[name] for name in order if name in regions} if isinstance(order, list) else {}
        return create_response(200, {"region": region, "because": because, "order": order, "regions": urls})

    def _parse_report(self, body: bytes) -> tuple[str, dict[str, float]]:
        """Parse a report into its ticket and its measurements; raises HTTPBadRequest."""
        try:
            report = orjson.loads(body)
            ticket, measured = report["ticket"], report["measured"]
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

    def _find_client(self, request: web.Request) -> tuple[IP, IP | None]:
        """Return the client's address, and the address of the trusted proxy that it connected to (None: none).

        Raises HTTPBadRequest if X-Forwarded-For contains an invalid address.
        """
        forwarded = ", ".join(request.headers.getall("X-Forwarded-For", []))
        client, proxy = find_client(request[PEER].address, forwarded, self._settings.trusted_proxies)
        if client is None:
            raise web.HTTPBadRequest(text="X-Forwarded-For has something else than addresses")
        return client, proxy

    def _find_country(self, request: web.Request, client: IP, proxy: IP | None) -> str | None:
        """Return the client's country from the database, or from the header of the proxy that the client connected to.

        If the client connects to another proxy, such as a forwarding edge, the client itself may have set the
        header.
        """
        if self._countries is not None:
            return self._countries.find_country(client)
        values = request.headers.getall(self._header, []) if self._header and is_in(proxy, self._set_by) else []
        return parse_country_code(values[0]) if len(values) == 1 else None

    @web.middleware
    async def _open_to_all(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Add the fields that let pages of any origin read an answer. Turn every error into JSON."""
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            answer = create_response(error.status, {"detail": error.text}, allow)
        for name, value in FIELDS.items():
            answer.headers.setdefault(name, value)
        return answer


async def read_body(request: web.Request) -> bytes:
    """Read the body; raises HTTPRequestEntityTooLarge and HTTPRequestTimeout."""
    try:
        async with asyncio.timeout(REPORT_SECONDS_MAX):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(headers={"Connection": "close"}) from None


def create_response(status: int, body: JsonObject, headers: Mapping[str, str] | None = None) -> web.Response:
    """Create a response with JSON."""
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json", headers=headers)
