"""Planned maintenance on the status page."""

import time

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.api.changes import ChangeHandlers, ChangeResult
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.responses import answer
from edgeproxy.collector.pages import maintenance
from edgeproxy.collector.pages.maintenance import AnnounceMaintenanceRequest, MaintenanceUpdate


class MaintenanceHandlers(ChangeHandlers):
    """Handlers of planned maintenance."""

    async def list_maintenance(self, _: Call[Query, Nothing]) -> web.Response:
        """List planned maintenance and maintenance of the last 90 days."""
        async with self._database.reading() as connection:
            return answer(200, {"maintenance": await maintenance.list_maintenance(connection, time.time())})

    async def announce(self, call: Call[ChangeQuery, AnnounceMaintenanceRequest]) -> web.Response:
        """Announce maintenance."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            return ChangeResult(201, await maintenance.announce(connection, call.caller, call.body))

        return await self._change(call, make, creates=True)

    async def change(self, call: Call[ChangeQuery, MaintenanceUpdate]) -> web.Response:
        """Change or cancel maintenance."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            id_ = call.path("maintenance")
            return ChangeResult(201, await maintenance.change(connection, call.caller, id_, call.body))

        return await self._change(call, make, creates=True)
