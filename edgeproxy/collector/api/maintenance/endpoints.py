"""The table of endpoints: planned maintenance."""

from edgeproxy.collector.api.endpoint import CREATE, READERS, SUPPORT, Endpoint
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.maintenance.handlers import MaintenanceHandlers
from edgeproxy.collector.pages.maintenance import (
    AnnounceMaintenanceRequest,
    Maintenance,
    MaintenanceList,
    MaintenanceUpdate,
)

GROUP = Group(
    "maintenance",
    "Planned maintenance on the status page.",
    MaintenanceHandlers,
    (
        Endpoint(
            "GET",
            "/v1/maintenance",
            MaintenanceHandlers.list_maintenance,
            "List planned maintenance, and maintenance of the last 90 days, latest first.",
            roles=READERS,
            response=MaintenanceList,
        ),
        Endpoint(
            "POST",
            "/v1/maintenance",
            MaintenanceHandlers.announce,
            "Announce maintenance. The status page shows it to everyone. It starts and ends by itself.",
            roles=SUPPORT,
            query=ChangeQuery,
            body=AnnounceMaintenanceRequest,
            response=Maintenance,
            status=201,
            change=CREATE,
            example={
                "title": "New disks",
                "regions": ["eu-west"],
                "begins_at": "2099-03-01T02:00:00Z",
                "ends_at": "2099-03-01T04:00:00Z",
                "message": "Requests may fail for seconds.",
            },
        ),
        Endpoint(
            "POST",
            "/v1/maintenance/{maintenance}/updates",
            MaintenanceHandlers.change,
            "Change the times of maintenance, or cancel it.",
            roles=SUPPORT,
            query=ChangeQuery,
            body=MaintenanceUpdate,
            response=Maintenance,
            status=201,
            change=CREATE,
            example={"state": "changed", "ends_at": "2099-03-01T05:00:00Z", "message": "It takes an hour longer."},
        ),
    ),
    parameters={"maintenance": PathParameter("The id of the maintenance.")},
)
