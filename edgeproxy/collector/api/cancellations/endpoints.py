"""The table of endpoints: cancellations."""

from edgeproxy.collector.api.cancellations.handlers import CancellationHandlers
from edgeproxy.collector.api.cancellations.models import CancellationList, CancelSubscriptionRequest
from edgeproxy.collector.api.customer_billing import CustomerChangeQuery, CustomerQuery
from edgeproxy.collector.api.endpoint import BILLING, MONEY_READERS, OWN, UPDATE, Endpoint
from edgeproxy.collector.api.group import Group
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.billing.subscriptions.subscription_response import ChangedSubscription

GROUP = Group(
    "cancellations",
    "The reasons that customers gave for ending their plans.",
    CancellationHandlers,
    (
        Endpoint(
            "POST",
            "/billing/subscription/cancel",
            CancellationHandlers.end_subscription,
            "Cancel a subscription as DELETE does, and give the reason.",
            roles=BILLING | OWN,
            query=CustomerChangeQuery,
            body=CancelSubscriptionRequest,
            response=ChangedSubscription,
            change=UPDATE,
            errors={404: "Billing is not configured, or the customer or its subscription does not exist."},
            rate=RequestRate(10, "customer"),
            own="the handler reads and changes what is the customer's alone",
            example={"reason": "missing_features", "comment": "We need invoices in Swiss francs."},
        ),
        Endpoint(
            "GET",
            "/billing/cancellations",
            CancellationHandlers.list_cancellations,
            "List the reasons that a customer gave for ending its plans.",
            roles=MONEY_READERS | OWN,
            query=CustomerQuery,
            response=CancellationList,
            errors={
                404: "Billing is not configured, or the customer does not exist.",
                422: "The query names no customer.",
            },
            rate=RequestRate(100, "customer"),
            own="the handler reads what is the customer's alone",
        ),
    ),
)
