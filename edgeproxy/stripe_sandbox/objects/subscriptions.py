"""Subscriptions, in flexible billing mode: created, changed, renewed, ended."""

from edgeproxy.stripe_sandbox.lists import Ids, Parameters, format_list, list_objects
from edgeproxy.stripe_sandbox.objects import (
    collection,
    invoices,
    payment_methods,
    subscription_invoices,
    subscription_items,
    subscription_state,
)
from edgeproxy.stripe_sandbox.objects.fields import (
    compute_previous_attributes,
    get_customer,
    merge_metadata,
    require_supported,
    set_fields,
    set_test_clock,
)
from edgeproxy.stripe_sandbox.objects.periods import find_anchor, find_period
from edgeproxy.stripe_sandbox.objects.subscription_invoices import fetch_items, get_price, is_metered
from edgeproxy.stripe_sandbox.refusal import ApiError, invalid_request, no_such_object, unsupported
from edgeproxy.stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

INCOMPLETE_SECONDS = 23 * 3600
"""Seconds within which the first payment of a subscription must succeed."""
REFUSED = (
    "add_invoice_items",
    "application_fee_percent",
    "billing_schedules",
    "billing_thresholds",
    "discounts",
    "pending_invoice_item_interval",
    "trial_from_plan",
)


# ---- making


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a subscription; the first invoice has the fees, and is finalized at once."""
    require_supported(
        params, *REFUSED, "backdate_start_date", "trial_end", "trial_period_days", "trial_settings", "currency"
    )
    if params.get("billing_mode", {}).get("type") == "classic":
        raise unsupported("the billing mode classic", "billing_mode[type]")
    customer = get_customer(tx, params)
    if not params.get("items"):
        raise invalid_request("Missing required param: items.", "items", "parameter_missing")
    now = tx.get_time(customer.get("test_clock"))
    subscription = _build_subscription(tx, customer, params, now)
    set_test_clock(subscription, customer)
    _set_parameters(tx, subscription, params)
    if subscription["collection_method"] == "send_invoice" and subscription.get("days_until_due") is None:
        raise invalid_request(
            "If `collection_method`='send_invoice', you must provide `days_until_due`.", "days_until_due"
        )
    prices = [
        tx.get("price", item["price"], f"items[{n}][price]")
        for n, item in enumerate(params["items"])
        if "price" in item
    ]
    if prices:
        subscription["currency"] = prices[0]["currency"]
    tx.insert(subscription)
    for place, item in enumerate(params["items"]):
        subscription_items.add_item(tx, subscription, item, f"items[{place}]", now)
    _cancel_at(tx, subscription, params)
    schedule_renewal(tx, subscription)
    _charge_first_invoice(tx, subscription, params, now)
    subscription = tx.get("subscription", subscription["id"])
    tx.record_event("customer.subscription.created", subscription)
    return subscription


def _build_subscription(tx: Transaction, customer: Fields, params: Parameters, now: int) -> Body:
    """Build a subscription without items."""
    anchor = now
    if "billing_cycle_anchor" in params:
        anchor = params["billing_cycle_anchor"]
        if anchor < now:
            raise invalid_request("The billing_cycle_anchor must be in the future.", "billing_cycle_anchor")
    elif "billing_cycle_anchor_config" in params:
        anchor = find_anchor(params["billing_cycle_anchor_config"], now)
    return {
        "id": generate_id("sub"),
        "object": "subscription",
        "automatic_tax": {"enabled": False},
        "billing_cycle_anchor": anchor,
        "billing_cycle_anchor_config": params.get("billing_cycle_anchor_config"),
        "billing_mode": {"type": "flexible", "flexible": {"proration_discounts": "included"}, "updated_at": now},
        "billing_schedules": [],
        "cancel_at_period_end": False,
        "cancellation_details": {},
        "collection_method": "charge_automatically",
        "created": now,
        "customer": customer["id"],
        "discounts": [],
        "invoice_settings": {"issuer": {"type": "self"}},
        "livemode": tx.live,
        "payment_settings": {"save_default_payment_method": "off"},
        "start_date": now,
        "status": "active",
    }


def _set_parameters(tx: Transaction, subscription: Body, params: Parameters) -> None:
    set_fields(subscription, params, "collection_method", "days_until_due", "description")
    merge_metadata(subscription, params)
    if "automatic_tax" in params:
        subscription["automatic_tax"] = {"enabled": params["automatic_tax"]["enabled"]}
    if "default_payment_method" in params:
        method = params["default_payment_method"]
        if method:
            customer = subscription["customer"]
            method = payment_methods.attach_method(tx, method, customer, "default_payment_method")["id"]
        subscription["default_payment_method"] = method or None
    if "default_tax_rates" in params:
        ids = params["default_tax_rates"] or ()
        subscription["default_tax_rates"] = [tx.get("tax_rate", id, "default_tax_rates") for id in ids]
    if "invoice_settings" in params:
        subscription["invoice_settings"] = {**subscription["invoice_settings"], **params["invoice_settings"]}
    if "payment_settings" in params:
        subscription["payment_settings"] = {**subscription["payment_settings"], **params["payment_settings"]}
    if "pause_collection" in params:
        if params["pause_collection"] and params["pause_collection"]["behavior"] != "keep_as_draft":
            raise unsupported(f"pausing by {params['pause_collection']['behavior']}", "pause_collection[behavior]")
        subscription["pause_collection"] = params["pause_collection"] or None


def _charge_first_invoice(tx: Transaction, subscription: Body, params: Parameters, now: int) -> None:
    """Charge the fees, unless there are none."""
    invoice = subscription_invoices.create_draft(tx, subscription, "subscription_create", now, now)
    free = subscription["billing_cycle_anchor"] > now and params.get("proration_behavior") == "none"
    for item in fetch_items(tx, subscription):
        if not is_metered(get_price(tx, item)) and not free:
            subscription_invoices.add_fee(tx, invoice, subscription, item)
    if subscription_invoices.is_empty(tx, invoice, subscription):
        subscription_invoices.discard_draft(tx, invoice)
        return
    subscription_invoices.open_draft(tx, subscription, invoice)
    if subscription["collection_method"] == "send_invoice":
        invoices.schedule_advance(tx, invoice)
        return
    subscription["status"] = "incomplete"
    tx.save(subscription)
    invoice = collection.finalize_draft(tx, invoice)
    behavior = params.get("payment_behavior", "allow_incomplete")
    if behavior == "pending_if_incomplete":
        raise unsupported("this payment_behavior", "payment_behavior")
    if invoice["status"] == "open" and behavior != "default_incomplete":
        try:
            collection.collect_payment(tx, invoice, None)
        except ApiError as error:
            if behavior == "error_if_incomplete" or error.status == 400:
                error.commits = False
                raise
    if tx.get("subscription", subscription["id"])["status"] == "incomplete":
        tx.set_timer(now + INCOMPLETE_SECONDS, "expire", subscription["id"], subscription["test_clock"])


# ---- time


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
    _charge_ended(tx, subscription, [item for item in items if item["current_period_end"] == at], at, last=last)
    if last:
        subscription_state.end_subscription(tx, tx.get("subscription", id), "cancellation_requested")
        return
    subscription = tx.get("subscription", id)
    subscription_state.update_subscription(tx, subscription)
    schedule_renewal(tx, subscription)


def _charge_ended(tx: Transaction, subscription: Body, ended: list[Body], at: int, *, last: bool) -> None:
    start = min(item["current_period_start"] for item in ended)
    invoice = subscription_invoices.create_draft(tx, subscription, "subscription_cycle", start, at)
    for item in ended:
        price = get_price(tx, item)
        if is_metered(price):
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
    subscription_invoices.open_draft(tx, subscription, invoice)
    invoices.schedule_advance(tx, tx.get("invoice", invoice["id"]))


def due_to_cancel(tx: Transaction, id: str) -> None:
    """Cancel a subscription at its scheduled time within a period."""
    subscription = tx.find("subscription", id)
    if subscription is not None and subscription["status"] not in subscription_state.ENDED:
        _end(tx, subscription, invoice_now=True, prorate=False)


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


# ---- changing


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update a subscription; prorations are on the next invoice, or charged at once."""
    require_supported(params, *REFUSED, "trial_end", "trial_settings")
    subscription = tx.get("subscription", ids["id"])
    if subscription["status"] in subscription_state.ENDED:
        raise invalid_request("A canceled subscription can only update its cancellation_details and metadata.")
    if params.get("billing_cycle_anchor", {}).get("type") == "now":
        raise unsupported("another billing_cycle_anchor", "billing_cycle_anchor")
    before = dict(tx.render(subscription))
    _set_parameters(tx, subscription, params)
    set_fields(subscription, params, "cancellation_details")
    _cancel_at(tx, subscription, params)
    tx.save(subscription)
    at = params.get("proration_date", tx.get_time(subscription["test_clock"]))
    behavior = params.get("proration_behavior", "create_prorations")
    for place, item in enumerate(params.get("items", ())):
        subscription_items.change_item(tx, subscription, item, f"items[{place}]", at, behavior)
    if not fetch_items(tx, subscription):
        raise invalid_request("A subscription must have at least one active item.", "items")
    schedule_renewal(tx, subscription)
    if params.get("items") and behavior == "always_invoice":
        _invoice_now(tx, subscription, at, params.get("payment_behavior"))
    subscription = tx.get("subscription", subscription["id"])
    tx.record_event(
        "customer.subscription.updated", subscription, compute_previous_attributes(before, tx.render(subscription))
    )
    return subscription


def _invoice_now(tx: Transaction, subscription: Body, at: int, behavior: str | None) -> None:
    invoice = subscription_invoices.create_draft(tx, subscription, "subscription_update", at, at)
    if subscription_invoices.is_empty(tx, invoice, subscription):
        subscription_invoices.discard_draft(tx, invoice)
        return
    invoice = subscription_invoices.charge_now(tx, subscription, invoice)
    if invoice["status"] == "open" and behavior == "error_if_incomplete":
        raise ApiError(402, "Your card was declined.", kind="card_error", code="card_declined")


def _cancel_at(tx: Transaction, subscription: Body, params: Parameters) -> None:
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
    return _end(tx, subscription, invoice_now=params.get("invoice_now", False), prorate=params.get("prorate", False))


def _end(tx: Transaction, subscription: Body, *, invoice_now: bool, prorate: bool) -> Body:
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
            if is_metered(get_price(tx, item)):
                subscription_invoices.add_usage(invoice, subscription, item, at)
        if subscription_invoices.is_empty(tx, invoice, subscription):
            subscription_invoices.discard_draft(tx, invoice)
        else:
            subscription_invoices.charge_now(tx, subscription, invoice)
            details = subscription["cancellation_details"]
            subscription = {**tx.get("subscription", subscription["id"]), "cancellation_details": details}
    return subscription_state.end_subscription(tx, subscription, "cancellation_requested")


# ---- reading


def list_subscriptions(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List subscriptions; ended ones only on demand."""
    require_supported(params, "automatic_tax", "current_period_end", "current_period_start", "customer_account", "plan")
    fields = {
        name: params[name] for name in ("collection_method", "created", "customer", "test_clock") if name in params
    }
    where, values = "1", []
    status = params.get("status")
    if status is None:
        where = "json_extract(body, '$.status') NOT IN ('canceled', 'incomplete_expired')"
    elif status == "ended":
        where = "json_extract(body, '$.status') IN ('canceled', 'incomplete_expired')"
    elif status != "all":
        fields["status"] = status
    if "price" in params:
        where += (
            " AND EXISTS (SELECT 1 FROM objects AS item WHERE item.kind = 'subscription_item' AND NOT item.deleted "
            "AND json_extract(item.body, '$.subscription') = objects.id AND json_extract(item.body, '$.price') = ?)"
        )
        values.append(params["price"])
    return list_objects(tx, "subscription", params, fields, where, *values)


def view(tx: Transaction, body: Body) -> Body:
    """Return a subscription with its items."""
    items = [tx.render(item) for item in fetch_items(tx, body)]
    url = f"/v1/subscription_items?subscription={body['id']}"
    return {**body, "items": {"object": "list", "data": items, "has_more": False, "url": url}}


def view_item(tx: Transaction, body: Body) -> Body:
    """Return an item with its price."""
    return {**body, "price": tx.render(tx.get("price", body["price"]))}


# ---- what does not exist here


def delete_discount(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Refuse to delete a discount: no subscription here has one."""
    subscription = tx.get("subscription", ids["id"])
    raise ApiError(404, f"No active discount for subscription: {subscription['id']}", code="resource_missing")


def migrate(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Return the subscription: all are in flexible mode."""
    tx.get("subscription", ids["id"])
    raise invalid_request("The subscription is in flexible billing mode already.", "billing_mode")


def expand_subscriptions(tx: Transaction, customer: Body) -> Body:
    """Return a customer's subscriptions that have not ended, expanded."""
    subscriptions = tx.all("subscription", customer=customer["id"])
    bodies = [tx.render(body) for body in subscriptions if body["status"] not in subscription_state.ENDED]
    return format_list(tx, bodies, False, f"/v1/customers/{customer['id']}/subscriptions")
