"""Incidents, which the status page tells of."""

import time
from typing import Any

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.handlers.accounts import AccountHandlers
from edgeproxy.collector.api.ledger_models import ChangeQuery
from edgeproxy.collector.api.responses import answer
from edgeproxy.collector.pages import incidents
from edgeproxy.collector.pages.incidents import CreateIncidentRequest, IncidentUpdate


class IncidentHandlers(AccountHandlers):
    """Makes changes of incidents as those of accounts are made."""

    async def incidents(self, _: Call[Query, Nothing]) -> web.Response:
        """List the incidents of 90 days."""
        async with self._database.reading() as connection:
            return answer(200, {"incidents": await incidents.list_incidents(connection, time.time())})

    async def begin_incident(self, call: Call[ChangeQuery, CreateIncidentRequest]) -> web.Response:
        """Begin an incident."""

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            return 201, await incidents.begin_incident(connection, call.caller, call.body), None

        return await self._change(call, make, creates=True)

    async def update_incident(self, call: Call[ChangeQuery, IncidentUpdate]) -> web.Response:
        """Tell what is known of an incident by now."""

        async def make(connection: AsyncConnection) -> tuple[int, Any, int | None]:
            return 201, await incidents.update_incident(connection, call.caller, call.path("incident"), call.body), None

        return await self._change(call, make, creates=True)
