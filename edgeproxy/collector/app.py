"""The collector's answers over HTTP (DESIGN section 6, Collector)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web

from edgeproxy import log
from edgeproxy.collector import auth, queries
from edgeproxy.collector.arrival import Named, arrive, named
from edgeproxy.collector.chain import Verdict
from edgeproxy.collector.database import LOST, Database, reason
from edgeproxy.collector.ingest import Ingest, Outcome, Unavailable
from edgeproxy.collector.metrics import CONTENT_TYPE, Metrics
from edgeproxy.collector.names import Names
from edgeproxy.usage.batch import MOST_BYTES

SLOWEST_BODY = 30.0
"""Seconds that a body may take to arrive."""
PATIENCE = 2.0
"""Seconds within which the database answers, if it is well."""
LATER = {"Retry-After": "1"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """What answers: the handlers, and what they need."""

    def __init__(self, database: Database, ingest: Ingest, tokens: auth.Tokens, names: Names, metrics: Metrics) -> None:
        self._database = database
        self._ingest = ingest
        self._tokens = tokens
        self._names = names
        self._metrics = metrics
        self.unready: str | None = "starting"
        """Why it does not serve; None where it does."""

    def application(self) -> web.Application:
        """The application with all paths."""
        made = web.Application(middlewares=[self._problems])
        made.router.add_post("/v1/batches", self.batches)
        made.router.add_get("/v1/usage", self.usage)
        made.router.add_get("/v1/edges", self.edges)
        made.router.add_get("/healthz", self.healthz)
        made.router.add_get("/readyz", self.readyz)
        made.router.add_get("/metrics", self.metrics)
        return made

    # ---- batches

    async def batches(self, request: web.Request) -> web.Response:
        """Take a batch; the answer comes once it is on disk."""
        token = self._tokens.holder(request.headers.get("Authorization"))
        said = named(request.headers)
        if isinstance(said, str):
            auth.may_ship(token, token.edge or "")
            return answer(422, {"error": "headers", "detail": said})
        auth.may_ship(token, said.edge)
        # One that does not say how long its body is may take all there is.
        size = min(request.content_length if request.content_length is not None else MOST_BYTES, MOST_BYTES)
        if not self._ingest.hold(size):
            return self._busy()
        try:
            sent = await body_of(request)
            arrival = arrive(said, sent, request.headers.get("Content-Encoding", "identity").strip().lower())
            more = max(0, len(arrival.body) - size)
            if more and not self._ingest.hold(more, already=size):
                return self._busy()
            size += more
            if token.region is not None:
                auth.may_ship_from(token, arrival.batch.region if arrival.batch else await self._region(said))
            # Settled whether its sender waits or not: half of a transaction cannot be taken back.
            outcome = await self._ingest.settle(arrival)
        finally:
            self._ingest.free(size)
        return verdict_of(outcome)

    def _busy(self) -> web.Response:
        self._metrics.busy.inc()
        later = {"Retry-After": str(self._ingest.back_in())}
        return problem(429, "more batches are waiting than can be held", later)

    async def _region(self, said: Named) -> str | None:
        async with self._database.reading() as connection:
            return await queries.region_of(connection, said.edge)

    # ---- questions

    async def usage(self, request: web.Request) -> web.Response:
        """What was used: `{total, rows}`, and what of it the configuration does not know."""
        token = self._tokens.holder(request.headers.get("Authorization"))
        customer = auth.may_read(token, request.query.get("customer"))
        if len(request.query) != len(set(request.query)):
            raise queries.BadQuery("a parameter is there twice")
        question = queries.asked({**request.query, **({"customer": customer} if customer else {})}, time.time())
        async with self._database.reading() as connection:
            found = await queries.usage(connection, question)
        unknown = self._names.unknown_in(question, found["rows"])
        return answer(200, found | ({"unknown": unknown} if unknown else {}))

    async def edges(self, request: web.Request) -> web.Response:
        """How each edge is."""
        auth.may_read_all(self._tokens.holder(request.headers.get("Authorization")))
        async with self._database.reading(whole=True) as connection:
            return answer(200, {"edges": await queries.listing(connection, time.time())})

    # ---- the collector itself

    async def healthz(self, _: web.Request) -> web.Response:
        """Alive."""
        return web.Response(text="ok")

    async def readyz(self, _: web.Request) -> web.Response:
        """Whether batches can be taken now."""
        why = self.unready
        if why is None:
            try:
                async with asyncio.timeout(PATIENCE), self._database.reading() as connection:
                    await connection.exec_driver_sql("SELECT 1")
            except LOST as failure:
                why = f"the database does not answer: {reason(failure)}"
        return answer(503 if why else 200, {"ready": why is None, "reason": why})

    async def metrics(self, _: web.Request) -> web.Response:
        """For Prometheus."""
        try:
            async with asyncio.timeout(PATIENCE), self._database.reading() as connection:
                count, until, gaps, quarantined = await queries.overview(connection)
        except LOST as failure:
            log.get().warning("metrics of edges are as they were", why=reason(failure))
        else:
            self._metrics.edges.set(count)
            self._metrics.lag.set(0 if until is None else max(0.0, time.time() - until))
            self._metrics.gaps.set(gaps)
            self._metrics.quarantined.set(quarantined)
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    @web.middleware
    async def _problems(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every error as problem+json (RFC 9457)."""
        try:
            return await handler(request)
        except auth.Denied as no:
            self._metrics.denied.inc()
            return problem(no.status, no.detail, {"WWW-Authenticate": "Bearer"} if no.status == 401 else None)
        except queries.BadQuery as bad:
            return problem(400, str(bad))
        except TooSlow:
            return problem(408, f"the body did not arrive within {SLOWEST_BODY:g} s", {"Connection": "close"})
        except Unavailable:
            return problem(503, "the database cannot be used now", LATER)
        except LOST as failure:
            log.get().error("the database cannot be used", path=request.path, why=reason(failure))
            return problem(503, "the database cannot be used now", LATER)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            return problem(error.status, WHY.get(error.status, error.reason), headers)
        except Exception as error:
            log.get().error("a request failed", path=request.path, exc_info=error)
            return problem(500, "the collector failed to answer; its log says more")


class TooSlow(Exception):
    """A body did not arrive in time."""


WHY = {
    404: "there are /v1/batches, /v1/usage, /v1/edges, /healthz, /readyz and /metrics here",
    405: "the method is not one that this path knows",
}
TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


async def body_of(request: web.Request) -> bytes:
    """The body as it comes, cut off where it is longer than any may be; raises TooSlow."""
    pieces, size = [], 0
    try:
        async with asyncio.timeout(SLOWEST_BODY):
            async for piece in request.content.iter_any():
                pieces.append(piece)
                size += len(piece)
                if size > MOST_BYTES:
                    break
    except TimeoutError:
        raise TooSlow from None
    return b"".join(pieces)


def verdict_of(outcome: Outcome) -> web.Response:
    """The answer that a sender gets."""
    verdict, watermark, why = outcome
    if verdict is Verdict.EXPECTED:
        return answer(409, {"error": "gap", "expected": watermark + 1})
    if verdict is Verdict.FORK:
        detail = "this seq is settled, with another hash"
        return answer(409, {"error": "fork", "detail": detail, "watermark": watermark})
    if verdict is Verdict.CHAIN:
        detail = "prev is not the hash of the batch before"
        return answer(409, {"error": "chain", "detail": detail, "watermark": watermark})
    if verdict in (Verdict.QUARANTINE, Verdict.UNREADABLE):
        return answer(422, {"error": "unreadable", "detail": why, "watermark": watermark})
    return answer(200, {"watermark": watermark})


def answer(status: int, body: dict[str, Any]) -> web.Response:
    """A body in JSON."""
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error as problem+json (RFC 9457)."""
    body = {"type": "about:blank", "title": TITLES.get(status, ""), "status": status, "detail": detail}
    return web.Response(
        status=status,
        body=orjson.dumps(body),
        headers={"Content-Type": "application/problem+json", **(headers or {})},
    )
