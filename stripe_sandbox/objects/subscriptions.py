"""Subscriptions, in flexible billing mode: created, changed, renewed, ended."""

from stripe_sandbox.amounts import split_by_tier
from stripe_sandbox.lists import Ids, Parameters, format_list, list_objects
from stripe_sandbox.objects import (
    billing_thresholds,
    catalog,
    collection,
    discounts,
    invoice_items,
    invoices,
    payment_methods,
    setup_intents,
    subscription_cancellation,
    subscription_invoices,
    subscription_items,
    subscription_renewal,
    subscription_state,
    subscription_trials,
)
from stripe_sandbox.objects.fields import (
    compute_previous_attributes,
    get_customer,
    merge_metadata,
    require_supported,
    set_fields,
    set_test_clock,
)
from stripe_sandbox.objects.periods import find_anchor
from stripe_sandbox.objects.subscription_invoices import fetch_items, get_price, is_metered
from stripe_sandbox.refusal import ApiError, invalid_request, unsupported
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

INCOMPLETE_SECONDS = 23 * 3600
"""Seconds within which the first payment of a subscription must succeed."""
REFUSED = (
    "application_fee_percent",
    "billing_schedules",
    "pending_invoice_item_interval",
)


# ---- making


def create(tx: Transaction, ids: Ids, params: Parameters, schedule: str | None = None) -> Body:
    """Create a subscription. The first invoice has the fees and is finalized at once, or later for a schedule."""
    require_supported(params, *REFUSED, "backdate_start_date", "currency")
    _check_mode(params.get("billing_mode", {}))
    customer = get_customer(tx, params)
    if not params.get("items"):
        raise invalid_request("Missing required param: items.", "items", "parameter_missing")
    now = tx.get_time(customer.get("test_clock"))
    subscription = _build_subscription(tx, customer, params, now)
    trial_end = subscription_trials.parse_trial_end(tx, params, now)
    if trial_end is not None:
        subscription_trials.begin_trial(subscription, params, trial_end, now)
    set_test_clock(subscription, customer)
    subscription["schedule"] = schedule
    _set_parameters(tx, subscription, params)
    if subscription["collection_method"] == "send_invoice" and subscription.get("days_until_due") is None:
        raise invalid_request(
            "If `collection_method`='send_invoice', you must provide `days_until_due`.", "days_until_due"
        )
    items = [
        subscription_items.resolve_price(tx, item, f"items[{place}]") for place, item in enumerate(params["items"])
    ]
    subscription["currency"] = tx.get("price", items[0]["price"], "items[0][price]")["currency"]
    tx.insert(subscription)
    for place, item in enumerate(items):
        subscription_items.add_item(tx, subscription, item, f"items[{place}]", now)
    _add_invoice_items(tx, subscription, params)
    _set_discounts(tx, subscription, params, _compute_fees(tx, subscription))
    subscription_cancellation.schedule_cancellation(tx, subscription, params)
    subscription_renewal.schedule_renewal(tx, subscription)
    _charge_first_invoice(tx, subscription, params, now)
    subscription = tx.get("subscription", subscription["id"])
    _request_method(tx, subscription)
    tx.record_event("customer.subscription.created", subscription)
    subscription_trials.schedule_warning(tx, subscription)
    return subscription


def _check_mode(billing_mode: Fields) -> None:
    if billing_mode.get("type") == "classic":
        raise unsupported("the billing mode classic", "billing_mode[type]")
    if billing_mode.get("flexible", {}).get("proration_discounts") == "itemized":
        raise unsupported("itemized discounts of prorations", "billing_mode[flexible][proration_discounts]")


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
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
    }


def _add_invoice_items(tx: Transaction, subscription: Body, params: Parameters) -> None:
    """Add one-time charges to the next invoice of a subscription."""
    for added in params.get("add_invoice_items", ()):
        require_supported(added, "period")
        fields = {name: value for name, value in added.items() if name != "price"}
        if "price" in added:
            fields["pricing"] = {"price": added["price"]}
        of = {"customer": subscription["customer"], "subscription": subscription["id"]}
        invoice_items.create(tx, {}, {**of, **fields})


def _set_discounts(tx: Transaction, subscription: Body, params: Parameters, amount: int | None) -> None:
    """Set the discounts of a subscription. `amount` is the amount of its first invoice, or None after that invoice."""
    now, clock = tx.get_time(subscription["test_clock"]), subscription["test_clock"]
    owner, customer = {"subscription": subscription["id"]}, subscription["customer"]
    redemption = discounts.Redemption(owner, customer, subscription["currency"], now, clock, amount)
    discounts.replace(tx, subscription, params, "discounts", redemption)
    tx.save(subscription)


def _compute_fees(tx: Transaction, subscription: Body) -> int:
    """Compute the fees of a whole period."""
    priced = [(get_price(tx, item), item) for item in fetch_items(tx, subscription)]
    return sum(
        part.amount
        for price, item in priced
        if not is_metered(price)
        for part in split_by_tier(price, item["quantity"])
    )


def _set_parameters(tx: Transaction, subscription: Body, params: Parameters) -> None:
    set_fields(subscription, params, "collection_method", "days_until_due", "description")
    merge_metadata(subscription, params)
    billing_thresholds.set_threshold(subscription, params)
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
    if "trial_settings" in params:
        end_behavior = {"missing_payment_method": "create_invoice", **params["trial_settings"]["end_behavior"]}
        subscription["trial_settings"] = {"end_behavior": end_behavior}
    if "pause_collection" in params:
        _pause_collection(tx, subscription, params["pause_collection"] or None)


def _pause_collection(tx: Transaction, subscription: Body, pause: Body | None) -> None:
    """Pause the collection of invoices, until a time or for ever, or resume it."""
    subscription["pause_collection"] = pause
    tx.cancel_timer("resume_collection", subscription["id"])
    if pause is not None and pause.get("resumes_at") is not None:
        if pause["resumes_at"] <= tx.get_time(subscription["test_clock"]):
            raise invalid_request("The resumes_at must be in the future.", "pause_collection[resumes_at]")
        tx.set_timer(pause["resumes_at"], "resume_collection", subscription["id"], subscription["test_clock"])


def _charge_first_invoice(tx: Transaction, subscription: Body, params: Parameters, now: int) -> None:
    """Charge the fees, if there are any. The invoice of a trial is paid at once, because its amount is 0."""
    invoice = subscription_invoices.create_draft(tx, subscription, "subscription_create", now, now)
    trial = subscription["status"] == "trialing"
    free = subscription["billing_cycle_anchor"] > now and params.get("proration_behavior") == "none"
    for item in fetch_items(tx, subscription):
        if is_metered(get_price(tx, item)):
            continue
        if trial:
            subscription_invoices.add_trial(tx, invoice, subscription, item)
        elif not free:
            subscription_invoices.add_fee(tx, invoice, subscription, item)
    if subscription_invoices.is_empty(tx, invoice, subscription):
        subscription_invoices.discard_draft(tx, invoice)
        return
    subscription_invoices.open_draft(tx, subscription, invoice)
    if trial and not invoice["total"]:
        collection.finalize_draft(tx, invoice)
        return
    if subscription["collection_method"] == "send_invoice" or subscription["schedule"]:
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


def _request_method(tx: Transaction, subscription: Body) -> None:
    """Create the setup intent of a subscription whose first invoice needs no payment, and that nothing pays later."""
    if subscription["collection_method"] != "charge_automatically" or subscription["schedule"]:
        return
    if subscription["status"] not in ("active", "trialing") or subscription_trials.has_method(tx, subscription):
        return
    intent = setup_intents.create_intent(tx, subscription["customer"], "off_session")
    tx.save({**intent, "_subscription": subscription["id"]})
    subscription["pending_setup_intent"] = intent["id"]
    tx.save(subscription)


# ---- changing


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update a subscription; prorations are on the next invoice, or charged at once."""
    require_supported(params, *REFUSED, "trial_from_plan")
    subscription = tx.get("subscription", ids["id"])
    if subscription["status"] in subscription_state.ENDED and set(params) - {"cancellation_details", "metadata"}:
        raise invalid_request("A canceled subscription can only update its cancellation_details and metadata.")
    if subscription.get("schedule") and {"cancel_at", "cancel_at_period_end"} & set(params):
        raise invalid_request(
            f"The subscription is managed by the subscription schedule `{subscription['schedule']}`, and updating any "
            "cancelation behavior directly is not allowed. Please update the schedule instead."
        )
    before = dict(tx.render(subscription))
    _set_parameters(tx, subscription, params)
    set_fields(subscription, params, "cancellation_details")
    _set_discounts(tx, subscription, params, None)
    at = params.get("proration_date", tx.get_time(subscription["test_clock"]))
    behavior = params.get("proration_behavior", "create_prorations")
    _change_items(tx, subscription, params, at, behavior)
    due = subscription_trials.change_trial(tx, subscription, params, at, behavior)
    if params.get("billing_cycle_anchor", {}).get("type") == "now":
        subscription_invoices.restart_cycle(tx, subscription, at, at, prorate=behavior != "none")
        due = True
    _add_invoice_items(tx, subscription, params)
    subscription_cancellation.schedule_cancellation(tx, subscription, params)
    if subscription["status"] not in subscription_state.ENDED:
        subscription_renewal.schedule_renewal(tx, subscription)
    if due:
        subscription_invoices.charge_fees(tx, subscription, at)
    elif behavior == "always_invoice" and ({"items", "add_invoice_items", "trial_end"} & set(params)):
        _invoice_now(tx, subscription, at, params.get("payment_behavior"))
    subscription = tx.get("subscription", subscription["id"])
    tx.record_event(
        "customer.subscription.updated", subscription, compute_previous_attributes(before, tx.render(subscription))
    )
    if "trial_end" in params:
        subscription_trials.schedule_warning(tx, subscription)
    return subscription


def _change_items(tx: Transaction, subscription: Body, params: Parameters, at: int, behavior: str) -> None:
    for place, item in enumerate(params.get("items", ())):
        resolved = subscription_items.resolve_price(tx, item, f"items[{place}]")
        subscription_items.change_item(tx, subscription, resolved, f"items[{place}]", at, behavior)
    if not fetch_items(tx, subscription):
        raise invalid_request("A subscription must have at least one active item.", "items")


def _invoice_now(tx: Transaction, subscription: Body, at: int, behavior: str | None) -> None:
    invoice = subscription_invoices.create_draft(tx, subscription, "subscription_update", at, at)
    if subscription_invoices.is_empty(tx, invoice, subscription):
        subscription_invoices.discard_draft(tx, invoice)
        return
    invoice = subscription_invoices.charge_now(tx, subscription, invoice)
    if invoice["status"] == "open" and behavior == "error_if_incomplete":
        raise ApiError(402, "Your card was declined.", kind="card_error", code="card_declined")


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
    """Return an item with its price, and the plan that older integrations read in its place."""
    price = tx.get("price", body["price"])
    return {**body, "plan": tx.render(catalog.describe_plan(price)), "price": tx.render(price)}


# ---- discounts and modes


def delete_discount(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Remove the discount of a subscription; of several, an update removes one."""
    subscription = tx.get("subscription", ids["id"])
    if not subscription["discounts"]:
        raise ApiError(404, f"No active discount for subscription: {subscription['id']}", code="resource_missing")
    if len(subscription["discounts"]) > 1:
        raise invalid_request("The subscription has more than one discount; update its `discounts` instead.")
    (discount,) = subscription["discounts"]
    subscription_state.update_subscription(tx, subscription, discounts=[])
    return discounts.remove(tx, discounts.get_discount(tx, discount))


def migrate(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Return the subscription: all are in flexible mode."""
    tx.get("subscription", ids["id"])
    raise invalid_request("The subscription is in flexible billing mode already.", "billing_mode")


def expand_subscriptions(tx: Transaction, customer: Body) -> Body:
    """Return a customer's subscriptions that have not ended, expanded."""
    subscriptions = tx.all("subscription", customer=customer["id"])
    bodies = [tx.render(body) for body in subscriptions if body["status"] not in subscription_state.ENDED]
    return format_list(tx, bodies, False, f"/v1/customers/{customer['id']}/subscriptions")
