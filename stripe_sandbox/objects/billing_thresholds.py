"""Billing thresholds: usage is charged in the middle of a period once it is worth an amount."""

from stripe_sandbox.amounts import split_by_tier
from stripe_sandbox.objects import (
    invoice_items,
    invoice_lines,
    invoices,
    subscription_invoices,
    subscription_renewal,
)
from stripe_sandbox.objects.subscription_invoices import fetch_items, get_price, is_metered
from stripe_sandbox.objects.subscription_state import update_subscription
from stripe_sandbox.objects.usage import DAY, compute_total
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction

AMOUNT_MIN = 50
CHARGED = ("active", "past_due")


def set_threshold(subscription: Body, params: Fields) -> None:
    """Set the threshold of a subscription; an empty one unsets."""
    if "billing_thresholds" not in params:
        return
    threshold = params["billing_thresholds"] or None
    if threshold is not None and threshold.get("amount_gte", 0) < AMOUNT_MIN:
        raise invalid_request(f"The threshold must be at least {AMOUNT_MIN}.", "billing_thresholds[amount_gte]")
    subscription["billing_thresholds"] = threshold and {"reset_billing_cycle_anchor": False, **threshold}


def evaluate_thresholds(tx: Transaction, counted: set[tuple[str, str]]) -> None:
    """Charge the subscriptions of these customers whose usage has reached its threshold."""
    for customer in sorted({customer for _, customer in counted}):
        for subscription in tx.all("subscription", customer=customer):
            if subscription.get("billing_thresholds") and subscription["status"] in CHARGED:
                _evaluate(tx, subscription)


def _evaluate(tx: Transaction, subscription: Body) -> None:
    """Charge a subscription if its usage, less discounts and with what is pending, is worth enough."""
    at, items = tx.get_time(subscription["test_clock"]), fetch_items(tx, subscription)
    least, metered = subscription["billing_thresholds"]["amount_gte"], []
    if min(item["current_period_end"] for item in items) - at <= DAY:
        return
    worth = sum(each["amount"] for each in invoice_items.list_pending(tx, subscription["customer"], subscription["id"]))
    for item in items:
        price = get_price(tx, item)
        if is_metered(price):
            meter = price["recurring"]["meter"]
            used = compute_total(tx, meter, subscription["customer"], item["_usage_from"], at + 1)
            worth += sum(part.amount for part in split_by_tier(price, used))
            metered.append(item)
    if worth < least:
        return
    connection = tx.account.connection
    connection.execute("SAVEPOINT threshold")
    try:
        reached = _charge(tx, subscription, items, metered, at, least)
        if not reached:
            connection.execute("ROLLBACK TO threshold")
    finally:
        connection.execute("RELEASE threshold")


def _charge(tx: Transaction, subscription: Body, items: list[Body], metered: list[Body], at: int, least: int) -> bool:
    """Charge the usage until now, and with a new billing cycle its fees; returns whether the usage is worth enough."""
    start = min(item["current_period_start"] for item in items)
    invoice = subscription_invoices.create_draft(tx, subscription, "subscription_threshold", start, at)
    invoice["threshold_reason"] = {"amount_gte": least, "item_reasons": []}
    for item in metered:
        subscription_invoices.add_usage(invoice, subscription, item, at + 1)
        tx.save({**item, "_usage_from": at + 1})
    restarts = subscription["billing_thresholds"]["reset_billing_cycle_anchor"]
    if restarts:
        subscription_invoices.restart_cycle(tx, subscription, at + 1, at + 1, prorate=False)
    invoice = subscription_invoices.open_draft(tx, subscription, invoice)
    if invoice["total_excluding_tax"] < least:
        return False
    for item in fetch_items(tx, subscription) if restarts else ():
        if not is_metered(get_price(tx, item)):
            subscription_invoices.add_fee(tx, invoice, subscription, item)
    invoice_lines.compute_totals(tx, invoices.refresh(tx, invoice))
    subscription_invoices.advance_later(tx, invoice)
    update_subscription(tx, subscription)
    subscription_renewal.schedule_renewal(tx, subscription)
    return True
