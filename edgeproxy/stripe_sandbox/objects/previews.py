"""Previews: what the next invoice would be. All of it is done, looked at, and taken back."""

from typing import Any

from edgeproxy.stripe_sandbox.lists import Ids, Parameters
from edgeproxy.stripe_sandbox.objects import invoice_items, invoice_lines, invoices, subscriptions
from edgeproxy.stripe_sandbox.objects.fields import customer_of, refuse
from edgeproxy.stripe_sandbox.refusal import Refusal, invalid
from edgeproxy.stripe_sandbox.transaction import Body, Transaction, new_id

CHANGES = ("items", "proration_behavior", "proration_date", "cancel_at_period_end", "cancel_at")
REFUSED = ("customer_account", "discounts", "customer_details", "schedule", "issuer")


def create(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """The next invoice of a subscription, also after a change; or of a customer's pending items."""
    refuse(p, *REFUSED)
    if "subscription" not in p and "customer" not in p:
        raise invalid("Missing required param: customer.", "customer", "parameter_missing")
    connection = tx.account.connection
    connection.execute("SAVEPOINT preview")
    try:
        invoice = _of_subscription(tx, p) if _subscribes(p) else _of_customer(tx, p)
        lines = invoice_lines.of(tx, invoice)
        return {**invoice, "id": new_id("upcoming_in"), "billing_reason": "upcoming", "_lines": lines}
    finally:
        connection.execute("ROLLBACK TO preview")
        connection.execute("RELEASE preview")


def _subscribes(p: Parameters) -> bool:
    return "subscription" in p or "items" in p.get("subscription_details", {})


def _of_customer(tx: Transaction, p: Parameters) -> Body:
    customer = customer_of(tx, p)
    invoice = invoices.new(tx, customer, customer.get("currency") or p.get("currency") or "usd", _metered=[])
    _add_items(tx, customer["id"], p)
    invoices.take_pending(tx, invoice, None)
    if not invoice_lines.of(tx, invoice):
        raise Refusal(404, f"No upcoming invoices for customer: {customer['id']}", code="invoice_upcoming_none")
    return invoice_lines.total(tx, invoice)


def _add_items(tx: Transaction, customer: str, p: Parameters) -> None:
    for item in p.get("invoice_items", ()):
        refuse(item, "discounts", "invoiceitem", "price_data", "tax_code", "unit_amount")
        said: dict[str, Any] = {name: value for name, value in item.items() if name not in ("price", "currency")}
        if "price" in item:
            said["pricing"] = {"price": item["price"]}
        else:
            said["currency"] = item.get("currency") or p.get("currency") or "usd"
        invoice_items.create(tx, {}, {"customer": customer, **said})


def _of_subscription(tx: Transaction, p: Parameters) -> Body:
    """The subscription as it would be after the change, at its next invoice."""
    details = p.get("subscription_details", {})
    refuse(details, "billing_schedules", "resume_at", "pause", "trial_end", "start_date", "billing_cycle_anchor")
    if "subscription" not in p:
        return _of_new(tx, p, details)
    subscription = tx.get("subscription", p["subscription"], "subscription")
    _add_items(tx, subscription["customer"], p)
    before = subscription.get("latest_invoice")
    if details.get("cancel_now"):
        made = subscriptions.cancel(tx, {"id": subscription["id"]}, {"invoice_now": True, "prorate": True})
        return _latest(tx, made, before)
    change = {name: details[name] for name in CHANGES if name in details}
    if change:
        made = subscriptions.update(tx, {"id": subscription["id"]}, change)
        if made.get("latest_invoice") != before:
            return _latest(tx, made, before)
    subscriptions.due_to_renew(tx, subscription["id"])
    return _latest(tx, tx.get("subscription", subscription["id"]), before)


def _latest(tx: Transaction, subscription: Body, before: str | None) -> Body:
    latest = subscription.get("latest_invoice")
    if latest == before or latest is None:
        raise Refusal(404, f"No upcoming invoices for subscription: {subscription['id']}", code="invoice_upcoming_none")
    invoice = tx.get("invoice", latest)
    return {**invoice, "status": "draft", "number": None, "invoice_pdf": None, "hosted_invoice_url": None}


def _of_new(tx: Transaction, p: Parameters, details: Parameters) -> Body:
    """The first invoice of a subscription that there is not."""
    customer = customer_of(tx, p)
    said = {"customer": customer["id"], "items": details["items"], "payment_behavior": "default_incomplete"}
    if "proration_behavior" in details:
        said["proration_behavior"] = details["proration_behavior"]
    return _latest(tx, subscriptions.create(tx, {}, said), None)
