"""The collector's answers over HTTP (docs/design/contract.md#collector): each request on its way to a handler."""

import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import orjson
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy import log
from edgeproxy.accounts import audit, change, customers, keys
from edgeproxy.accounts.audit import Caller
from edgeproxy.collector import auth, export, openapi
from edgeproxy.collector.answers import RETRY_LATER, FieldError, Refused, problem
from edgeproxy.collector.auth import Holder
from edgeproxy.collector.callers import Callers
from edgeproxy.collector.endpoint import CALLER, Call, Endpoint, Nothing
from edgeproxy.collector.endpoints import Handlers, endpoints
from edgeproxy.collector.handlers.accounts import AccountHandlers
from edgeproxy.collector.handlers.audit import AuditHandlers
from edgeproxy.collector.handlers.directory import DirectoryHandlers
from edgeproxy.collector.handlers.events import EventHandlers
from edgeproxy.collector.handlers.ledger import LedgerHandlers
from edgeproxy.collector.handlers.quarantine import QuarantineHandlers
from edgeproxy.collector.handlers.regions import RegionHandlers
from edgeproxy.collector.handlers.standing import StandingHandlers
from edgeproxy.collector.handlers.tokens import TokenHandlers
from edgeproxy.collector.incoming import asked, checked, json_of
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.collector import Settings
from edgeproxy.database.database import LOST, Database, reason
from edgeproxy.events.intake import Intake
from edgeproxy.ledger import queries
from edgeproxy.ledger.ingest import Ingest, Unavailable
from edgeproxy.ledger.names import Names
from edgeproxy.web_listener import PEER, WebListener

UNKNOWN_ACTOR = "unknown"
OWNERS: dict[str, Callable[[AsyncConnection, str], Awaitable[str | None]]] = {
    "customer": customers.name_of,
    "key": keys.owner_of,
}
"""By the name of a parameter of paths, what says whose it is that it names."""
WHY = {
    404: "there is no such path: GET /v1/openapi.json describes those that there are",
    405: "the method is not one that this path knows",
}

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Queues(NamedTuple):
    """What counts: the batches of edges, and the events of services."""

    ingest: Ingest
    intake: Intake


class Service:
    """What answers: the handlers, and what lets a request through to them."""

    def __init__(self, database: Database, queues: Queues, settings: Settings, names: Names, metrics: Metrics) -> None:
        ingest, intake = queues
        self._database = database
        self._metrics = metrics
        self.denials = audit.Denials(database)
        """What was denied lately; somebody has to `write` it."""
        self.handlers = Handlers(
            StandingHandlers(database, ingest, metrics),
            LedgerHandlers(database, ingest, names, metrics),
            QuarantineHandlers(database, names, metrics),
            AuditHandlers(database),
            AccountHandlers(database, metrics),
            RegionHandlers(database, settings, metrics),
            DirectoryHandlers(),
            EventHandlers(database, intake, metrics),
            TokenHandlers(database, metrics),
        )
        self._callers = Callers(settings, database)
        self.use(settings)

    @property
    def unready(self) -> str | None:
        """Why it does not serve; None where it does."""
        return self.handlers.standing.unready

    @unready.setter
    def unready(self, why: str | None) -> None:
        self.handlers.standing.unready = why

    def use(self, settings: Settings) -> None:
        """Let in whom these settings let in."""
        self._callers.use(settings)
        self.handlers.ledger.use(settings)
        self.handlers.accounts.use(settings)
        self.handlers.tokens.use(settings)
        self.handlers.regions.use(settings)
        self.handlers.events.use(settings)

    def application(self, connections: WebListener) -> web.Application:
        """Make the application with all endpoints, of which these connections ask."""
        made = web.Application(middlewares=[connections.counted, self._problems])
        table = endpoints(self.handlers)
        for one in table:
            made.router.add_route(one.method, routed(one.path), self._through(one))
            if one.method == "GET":
                made.router.add_route("HEAD", routed(one.path), self._through(one))
        self.handlers.standing.description = orjson.dumps(openapi.description(table))
        return made

    def _through(self, endpoint: Endpoint[Any, Any]) -> Handle:
        """Return what brings a request to an endpoint if it passes: who asks, then what is asked, then what is sent."""

        async def handle(request: web.Request) -> web.StreamResponse:
            holder = None
            if endpoint.roles is not None:
                holder = await self._callers.holder(request.headers.get("Authorization"))
                request[CALLER] = request[CALLER]._replace(actor=holder.label)
                what = f"{endpoint.method} {endpoint.path}"
                auth.require(holder, endpoint.roles, what)
                if endpoint.sensitive:
                    auth.require_consent(holder, what, time.time())
            query = asked(endpoint.query, request)
            if holder is not None and holder.customer is not None:
                await self._own(holder, request)
            if endpoint.sends is Nothing:
                return await endpoint.handler(Call(request, holder, query, Nothing()))
            said, sent = await json_of(request)
            return await endpoint.handler(Call(request, holder, query, checked(endpoint.sends, said), sent))

        return handle

    async def _own(self, holder: Holder, request: web.Request) -> None:
        """Raise Denied where a path names what is not of the customer whose token it is, be it there or not."""
        for name, owner_of in OWNERS.items():
            ref = request.match_info.get(name)
            if ref is not None and ref != holder.customer:
                async with self._database.reading() as connection:
                    auth.require_own(holder, await owner_of(connection, ref) or "")

    @web.middleware
    async def _problems(self, request: web.Request, handler: Handle) -> web.StreamResponse:
        """Answer every error as a problem (RFC 9457)."""
        request[CALLER] = Caller(UNKNOWN_ACTOR, request[PEER].address, str(uuid.uuid4()))
        try:
            return await handler(request)
        except auth.Denied as no:
            self._metrics.denied.inc()
            who = request[CALLER] if no.actor is None else request[CALLER]._replace(actor=no.actor)
            self.denials.note(who, f"{request.method} {path_of(request)}", no.status, no.detail)
            return problem(no.status, no.detail, no.headers)
        except Refused as no:
            return problem(no.status, no.detail, no.headers, errors=no.errors)
        except change.Refused as no:
            if no.status == 403:
                self.denials.note(request[CALLER], f"{request.method} {path_of(request)}", 403, no.why)
            told: list[FieldError] = [{"field": field, "detail": why} for field, why in no.faults]
            return problem(no.status, no.why, errors=told)
        except queries.BadQuery as bad:
            return problem(400, str(bad))
        except export.Busy:
            return problem(429, "as many exports are under way as there may be", {"Retry-After": "10"})
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


def routed(path: str) -> str:
    """Return the pattern of a path for the router: a word that has a path of its own is no id."""
    return path.replace("{key}", "{key:(?!leaked$)[^{}/]+}")


def path_of(request: web.Request) -> str:
    """Return the path that a request asks for as it is registered, so that there are few different ones."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"
