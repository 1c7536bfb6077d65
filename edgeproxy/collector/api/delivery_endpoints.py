"""The endpoints of delivery: webhooks, roll-out, reconciliation."""

from typing import Any

from edgeproxy.collector.api import delivery_models as models
from edgeproxy.collector.api.endpoint import ANYONE, BILLING, JSON, Endpoint, HeadField
from edgeproxy.collector.api.handlers.delivery import DeliveryHandlers
from edgeproxy.collector.api.request_limits import Often

OFTEN = Often(100, "customer")
SIGNATURE = {
    "Stripe-Signature": HeadField(
        {"type": "string", "maxLength": 1000},
        "The time and the signatures by which Stripe proves that the event is its own.",
        required=True,
    )
}


def delivery_endpoints(delivery: DeliveryHandlers) -> tuple[Endpoint[Any, Any], ...]:
    """List them."""
    return (
        Endpoint(
            *("POST", "/billing/webhooks/stripe", ANYONE, delivery.take),
            "Take an event of Stripe's, by its signature; answered once it is on disk.",
            serve=frozenset({"webhooks"}),
            media=(JSON,),
            answers=models.WebhookReceipt,
            fields=SIGNATURE,
            refuses=(404, 413),
        ),
        Endpoint(
            *("GET", "/billing/webhooks", BILLING, delivery.webhooks, "Events of Stripe's, without their payload."),
            query=models.WebhooksQuery,
            answers=models.WebhookEventList,
            often=OFTEN,
        ),
        Endpoint(
            *("POST", "/billing/webhooks/{event}/replay", BILLING, delivery.replay),
            "Apply an event once more, of those kept here or else of Stripe's.",
            answers=models.WebhookReplayResult,
            status=202,
            often=OFTEN,
            refuses=(409,),
        ),
        Endpoint(
            *("GET", "/billing/reconciliation", BILLING, delivery.reconciliation),
            "What was held against what, and what to do about each row that differs.",
            query=models.ReconciliationQuery,
            answers=models.ReconciliationList,
            often=OFTEN,
            refuses=(404,),
        ),
        Endpoint(
            *("GET", "/billing/rollout", BILLING, delivery.show_rollout),
            "Who is charged now, the gates of the next step up with their figures, and when nobody was charged.",
            answers=models.RolloutRequirements,
            often=OFTEN,
            refuses=(404,),
        ),
        Endpoint(
            *("GET", "/billing/report", BILLING, delivery.report),
            "What one rating of all usage comes to, charged or not, beside what was charged.",
            query=models.ReportQuery,
            answers=models.RatingReport,
            often=OFTEN,
            refuses=(404,),
        ),
        Endpoint(
            *("PUT", "/billing/rollout", BILLING, delivery.change_rollout),
            "Charge more customers, fewer or nobody. A step up is refused while a gate is closed.",
            sends=models.UpdateRolloutRequest,
            answers=models.Rollout,
            sensitive=True,
            often=OFTEN,
            refuses=(404, 409),
        ),
    )
