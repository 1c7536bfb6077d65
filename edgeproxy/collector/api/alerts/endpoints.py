"""The table of endpoints: alerts."""

from edgeproxy.collector.accounts import alert_handling as handling
from edgeproxy.collector.api.alerts.handlers import AlertHandlers
from edgeproxy.collector.api.alerts.models import (
    AcknowledgeAlertRequest,
    AlertList,
    AlertResponse,
    AlertsQuery,
    AnomaliesQuery,
    AnomalyList,
    AssignAlertRequest,
    MuteAlertRequest,
    ReplayQuery,
)
from edgeproxy.collector.api.endpoint import ADMIN, MONEY_READERS, OWN, READERS, Endpoint
from edgeproxy.collector.api.field_types import ChangeQuery
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
            "List alerts: latest first, unless `order` says otherwise.",
            roles=READERS | OWN,
            query=AlertsQuery,
            response=AlertList,
            own="the handler lists the customer's own alone",
        ),
        Endpoint(
            "POST",
            "/v1/alerts/{alert}/replay",
            AlertHandlers.replay_alert,
            "Send an alert again through one channel, or through all channels that gave it up.",
            roles=ADMIN,
            query=ReplayQuery,
            response=AlertResponse,
            errors={409: "No channel has given the alert up, or its delivery is under way."},
        ),
        Endpoint(
            "POST",
            "/v1/alerts/{alert}/acknowledge",
            AlertHandlers.acknowledge_alert,
            "Acknowledge an alert: tell others that you have seen it.",
            roles=MONEY_READERS | OWN,
            query=ChangeQuery,
            body=AcknowledgeAlertRequest,
            response=AlertResponse,
            errors={404: "There is no such alert.", 409: "The alert is acknowledged already."},
            example={"why": "We look into it."},
        ),
        Endpoint(
            "POST",
            "/v1/alerts/{alert}/assign",
            AlertHandlers.assign_alert,
            "Assign an alert to a person, or to no person.",
            roles=MONEY_READERS | OWN,
            query=ChangeQuery,
            body=AssignAlertRequest,
            response=AlertResponse,
            errors={404: "There is no such alert."},
            example={"to": "dev@acme.example"},
        ),
        Endpoint(
            "POST",
            "/v1/alerts/{alert}/mute",
            AlertHandlers.mute_alert,
            "Mute the kind of an alert for a while. Later alerts of this kind for this customer are listed but "
            "not sent.",
            roles=MONEY_READERS | OWN,
            query=ChangeQuery,
            body=MuteAlertRequest,
            response=AlertResponse,
            errors={404: "There is no such alert."},
            example={"until": "2027-03-08T00:00:00Z", "why": "A load test."},
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
    parameters={"alert": PathParameter("The number of the alert.", NUMBER_SCHEMA, find_owner=handling.find_owner)},
)
