"""Subscriptions as time passes: renewed at the end of each period, ended, or expired."""

from stripe_sandbox.objects import (
    collection,
    subscription_cancellation,
    subscription_invoices,
    subscription_state,
    subscription_trials,
)
from stripe_sandbox.objects.periods import find_period
from stripe_sandbox.objects.subscription_invoices import fetch_items, get_price, is_metered
from stripe_sandbox.transaction import Body, Transaction


def schedule_renewal(tx: Transaction, subscription: Body) -> None:
    """Schedule the renewal at the end of the first period of the items, or the end of the subscription."""
    tx.cancel_timer("renew", subscription["id"])
    tx.cancel_timer("cancel", subscription["id"])
    ends = [item["current_period_end"] for item in fetch_items(tx, subscription)]
    if ends:
        tx.set_timer(min(ends), "renew", subscription["id"], subscription["test_clock"])
    if subscription.get("cancel_at") is not None:
        tx.set_timer(subscription["cancel_at"], "cancel", subscription["id"], subscription["test_clock"])


def due_to_renew(tx: Transaction, id: str) -> None:
    """Renew a subscription: charge the usage of ended periods, and the fees of the next ones."""
    subscription = tx.find("subscription", id)
    if subscription is None or subscription["status"] in (*subscription_state.ENDED, "incomplete", "paused"):
        return
    items = fetch_items(tx, subscription)
    at = min(item["current_period_end"] for item in items)
    last = subscription.get("cancel_at") is not None and subscription["cancel_at"] <= at
    trial = subscription["status"] == "trialing"
    if trial and not last and not subscription_trials.end_trial(tx, subscription):
        return
    if not (trial and last):
        ended = [item for item in items if item["current_period_end"] == at]
        _charge_ended(tx, subscription, ended, at, last=last, free=trial)
    subscription = tx.get("subscription", id)
    if last:
        subscription_state.end_subscription(tx, subscription, "cancellation_requested")
        return
    subscription_state.update_subscription(tx, subscription, **({"status": "active"} if trial else {}))
    schedule_renewal(tx, subscription)


def _charge_ended(tx: Transaction, subscription: Body, ended: list[Body], at: int, *, last: bool, free: bool) -> None:
    """Charge the usage of ended periods, unless it was free, and the fees of those that follow, if any."""
    start = min(item["current_period_start"] for item in ended)
    invoice = subscription_invoices.create_draft(tx, subscription, "subscription_cycle", start, at)
    for item in ended:
        price = get_price(tx, item)
        if is_metered(price) and not free and item["_usage_from"] < at:
            subscription_invoices.add_usage(invoice, subscription, item, at)
        _, end = find_period(subscription["billing_cycle_anchor"], price["recurring"], at)
        if last:
            continue
        item.update(current_period_start=at, current_period_end=end, _usage_from=at)
        tx.save(item)
        if not is_metered(price):
            subscription_invoices.add_fee(tx, invoice, subscription, item)
    if subscription_invoices.is_empty(tx, invoice, subscription):
        subscription_invoices.discard_draft(tx, invoice)
        return
    subscription_invoices.advance_later(tx, subscription_invoices.open_draft(tx, subscription, invoice))


def due_to_cancel(tx: Transaction, id: str) -> None:
    """Cancel a subscription at its scheduled time within a period."""
    subscription = tx.find("subscription", id)
    if subscription is not None and subscription["status"] not in subscription_state.ENDED:
        subscription_cancellation.end_now(tx, subscription, invoice_now=True, prorate=False)


def due_to_expire(tx: Transaction, id: str) -> None:
    """Expire a subscription whose first payment did not come in time."""
    subscription = tx.find("subscription", id)
    if subscription is None or subscription["status"] != "incomplete":
        return
    tx.cancel_timer("renew", id)
    subscription_state.update_subscription(
        tx, subscription, status="incomplete_expired", ended_at=tx.get_time(subscription["test_clock"])
    )
    invoice = tx.get("invoice", subscription["latest_invoice"])
    if invoice["status"] == "open":
        collection.void_invoice(tx, invoice)
