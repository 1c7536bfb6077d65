"""Incidents on the status page."""

import time

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.api.changes import ChangeHandlers, ChangeResult
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.responses import answer
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.pages import incidents
from edgeproxy.collector.pages.incidents import CreateIncidentRequest, IncidentUpdate


class IncidentHandlers(ChangeHandlers):
    """Handlers of incidents."""

    async def list_incidents(self, _: Call[Query, Nothing]) -> web.Response:
        """List the incidents of the last 90 days."""
        async with self._database.reading() as connection, across_customers(connection):
            return answer(200, {"incidents": await incidents.list_incidents(connection, time.time())})

    async def create_incident(self, call: Call[ChangeQuery, CreateIncidentRequest]) -> web.Response:
        """Create an incident."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            return ChangeResult(201, await incidents.begin_incident(connection, call.caller, call.body))

        return await self._change(call, make, creates=True)

    async def add_update(self, call: Call[ChangeQuery, IncidentUpdate]) -> web.Response:
        """Add an update to an incident."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            id_ = call.path("incident")
            return ChangeResult(201, await incidents.update_incident(connection, call.caller, id_, call.body))

        return await self._change(call, make, creates=True)
