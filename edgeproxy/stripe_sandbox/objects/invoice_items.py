"""Invoice items: charges on a draft, or on the next invoice."""

from collections.abc import Mapping
from fractions import Fraction

from edgeproxy.stripe_sandbox.amounts import format_decimal, get_unit_cents, round_to_cents
from edgeproxy.stripe_sandbox.lists import Ids, Parameters, list_objects
from edgeproxy.stripe_sandbox.objects import invoice_lines
from edgeproxy.stripe_sandbox.objects.fields import (
    get_customer,
    merge_metadata,
    parse_currency,
    require_supported,
    set_fields,
    set_test_clock,
)
from edgeproxy.stripe_sandbox.refusal import invalid_request
from edgeproxy.stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

ITEMS_MAX = 250
"""Items of an invoice."""


def create(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Create an item."""
    require_supported(p, "discounts", "tax_code", "price_data")
    customer = get_customer(tx, p)
    now = tx.get_time(customer.get("test_clock"))
    invoice = None
    if "invoice" in p:
        invoice = tx.get("invoice", p["invoice"], "invoice")
        if invoice["customer"] != customer["id"]:
            raise invalid_request("The invoice belongs to another customer.", "invoice")
        require_editable(invoice)
    if "subscription" in p:
        tx.get("subscription", p["subscription"], "subscription")
    made = build_item(tx, customer, p.get("period") or {"start": now, "end": now})
    made["discountable"] = p.get("discountable", True)
    _set_price(tx, made, p)
    set_fields(made, p, "description")
    merge_metadata(made, p)
    _tax(tx, made, p)
    if "subscription" in p:
        details = {"subscription": p["subscription"]}
        made["parent"] = {"type": "subscription_details", "subscription_details": details}
    if invoice is None and customer.get("currency") not in (None, made["currency"]):
        raise invalid_request("You cannot combine currencies on a single customer.", "currency")
    if invoice is not None and invoice["currency"] != made["currency"]:
        raise invalid_request(
            f"The currency of the invoice is {invoice['currency']}, that of the item {made['currency']}.", "currency"
        )
    return save_item(tx, made, invoice)


def build_item(tx: Transaction, customer: Fields, period: Mapping[str, int]) -> Body:
    """Build an item without an amount."""
    made: Body = {
        "id": generate_id("ii"),
        "object": "invoiceitem",
        "amount": 0,
        "customer": customer["id"],
        "date": tx.get_time(customer.get("test_clock")),
        "discountable": False,
        "discounts": [],
        "livemode": tx.live,
        "metadata": {},
        "period": dict(period),
        "proration": False,
        "quantity": 1,
        "quantity_decimal": "1",
        "tax_rates": [],
    }
    return set_test_clock(made, customer)


def save_item(tx: Transaction, made: Body, invoice: Body | None) -> Body:
    """Store a new item, on a draft or pending."""
    made["net_amount"] = made["amount"]
    made["invoice"] = None if invoice is None else invoice["id"]
    made["_own"] = invoice is not None
    tx.insert(made)
    if invoice is not None:
        if len(tx.all("invoiceitem", invoice=invoice["id"])) > ITEMS_MAX:
            raise invalid_request(f"An invoice can have up to {ITEMS_MAX} items.", "invoice", "invoice_no_more_items")
        invoice_lines.add_item(tx, invoice, made, invoice_lines.ADDED)
        invoice_lines.compute_totals(tx, invoice)
    tx.record_event("invoiceitem.created", made)
    return made


def _set_price(tx: Transaction, made: Body, p: Parameters) -> None:
    """Set the price of an item: an amount, a unit amount, or a price."""
    ways = [name for name in ("amount", "unit_amount_decimal", "pricing") if name in p]
    if len(ways) > 1:
        raise invalid_request(f"You may only specify one of these parameters: {', '.join(ways)}.", ways[1])
    if "quantity" in p and "quantity_decimal" in p:
        raise invalid_request("You may only specify one of these parameters: quantity, quantity_decimal.", "quantity")
    if p.get("quantity", 1) < 0:
        raise invalid_request("Invalid non-negative integer", "quantity", "parameter_invalid_integer")
    quantity = Fraction(p.get("quantity_decimal", p.get("quantity", made["quantity_decimal"])))
    if "amount" in p and quantity != 1:
        raise invalid_request("You may only specify one of these parameters: amount, quantity.", "quantity")
    if "pricing" in p and "price" in p["pricing"]:
        price = tx.get("price", p["pricing"]["price"], "pricing[price]")
        if price["type"] != "one_time":
            raise invalid_request(
                "The price specified is set to `type=recurring`, but only one-time prices can be used.", "price"
            )
        unit, currency = get_unit_cents(price), price["currency"]
        detail = {"price": price["id"], "product": price["product"]}
    elif "amount" in p or "unit_amount_decimal" in p:
        if "currency" not in p and "currency" not in made:
            raise invalid_request("Missing required param: currency.", "currency", "parameter_missing")
        unit = Fraction(p["unit_amount_decimal"]) if "unit_amount_decimal" in p else Fraction(p["amount"])
        currency, detail = parse_currency(p["currency"]) if "currency" in p else made["currency"], None
    elif "pricing" not in made:
        raise invalid_request("Missing required param: amount.", "amount", "parameter_missing")
    else:
        unit, currency = Fraction(made["pricing"]["unit_amount_decimal"]), made["currency"]
        detail = made["pricing"].get("price_details")
    made.update(
        amount=round_to_cents(unit * quantity),
        currency=currency,
        quantity=int(quantity),
        quantity_decimal=format_decimal(quantity),
        pricing=build_pricing(unit, detail),
    )


def build_pricing(unit: Fraction, detail: Mapping[str, str] | None) -> Body:
    """Build the price fields of an item or a line."""
    made: Body = {"type": "price_details", "unit_amount_decimal": format_decimal(unit)}
    if detail is not None:
        made["price_details"] = dict(detail)
    return made


def format_pricing(price: Fields, unit: Fraction | None = None) -> Body:
    """Build `pricing` of a price, or of one of its tiers."""
    return build_pricing(
        get_unit_cents(price) if unit is None else unit, {"price": price["id"], "product": price["product"]}
    )


def _tax(tx: Transaction, made: Body, p: Parameters) -> None:
    if "tax_rates" in p:
        made["tax_rates"] = [tx.get("tax_rate", id, "tax_rates") for id in p["tax_rates"] or ()]


def require_editable(invoice: Fields) -> None:
    """Refuse to edit an invoice that is not a draft."""
    if invoice["status"] != "draft":
        raise invalid_request(
            "This invoice is no longer editable: it is not a draft any more.", "invoice", "invoice_not_editable"
        )


def update(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Update an item that is pending, or on a draft."""
    require_supported(p, "discounts", "tax_code", "price_data", "invoicing_rules")
    made = tx.get("invoiceitem", ids["id"])
    invoice = tx.get("invoice", made["invoice"]) if made["invoice"] else None
    if invoice is not None:
        require_editable(invoice)
    if {"amount", "unit_amount_decimal", "pricing", "quantity", "quantity_decimal"} & set(p):
        _set_price(tx, made, p)
        made["net_amount"] = made["amount"]
    set_fields(made, p, "description", "discountable", "period")
    merge_metadata(made, p)
    _tax(tx, made, p)
    tx.save(made)
    if invoice is not None:
        for line in tx.all("line_item", invoice=invoice["id"], _item=made["id"]):
            tx.save({**line, **invoice_lines.build_line_fields(made)})
        invoice_lines.compute_totals(tx, invoice)
    tx.record_effect("invoiceitem.updated", made["id"], amount=made["amount"], customer=made["customer"])
    return made


def delete(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Delete an item."""
    made = tx.get("invoiceitem", ids["id"])
    if made["invoice"]:
        invoice = tx.get("invoice", made["invoice"])
        require_editable(invoice)
        for line in tx.all("line_item", invoice=invoice["id"], _item=made["id"]):
            tx.drop(line)
        invoice_lines.compute_totals(tx, invoice)
    gone = tx.delete(made)
    tx.record_event("invoiceitem.deleted", made)
    return gone


def list_pending(tx: Transaction, customer: str, subscription: str | None = None) -> list[Body]:
    """List the pending items of a customer, or of a subscription too."""
    items = [one for one in tx.all("invoiceitem", customer=customer) if not one["invoice"]]

    def of(item: Fields) -> str | None:
        details: Mapping[str, str] = (item.get("parent") or {}).get("subscription_details") or {}
        return details.get("subscription")

    return [item for item in items if of(item) is None or of(item) == subscription]


def list_items(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """List items; `pending` are those without an invoice."""
    require_supported(p, "customer_account")
    fields = {name: p[name] for name in ("customer", "invoice") if name in p}
    if "created" in p:
        fields["date"] = p["created"]
    where = {True: "json_extract(body, '$.invoice') IS NULL", False: "json_extract(body, '$.invoice') IS NOT NULL"}
    return list_objects(tx, "invoiceitem", p, fields, where[p["pending"]] if "pending" in p else "")
