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
    """Return the rows."""
    return (
        Endpoint(
            *("POST", "/billing/webhooks/stripe", ANYONE, delivery.take),
            "Receive an event of Stripe with its signature; the answer comes once it is on disk.",
            serve=frozenset({"webhooks"}),
            media=(JSON,),
            answers=models.WebhookReceipt,
            fields=SIGNATURE,
            refuses=(404, 413),
        ),
        Endpoint(
            *(
                "GET",
                "/billing/webhooks",
                BILLING,
                delivery.webhooks,
                "List events of Stripe, latest first, without their payload.",
            ),
            query=models.WebhooksQuery,
            answers=models.WebhookEventList,
            often=OFTEN,
        ),
        Endpoint(
            *("POST", "/billing/webhooks/{event}/replay", BILLING, delivery.replay),
            "Apply an event again, from this database or else from Stripe.",
            answers=models.WebhookReplayResult,
            status=202,
            often=OFTEN,
            refuses=(409,),
        ),
        Endpoint(
            *("GET", "/billing/reconciliation", BILLING, delivery.reconciliation),
            "List reconciliations, with advice for each row that differs.",
            query=models.ReconciliationQuery,
            answers=models.ReconciliationList,
            often=OFTEN,
            refuses=(404,),
        ),
        Endpoint(
            *("GET", "/billing/rollout", BILLING, delivery.show_rollout),
            "Fetch the roll-out of billing: who is charged, the gates of the next step, past stops.",
            answers=models.RolloutRequirements,
            often=OFTEN,
            refuses=(404,),
        ),
        Endpoint(
            *("GET", "/billing/report", BILLING, delivery.report),
            "Compare the shadow rating of all usage with the amounts charged.",
            query=models.ReportQuery,
            answers=models.RatingReport,
            often=OFTEN,
            refuses=(404,),
        ),
        Endpoint(
            *("PUT", "/billing/rollout", BILLING, delivery.change_rollout),
            "Update the roll-out of billing: charge more customers, fewer or none. A closed gate refuses a step up.",
            sends=models.UpdateRolloutRequest,
            answers=models.Rollout,
            sensitive=True,
            often=OFTEN,
            refuses=(404, 409),
        ),
    )
