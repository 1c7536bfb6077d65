"""The end of subscriptions: now, at a time, or at the end of a period."""

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.objects import subscription_invoices, subscription_state
from stripe_sandbox.objects.subscription_invoices import fetch_items, get_price, is_metered
from stripe_sandbox.refusal import invalid_request, no_such_object, unsupported
from stripe_sandbox.transaction import Body, Transaction


def schedule_cancellation(tx: Transaction, subscription: Body, params: Parameters) -> None:
    """Set when a subscription ends, or that it does not."""
    items = fetch_items(tx, subscription)
    if "cancel_at" in params and params.get("cancel_at_period_end"):
        raise invalid_request(
            "You may only specify one of these parameters: cancel_at, cancel_at_period_end.", "cancel_at"
        )
    if "cancel_at_period_end" in params:
        ends_with_period = params["cancel_at_period_end"]
        end = max((item["current_period_end"] for item in items), default=None)
        subscription.update(cancel_at_period_end=ends_with_period, cancel_at=end if ends_with_period else None)
    elif "cancel_at" in params:
        ends = [item["current_period_end"] for item in items]
        moment = {"min_period_end": min(ends), "max_period_end": max(ends), "": None}.get(
            params["cancel_at"], params["cancel_at"]
        )
        if moment == "max_billed_until":
            raise unsupported("max_billed_until", "cancel_at")
        subscription.update(cancel_at=moment, cancel_at_period_end=False)
    else:
        return
    subscription["canceled_at"] = tx.get_time(subscription["test_clock"]) if subscription["cancel_at"] else None
    reason = "cancellation_requested" if subscription["cancel_at"] else None
    subscription["cancellation_details"] = {**(subscription.get("cancellation_details") or {}), "reason": reason}
    tx.save(subscription)


def cancel(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Cancel a subscription now; with `invoice_now` open usage is charged, else not."""
    subscription = tx.get("subscription", ids["id"])
    if subscription["status"] in subscription_state.ENDED:
        raise no_such_object("subscription", subscription["id"])
    if "cancellation_details" in params:
        subscription["cancellation_details"] = subscription["cancellation_details"] | params["cancellation_details"]
    return end_now(tx, subscription, invoice_now=params.get("invoice_now", False), prorate=params.get("prorate", False))


def end_now(tx: Transaction, subscription: Body, *, invoice_now: bool, prorate: bool) -> Body:
    """End a subscription now; usage of a trial is never charged."""
    at = tx.get_time(subscription["test_clock"])
    items = fetch_items(tx, subscription)
    if prorate:
        for item in items:
            if not is_metered(get_price(tx, item)):
                subscription_invoices.credit_unused(tx, subscription, item, at)
    if invoice_now:
        start = min(item["current_period_start"] for item in items)
        invoice = subscription_invoices.create_draft(tx, subscription, "subscription_update", start, at)
        for item in items:
            if is_metered(get_price(tx, item)) and not subscription_invoices.is_free(subscription, at):
                subscription_invoices.add_usage(invoice, subscription, item, at)
        if subscription_invoices.is_empty(tx, invoice, subscription):
            subscription_invoices.discard_draft(tx, invoice)
        else:
            subscription_invoices.charge_now(tx, subscription, invoice)
            details = subscription["cancellation_details"]
            subscription = {**tx.get("subscription", subscription["id"]), "cancellation_details": details}
    return subscription_state.end_subscription(tx, subscription, "cancellation_requested")
