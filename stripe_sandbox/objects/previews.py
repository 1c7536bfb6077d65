"""Previews of the next invoice: it is made in a transaction, and rolled back."""

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.objects import (
    discounts,
    invoice_items,
    invoice_lines,
    invoices,
    subscription_cancellation,
    subscription_renewal,
    subscriptions,
)
from stripe_sandbox.objects.fields import get_customer, require_supported
from stripe_sandbox.refusal import ApiError, invalid_request
from stripe_sandbox.transaction import Body, Transaction, generate_id

CHANGES = (
    "billing_cycle_anchor",
    "cancel_at",
    "cancel_at_period_end",
    "items",
    "proration_behavior",
    "proration_date",
    "trial_end",
)
REFUSED = ("customer_account", "customer_details", "schedule", "issuer")


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Preview the next invoice of a subscription, also after a change; or of a customer's pending items."""
    require_supported(params, *REFUSED)
    if "subscription" not in params and "customer" not in params:
        raise invalid_request("Missing required param: customer.", "customer", "parameter_missing")
    connection = tx.account.connection
    connection.execute("SAVEPOINT preview")
    try:
        invoice = _preview_subscription(tx, params) if _has_subscription(params) else _preview_customer(tx, params)
        if "discounts" in params:
            _set_discounts(tx, invoice, params)
        lines = invoice_lines.list_lines(tx, invoice)
        return {**invoice, "id": generate_id("upcoming_in"), "billing_reason": "upcoming", "_lines": lines}
    finally:
        connection.execute("ROLLBACK TO preview")
        connection.execute("RELEASE preview")


def _set_discounts(tx: Transaction, invoice: Body, params: Parameters) -> None:
    """Set the discounts of a preview, in place of those of its subscription."""
    owner = {"invoice": invoice["id"]}
    now, clock = tx.get_time(invoice["test_clock"]), invoice["test_clock"]
    redemption = discounts.Redemption(owner, invoice["customer"], invoice["currency"], now, clock, invoice["subtotal"])
    discounts.replace(tx, invoice, params, "discounts", redemption)
    invoice_lines.compute_totals(tx, invoice)


def _has_subscription(params: Parameters) -> bool:
    return "subscription" in params or "items" in params.get("subscription_details", {})


def _preview_customer(tx: Transaction, params: Parameters) -> Body:
    customer = get_customer(tx, params)
    invoice = invoices.create_draft(
        tx, customer, customer.get("currency") or params.get("currency") or "usd", _metered=[]
    )
    _add_items(tx, customer["id"], params)
    invoices.add_pending(tx, invoice, None)
    if not invoice_lines.list_lines(tx, invoice):
        raise ApiError(404, f"No upcoming invoices for customer: {customer['id']}", code="invoice_upcoming_none")
    return invoice_lines.compute_totals(tx, invoice)


def _add_items(tx: Transaction, customer: str, params: Parameters) -> None:
    for item in params.get("invoice_items", ()):
        require_supported(item, "invoiceitem", "tax_code", "unit_amount")
        fields: Body = {name: value for name, value in item.items() if name not in ("price", "currency")}
        if "price" in item:
            fields["pricing"] = {"price": item["price"]}
        else:
            fields["currency"] = item.get("currency") or params.get("currency") or "usd"
        invoice_items.create(tx, {}, {"customer": customer, **fields})


def _preview_subscription(tx: Transaction, params: Parameters) -> Body:
    """Preview a subscription after a change, at its next invoice."""
    details = params.get("subscription_details", {})
    require_supported(details, "billing_schedules", "resume_at", "pause", "start_date")
    if "subscription" not in params:
        return _preview_new_subscription(tx, params, details)
    subscription = tx.get("subscription", params["subscription"], "subscription")
    _add_items(tx, subscription["customer"], params)
    before = subscription.get("latest_invoice")
    if details.get("cancel_now"):
        canceled = subscription_cancellation.cancel(
            tx, {"id": subscription["id"]}, {"invoice_now": True, "prorate": True}
        )
        return _get_latest(tx, canceled, before)
    change = {name: details[name] for name in CHANGES if name in details}
    if change:
        canceled = subscriptions.update(tx, {"id": subscription["id"]}, change)
        if canceled.get("latest_invoice") != before:
            return _get_latest(tx, canceled, before)
    subscription_renewal.due_to_renew(tx, subscription["id"])
    return _get_latest(tx, tx.get("subscription", subscription["id"]), before)


def _get_latest(tx: Transaction, subscription: Body, before: str | None) -> Body:
    latest = subscription.get("latest_invoice")
    if latest == before or latest is None:
        raise ApiError(
            404, f"No upcoming invoices for subscription: {subscription['id']}", code="invoice_upcoming_none"
        )
    invoice = tx.get("invoice", latest)
    return {**invoice, "status": "draft", "number": None, "invoice_pdf": None, "hosted_invoice_url": None}


def _preview_new_subscription(tx: Transaction, params: Parameters, details: Parameters) -> Body:
    """Preview the first invoice of a new subscription."""
    customer = get_customer(tx, params)
    request = {"customer": customer["id"], "items": details["items"], "payment_behavior": "default_incomplete"}
    request |= {name: details[name] for name in ("proration_behavior", "trial_end") if name in details}
    if details.get("billing_cycle_anchor", {}).get("type") == "timestamp":
        request["billing_cycle_anchor"] = details["billing_cycle_anchor"].get("timestamp")
    if params.get("discounts"):
        request["discounts"] = params["discounts"]
    return _get_latest(tx, subscriptions.create(tx, {}, request), None)
