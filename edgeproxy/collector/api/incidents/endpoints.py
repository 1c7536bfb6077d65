"""The table of endpoints: incidents."""

from edgeproxy.collector.api.endpoint import CREATE, OWN, READERS, SUPPORT, Endpoint
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.incidents.handlers import IncidentHandlers
from edgeproxy.collector.pages.incidents import CreateIncidentRequest, Incident, IncidentList, IncidentUpdate

GROUP = Group(
    "incidents",
    "Incidents on the status page.",
    IncidentHandlers,
    (
        Endpoint(
            "GET",
            "/v1/incidents",
            IncidentHandlers.list_incidents,
            "List the incidents of the last 90 days, latest first.",
            roles=READERS | OWN,
            response=IncidentList,
        ),
        Endpoint(
            "POST",
            "/v1/incidents",
            IncidentHandlers.create_incident,
            "Create an incident. The status page shows it to everyone.",
            roles=SUPPORT,
            query=ChangeQuery,
            body=CreateIncidentRequest,
            response=Incident,
            status=201,
            change=CREATE,
            example={
                "severity": "P2",
                "title": "Slow answers",
                "regions": ["eu-west"],
                "message": "We are looking into it.",
            },
        ),
        Endpoint(
            "POST",
            "/v1/incidents/{incident}/updates",
            IncidentHandlers.add_update,
            "Add an update to an incident. The state `resolved` ends it.",
            roles=SUPPORT,
            query=ChangeQuery,
            body=IncidentUpdate,
            response=Incident,
            status=201,
            change=CREATE,
            example={"state": "resolved", "message": "All is well again."},
        ),
    ),
    parameters={"incident": PathParameter("The id of the incident.")},
)
