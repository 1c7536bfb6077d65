"""Invoices: drafts, their fields, and lists."""

import copy

from stripe_sandbox.json_values import JsonValue
from stripe_sandbox.lists import Ids, Parameters, format_list, list_objects, slice_list
from stripe_sandbox.objects import discounts, invoice_items, invoice_lines, metered_lines, payment_methods
from stripe_sandbox.objects.currencies import parse_currency
from stripe_sandbox.objects.fields import (
    compute_previous_attributes,
    get_customer,
    merge_metadata,
    require_supported,
    set_fields,
    set_test_clock,
)
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

DRAFT_SECONDS = 3600
"""Seconds until a draft with automatic advance is finalized."""
COPIED = (
    ("customer_address", "address"),
    ("customer_email", "email"),
    ("customer_name", "name"),
    ("customer_phone", "phone"),
    ("customer_shipping", "shipping"),
    ("customer_tax_exempt", "tax_exempt"),
)
"""Fields of an invoice that are copied from its customer."""
REFUSED = ("account_tax_ids", "application_fee_amount", "from_invoice", "shipping_cost", "subscription")


DRAFT_FIELDS: Fields = {
    "object": "invoice",
    "account_country": "US",
    "account_name": "Sandbox",
    **dict.fromkeys(("amount_due", "amount_overpaid", "amount_paid", "amount_paid_off_stripe"), 0),
    **dict.fromkeys(("amount_remaining", "amount_shipping", "attempt_count", "starting_balance"), 0),
    **dict.fromkeys(("post_payment_credit_notes_amount", "pre_payment_credit_notes_amount"), 0),
    **dict.fromkeys(("subtotal", "total"), 0),
    "attempted": False,
    "auto_advance": False,
    "automatic_tax": {"enabled": False},
    "billing_reason": "manual",
    "collection_method": "charge_automatically",
    "issuer": {"type": "self"},
    "status": "draft",
    **{name: {} for name in ("metadata", "payment_settings", "status_transitions")},
    **{name: [] for name in ("default_tax_rates", "discounts", "total_discount_amounts")},
    **{name: [] for name in ("total_pretax_credit_amounts", "total_taxes")},
}
"""Fields of every new draft."""

# ---- drafts


def create_draft(tx: Transaction, customer: Body, currency: str, **more: JsonValue) -> Body:
    """Store a draft without lines."""
    now = tx.get_time(customer.get("test_clock"))
    invoice: Body = {
        **copy.deepcopy(DRAFT_FIELDS),
        "id": generate_id("in"),
        "created": now,
        "currency": currency,
        "customer": customer["id"],
        "customer_tax_ids": [
            {"type": tax_id["type"], "value": tax_id["value"]} for tax_id in tx.all("tax_id", customer=customer["id"])
        ],
        "livemode": tx.live,
        "period_end": now,
        "period_start": now,
        **{name: customer.get(source) for name, source in COPIED},
        **more,
    }
    return tx.insert(set_test_clock(invoice, customer))


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a draft, on demand with the customer's pending items."""
    require_supported(params, *REFUSED)
    customer = get_customer(tx, params)
    currency = parse_currency(params["currency"]) if "currency" in params else customer.get("currency") or "usd"
    invoice = create_draft(tx, customer, currency)
    if (
        params.get("collection_method") == "send_invoice"
        and "days_until_due" not in params
        and "due_date" not in params
    ):
        raise invalid_request(
            "If `collection_method`='send_invoice', you must provide either `days_until_due` or `due_date`.",
            "collection_method",
        )
    _put(tx, invoice, params)
    if params.get("pending_invoice_items_behavior") == "include":
        add_pending(tx, invoice, None)
    invoice_lines.compute_totals(tx, invoice)
    _set_discounts(tx, invoice, params)
    schedule_advance(tx, invoice)
    tx.record_event("invoice.created", invoice)
    return invoice


def _put(tx: Transaction, invoice: Body, params: Parameters) -> None:
    set_fields(
        invoice, params, "auto_advance", "automatically_finalizes_at", "collection_method", "description", "due_date"
    )
    set_fields(
        invoice, params, "effective_at", "footer", "number", "shipping_details", "statement_descriptor", "issuer"
    )
    if invoice["collection_method"] == "send_invoice" and tx.account.requires_email:
        _require_email(tx, invoice["customer"])
    merge_metadata(invoice, params)
    if "days_until_due" in params:
        invoice["_days_until_due"] = params["days_until_due"]
    if "automatic_tax" in params:
        invoice["automatic_tax"] = build_automatic_tax(tx, invoice["customer"], params["automatic_tax"]["enabled"])
    if "default_tax_rates" in params:
        invoice["default_tax_rates"] = [
            tx.get("tax_rate", id, "default_tax_rates") for id in params["default_tax_rates"] or ()
        ]
    if "payment_settings" in params:
        invoice["payment_settings"] = {**invoice["payment_settings"], **params["payment_settings"]}
    if params.get("default_payment_method"):
        method = payment_methods.attach_method(
            tx, params["default_payment_method"], invoice["customer"], "default_payment_method"
        )
        invoice["default_payment_method"] = method["id"]


def _set_discounts(tx: Transaction, invoice: Body, params: Parameters) -> None:
    """Set the discounts of a draft, whose totals are computed before and after."""
    if "discounts" in params:
        redemption = discounts.Redemption(
            {"invoice": invoice["id"]},
            invoice["customer"],
            invoice["currency"],
            tx.get_time(invoice["test_clock"]),
            invoice["test_clock"],
            invoice["subtotal"],
        )
        discounts.replace(tx, invoice, params, "discounts", redemption)
        invoice_lines.compute_totals(tx, invoice)


def _require_email(tx: Transaction, customer: str) -> None:
    """Raise the refusal of an invoice to send if its customer has no e-mail address."""
    if not tx.get("customer", customer).get("email"):
        raise invalid_request(
            "Missing email. In order to create invoices that are sent to the customer, the customer must have a valid "
            "email."
        )


def build_automatic_tax(tx: Transaction, customer: str, enabled: bool) -> Body:
    """Build the Stripe Tax of an account without registrations: it collects none, but needs the customer's location."""
    if not enabled:
        return {"enabled": False}
    country = (tx.get("customer", customer).get("address") or {}).get("country")
    status = "complete" if country else "requires_location_inputs"
    return {"enabled": True, "liability": {"type": "self"}, "provider": "stripe", "status": status}


def add_pending(tx: Transaction, invoice: Body, subscription: str | None) -> None:
    """Add pending items to a draft."""
    for item in invoice_items.list_pending(tx, invoice["customer"], subscription):
        if item["currency"] == invoice["currency"]:
            tx.save({**item, "invoice": invoice["id"]})
            invoice_lines.add_item(tx, invoice, item, invoice_lines.PENDING)


def schedule_advance(tx: Transaction, invoice: Body) -> None:
    """Schedule the finalization of a draft that advances by itself."""
    tx.cancel_timer("finalize", invoice["id"])
    if invoice["status"] != "draft":
        return
    if invoice["auto_advance"] and not invoice.get("automatically_finalizes_at"):
        invoice["automatically_finalizes_at"] = max(
            tx.get_time(invoice["test_clock"]), invoice["created"] + DRAFT_SECONDS
        )
    elif not invoice["auto_advance"]:
        invoice["automatically_finalizes_at"] = None
    tx.save(invoice)
    if invoice["auto_advance"]:
        tx.set_timer(invoice["automatically_finalizes_at"], "finalize", invoice["id"], invoice["test_clock"])


def refresh(tx: Transaction, invoice: Body) -> Body:
    """Return the current state of an invoice: usage on a draft grows until it is finalized."""
    return metered_lines.update_metered_lines(tx, invoice)


def retrieve(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Return an invoice."""
    return refresh(tx, tx.get("invoice", ids["id"]))


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update a draft, or fields of a finalized invoice that change no amount."""
    require_supported(params, *REFUSED)
    invoice = tx.get("invoice", ids["id"])
    before = dict(invoice)
    fixed = set(params) - {"auto_advance", "metadata", "default_payment_method", "payment_settings", "expand"}
    if invoice["status"] != "draft" and fixed:
        raise invalid_request(
            f"Finalized invoices can't be updated in this way: {', '.join(sorted(fixed))}.", code="invoice_not_editable"
        )
    _put(tx, invoice, params)
    tx.save(invoice)
    if invoice["status"] == "draft":
        if "auto_advance" in params and "automatically_finalizes_at" not in params:
            invoice["automatically_finalizes_at"] = None
        schedule_advance(tx, invoice)
        invoice_lines.compute_totals(tx, invoice)
        _set_discounts(tx, invoice, params)
    tx.record_event("invoice.updated", invoice, compute_previous_attributes(before, invoice))
    return invoice


def delete(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Delete a draft without a subscription. Its pending items are pending again."""
    invoice = tx.get("invoice", ids["id"])
    if invoice["status"] != "draft":
        raise invalid_request("You can only delete draft invoices.", code="invoice_not_editable")
    if invoice.get("parent"):
        raise invalid_request("You cannot delete invoices of subscriptions.")
    for item in tx.all("invoiceitem", invoice=invoice["id"]):
        if item["_own"]:
            tx.delete(item)
        else:
            tx.save({**item, "invoice": None})
    for line in tx.all("line_item", invoice=invoice["id"]):
        tx.drop(line)
    tx.cancel_timer("finalize", invoice["id"])
    gone = tx.delete(invoice)
    tx.record_event("invoice.deleted", invoice)
    return gone


# ---- reading


def list_lines(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List all lines of an invoice, in pages."""
    return slice_list(tx, invoice_lines.list_lines(tx, refresh(tx, tx.get("invoice", ids["id"]))), params)


def list_invoices(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List invoices."""
    require_supported(params, "customer_account")
    fields = {
        name: params[name]
        for name in ("collection_method", "created", "customer", "due_date", "status")
        if name in params
    }
    if "subscription" in params:
        fields["parent.subscription_details.subscription"] = params["subscription"]
    invoices = list_objects(tx, "invoice", params, fields)
    return {**invoices, "data": [refresh(tx, invoice) for invoice in invoices["data"]]}


def list_payments(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List payments of invoices."""
    fields = {name: params[name] for name in ("created", "invoice", "status") if name in params}
    if "payment" in params:
        require_supported(params["payment"], "payment_record")
        fields["payment.payment_intent"] = params["payment"].get("payment_intent", "")
    return list_objects(tx, "invoice_payment", params, fields)


def expand_confirmation_secret(tx: Transaction, invoice: Body) -> Body | None:
    """Return the secret that confirms an invoice's payment in a browser; None if nothing is due."""
    intent = (tx.find("invoice", invoice["id"]) or {}).get("_intent")  # A preview has none.
    if intent is None:
        return None
    return {"client_secret": tx.get("payment_intent", intent)["client_secret"], "type": "payment_intent"}


def expand_payments(tx: Transaction, invoice: Body) -> Body:
    """Return the payments of an invoice, expanded."""
    bodies = [tx.render(payment) for payment in tx.all("invoice_payment", invoice=invoice["id"])]
    return format_list(tx, bodies, False, "/v1/invoice_payments")
