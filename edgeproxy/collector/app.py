"""The collector's answers over HTTP (docs/design/contract.md#collector)."""

import asyncio
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy import log
from edgeproxy.accounts import audit
from edgeproxy.accounts.audit import PAGE_ENTRIES_MAX, Caller, Entry
from edgeproxy.collector import auth, export
from edgeproxy.collector.auth import Right
from edgeproxy.collector.metrics import CONTENT_TYPE, Metrics
from edgeproxy.config.collector import Settings, Token
from edgeproxy.database.database import LOST, Database, reason
from edgeproxy.ledger import edges, quarantine, queries
from edgeproxy.ledger.arrival import SEQ, arrive, inflate, named
from edgeproxy.ledger.chain import Shipper, Verdict
from edgeproxy.ledger.ingest import REFUSED, Ingest, Outcome, Unavailable
from edgeproxy.ledger.names import Names
from edgeproxy.usage.batch import BODY_BYTES_MAX, NAME, NUMBER_MAX, BadBatch

BODY_SECONDS_MAX = 30.0
"""Seconds that a body may take to arrive."""
READY_TIMEOUT = 2.0
"""Seconds within which the database answers, if it is well."""
RETRY_LATER = {"Retry-After": "1"}
CALLER = web.RequestKey("caller", Caller)
"""Who makes a request, as far as that is known yet."""
UNKNOWN_ACTOR = "unknown"
AUDIT_FILTERS = ("actor", "action", "target")
NUMBER = re.compile(r"[0-9]{1,18}")
GAP_SEQ_MAX = 100_000_000
"""The batch up to which a chain may begin with a gap at most, with consent: centuries of batches of an edge."""
EDGE_CHANGES: dict[frozenset[str], dict[str, type]] = {
    frozenset({"retired"}): {"retired": bool},
    frozenset({"token", "region"}): {"token": str, "region": str},
    frozenset({"gap_to"}): {"gap_to": int},
}
"""The forms of a change of an edge: its fields, and the type of each."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """What answers: the handlers, and what they need."""

    def __init__(self, database: Database, ingest: Ingest, settings: Settings, names: Names, metrics: Metrics) -> None:
        self._database = database
        self._ingest = ingest
        self._names = names
        self._exports = export.Exports(database)
        self._metrics = metrics
        self.denials = audit.Denials(database)
        """What was denied lately; somebody has to `write` it."""
        self._tokens: auth.Tokens
        self._certified: bool
        """Whether who ships must show a certificate."""
        self.use(settings)
        self.unready: str | None = "starting"
        """Why it does not serve; None where it does."""

    def use(self, settings: Settings) -> None:
        """Who may ask what is as in these."""
        self._tokens = auth.Tokens(settings.tokens)
        self._certified = settings.tls is not None and settings.tls.client_ca is not None

    def application(self) -> web.Application:
        """The application with all paths."""
        made = web.Application(middlewares=[self._problems])
        made.router.add_post("/v1/batches", self.batches)
        made.router.add_get("/v1/usage", self.usage)
        made.router.add_get("/v1/edges", self.edges)
        made.router.add_patch("/v1/edges/{edge}", self.change_edge)
        made.router.add_get("/v1/quarantine", self.quarantine)
        made.router.add_get("/v1/quarantine/{edge}/{seq}", self.quarantined)
        made.router.add_get("/v1/quarantine/{edge}/{seq}/body", self.quarantined_body)
        made.router.add_post("/v1/quarantine/{edge}/{seq}/replay", self.replay)
        made.router.add_get("/v1/audit", self.audit)
        made.router.add_get("/healthz", self.healthz)
        made.router.add_get("/readyz", self.readyz)
        made.router.add_get("/metrics", self.metrics)
        return made

    # ---- batches

    async def batches(self, request: web.Request) -> web.Response:
        """Take a batch; the answer comes once it is on disk."""
        token = self._holder(request)
        if self._certified and not (request.transport and request.transport.get_extra_info("peercert")):
            raise auth.Denied(403, "show a certificate that tls.client_ca of the collector vouches for")
        said = named(request.headers)
        if isinstance(said, str):
            auth.require_edge(token, None)
            return answer(422, {"error": "headers", "detail": said})
        auth.require_edge(token, said.edge)
        # One that does not say how long its body is may take all there is.
        size = min(request.content_length if request.content_length is not None else BODY_BYTES_MAX, BODY_BYTES_MAX)
        if not self._ingest.hold(size):
            return self._busy()
        try:
            sent = await body_of(request)
            arrival = arrive(said, sent, request.headers.get("Content-Encoding", "identity").strip().lower())
            more = max(0, len(arrival.body) - size)
            if more and not self._ingest.hold(more, already=size):
                return self._busy()
            size += more
            # Settled whether its sender waits or not: half of a transaction cannot be taken back.
            outcome = await self._ingest.settle(arrival, Shipper(token.label, token.region))
        finally:
            self._ingest.free(size)
        if outcome.verdict in REFUSED:
            raise auth.Denied(403, outcome.why)
        return verdict_of(outcome)

    def _holder(self, request: web.Request) -> Token:
        """Return the token that a request comes with, and note it as the request's actor; raises Denied."""
        token = self._tokens.holder(request.headers.get("Authorization"), time.time())
        request[CALLER] = request[CALLER]._replace(actor=token.label)
        return token

    def _busy(self) -> web.Response:
        self._metrics.busy.inc()
        later = {"Retry-After": str(self._ingest.back_in())}
        return problem(429, "more batches are waiting than can be held", later)

    # ---- questions

    async def usage(self, request: web.Request) -> web.StreamResponse:
        """What was used: `{total, rows}`, `next` where there are more rows, and what the configuration does not know.

        As CSV all rows at once, unless `limit` or `cursor` ask for a page.
        """
        customer = auth.customer_of(self._holder(request), request.query.get("customer"))
        if len(request.query) != len(set(request.query)):
            raise queries.BadQuery("a parameter is there twice")
        question = queries.asked({**request.query, **({"customer": customer} if customer else {})}, time.time())
        is_csv = export.is_wanted(request)
        if is_csv and question.limit is None and question.after is None:
            return await self._exports.send(request, question)
        async with self._database.reading(whole=True) as connection:
            found = await queries.usage(connection, question)
        if is_csv:
            return export.page(request, question, found)
        unknown = self._names.unknown_in(question, found["rows"])
        return answer(200, found | ({"unknown": unknown} if unknown else {}), {"Vary": "Accept"})

    async def edges(self, request: web.Request) -> web.Response:
        """How each edge is."""
        auth.require(self._holder(request), Right.READ)
        async with self._database.reading(whole=True) as connection:
            return answer(200, {"edges": await edges.listing(connection, time.time())})

    async def change_edge(self, request: web.Request) -> web.Response:
        """Retire an edge, `{retired: true}`, or take it back; bind it to another `{token, region}`; or consent to a
        chain that begins with a gap, `{gap_to: SEQ}`.
        """
        token = self._holder(request)
        auth.require(token, Right.CHANGE)
        said = loaded(await body_of(request))
        form = frozenset(said) if isinstance(said, dict) else frozenset()
        if form not in EDGE_CHANGES or any(type(said[name]) is not kind for name, kind in EDGE_CHANGES[form].items()):
            raise queries.BadQuery('send {"retired": true}, {"token": NAME, "region": REGION} or {"gap_to": SEQ}')
        edge = request.match_info["edge"]
        async with self._database.writing() as connection:
            before = await edges.bound(connection, edge)
            if "retired" in said:
                watermark = await edges.retire(connection, edge, retired=said["retired"])
            elif "gap_to" in said:
                if not 0 <= said["gap_to"] <= GAP_SEQ_MAX:
                    raise queries.BadQuery(f"gap_to is not from 0 to {GAP_SEQ_MAX}")
                watermark = await edges.consent(connection, self._database, edge, said["gap_to"])
                if watermark is None and NAME.fullmatch(edge):
                    return problem(409, f"the chain of {edge} has begun already")
            else:
                if not (NAME.fullmatch(said["token"]) and NAME.fullmatch(said["region"])):
                    raise queries.BadQuery("token and region are names")
                watermark = await edges.move(connection, edge, token=said["token"], region=said["region"])
            if watermark is not None:
                was = before and {name: before[name] for name in said}
                await audit.append(connection, request[CALLER], Entry("edge.change", edge, was, said))
        if watermark is None:
            return problem(404, f"there is no edge {edge[:64]!r}")
        log.get().info("edge changed", edge=edge, watermark=watermark, by=token.label, **said)
        return answer(200, {"edge": edge, "watermark": watermark, **said})

    # ---- what could not be read

    async def quarantine(self, request: web.Request) -> web.Response:
        """What is in quarantine."""
        auth.require(self._holder(request), Right.CHANGE)
        async with self._database.reading(whole=True) as connection:
            return answer(200, await quarantine.listing(connection, request.query.get("edge")))

    async def quarantined(self, request: web.Request) -> web.Response:
        """What is known of a batch there."""
        auth.require(self._holder(request), Right.CHANGE)
        async with self._database.reading(whole=True) as connection:
            found = await quarantine.shown(connection, *asked_for(request))
        return problem(404, "there is no such batch in quarantine") if found is None else answer(200, found)

    async def quarantined_body(self, request: web.Request) -> web.Response:
        """Its body, uncompressed where that can be done, else as it came."""
        auth.require(self._holder(request), Right.CHANGE)
        async with self._database.reading() as connection:
            body = await quarantine.content(connection, *asked_for(request))
        if body is None:
            return problem(404, "there is no such batch in quarantine")
        return web.Response(body=body, content_type="application/octet-stream")

    async def replay(self, request: web.Request) -> web.Response:
        """Count it after all, by its own body or by the one that is sent."""
        auth.require(self._holder(request), Right.CHANGE)
        edge, seq = asked_for(request)
        given = await body_of(request)

        async def record(connection: AsyncConnection, done: quarantine.Replayed) -> None:
            after = {**done.told(), "own_body": not given}
            await audit.append(connection, request[CALLER], Entry("quarantine.replay", f"{edge}/{seq}", None, after))

        try:
            if given:
                given = inflate(given, request.headers.get("Content-Encoding", "identity").strip().lower())
            done = await quarantine.replay(self._database, edge, seq, given or None, record=record)
        except BadBatch as bad:
            return problem(422, f"the body {bad}")
        except quarantine.Refused as no:
            return problem(no.status, str(no))
        if not done.again:
            self._metrics.batches.labels(Verdict.MEND.value).inc()
            self._metrics.rows.inc(done.rows)
            self._names.found((customer for customer, _, _ in done.begun), (meter for _, meter, _ in done.begun))
            log.get().info("a batch was replayed", edge=edge, seq=seq, rows=done.rows, total=done.total)
        return answer(200, done.told())

    # ---- who did what

    async def audit(self, request: web.Request) -> web.Response:
        """The audit log, oldest first: `{entries, next}`; `next` is the `after` of the page that follows."""
        auth.require(self._holder(request), Right.CHANGE)
        asked = dict(request.query)
        if len(asked) != len(request.query) or asked.keys() - {"after", "limit", *AUDIT_FILTERS}:
            raise queries.BadQuery(f"the parameters are after, limit, {', '.join(AUDIT_FILTERS)}, each once")
        numbers = {name: asked.pop(name, default) for name, default in (("after", "0"), ("limit", "100"))}
        if (
            not all(NUMBER.fullmatch(number) for number in numbers.values())
            or not 0 < int(numbers["limit"]) <= PAGE_ENTRIES_MAX
        ):
            raise queries.BadQuery(f"after is a whole number, and limit one from 1 to {PAGE_ENTRIES_MAX}")
        if any("\0" in value for value in asked.values()):  # Not every database takes one, even to find nothing.
            raise queries.BadQuery("a parameter has a NUL in it")
        limit = int(numbers["limit"])
        async with self._database.reading(whole=True) as connection:
            entries = await audit.page(connection, int(numbers["after"]), limit, **asked)
        more = {"next": entries[-1]["seq"]} if len(entries) == limit else {}
        return answer(200, {"entries": entries, **more})

    # ---- the collector itself

    async def healthz(self, _: web.Request) -> web.Response:
        """Alive."""
        return web.Response(text="ok")

    async def readyz(self, _: web.Request) -> web.Response:
        """Whether batches can be taken now."""
        why = self._unable()
        if why is None:
            try:
                async with asyncio.timeout(READY_TIMEOUT), self._database.reading() as connection:
                    await connection.exec_driver_sql("SELECT 1")
            except LOST as failure:
                why = f"the database does not answer: {reason(failure)}"
        return answer(503 if why else 200, {"ready": why is None, "reason": why})

    def _unable(self) -> str | None:
        """Why no batches can be taken, as far as that is known without asking the database."""
        failing = self._ingest.failing()
        return self.unready or (f"batches cannot be settled: {failing}" if failing else None)

    async def metrics(self, _: web.Request) -> web.Response:
        """For Prometheus."""
        standing = None
        try:
            async with asyncio.timeout(READY_TIMEOUT), self._database.reading(whole=True) as connection:
                standing = await edges.standing(connection)
        except Exception as failure:  # Whatever it is, the rest is to be told.
            log.get().warning("what edges are like is not known now", why=reason(failure))
        told = self._metrics.exposition(standing is not None and self._unable() is None, standing)
        return web.Response(body=told, headers={"Content-Type": CONTENT_TYPE})

    @web.middleware
    async def _problems(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every error as problem+json (RFC 9457)."""
        request[CALLER] = Caller(UNKNOWN_ACTOR, request.remote or "", str(uuid.uuid4()))
        try:
            return await handler(request)
        except auth.Denied as no:
            self._metrics.denied.inc()
            self.denials.note(request[CALLER], f"{request.method} {path_of(request)}", no.status, no.detail)
            return problem(no.status, no.detail, {"WWW-Authenticate": "Bearer"} if no.status == 401 else None)
        except queries.BadQuery as bad:
            return problem(400, str(bad))
        except export.Busy:
            return problem(429, "as many exports are under way as there may be", {"Retry-After": "10"})
        except TooSlow:
            return problem(408, f"the body did not arrive within {BODY_SECONDS_MAX:g} s", {"Connection": "close"})
        except Unavailable:
            return problem(503, "the database cannot be used now", RETRY_LATER)
        except LOST as failure:
            log.get().error("the database cannot be used", path=request.path, why=reason(failure))
            return problem(503, "the database cannot be used now", RETRY_LATER)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
            return problem(error.status, WHY.get(error.status, error.reason), headers)
        except Exception as error:
            log.get().error("a request failed", path=request.path, exc_info=error)
            return problem(500, "the collector failed to answer; its log says more")


def path_of(request: web.Request) -> str:
    """Return the path that a request asks for as it is registered, so that there are few different ones."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


class TooSlow(Exception):
    """A body did not arrive in time."""


WHY = {
    404: "there are /v1/batches, /v1/usage, /v1/edges, /v1/quarantine, /v1/audit, /healthz, /readyz and /metrics here",
    405: "the method is not one that this path knows",
}
TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


async def body_of(request: web.Request) -> bytes:
    """The body as it comes, cut off where it is longer than any may be; raises TooSlow."""
    pieces, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            async for piece in request.content.iter_any():
                pieces.append(piece)
                size += len(piece)
                if size > BODY_BYTES_MAX:
                    break
    except TimeoutError:
        raise TooSlow from None
    return b"".join(pieces)


def loaded(body: bytes) -> Any:
    """What is in a body of JSON; raises BadQuery."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise queries.BadQuery(f"the body is not JSON: {error}") from None


def asked_for(request: web.Request) -> tuple[str, int]:
    """The batch that a path names; raises BadQuery."""
    edge, seq = request.match_info["edge"], request.match_info["seq"]
    if not SEQ.fullmatch(seq) or int(seq) > NUMBER_MAX:
        raise queries.BadQuery(f"{seq[:20]!r} is no seq, a whole number from 1")
    return edge, int(seq)


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


def answer(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
    """A body in JSON."""
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json", headers=headers)


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """An error as problem+json (RFC 9457)."""
    body = {"type": "about:blank", "title": TITLES.get(status, ""), "status": status, "detail": detail}
    return web.Response(
        status=status,
        body=orjson.dumps(body),
        headers={"Content-Type": "application/problem+json", **(headers or {})},
    )
