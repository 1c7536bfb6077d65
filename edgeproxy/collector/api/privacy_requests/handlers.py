"""Privacy requests of people."""

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.api.changes import ChangeHandlers, ChangeResult
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.field_types import ChangeQuery, Cursor, PageLimit, Truth
from edgeproxy.collector.api.responses import answer_page
from edgeproxy.collector.privacy import requests
from edgeproxy.collector.privacy.requests import CreatePrivacyRequest, PrivacyRequestStep


class PrivacyRequestsQuery(Query):
    """Filters of requests, and the page."""

    limit: PageLimit = 100
    """The number of requests on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""
    open: Truth = False
    """True lists only requests that are not done, refused or withdrawn."""


class PrivacyRequestHandlers(ChangeHandlers):
    """Handlers of privacy requests."""

    async def list_requests(self, call: Call[PrivacyRequestsQuery, Nothing]) -> web.Response:
        """List requests."""
        query = call.query
        async with self._database.reading() as connection:
            rows = await requests.list_requests(connection, query.cursor, query.limit, only_open=query.open)
        return answer_page("requests", rows, rows.next)

    async def create_request(self, call: Call[ChangeQuery, CreatePrivacyRequest]) -> web.Response:
        """Record a request."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            return ChangeResult(201, await requests.create_request(connection, call.caller, call.body))

        return await self._change(call, make, creates=True)

    async def add_step(self, call: Call[ChangeQuery, PrivacyRequestStep]) -> web.Response:
        """Add a step to a request."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            id_ = call.path("request")
            return ChangeResult(201, await requests.add_step(connection, call.caller, id_, call.body))

        return await self._change(call, make, creates=True)
