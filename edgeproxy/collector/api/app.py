"""The collector's API over HTTP (docs/design/contract.md#collector): the path of each request to its handler."""

import time
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple, cast

import orjson
from aiohttp import hdrs, web
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.web_listener import PEER, add_response_fields
from edgeproxy.collector.accounts import audit, contacts
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.key_rows import set_rotate_every
from edgeproxy.collector.api import auth, openapi
from edgeproxy.collector.api.auth import Holder
from edgeproxy.collector.api.callers import Callers
from edgeproxy.collector.api.changes import make_change
from edgeproxy.collector.api.contact_rights import require_contact
from edgeproxy.collector.api.customer_names import IN_BODIES, IN_QUERIES, CustomerNames, find_readers
from edgeproxy.collector.api.endpoint import (
    API_USERS,
    CALLER,
    CLIENT,
    READ_VALUES,
    SHOWN_TO,
    AnyCall,
    Call,
    Endpoint,
    Nothing,
    Query,
)
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Handlers, Resources
from edgeproxy.collector.api.groups import GROUPS, PARAMETERS
from edgeproxy.collector.api.listener import LISTENER, Listener
from edgeproxy.collector.api.request_limits import RequestLimits, RequestRate, format_subject
from edgeproxy.collector.api.request_reader import parse_body, parse_query, read_json
from edgeproxy.collector.api.responses import (
    RETRY_LATER,
    ProblemError,
    Result,
    answer_error,
    as_result,
    build_response,
    problem,
)
from edgeproxy.collector.api.service import DESCRIPTION, Description
from edgeproxy.collector.api.usage.csv_export import TooManyExportsError
from edgeproxy.collector.billing.reports.response_counts import ResponseCounts
from edgeproxy.collector.database.database import CONNECTION_ERRORS, format_reason
from edgeproxy.collector.database.read_once import reading_once
from edgeproxy.collector.database.row_security import serving
from edgeproxy.collector.database.unreadable_rows import UnreadableRowError
from edgeproxy.collector.ledger import queries
from edgeproxy.collector.ledger.batch_writer import DatabaseUnavailableError
from edgeproxy.collector.problems import request_codes
from edgeproxy.collector.problems.coded_error import CodedError
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.regions.networks import find_client, mask_address
from edgeproxy.tracing.recorder import trace

UNREADABLE = "a row of the database that this needs cannot be read; operators have an alert about it"
"""The detail of an error response if a needed row is unreadable."""
UNKNOWN_ACTOR = "unknown"
UNKNOWN_ORIGIN = "an unknown address"
PROBE_PATHS = ("/healthz", "/readyz")
"""Paths that load balancers request for themselves."""
HTTP_ERRORS = {
    404: request_codes.PATH_NOT_FOUND,
    405: request_codes.METHOD_NOT_ALLOWED,
    413: request_codes.BODY_TOO_LARGE,
    417: request_codes.EXPECTATION_UNSUPPORTED,
}
"""The problems for the statuses that aiohttp itself answers."""
REASONS = {
    404: "there is no such path: GET /v1/openapi.json describes those that there are",
    405: "the method is not one that this path knows",
}

Handle = Callable[[web.Request], Awaitable[web.StreamResponse]]


PAGES_PER_MINUTE = 300
"""Pages per minute for a signed-in visitor, including parts that refresh themselves."""


RARE_PER_MINUTE = 30
"""Endpoints with a lower rate are expensive, for example exports. Their rate applies to pages as well."""


class RequestParts(NamedTuple):
    """The parts of a request below its head, from an HTTP request or an inner call."""

    path_parameters: Mapping[str, str]
    query: Mapping[str, str]
    inner_json: JsonObject | None = None
    """The JSON of an inner call; None: the HTTP request has it."""
    inner_body: bytes | None = None
    """The bytes of an inner call, likewise."""


def is_within_page(endpoint: Endpoint, parts: RequestParts) -> bool:
    """Return True if a page reads this for its visitor, so that only the budget of pages applies.

    A page reads several documents and would use up the rate of the API. Reads with a lower rate than pages keep their
    rate.
    """
    is_rare = endpoint.rate is not None and endpoint.rate.requests < RARE_PER_MINUTE
    return parts.inner_body is not None and endpoint.method == "GET" and not is_rare


class Service:
    """The endpoints, and the checks that a request must pass."""

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self._database = resources.database
        self._metrics = resources.metrics
        self.denials = audit.Denials(resources.database)
        """Recently denied requests. The collector writes them at intervals."""
        self._handlers: dict[str, Handlers] = {group.name: group.handlers(resources) for group in GROUPS}
        self.callers = Callers(resources.settings, resources.database)
        self.names = CustomerNames(resources.database, lambda: resources.settings)
        self._limits = RequestLimits()
        self.billing_message: str | None = None
        """The message to customers while charging is stopped."""
        self.response_counts = ResponseCounts()
        self.apply_settings(resources.settings)

    @property
    def settings(self) -> CollectorSettings:
        """The settings of the last reload."""
        return self.resources.settings

    def apply_settings(self, settings: CollectorSettings) -> None:
        """Use these settings from now on."""
        self.resources.settings = settings
        self.callers.use(settings)
        set_rotate_every(self.resources.database, None if settings.rotation is None else settings.rotation.every)
        for handlers in self._handlers.values():
            handlers.apply_settings(settings)
        self.resources.batches.values.set_bounds(settings.meters)
        self.resources.batches.edges_per_token = settings.edges.per_token
        self.resources.events.values.set_bounds(settings.meters)

    async def close(self) -> None:
        """Stop background work of handlers."""
        for handlers in self._handlers.values():
            await handlers.close()

    def build_application(self, listener: Listener) -> web.Application:
        """Build the application of a listener. It has only the endpoints that the listener serves."""
        around = [trace_request, listener.connections.track_request, self._message, self._problems]
        application = web.Application(middlewares=around)
        groups = listener.settings.groups
        table = [
            (group, [endpoint.narrow(groups) for endpoint in group.endpoints if endpoint.groups & groups])
            for group in GROUPS
        ]
        application[LISTENER] = listener
        application[DESCRIPTION] = Description(partial(openapi.build_description, table))
        application.on_response_prepare.append(add_response_fields)
        routes = list_routes()
        for _, endpoints in table:
            for endpoint in endpoints:
                route, handle = routes[endpoint.path], self._build_handle(endpoint)
                application.router.add_route(endpoint.method, route, handle)
                if endpoint.method == "GET":
                    application.router.add_route("HEAD", route, handle)
        return application

    def _build_handle(self, endpoint: Endpoint) -> Handle:
        """Return the function that passes a request to an endpoint after all checks."""

        async def handle(request: web.Request) -> web.StreamResponse:
            holder = None
            if not endpoint.is_public:
                # Several fields are combined into one (RFC 9110 section 5.3), which is no valid token. So no field is
                # preferred.
                authorization = ", ".join(request.headers.getall("Authorization", []))
                holder = await self.callers.holder(authorization)
                groups = request.app[LISTENER].settings.groups
                auth.require_group(holder, groups, f"{endpoint.method} {endpoint.path}")
            return await self._answer(endpoint, holder, request, RequestParts(request.match_info, request.query))

        return handle

    async def _answer(
        self, endpoint: Endpoint, holder: Holder | None, request: web.Request, parts: RequestParts
    ) -> web.StreamResponse:
        if holder is not None:
            request[CALLER] = request[CALLER]._replace(actor=holder.label)
        if not endpoint.is_public:
            assert holder is not None
            what = f"{endpoint.method} {endpoint.path}"
            auth.require(holder, endpoint.roles, what)
            require_contact(holder, endpoint.group, endpoint.method, endpoint.path)
            if endpoint.is_sensitive:
                auth.require_consent(holder, what, time.time())
                if holder.contact_role is not None and holder.customer is not None:
                    async with self._database.reading() as connection:
                        await contacts.require_trusted(connection, holder.customer, holder.label, time.time())
        if holder is not None and endpoint.is_change:
            self._check_change_rate(holder)
        if endpoint.rate is not None and not is_within_page(endpoint, parts):
            self._check_request_rate(endpoint.path, endpoint.rate, holder, request, parts)
        query = parse_query(endpoint.query, parts.query)
        request[SHOWN_TO] = find_readers(holder)
        with serving(None if holder is None else holder.customer):
            return await self._handle(endpoint, holder, request, parts, query)

    async def _handle(
        self, endpoint: Endpoint, holder: Holder | None, request: web.Request, parts: RequestParts, query: Query
    ) -> web.StreamResponse:
        path_parameters = parts.path_parameters
        if self.names.are_pseudonyms:
            path_parameters = await self.names.resolve_path(path_parameters)
            query = await self.names.resolve_fields(query, IN_QUERIES)
        if holder is not None and holder.customer is not None:
            await self._require_own(holder, path_parameters)
        call: AnyCall = Call(
            endpoint, request, holder, query, Nothing(), path_parameters=path_parameters, inner_body=parts.inner_body
        )
        if endpoint.body is not Nothing:
            if parts.inner_json is None:
                fields, raw_body = await read_json(request)
            else:
                fields, raw_body = parts.inner_json, orjson.dumps(parts.inner_json)
            body = parse_body(endpoint.body, fields)
            if self.names.are_pseudonyms:
                body = await self.names.resolve_fields(body, IN_BODIES)
            call = replace(call, body=body, raw_body=raw_body)
        return build_response(await self._call_handler(endpoint, call), endpoint.status)

    async def _call_handler(self, endpoint: Endpoint, call: AnyCall) -> object:
        """Return the result of an endpoint's handler."""
        handlers = self._handlers[endpoint.group]
        handlers.check(call)
        handle = partial(endpoint.handler, handlers, call)
        if not endpoint.is_transaction:
            return await handle()

        async def make(connection: AsyncConnection) -> Result[Mapping[str, object]]:
            return as_result(await handle(connection))

        change = cast(Call[ChangeQuery, BaseModel], call)
        return await make_change(self._database, change, make)

    async def answer_inner_call(
        self, request: web.Request, holder: Holder, endpoint: Endpoint, parts: RequestParts
    ) -> web.StreamResponse:
        """Answer a page's call for its visitor, as if it had come over HTTP."""
        try:
            values = None if endpoint.is_change else request[READ_VALUES]
            with self._database.precedence.claim(), reading_once(values):
                return await self._answer(endpoint, holder, request, parts)
        except Exception as error:
            return self._build_problem(request, f"{endpoint.method} {endpoint.path}", error)

    # ---- checks

    def _check_request_rate(
        self, path: str, rate: RequestRate, holder: Holder | None, request: web.Request, parts: RequestParts
    ) -> None:
        """Raise ProblemError if an endpoint is called too often.

        Browsers may share the address of a proxy, so inner calls are counted by visitor. Calls of staff do not use up a
        customer's rate: each member of staff is counted separately, for each customer named.
        """
        if holder is None or (rate.by == "address" and parts.inner_body is None):
            subject = format_subject(request[CLIENT])
        else:
            subject = holder.customer or f"{holder.label} {parts.query.get('customer', '')}"
        seconds = self._limits.wait(path.split("/")[1], rate, subject, time.time())
        if seconds:
            why = f"this may be asked {rate.requests} times a minute"
            raise ProblemError(request_codes.CALLS_EXCEEDED, why, headers={"Retry-After": str(seconds)})

    def count_visit(self, request: web.Request, what: str, per_minute: int) -> int:
        """Count a client's visit like an endpoint's rate. Return 0, or the seconds until another is permitted."""
        rate = RequestRate(per_minute, "address")
        return self._limits.wait(f"pages {what}", rate, format_subject(request[CLIENT]), time.time())

    def count_page(self, visitor: str) -> int:
        """Count a page of a signed-in visitor. Return 0, or the seconds until the next page is permitted."""
        return self._limits.wait("own pages", RequestRate(PAGES_PER_MINUTE, "customer"), visitor, time.time())

    def _check_change_rate(self, holder: Holder) -> None:
        """Raise ProblemError if a caller makes too many changes.

        Each token and each person is counted separately, so a stolen token does not block the changes of others.
        """
        rates = self.settings.changes_per_minute
        rate = RequestRate(rates.operators if holder.customer is None else rates.customers, "customer")
        seconds = self._limits.wait("changes", rate, holder.label, time.time())
        if seconds:
            why = f"{holder.called} may make {rate.requests} changes a minute"
            raise ProblemError(request_codes.CHANGES_EXCEEDED, why, headers={"Retry-After": str(seconds)})

    async def _require_own(self, holder: Holder, path_parameters: Mapping[str, str]) -> None:
        """Raise DeniedError if a path names an object of another customer, whether it exists or not."""
        for name, parameter in PARAMETERS.items():
            value = path_parameters.get(name)
            if parameter.find_owner is not None and value is not None and value != holder.customer:
                async with self._database.reading() as connection:
                    auth.require_own(holder, await parameter.find_owner(connection, value) or "")

    def _require_admission(self, request: web.Request) -> None:
        """Raise DeniedError if a trusted proxy forwards a client that may not use this listener.

        Health probes come from the proxy itself.
        """
        if request.path not in PROBE_PATHS and not request.app[LISTENER].allows(request[CLIENT]):
            raise auth.DeniedError(request_codes.LISTENER_DENIED, f"this listener is not for {request[CALLER].origin}")

    # ---- around all requests

    @web.middleware
    async def _message(self, request: web.Request, handler: Handle) -> web.StreamResponse:
        """Count responses about billing. While charging is stopped, add the message to each of them."""
        if not request.path.startswith("/billing/"):
            return await handler(request)
        began = time.monotonic()
        response = await handler(request)
        if self.billing_message is not None:
            response.headers["X-Billing"] = self.billing_message
        self.response_counts.record(response.status, time.time(), is_known=request[CALLER].actor != UNKNOWN_ACTOR)
        self._metrics.billing_answered(response.status, time.monotonic() - began)
        return response

    @web.middleware
    async def _problems(self, request: web.Request, handler: Handle) -> web.StreamResponse:
        """Answer every error with a problem document (RFC 9457)."""
        request[CLIENT] = client = self._find_client(request)
        privacy = self.settings.privacy
        origin = mask_address(client) if privacy is not None and privacy.mask_addresses else client
        request[CALLER] = Caller(UNKNOWN_ACTOR, origin, str(uuid.uuid4()))
        response: web.StreamResponse
        try:
            self._require_admission(request)
            response = await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            response = self._build_problem(request, "", error)
        except Exception as error:
            response = self._build_problem(request, f"{request.method} {get_registered_path(request)}", error)
        if self.names.are_pseudonyms:
            try:
                await self.names.reveal(request, response)
            except CONNECTION_ERRORS as error:
                return self._build_problem(request, "", error)
        return response

    def _find_client(self, request: web.Request) -> str:
        """Return the address of the client: the peer's, or the one that a trusted proxy names.

        It is UNKNOWN_ORIGIN if the proxy names none, because the proxy's own address could be in an `allow`.
        """
        peer, forwarded = request[PEER].address, ", ".join(request.headers.getall("X-Forwarded-For", []))
        client, proxy = find_client(peer, forwarded, self.settings.trusted_proxies)
        if client is None:
            return peer if proxy is None else UNKNOWN_ORIGIN
        return str(client)

    def _build_problem(self, request: web.Request, what: str, error: Exception) -> web.Response:
        """Return the problem document for the failed request `what`, and record denials."""
        match error:
            case auth.DeniedError():
                self.deny(request, what, error.status, error.why, error.actor)
                return answer_error(error, error.headers)
            case ProblemError():
                return answer_error(error, error.headers)
            case CodedError():
                if error.status == 403:
                    self.denials.record(request[CALLER], what, 403, error.why)
                return answer_error(error)
            case queries.InvalidQueryError():
                return problem(request_codes.QUERY_INVALID, str(error))
            case TooManyExportsError():
                return problem(
                    request_codes.EXPORTS_BUSY, "as many exports are under way as there may be", {"Retry-After": "10"}
                )
            case DatabaseUnavailableError():
                return problem(request_codes.DATABASE_UNAVAILABLE, "the database cannot be used now", RETRY_LATER)
            case web.HTTPException():
                headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
                why = REASONS.get(error.status, error.reason)
                if error.status == 404 and not API_USERS & request.app[LISTENER].settings.groups:
                    why = "there is no such path"
                return problem(HTTP_ERRORS.get(error.status, request_codes.REQUEST_INVALID), why, headers)
        if isinstance(error, CONNECTION_ERRORS):
            log.get_logger().error("the database cannot be used", path=request.path, why=format_reason(error))
            return problem(request_codes.DATABASE_UNAVAILABLE, "the database cannot be used now", RETRY_LATER)
        if isinstance(error, UnreadableRowError):  # The alert names the row. It may be of another customer.
            log.get_logger().error("a request needs a row that cannot be read", path=request.path, why=str(error))
            return problem(request_codes.ROW_UNREADABLE, UNREADABLE)
        log.get_logger().error("a request failed", path=request.path, exc_info=error)
        return problem(request_codes.INTERNAL_ERROR, "the collector failed to answer; its log says more")

    def deny(self, request: web.Request, what: str, status: int, why: str, actor: str | None = None) -> None:
        """Record a denial. `actor` is the caller if the request does not name it yet."""
        self._metrics.denied.inc()
        caller = request[CALLER] if actor is None else request[CALLER]._replace(actor=actor)
        self.denials.record(caller, what, status, why)


@cache
def list_routes() -> Mapping[str, str]:
    """Return each path's pattern for the router. A word at this position in another path is not matched as an id."""
    paths = [tuple(path.split("/")) for path in {endpoint.path for group in GROUPS for endpoint in group.endpoints}]
    words: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for path in paths:
        for number, segment in enumerate(path):
            if not segment.startswith("{"):
                words[path[:number]].add(segment)

    def format_segment(segment: str, others: set[str]) -> str:
        is_open = segment.startswith("{") and others
        return f"{{{segment[1:-1]}:(?!({'|'.join(sorted(others))})$)[^{{}}/]+}}" if is_open else segment

    return {
        "/".join(path): "/".join(format_segment(segment, words[path[:number]]) for number, segment in enumerate(path))
        for path in paths
    }


@web.middleware
async def trace_request(request: web.Request, handler: Handle) -> web.StreamResponse:
    """Trace a request if it is sampled. The span names the endpoint, but not the customer."""
    method = request.method if request.method in hdrs.METH_ALL else "_OTHER"
    route = request.match_info.route.resource
    traceparent, redirection = request.headers.get("traceparent", ""), None
    name = method if route is None else f"{method} {route.canonical}"
    with trace(name, of_request=True, traceparent=traceparent) as span:
        if span is not None:
            span.attributes |= {"http.request.method": method, "url.scheme": request.scheme}
            span.attributes |= {} if route is None else {"http.route": route.canonical}
        response: web.StreamResponse
        try:
            response = await handler(request)
        except web.HTTPException as error:  # It is a response and no failure.
            response = redirection = error
        if span is not None:
            span.set_status(response.status, fails_from=500)
    if redirection is not None:
        raise redirection
    return response


def get_registered_path(request: web.Request) -> str:
    """Return the registered path of a request, so that the number of different paths is small."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"
