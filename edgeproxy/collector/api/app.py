"""The collector's answers over HTTP (docs/design/contract.md#collector): each request on its way to a handler."""

import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import orjson
from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.base.web_listener import PEER, add_response_fields
from edgeproxy.collector.accounts import audit, change, customers, keys
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.api import auth, openapi, usage_csv
from edgeproxy.collector.api.auth import Holder
from edgeproxy.collector.api.callers import Callers
from edgeproxy.collector.api.endpoint import API_USERS, CALLER, Call, Endpoint, Nothing, Query
from edgeproxy.collector.api.endpoints import Handlers, endpoints
from edgeproxy.collector.api.handlers.accounts import AccountHandlers
from edgeproxy.collector.api.handlers.alerts import AlertHandlers
from edgeproxy.collector.api.handlers.audit import AuditHandlers
from edgeproxy.collector.api.handlers.billing import BillingHandlers
from edgeproxy.collector.api.handlers.contacts import ContactHandlers
from edgeproxy.collector.api.handlers.credits import CreditHandlers
from edgeproxy.collector.api.handlers.delivery import DeliveryHandlers
from edgeproxy.collector.api.handlers.directory import DirectoryHandlers
from edgeproxy.collector.api.handlers.events import EventHandlers
from edgeproxy.collector.api.handlers.figures import FigureHandlers
from edgeproxy.collector.api.handlers.incidents import IncidentHandlers
from edgeproxy.collector.api.handlers.ledger import LedgerHandlers
from edgeproxy.collector.api.handlers.quarantine import QuarantineHandlers
from edgeproxy.collector.api.handlers.quotas import QuotaHandlers
from edgeproxy.collector.api.handlers.regions import RegionHandlers
from edgeproxy.collector.api.handlers.service import DESCRIPTION, Description, ServiceHandlers
from edgeproxy.collector.api.handlers.tokens import TokenHandlers
from edgeproxy.collector.api.listener import LISTENER, Listener
from edgeproxy.collector.api.request_limits import Often, RequestLimits, held_as
from edgeproxy.collector.api.request_reader import json_of, parse_body, parse_query
from edgeproxy.collector.api.responses import RETRY_LATER, FieldError, ProblemError, problem
from edgeproxy.collector.billing.credits import purchase_list
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.reports.response_counts import ResponseCounts
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database, format_reason
from edgeproxy.collector.database.row_security import serving
from edgeproxy.collector.events.event_writer import EventWriter
from edgeproxy.collector.jobs.quotas import QuotaMonitor
from edgeproxy.collector.ledger import queries
from edgeproxy.collector.ledger.batch_writer import BatchWriter, DatabaseUnavailableError
from edgeproxy.collector.ledger.names import Names
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.regions.networks import client_of

UNKNOWN_ACTOR = "unknown"
PROBED = ("/healthz", "/readyz")
"""What load balancers ask for themselves."""
OWNERS: dict[str, Callable[[AsyncConnection, str], Awaitable[str | None]]] = {
    "customer": customers.find_name,
    "key": keys.find_owner,
    "invoice": invoices.find_owner,
    "purchase": purchase_list.find_owner,
}
"""By the name of a parameter of paths, what says whose it is that it names."""
WHY = {
    404: "there is no such path: GET /v1/openapi.json describes those that there are",
    405: "the method is not one that this path knows",
}

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Queues(NamedTuple):
    """What counts: the batches of edges, and the events of services; and who watches what these come to."""

    ingest: BatchWriter
    intake: EventWriter
    watch: QuotaMonitor


class RequestParts(NamedTuple):
    """What a request says beside its head."""

    names: Mapping[str, str]
    """The parameters of the path."""
    query: Mapping[str, str]
    body: dict[str, Any] | None = None
    """The JSON of a call from inside; None: it is the request's."""
    given: bytes | None = None
    """The bytes of a call from inside, likewise."""


class Service:
    """What answers: the handlers, and what lets a request through to them."""

    def __init__(
        self, database: Database, queues: Queues, settings: CollectorSettings, names: Names, metrics: Metrics
    ) -> None:
        ingest, intake, watch = self._queues = queues
        self._database = database
        self._metrics = metrics
        self.denials = audit.Denials(database)
        """What was denied lately; somebody has to `write` it."""
        self.handlers = Handlers(
            ServiceHandlers(database, ingest, metrics),
            LedgerHandlers(database, ingest, names, metrics),
            QuarantineHandlers(database, names, metrics),
            AuditHandlers(database),
            AccountHandlers(database, metrics),
            RegionHandlers(database, settings, metrics),
            DirectoryHandlers(),
            EventHandlers(database, intake, metrics),
            TokenHandlers(database, metrics),
            AlertHandlers(database),
            BillingHandlers(database, metrics),
            QuotaHandlers(database, watch),
            ContactHandlers(database, metrics),
            IncidentHandlers(database, metrics),
            DeliveryHandlers(database, metrics),
            CreditHandlers(database, metrics),
            FigureHandlers(database),
        )
        self.callers = Callers(settings, database)
        self._limits = RequestLimits()
        self.endpoints = endpoints(self.handlers)
        """All of them, whichever listeners answer them."""
        self.billing_message: str | None = None
        """What customers are told while nobody is charged."""
        self.answers = ResponseCounts()
        self.use(settings)

    @property
    def unready(self) -> str | None:
        """Why it does not serve; None where it does."""
        return self.handlers.service.unready

    @unready.setter
    def unready(self, why: str | None) -> None:
        self.handlers.service.unready = why

    def use(self, settings: CollectorSettings) -> None:
        """Let in whom these settings let in."""
        self.settings = settings
        self.callers.use(settings)
        self.handlers.ledger.use(settings)
        self.handlers.accounts.use(settings)
        self.handlers.tokens.use(settings)
        self.handlers.regions.use(settings)
        self.handlers.events.use(settings)
        self.handlers.billing.use(settings)
        self.handlers.quotas.use(settings)
        self.handlers.contacts.use(settings)
        self.handlers.quarantine.use(settings)
        self.handlers.delivery.use(settings)
        self.handlers.service.use(settings)
        self._queues.ingest.values.set_bounds(settings.meters)
        self._queues.ingest.edges_per_token = settings.edges.per_token
        self._queues.intake.values.set_bounds(settings.meters)
        self.handlers.credits.use(settings)
        self.handlers.figures.use(settings)

    def application(self, listener: Listener) -> web.Application:
        """Make the application with the endpoints of a listener; of others it does not know."""
        application = web.Application(middlewares=[listener.connections.track_request, self._message, self._problems])
        groups = listener.settings.groups
        table = [endpoint.narrow(groups) for endpoint in self.endpoints if endpoint.groups & groups]
        application[LISTENER] = listener
        application[DESCRIPTION] = Description(lambda: orjson.dumps(openapi.build_description(table)))
        application.on_response_prepare.append(add_response_fields)
        for endpoint in table:
            application.router.add_route(endpoint.method, format_route(endpoint.path), self._through(endpoint))
            if endpoint.method == "GET":
                application.router.add_route("HEAD", format_route(endpoint.path), self._through(endpoint))
        return application

    def _through(self, endpoint: Endpoint[Any, Any]) -> Handle:
        """Return what brings a request to an endpoint if it passes: who asks, then what is asked, then what is sent."""

        async def handle(request: web.Request) -> web.StreamResponse:
            holder = None
            if endpoint.roles is not None:
                holder = await self.callers.holder(request.headers.get("Authorization"))
                groups = request.app[LISTENER].settings.groups
                auth.require_group(holder, groups, f"{endpoint.method} {endpoint.path}")
            return await self._answer(endpoint, holder, request, RequestParts(request.match_info, request.query))

        return handle

    async def _answer(
        self, endpoint: Endpoint[Any, Any], holder: Holder | None, request: web.Request, parts: RequestParts
    ) -> web.StreamResponse:
        if endpoint.roles is not None:
            assert holder is not None
            request[CALLER] = request[CALLER]._replace(actor=holder.label)
            what = f"{endpoint.method} {endpoint.path}"
            auth.require(holder, endpoint.roles, what)
            if endpoint.sensitive:
                auth.require_consent(holder, what, time.time())
        if holder is not None and endpoint.is_change:
            self._check_change_rate(holder)
        if endpoint.often is not None:
            self._check_request_rate(endpoint.path, endpoint.often, holder, request, parts)
        query = parse_query(endpoint.query, parts.query)
        with serving(None if holder is None else holder.customer):
            return await self._handle(endpoint, holder, request, parts, query)

    async def _handle(
        self,
        endpoint: Endpoint[Any, Any],
        holder: Holder | None,
        request: web.Request,
        parts: RequestParts,
        query: Query,
    ) -> web.StreamResponse:
        if holder is not None and holder.customer is not None:
            await self._own(holder, parts.names)
        call: Call[Any, Any] = Call(request, holder, query, Nothing(), names=parts.names, given=parts.given)
        if endpoint.sends is not Nothing:
            fields, sent = await json_of(request) if parts.body is None else (parts.body, orjson.dumps(parts.body))
            call = replace(call, body=parse_body(endpoint.sends, fields), sent=sent)
        return await endpoint.handler(call)

    async def ask(
        self, request: web.Request, holder: Holder, endpoint: Endpoint[Any, Any], parts: RequestParts
    ) -> web.StreamResponse:
        """Answer a call from inside, which pages make for who signed in, as if it came over HTTP."""
        try:
            return await self._answer(endpoint, holder, request, parts)
        except Exception as error:
            return self._refusal(request, f"{endpoint.method} {endpoint.path}", error)

    def _check_request_rate(
        self, path: str, often: Often, holder: Holder | None, request: web.Request, parts: RequestParts
    ) -> None:
        """Raise ProblemError where it is asked more often than such endpoints may be asked.

        Browsers may all have the address of one proxy: calls from inside are counted by who signed in.
        """
        if holder is None or (often.by == "address" and parts.given is None):
            subject = held_as(request[CALLER].origin)
        else:
            subject = holder.customer or request.query.get("customer") or holder.label
        seconds = self._limits.wait(path.split("/")[1], often, subject, time.time())
        if seconds:
            why = f"this may be asked {often.requests} times a minute"
            raise ProblemError(429, why, headers={"Retry-After": str(seconds)})

    def _check_change_rate(self, holder: Holder) -> None:
        """Raise ProblemError where a caller makes more changes than it may.

        Each token and each person is counted apart: whoever has stolen one keeps nobody else from changing anything.
        """
        rates = self.settings.changes_per_minute
        often = Often(rates.operators if holder.customer is None else rates.customers, "customer")
        seconds = self._limits.wait("changes", often, holder.label, time.time())
        if seconds:
            why = f"{holder.called} may make {often.requests} changes a minute"
            raise ProblemError(429, why, headers={"Retry-After": str(seconds)})

    async def _own(self, holder: Holder, names: Mapping[str, str]) -> None:
        """Raise DeniedError where a path names what is not of the customer whose token it is, be it there or not."""
        for name, owner_of in OWNERS.items():
            ref = names.get(name)
            if ref is not None and ref != holder.customer:
                async with self._database.reading() as connection:
                    auth.require_own(holder, await owner_of(connection, ref) or "")

    @web.middleware
    async def _message(self, request: web.Request, handler: Handle) -> web.StreamResponse:
        """Say in every answer about billing that nobody is charged, where nobody is; and count these answers."""
        if not request.path.startswith("/billing/"):
            return await handler(request)
        began = time.monotonic()
        response = await handler(request)
        if self.billing_message is not None:
            response.headers["X-Billing"] = self.billing_message
        self.answers.record(response.status, time.time(), is_known=request[CALLER].actor != UNKNOWN_ACTOR)
        self._metrics.billing_answered(response.status, time.monotonic() - began)
        return response

    @web.middleware
    async def _problems(self, request: web.Request, handler: Handle) -> web.StreamResponse:
        """Answer every error as a problem (RFC 9457)."""
        request[CALLER] = Caller(UNKNOWN_ACTOR, self._client(request), str(uuid.uuid4()))
        try:
            self._must_be_allowed(request)
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return self._refusal(request, "", error)
        except Exception as error:
            return self._refusal(request, f"{request.method} {get_registered_path(request)}", error)

    def _must_be_allowed(self, request: web.Request) -> None:
        """Raise DeniedError where a trusted proxy asks for a client that may not come to this listener.

        Probes of whether the collector is well are the proxy's own.
        """
        origin = request[CALLER].origin
        if request.path not in PROBED and not request.app[LISTENER].allows(origin):
            raise auth.DeniedError(403, f"this listener is not for {origin}")

    def _client(self, request: web.Request) -> str:
        """Return the address of who asks: of the peer, or of whom it speaks for where it is a trusted proxy."""
        peer, forwarded = request[PEER].address, ", ".join(request.headers.getall("X-Forwarded-For", []))
        client, _ = client_of(peer, forwarded, self.settings.trusted_proxies)
        return str(client or peer)

    def _refusal(self, request: web.Request, what: str, error: Exception) -> web.Response:
        """Return the problem that a failure is for who asked for `what`, and put denials on record."""
        match error:
            case auth.DeniedError() as denial:
                self.deny(request, what, denial.status, denial.detail, denial.actor)
                return problem(denial.status, denial.detail, denial.headers)
            case ProblemError() as denial:
                return problem(denial.status, denial.detail, denial.headers, errors=denial.errors)
            case change.ChangeRejectedError() as denial:
                if denial.status == 403:
                    self.denials.record(request[CALLER], what, 403, denial.why)
                errors: list[FieldError] = [{"field": field, "detail": why} for field, why in denial.faults]
                return problem(denial.status, denial.why, errors=errors)
            case queries.InvalidQueryError():
                return problem(400, str(error))
            case usage_csv.TooManyExportsError():
                return problem(429, "as many exports are under way as there may be", {"Retry-After": "10"})
            case DatabaseUnavailableError():
                return problem(503, "the database cannot be used now", RETRY_LATER)
            case web.HTTPException():
                headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
                why = WHY.get(error.status, error.reason)
                if error.status == 404 and not API_USERS & request.app[LISTENER].settings.groups:
                    why = "there is no such path"
                return problem(error.status, why, headers)
        if isinstance(error, CONNECTION_ERRORS):
            log.get_logger().error("the database cannot be used", path=request.path, why=format_reason(error))
            return problem(503, "the database cannot be used now", RETRY_LATER)
        log.get_logger().error("a request failed", path=request.path, exc_info=error)
        return problem(500, "the collector failed to answer; its log says more")

    def deny(self, request: web.Request, what: str, status: int, why: str, actor: str | None = None) -> None:
        """Put a denial on record; `actor` is who asked, where the request does not say so yet."""
        self._metrics.denied.inc()
        who = request[CALLER] if actor is None else request[CALLER]._replace(actor=actor)
        self.denials.record(who, what, status, why)


def format_route(path: str) -> str:
    """Return the pattern of a path for the router: a word that has a path of its own is no id."""
    return path.replace("{key}", "{key:(?!leaked$)[^{}/]+}").replace("{invoice}", "{invoice:(?!upcoming$)[^{}/]+}")


def get_registered_path(request: web.Request) -> str:
    """Return the path that a request asks for as it is registered, so that there are few different ones."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"
