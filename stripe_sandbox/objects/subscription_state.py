"""Effects of invoices on a subscription, and its end."""

from stripe_sandbox.json_values import JsonValue
from stripe_sandbox.objects import discounts
from stripe_sandbox.objects.fields import compute_previous_attributes
from stripe_sandbox.transaction import Body, Fields, Transaction

ENDED = ("canceled", "incomplete_expired")
TIMERS = ("renew", "cancel", "trial_will_end", "resume_collection")
"""Timers of a subscription that goes on."""


def find_subscription(tx: Transaction, invoice: Fields) -> Body | None:
    """Find the subscription of an invoice, unless it has ended."""
    details = (invoice.get("parent") or {}).get("subscription_details") or {}
    subscription = tx.find("subscription", details["subscription"]) if details else None
    return None if subscription is None or subscription["status"] in ENDED else subscription


def saves_method(subscription: Fields | None) -> bool:
    """Return whether the payment method of a first payment becomes the default one of a subscription."""
    return (
        subscription is not None
        and subscription["payment_settings"]["save_default_payment_method"] == "on_subscription"
    )


def find_pause(tx: Transaction, invoice: Fields) -> str | None:
    """Find what becomes of the invoices of a subscription whose collection is paused."""
    subscription = find_subscription(tx, invoice) or {}
    behavior: str | None = (subscription.get("pause_collection") or {}).get("behavior")
    return behavior


def due_to_resume_collection(tx: Transaction, id: str) -> None:
    """Collect the invoices of a subscription again."""
    subscription = tx.find("subscription", id)
    if subscription is not None and subscription.get("pause_collection") and subscription["status"] not in ENDED:
        update_subscription(tx, subscription, pause_collection=None)


def end_discounts(tx: Transaction, invoice: Fields) -> None:
    """Remove the discounts that apply once, where this invoice had them."""
    subscription = find_subscription(tx, invoice)
    if subscription is None:
        return
    discounts.end_once(tx, subscription, invoice)
    for item in tx.all("subscription_item", subscription=subscription["id"]):
        discounts.end_once(tx, item, invoice)


def record_payment(tx: Transaction, invoice: Fields, method: str | None) -> None:
    """Record a paid invoice: its subscription is active, also one that is resumed by it, and may keep the method."""
    subscription = find_subscription(tx, invoice)
    if subscription is not None and method is not None and saves_method(subscription):
        update_subscription(tx, subscription, default_payment_method=method)
    if subscription is not None and subscription["status"] == "paused" and subscription.get("_resumed_by"):
        if subscription["_resumed_by"] == invoice["id"]:
            subscription["_resumed_by"] = None
            update_subscription(tx, subscription, status="active", status_details=None)
            tx.record_event("customer.subscription.resumed", subscription)
        return
    if subscription is not None and subscription["status"] in ("incomplete", "past_due", "unpaid"):
        trial = (subscription.get("trial_end") or 0) > tx.get_time(subscription["test_clock"])
        update_subscription(tx, subscription, status="trialing" if trial else "active")


def record_setup(tx: Transaction, intent: Fields) -> None:
    """Record that the setup intent of a subscription, if it is one, has succeeded."""
    subscription = tx.find("subscription", intent.get("_subscription", ""))
    if subscription is None or subscription["status"] in ENDED:
        return
    saved = {"default_payment_method": intent["payment_method"]} if saves_method(subscription) else {}
    update_subscription(tx, subscription, pending_setup_intent=None, **saved)


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


def end_subscription(tx: Transaction, subscription: Body, reason: str | None) -> Body:
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
    for what in TIMERS:
        tx.cancel_timer(what, subscription["id"])
    tx.record_event("customer.subscription.deleted", subscription)
    if subscription.get("schedule"):
        _end_schedule(tx, tx.get("subscription_schedule", subscription["schedule"]), now)
    return subscription


def _end_schedule(tx: Transaction, schedule: Body, now: int) -> None:
    """End the schedule of a subscription that ended: it is completed if its last phase is over, else canceled."""
    status = "completed" if now >= schedule["phases"][-1]["end_date"] else "canceled"
    schedule.update({"status": status, f"{status}_at": now})
    tx.cancel_timer("advance_schedule", schedule["id"])
    tx.save(schedule)
    tx.record_event(f"subscription_schedule.{status}", schedule)
