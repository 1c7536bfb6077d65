"""The table of endpoints: alerts."""

from edgeproxy.collector.api.alerts.handlers import AlertHandlers
from edgeproxy.collector.api.alerts.models import (
    AlertList,
    AlertResponse,
    AlertsQuery,
    AnomaliesQuery,
    AnomalyList,
    ReplayQuery,
)
from edgeproxy.collector.api.endpoint import ADMIN, OWN, READERS, Endpoint
from edgeproxy.collector.api.group import NUMBER_SCHEMA, Group, PathParameter

GROUP = Group(
    "alerts",
    "Alerts, their delivery, and anomalies of usage.",
    AlertHandlers,
    (
        Endpoint(
            "GET",
            "/v1/alerts",
            AlertHandlers.list_alerts,
            "List alerts, latest first.",
            roles=READERS | OWN,
            query=AlertsQuery,
            response=AlertList,
            own="the handler lists the customer's own alone",
        ),
        Endpoint(
            "POST",
            "/v1/alerts/{alert}/replay",
            AlertHandlers.replay_alert,
            "Send an alert again by one channel, or by all that have given it up.",
            roles=ADMIN,
            query=ReplayQuery,
            response=AlertResponse,
            errors={409: "No channel has given the alert up, or its delivery is under way."},
        ),
        Endpoint(
            "GET",
            "/v1/anomalies",
            AlertHandlers.list_anomalies,
            "List days with unusual usage, latest finding first.",
            roles=READERS | OWN,
            query=AnomaliesQuery,
            response=AnomalyList,
            own="the handler lists the customer's own alone",
        ),
    ),
    parameters={"alert": PathParameter("The number of the alert.", NUMBER_SCHEMA)},
)
