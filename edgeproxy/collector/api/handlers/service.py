"""The collector itself: whether it is alive and ready, its metrics, and what its endpoints are."""

import asyncio
import time
from collections.abc import Callable

from aiohttp import web

from edgeproxy.base import bearer, log
from edgeproxy.base.tasks import run_in_thread
from edgeproxy.base.web_listener import PEER
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.responses import answer
from edgeproxy.collector.billing.reports import status as billing_standing
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database, format_reason
from edgeproxy.collector.ledger import edges
from edgeproxy.collector.ledger.batch_writer import BatchWriter
from edgeproxy.collector.metrics import CONTENT_TYPE, Metrics
from edgeproxy.config.addresses import is_loopback
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.tokens import AdminToken

FORWARDED = ("x-forwarded-", "x-real-ip", "forwarded", "via", "origin")
"""How the names begin, in lower case, of fields that proxies and pages of browsers send."""
READY_TIMEOUT = 2.0
"""Seconds within which the database answers, if it is well."""


class ServiceHandlers:
    """Tells how the collector is."""

    def __init__(self, database: Database, ingest: BatchWriter, metrics: Metrics) -> None:
        self._database = database
        self._ingest = ingest
        self._metrics = metrics
        self.unready: str | None = "starting"
        """Why it does not serve; None where it does."""
        self._billing: Billing | None = None
        self._readers: bearer.Tokens[AdminToken] | None = None
        """Who may read the metrics; None: everybody."""

    def use(self, settings: CollectorSettings) -> None:
        """Tell of billing as these have it, and to whom they say."""
        self._billing = settings.billing
        self._readers = bearer.Tokens(settings.metrics.tokens) if settings.metrics.tokens else None

    async def healthz(self, _: Call[Query, Nothing]) -> web.Response:
        """Alive."""
        return web.Response(text="ok")

    async def readyz(self, _: Call[Query, Nothing]) -> web.Response:
        """Whether batches can be taken now."""
        why = self._unable()
        if why is None:
            try:
                async with asyncio.timeout(READY_TIMEOUT), self._database.reading() as connection:
                    await connection.exec_driver_sql("SELECT 1")
            except CONNECTION_ERRORS as error:
                why = f"the database does not answer: {format_reason(error)}"
        return answer(503 if why else 200, {"ready": why is None, "reason": why})

    def _unable(self) -> str | None:
        """Say why no batches can be taken, as far as that is known without asking the database."""
        failing = self._ingest.find_failure()
        return self.unready or (f"batches cannot be settled: {failing}" if failing else None)

    async def metrics(self, call: Call[Query, Nothing]) -> web.Response:
        """For Prometheus. What was taken is told to who has a token, or on this host where there are none."""
        if self._readers is not None:
            try:
                self._readers.holder(call.request.headers.get("Authorization"), time.time())
            except bearer.InvalidTokenError as error:
                raise auth.DeniedError(401, str(error), {"WWW-Authenticate": error.challenge}, error.actor) from None
        edge_status = billing = None
        try:
            async with asyncio.timeout(READY_TIMEOUT), self._database.reading(whole=True) as connection:
                edge_status = await edges.fetch_status(connection)
                if self._billing is not None:
                    billing = await billing_standing.fetch_status(connection, self._billing, time.time())
        except Exception as error:  # Whatever it is, the rest is to be told.
            log.get_logger().warning("what edges are like is not known now", why=format_reason(error))
        tells_money = self._readers is not None or is_local(call.request)
        ready = edge_status is not None and self._unable() is None
        exposition = self._metrics.exposition(ready, edge_status, billing, tells_money=tells_money)
        return web.Response(body=exposition, headers={"Content-Type": CONTENT_TYPE})

    async def openapi(self, call: Call[Query, Nothing]) -> web.Response:
        """Send the OpenAPI description of the endpoints that this listener answers."""
        return web.Response(body=await call.request.app[DESCRIPTION].json(), content_type="application/json")


class Description:
    """The OpenAPI description of the endpoints of a listener; `make` makes it, as JSON."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._made: asyncio.Future[bytes] | None = None
        """What it made; that takes a third of a second of CPU, and most collectors are never asked for it."""

    async def json(self) -> bytes:
        """Return it, made once."""
        if self._made is None:
            self._made = run_in_thread("describe the endpoints", self._make)
        # Whoever asked first and has left does not take it from the others.
        return await asyncio.shield(self._made)


DESCRIPTION = web.AppKey("description", Description)
"""What an application is."""


def is_local(request: web.Request) -> bool:
    """Whether a program of this host asks for itself: neither a proxy for somebody else, nor a browser for a page."""
    forwarded = any(name.lower().startswith(FORWARDED) for name in request.headers)
    host = (request.host or "").rpartition("@")[2]
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return is_loopback(request[PEER].address) and is_loopback(name) and not forwarded
