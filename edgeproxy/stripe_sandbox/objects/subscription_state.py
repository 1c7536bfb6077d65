"""Effects of invoices on a subscription, and its end."""

from edgeproxy.base.json_values import JsonValue
from edgeproxy.stripe_sandbox.objects.fields import compute_previous_attributes
from edgeproxy.stripe_sandbox.transaction import Body, Fields, Transaction

ENDED = ("canceled", "incomplete_expired")


def find_subscription(tx: Transaction, invoice: Fields) -> Body | None:
    """Find the subscription of an invoice, unless it has ended."""
    details = (invoice.get("parent") or {}).get("subscription_details") or {}
    subscription = tx.find("subscription", details["subscription"]) if details else None
    return None if subscription is None or subscription["status"] in ENDED else subscription


def record_payment(tx: Transaction, invoice: Fields) -> None:
    """Record a paid invoice: its subscription is active."""
    subscription = find_subscription(tx, invoice)
    if subscription is not None and subscription["status"] in ("incomplete", "past_due", "unpaid"):
        update_subscription(tx, subscription, status="active")


def record_failed_payment(tx: Transaction, invoice: Fields, *, last: bool) -> None:
    """Record a failed payment: its subscription is past due, and ends after the last attempt."""
    subscription = find_subscription(tx, invoice)
    if subscription is None or subscription["status"] == "incomplete":
        return
    if last:
        end_subscription(tx, subscription, "payment_failed")
    elif subscription["status"] == "active":
        update_subscription(tx, subscription, status="past_due")


def update_subscription(tx: Transaction, subscription: Body, **fields: JsonValue) -> Body:
    """Update a subscription."""
    before = dict(subscription)
    subscription.update(fields)
    tx.save(subscription)
    tx.record_event("customer.subscription.updated", subscription, compute_previous_attributes(before, subscription))
    return subscription


def end_subscription(tx: Transaction, subscription: Body, reason: str) -> Body:
    """End a subscription now."""
    now = tx.get_time(subscription["test_clock"])
    details = {**(subscription.get("cancellation_details") or {}), "reason": reason}
    subscription.update(
        status="canceled",
        ended_at=now,
        canceled_at=subscription.get("canceled_at") or now,
        cancellation_details=details,
    )
    tx.save(subscription)
    tx.cancel_timer("renew", subscription["id"])
    tx.cancel_timer("cancel", subscription["id"])
    tx.record_event("customer.subscription.deleted", subscription)
    return subscription
