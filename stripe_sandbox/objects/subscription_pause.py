"""Paused subscriptions: nothing is charged until they are resumed."""

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.objects import subscription_invoices, subscription_renewal, subscription_state
from stripe_sandbox.objects.periods import find_period
from stripe_sandbox.objects.subscription_invoices import fetch_items, get_price, is_metered
from stripe_sandbox.refusal import invalid_request, unsupported
from stripe_sandbox.transaction import Body, Transaction


def pause(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Pause a subscription; what is open is charged or credited on demand."""
    subscription = tx.get("subscription", ids["id"])
    if subscription["status"] != "active":
        raise invalid_request(f"Only active subscriptions can be paused; this one is {subscription['status']}.")
    bill_for = params.get("bill_for", {})
    usage = bill_for.get("outstanding_usage_through", {}).get("type", "none")
    unused = bill_for.get("unused_time_from", {}).get("type", "none")
    if unused == "item_current_period_start":
        raise unsupported("giving back time that is over", "bill_for[unused_time_from][type]")
    at = tx.get_time(subscription["test_clock"])
    for item in fetch_items(tx, subscription):
        metered = is_metered(get_price(tx, item))
        if metered and usage == "now":
            subscription_invoices.bill_usage(tx, subscription, item, at)
        elif not metered and unused == "now":
            subscription_invoices.credit_unused(tx, subscription, item, at)
    tx.cancel_timer("renew", subscription["id"])
    paused = {"subscription": {"type": "pause_requested"}, "transitioned_at": at, "type": "subscription"}
    subscription.update(status="paused", status_details={"paused": paused}, _credited=unused == "now")
    tx.save(subscription)
    tx.record_event("customer.subscription.paused", subscription)
    if params.get("invoicing_behavior") == "invoice":
        _invoice(tx, subscription, at)
    return tx.get("subscription", subscription["id"])


def resume(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Resume a subscription: usage counts from now, and fees are charged for the rest of the period."""
    subscription = tx.get("subscription", ids["id"])
    if subscription["status"] != "paused":
        raise invalid_request(f"Only paused subscriptions can be resumed; this one is {subscription['status']}.")
    if subscription.get("_trial_ended"):
        return _resume_after_trial(tx, subscription, params)
    if params.get("billing_cycle_anchor", {}).get("type") == "now":
        raise unsupported("another billing_cycle_anchor", "billing_cycle_anchor")
    at = params.get("proration_date", tx.get_time(subscription["test_clock"]))
    behavior = params.get("proration_behavior", "create_prorations")
    for item in fetch_items(tx, subscription):
        price = get_price(tx, item)
        paid = item["current_period_end"] > at and not subscription["_credited"]
        _, end = find_period(subscription["billing_cycle_anchor"], price["recurring"], at)
        item.update(current_period_start=at, current_period_end=end, _usage_from=at)
        tx.save(item)
        if not is_metered(price) and behavior != "none" and not paid:
            subscription_invoices.charge_remaining(tx, subscription, item, at)
    subscription.update(status="active", status_details=None)
    tx.save(subscription)
    subscription_renewal.schedule_renewal(tx, subscription)
    tx.record_event("customer.subscription.resumed", subscription)
    if behavior == "always_invoice":
        _invoice(tx, subscription, at)
    return subscription_state.update_subscription(tx, tx.get("subscription", subscription["id"]))


def _resume_after_trial(tx: Transaction, subscription: Body, params: Parameters) -> Body:
    """Resume a subscription whose trial ended without a payment method: it is active once its fees are paid."""
    at = tx.get_time(subscription["test_clock"])
    unchanged = params.get("billing_cycle_anchor", {}).get("type") == "unchanged"
    anchor = subscription["billing_cycle_anchor"] if unchanged else at
    subscription_invoices.restart_cycle(tx, subscription, at, anchor, prorate=False)
    invoice = subscription_invoices.charge_fees(tx, subscription, at)
    subscription = tx.get("subscription", subscription["id"])
    subscription_renewal.schedule_renewal(tx, subscription)
    if invoice is not None and invoice["status"] == "open":
        return tx.save({**subscription, "_resumed_by": invoice["id"]})
    subscription.update(status="active", status_details=None, _trial_ended=False)
    tx.save(subscription)
    tx.record_event("customer.subscription.resumed", subscription)
    return subscription_state.update_subscription(tx, subscription)


def _invoice(tx: Transaction, subscription: Body, at: int) -> None:
    invoice = subscription_invoices.create_draft(tx, subscription, "subscription_update", at, at)
    if subscription_invoices.is_empty(tx, invoice, subscription):
        subscription_invoices.discard_draft(tx, invoice)
    else:
        subscription_invoices.charge_now(tx, subscription, invoice)
