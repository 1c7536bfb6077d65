"""The API for pages: a signed-in visitor's calls are answered as if they had come over HTTP."""

import asyncio
from dataclasses import dataclass, field
from typing import Unpack
from urllib.parse import urlencode

import orjson
from aiohttp import web

from edgeproxy.collector.api.app import RequestParts, Service, get_registered_path
from edgeproxy.collector.api.auth import Holder
from edgeproxy.collector.api.customer_names import build_readers
from edgeproxy.collector.api.endpoint import CALLER, CLIENT, READ_VALUES, SHOWN_TO, Endpoint
from edgeproxy.collector.api.groups import GROUPS
from edgeproxy.collector.database.postgresql import READERS_MAX
from edgeproxy.collector.pages.api import ApiResponse, RequestOptions
from edgeproxy.collector.pages.sessions import Session
from edgeproxy.collector.pages.site import format_path


@dataclass(slots=True)
class Fact:
    """An answer that a page has read. Other parts of the page share it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    answer: web.StreamResponse | None = None


FACTS = web.RequestKey("facts", dict[str, Fact])
"""Answers to reads by URL, since the last change."""
CALLS = web.RequestKey("calls", asyncio.Semaphore)
CALLS_MAX = READERS_MAX - 1
"""Concurrent calls of a page. One page must not take all connections."""


def create_holder(session: Session) -> Holder:
    """Return the holder with the rights of a session."""
    who = session.who
    return Holder(
        who.label,
        who.roles,
        who.customer,
        is_person=True,
        factor_at=who.factor_at,
        signed_in_at=session.signed_in_at,
        contact_role=who.contact_role,
    )


class Inside:
    """The endpoints without a network connection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._endpoints: dict[tuple[str, str], Endpoint] = {
            (endpoint.method, endpoint.path): endpoint for group in GROUPS for endpoint in group.endpoints
        }

    def has(self, method: str, path: str) -> bool:
        """Return True if this endpoint exists."""
        return (method, path) in self._endpoints

    async def ask(
        self,
        request: web.Request,
        session: Session,
        method: str,
        path: str,
        **options: Unpack[RequestOptions],
    ) -> ApiResponse:
        """Call an endpoint with the rights of a session; see collector/pages/api.py."""
        names, once, body = options.get("names", {}), options.get("once"), options.get("body")
        holder = create_holder(session)
        fields = {"Accept": "application/json", **({"Idempotency-Key": once} if once else {})}
        query = options.get("query", {})
        endpoint = self._endpoints[method, path]
        if endpoint.is_change or READ_VALUES not in request:
            request[READ_VALUES] = {}  # A change makes earlier reads outdated.
        url = f"{format_path(path, **names)}?{urlencode(query)}" if query else format_path(path, **names)
        inner = request.clone(method=method, rel_url=url, headers=fields)
        sent = None if body is None else dict(body)
        parts = RequestParts(names, query, sent, options.get("given", b""))
        if endpoint.is_change or FACTS not in request:
            request[FACTS] = {}
        if endpoint.method == "GET":
            fact = request[FACTS].setdefault(url, Fact())
            async with fact.lock:  # A second reader waits for the first one's answer.
                if fact.answer is None:
                    fact.answer = await self._answer(request, inner, holder, endpoint, parts)
            answer = fact.answer
        else:
            answer = await self._answer(request, inner, holder, endpoint, parts)
        assert isinstance(answer, web.Response), "an export is no answer for a page"
        content = answer.body if isinstance(answer.body, bytes) else b""
        document = orjson.loads(content) if content and "json" in answer.content_type else None
        return ApiResponse(answer.status, document, content, answer.headers)

    async def _answer(
        self,
        request: web.Request,
        inner: web.Request,
        holder: Holder,
        endpoint: Endpoint,
        parts: RequestParts,
    ) -> web.StreamResponse:
        """Answer a page's call, at most CALLS_MAX concurrently."""
        if CALLS not in request:
            request[CALLS] = asyncio.Semaphore(CALLS_MAX)
        async with request[CALLS]:
            return await self._service.answer_inner_call(inner, holder, endpoint, parts)

    def deny(self, request: web.Request, actor: str | None, status: int, why: str) -> None:
        """Record that a page was denied."""
        self._service.deny(request, f"{request.method} {get_registered_path(request)}", status, why, actor)

    def count_visit(self, request: web.Request, what: str, per_minute: int) -> int:
        """Count a visit of a client; see collector/pages/api.py."""
        return self._service.count_visit(request, what, per_minute)

    def count_page(self, session: Session) -> int:
        """Count a page of a session's visitor; see collector/pages/api.py."""
        return self._service.count_page(f"{session.who.customer or ''} {session.who.label}")

    def show_names(self, request: web.Request, session: Session | None) -> None:
        """Make the page of a request show names instead of pseudonyms; see collector/pages/api.py."""
        if session is not None:
            request[SHOWN_TO] = build_readers(session.who.customer)

    def client(self, request: web.Request) -> str:
        """Return the IP address of a client; see collector/pages/api.py."""
        return request[CLIENT]

    def caller(self, request: web.Request) -> tuple[str, str]:
        """Return the origin and the id of a request."""
        caller = request[CALLER]
        return caller.origin, caller.request_id
