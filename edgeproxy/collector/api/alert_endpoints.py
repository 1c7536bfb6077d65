"""The endpoints of alerts, as `endpoints.py` has them."""

from typing import Any

from edgeproxy.collector.api.alert_models import (
    AlertList,
    AlertResponse,
    AlertsQuery,
    AnomaliesQuery,
    AnomalyList,
    ReplayQuery,
)
from edgeproxy.collector.api.endpoint import ADMIN, OWN, READERS, Endpoint
from edgeproxy.collector.api.handlers.alerts import AlertHandlers


def alert_endpoints(alerts: AlertHandlers) -> tuple[Endpoint[Any, Any], ...]:
    """Return the rows."""
    return (
        Endpoint(
            *("GET", "/v1/alerts", READERS | OWN, alerts.alerts, "List alerts, latest first."),
            query=AlertsQuery,
            answers=AlertList,
            own="the handler lists the customer's own alone",
        ),
        Endpoint(
            *("POST", "/v1/alerts/{alert}/replay", ADMIN, alerts.replay),
            "Send an alert again by one channel, or by all that have given it up.",
            query=ReplayQuery,
            answers=AlertResponse,
            refuses=(409,),
        ),
        Endpoint(
            *("GET", "/v1/anomalies", READERS | OWN, alerts.anomalies),
            "List days with unusual usage, latest finding first.",
            query=AnomaliesQuery,
            answers=AnomalyList,
            own="the handler lists the customer's own alone",
        ),
    )
