"""What becomes of a subscription by its invoices, and its end."""

from collections.abc import Mapping
from typing import Any

from edgeproxy.stripe_sandbox.objects.fields import changed
from edgeproxy.stripe_sandbox.transaction import Body, Transaction

ENDED = ("canceled", "incomplete_expired")


def of(tx: Transaction, invoice: Mapping[str, Any]) -> Body | None:
    """The subscription of an invoice, unless it has ended."""
    details = (invoice.get("parent") or {}).get("subscription_details") or {}
    found = tx.find("subscription", details["subscription"]) if details else None
    return None if found is None or found["status"] in ENDED else found


def settled(tx: Transaction, invoice: Mapping[str, Any]) -> None:
    """An invoice was paid: its subscription is active, from now on or again."""
    subscription = of(tx, invoice)
    if subscription is not None and subscription["status"] in ("incomplete", "past_due", "unpaid"):
        become(tx, subscription, status="active")


def unpaid(tx: Transaction, invoice: Mapping[str, Any], *, last: bool) -> None:
    """A payment failed: its subscription is past due, and ends after the last attempt."""
    subscription = of(tx, invoice)
    if subscription is None or subscription["status"] == "incomplete":
        return
    if last:
        end(tx, subscription, "payment_failed")
    elif subscription["status"] == "active":
        become(tx, subscription, status="past_due")


def become(tx: Transaction, subscription: Body, **fields: Any) -> Body:
    """Change a subscription."""
    before = dict(subscription)
    subscription.update(fields)
    tx.save(subscription)
    tx.emit("customer.subscription.updated", subscription, changed(before, subscription))
    return subscription


def end(tx: Transaction, subscription: Body, reason: str) -> Body:
    """End a subscription now."""
    now = tx.time(subscription["test_clock"])
    details = {**(subscription.get("cancellation_details") or {}), "reason": reason}
    subscription.update(
        status="canceled",
        ended_at=now,
        canceled_at=subscription.get("canceled_at") or now,
        cancellation_details=details,
    )
    tx.save(subscription)
    tx.forget("renew", subscription["id"])
    tx.forget("cancel", subscription["id"])
    tx.emit("customer.subscription.deleted", subscription)
    return subscription
