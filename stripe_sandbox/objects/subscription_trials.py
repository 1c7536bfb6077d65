"""Trials of subscriptions, which are free until they end."""

from stripe_sandbox.objects import subscription_invoices, subscription_state
from stripe_sandbox.objects.periods import find_anchor
from stripe_sandbox.objects.subscription_invoices import fetch_items, get_price, is_metered
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction

DAY = 86400
DAYS_MAX = 730
WARNING_SECONDS = 3 * DAY
"""Seconds from `customer.subscription.trial_will_end` to the end of a trial."""


def parse_trial_end(tx: Transaction, params: Fields, now: int) -> int | None:
    """Parse the end of a new trial; None without a trial."""
    if "trial_end" in params and "trial_period_days" in params:
        raise invalid_request(
            "You may only specify one of these parameters: trial_end, trial_period_days.", "trial_period_days"
        )
    if params.get("trial_from_plan"):
        if "trial_end" in params or "trial_period_days" in params:
            raise invalid_request("trial_from_plan cannot be combined with another trial.", "trial_from_plan")
        prices = [tx.find("price", item["price"]) for item in params.get("items", ()) if "price" in item]
        days = max(((price["recurring"] or {}).get("trial_period_days") or 0 for price in prices if price), default=0)
        return now + days * DAY if days else None
    if "trial_period_days" in params:
        if not 0 <= params["trial_period_days"] <= DAYS_MAX:
            raise invalid_request(f"Invalid integer: must be from 0 to {DAYS_MAX}", "trial_period_days")
        return now + params["trial_period_days"] * DAY if params["trial_period_days"] else None
    if params.get("trial_end", "now") == "now":
        return None
    if not now < params["trial_end"] <= now + DAYS_MAX * DAY:
        raise invalid_request(
            "Invalid timestamp: must be an integer Unix timestamp in the future, at most two years from now.",
            "trial_end",
        )
    return int(params["trial_end"])


def begin_trial(subscription: Body, params: Fields, end: int, now: int) -> None:
    """Begin a trial: the billing cycle begins at its end, unless a call says otherwise."""
    subscription.update(status="trialing", trial_start=subscription.get("trial_start") or now, trial_end=end)
    if "billing_cycle_anchor_config" in params:
        subscription["billing_cycle_anchor"] = find_anchor(params["billing_cycle_anchor_config"], end)
    elif "billing_cycle_anchor" not in params:
        subscription["billing_cycle_anchor"] = end
    elif subscription["billing_cycle_anchor"] < end:
        raise invalid_request("The billing_cycle_anchor cannot be before the end of the trial.", "billing_cycle_anchor")


def schedule_warning(tx: Transaction, subscription: Body) -> None:
    """Warn of the end of a trial three days before it, or at once."""
    tx.cancel_timer("trial_will_end", subscription["id"])
    if subscription["status"] != "trialing":
        return
    at = subscription["trial_end"] - WARNING_SECONDS
    if at <= tx.get_time(subscription["test_clock"]):
        tx.record_event("customer.subscription.trial_will_end", subscription)
    else:
        tx.set_timer(at, "trial_will_end", subscription["id"], subscription["test_clock"])


def due_to_warn(tx: Transaction, id: str) -> None:
    """Warn that a trial ends in three days."""
    subscription = tx.find("subscription", id)
    if subscription is not None and subscription["status"] == "trialing":
        tx.record_event("customer.subscription.trial_will_end", subscription)


def end_trial(tx: Transaction, subscription: Body) -> bool:
    """End a trial whose time is over; returns whether the subscription goes on."""
    behavior = subscription["trial_settings"]["end_behavior"]["missing_payment_method"]
    automatic = subscription["collection_method"] == "charge_automatically"
    if not automatic or behavior == "create_invoice" or has_method(tx, subscription):
        return True
    if behavior == "cancel":
        subscription_state.end_subscription(tx, subscription, None)
        return False
    pause_at = subscription["trial_end"]
    paused = {
        "subscription": {"type": "trial_end_without_payment_method"},
        "transitioned_at": pause_at,
        "type": "subscription",
    }
    subscription.update(status="paused", status_details={"paused": paused}, _trial_ended=True)
    tx.save(subscription)
    tx.record_event("customer.subscription.paused", subscription)
    return False


def has_method(tx: Transaction, subscription: Fields) -> bool:
    """Return whether a subscription, or its customer, has a payment method."""
    settings = tx.get("customer", subscription["customer"])["invoice_settings"]
    return bool(subscription.get("default_payment_method") or settings.get("default_payment_method"))


def change_trial(tx: Transaction, subscription: Body, params: Fields, at: int, behavior: str) -> bool:
    """Change the end of a trial, also of an active subscription; returns whether fees are due now."""
    if "trial_end" not in params:
        return False
    end = parse_trial_end(tx, {"trial_end": params["trial_end"]}, at)
    if end is None:
        if subscription["status"] != "trialing":
            return False
        unchanged = subscription["trial_settings"]["end_behavior"].get("billing_cycle_anchor") == "unchanged"
        anchor = subscription["billing_cycle_anchor"] if unchanged else at
        subscription.update(status="active", trial_end=at)
        subscription_invoices.restart_cycle(tx, subscription, at, anchor, prorate=False)
        return True
    if subscription["status"] not in ("active", "trialing"):
        raise invalid_request(f"A subscription that is {subscription['status']} cannot have a trial.", "trial_end")
    for item in fetch_items(tx, subscription) if behavior != "none" and subscription["status"] == "active" else ():
        if is_metered(get_price(tx, item)):
            subscription_invoices.bill_usage(tx, subscription, item, at)
        else:
            subscription_invoices.credit_unused(tx, subscription, item, at)
    if subscription["status"] == "active":
        subscription["trial_start"] = None
    begin_trial(subscription, {}, end, at)
    for item in fetch_items(tx, subscription):
        tx.save({**item, "current_period_end": end})
    tx.save(subscription)
    return False
