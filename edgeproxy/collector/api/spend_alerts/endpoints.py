"""The table of endpoints: spend alerts."""

from edgeproxy.collector.api.customer_billing import CustomerChangeQuery, CustomerQuery
from edgeproxy.collector.api.endpoint import CHANGERS, MONEY_READERS, OWN, Endpoint
from edgeproxy.collector.api.group import Group
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.spend_alerts.handlers import SpendAlertHandlers
from edgeproxy.collector.api.spend_alerts.models import SpendAlertsRequest, SpendAlertsResponse

ERRORS = {
    404: "Billing is not configured, or the customer does not exist.",
    422: "The query names no customer, or the usage of the period is not stored any more.",
}
GROUP = Group(
    "spend-alerts",
    "Alerts for customers when the cost of their period reaches an amount.",
    SpendAlertHandlers,
    (
        Endpoint(
            "GET",
            "/billing/spend-alerts",
            SpendAlertHandlers.fetch_spend_alerts,
            "Fetch a customer's spend alerts, and the cost of its period so far.",
            roles=MONEY_READERS | OWN,
            query=CustomerQuery,
            response=SpendAlertsResponse,
            errors=ERRORS,
            rate=RequestRate(100, "customer"),
            own="the handler reads and changes what is the customer's alone",
        ),
        Endpoint(
            "PUT",
            "/billing/spend-alerts",
            SpendAlertHandlers.put_spend_alerts,
            "Replace a customer's spend alerts.",
            roles=CHANGERS | OWN,
            query=CustomerChangeQuery,
            body=SpendAlertsRequest,
            response=SpendAlertsResponse,
            errors=ERRORS,
            own="the handler reads and changes what is the customer's alone",
            example={"amounts": [20000, 50000]},
        ),
    ),
)
