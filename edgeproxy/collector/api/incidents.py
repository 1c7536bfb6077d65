"""Incidents on the status page."""

import time

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.api.changes import ChangeHandlers
from edgeproxy.collector.api.endpoint import CREATE, OWN, READERS, SUPPORT, Call, Nothing, Query, get, post
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.database.row_security import across_customers
from edgeproxy.collector.pages import incidents
from edgeproxy.collector.pages.incidents import CreateIncidentRequest, Incident, IncidentList, IncidentUpdate


class IncidentHandlers(ChangeHandlers):
    """Handlers of incidents."""

    @get("/v1/incidents", roles=READERS | OWN, own="an incident is the same for every customer")
    async def list_incidents(self, _: Call[Query, Nothing]) -> IncidentList:
        """List the incidents of the last 90 days, latest first."""
        async with self._database.reading() as connection, across_customers(connection):
            return {"incidents": await incidents.list_incidents(connection, time.time())}

    @post(
        "/v1/incidents",
        roles=SUPPORT,
        example={
            "severity": "P2",
            "title": "Slow answers",
            "regions": ["eu-west"],
            "message": "We are looking into it.",
        },
        status=201,
        change=CREATE,
    )
    async def create_incident(
        self, call: Call[ChangeQuery, CreateIncidentRequest], connection: AsyncConnection
    ) -> Incident:
        """Create an incident. The status page shows it to everyone."""
        return await incidents.begin_incident(connection, call.caller, call.body)

    @post(
        "/v1/incidents/{incident}/updates",
        roles=SUPPORT,
        example={"state": "resolved", "message": "All is well again."},
        status=201,
        change=CREATE,
    )
    async def add_update(self, call: Call[ChangeQuery, IncidentUpdate], connection: AsyncConnection) -> Incident:
        """Add an update to an incident. The state `resolved` ends it."""
        id_ = call.path("incident")
        return await incidents.update_incident(connection, call.caller, id_, call.body)


GROUP = Group(
    "incidents",
    "Incidents on the status page.",
    IncidentHandlers,
    parameters={"incident": PathParameter("The id of the incident.")},
)
