"""The table of endpoints: webhooks."""

from edgeproxy.collector.api.endpoint import ANYONE, BILLING, JSON, Endpoint, Header
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.request_limits import RequestRate
from edgeproxy.collector.api.webhooks.handlers import WebhookHandlers
from edgeproxy.collector.api.webhooks.models import WebhookEventList, WebhookReceipt, WebhookReplayResult, WebhooksQuery

SIGNATURE = {
    "Stripe-Signature": Header(
        {"type": "string", "maxLength": 1000},
        "The time, and the signatures that prove that the event comes from Stripe.",
        required=True,
    )
}

GROUP = Group(
    "webhooks",
    "Events from Stripe.",
    WebhookHandlers,
    (
        Endpoint(
            "POST",
            "/billing/webhooks/stripe",
            WebhookHandlers.receive_event,
            "Receive an event from Stripe with its signature. The answer comes once the event is on disk.",
            roles=ANYONE,
            response=WebhookReceipt,
            request_media={JSON: dict[str, object]},
            headers=SIGNATURE,
            errors={
                404: "Billing is not configured, or no webhook secret is configured.",
                413: "The event is too large.",
            },
            listener_groups=frozenset({"webhooks"}),
        ),
        Endpoint(
            "GET",
            "/billing/webhooks",
            WebhookHandlers.list_events,
            "List events from Stripe, latest first, without their payload.",
            roles=BILLING,
            query=WebhooksQuery,
            response=WebhookEventList,
            rate=RequestRate(100, "customer"),
        ),
        Endpoint(
            "POST",
            "/billing/webhooks/{event}/replay",
            WebhookHandlers.replay_event,
            "Apply an event again, from this database or else from Stripe.",
            roles=BILLING,
            response=WebhookReplayResult,
            status=202,
            errors={409: "Billing is off."},
            rate=RequestRate(100, "customer"),
        ),
    ),
    parameters={"event": PathParameter("The id of the event at Stripe, such as evt_1.")},
)
