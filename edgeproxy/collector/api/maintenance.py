"""Planned maintenance on the status page."""

import time

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.api.changes import ChangeHandlers
from edgeproxy.collector.api.endpoint import CREATE, READERS, SUPPORT, Call, Nothing, Query, get, post
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.pages import maintenance
from edgeproxy.collector.pages.maintenance import (
    AnnounceMaintenanceRequest,
    Maintenance,
    MaintenanceList,
    MaintenanceUpdate,
)


class MaintenanceHandlers(ChangeHandlers):
    """Handlers of planned maintenance."""

    @get("/v1/maintenance", roles=READERS)
    async def list_maintenance(self, _: Call[Query, Nothing]) -> MaintenanceList:
        """List planned maintenance, and maintenance of the last 90 days, latest first."""
        async with self._database.reading() as connection:
            return {"maintenance": await maintenance.list_maintenance(connection, time.time())}

    @post(
        "/v1/maintenance",
        roles=SUPPORT,
        example={
            "title": "New disks",
            "regions": ["eu-west"],
            "begins_at": "2099-03-01T02:00:00Z",
            "ends_at": "2099-03-01T04:00:00Z",
            "message": "Requests may fail for seconds.",
        },
        status=201,
        change=CREATE,
    )
    async def announce(
        self, call: Call[ChangeQuery, AnnounceMaintenanceRequest], connection: AsyncConnection
    ) -> Maintenance:
        """Announce maintenance. The status page shows it to everyone. It starts and ends by itself."""
        return await maintenance.announce(connection, call.caller, call.body)

    @post(
        "/v1/maintenance/{maintenance}/updates",
        roles=SUPPORT,
        example={"state": "changed", "ends_at": "2099-03-01T05:00:00Z", "message": "It takes an hour longer."},
        status=201,
        change=CREATE,
    )
    async def change(self, call: Call[ChangeQuery, MaintenanceUpdate], connection: AsyncConnection) -> Maintenance:
        """Change the times of maintenance, or cancel it."""
        id_ = call.path("maintenance")
        return await maintenance.change(connection, call.caller, id_, call.body)


GROUP = Group(
    "maintenance",
    "Planned maintenance on the status page.",
    MaintenanceHandlers,
    parameters={"maintenance": PathParameter("The id of the maintenance.")},
)
