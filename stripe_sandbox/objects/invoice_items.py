"""Invoice items: charges on a draft, or on the next invoice."""

from collections.abc import Mapping
from fractions import Fraction

from stripe_sandbox.amounts import format_decimal, get_unit_cents, round_to_cents
from stripe_sandbox.lists import Ids, Parameters, list_objects
from stripe_sandbox.objects import catalog, discounts, invoice_lines
from stripe_sandbox.objects.currencies import parse_currency
from stripe_sandbox.objects.fields import (
    get_customer,
    merge_metadata,
    require_supported,
    set_fields,
    set_test_clock,
)
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

ITEMS_MAX = 250
"""Items of an invoice."""


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create an item."""
    require_supported(params, "tax_code")
    customer = get_customer(tx, params)
    now = tx.get_time(customer.get("test_clock"))
    invoice = None
    if "invoice" in params:
        invoice = tx.get("invoice", params["invoice"], "invoice")
        if invoice["customer"] != customer["id"]:
            raise invalid_request("The invoice belongs to another customer.", "invoice")
        require_editable(invoice)
    if "subscription" in params:
        tx.get("subscription", params["subscription"], "subscription")
    item = build_item(tx, customer, params.get("period") or {"start": now, "end": now})
    item["discountable"] = params.get("discountable", True)
    _set_price(tx, item, params)
    set_fields(item, params, "description")
    merge_metadata(item, params)
    _tax(tx, item, params)
    if "subscription" in params:
        details = {"subscription": params["subscription"]}
        item["parent"] = {"type": "subscription_details", "subscription_details": details}
    if invoice is None and customer.get("currency") not in (None, item["currency"]):
        raise invalid_request("You cannot combine currencies on a single customer.", "currency")
    _set_discounts(tx, item, params)
    if invoice is not None and invoice["currency"] != item["currency"]:
        raise invalid_request(
            f"The currency of the invoice is {invoice['currency']}, that of the item {item['currency']}.", "currency"
        )
    return save_item(tx, item, invoice)


def build_item(tx: Transaction, customer: Fields, period: Mapping[str, int]) -> Body:
    """Build an item without an amount."""
    item: Body = {
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
    return set_test_clock(item, customer)


def save_item(tx: Transaction, item: Body, invoice: Body | None) -> Body:
    """Store a new item, on a draft or pending."""
    _set_net_amount(tx, item)
    item["invoice"] = None if invoice is None else invoice["id"]
    item["_own"] = invoice is not None
    tx.insert(item)
    if invoice is not None:
        if len(tx.all("invoiceitem", invoice=invoice["id"])) > ITEMS_MAX:
            raise invalid_request(f"An invoice can have up to {ITEMS_MAX} items.", "invoice", "invoice_no_more_items")
        invoice_lines.add_item(tx, invoice, item, invoice_lines.ADDED)
        invoice_lines.compute_totals(tx, invoice)
    tx.record_event("invoiceitem.created", item)
    return item


def _set_discounts(tx: Transaction, item: Body, params: Parameters) -> None:
    now = tx.get_time(item["test_clock"])
    owner = {"invoice_item": item["id"]}
    redemption = discounts.Redemption(owner, item["customer"], item["currency"], now, item["test_clock"])
    discounts.replace(tx, item, params, "discounts", redemption)


def _set_net_amount(tx: Transaction, item: Body) -> None:
    """Set the amount of an item less its own discounts; the discounts of its invoice come later."""
    off = discounts.compute_amounts(tx, item["discounts"], item, item["currency"]) if item["discountable"] else []
    item["net_amount"] = item["amount"] - sum(entry["amount"] for entry in off)


def _set_price(tx: Transaction, item: Body, params: Parameters) -> None:
    """Set the price of an item: an amount, a unit amount, or a price."""
    params = _resolve_price(tx, params)
    ways = [name for name in ("amount", "unit_amount_decimal", "pricing") if name in params]
    if len(ways) > 1:
        raise invalid_request(f"You may only specify one of these parameters: {', '.join(ways)}.", ways[1])
    if "quantity" in params and "quantity_decimal" in params:
        raise invalid_request("You may only specify one of these parameters: quantity, quantity_decimal.", "quantity")
    if params.get("quantity", 1) < 0:
        raise invalid_request("Invalid non-negative integer", "quantity", "parameter_invalid_integer")
    quantity = Fraction(params.get("quantity_decimal", params.get("quantity", item["quantity_decimal"])))
    if "amount" in params and quantity != 1:
        raise invalid_request("You may only specify one of these parameters: amount, quantity.", "quantity")
    if "pricing" in params and "price" in params["pricing"]:
        price = tx.get("price", params["pricing"]["price"], "pricing[price]")
        if price["type"] != "one_time":
            raise invalid_request(
                "The price specified is set to `type=recurring`, but only one-time prices can be used.", "price"
            )
        unit, currency = get_unit_cents(price), price["currency"]
        detail = {"price": price["id"], "product": price["product"]}
    elif "amount" in params or "unit_amount_decimal" in params:
        if "currency" not in params and "currency" not in item:
            raise invalid_request("Missing required param: currency.", "currency", "parameter_missing")
        unit = (
            Fraction(params["unit_amount_decimal"]) if "unit_amount_decimal" in params else Fraction(params["amount"])
        )
        currency, detail = parse_currency(params["currency"]) if "currency" in params else item["currency"], None
    elif "pricing" not in item:
        raise invalid_request("Missing required param: amount.", "amount", "parameter_missing")
    else:
        unit, currency = Fraction(item["pricing"]["unit_amount_decimal"]), item["currency"]
        detail = item["pricing"].get("price_details")
    item.update(
        amount=round_to_cents(unit * quantity),
        currency=currency,
        quantity=int(quantity),
        quantity_decimal=format_decimal(quantity),
        pricing=build_pricing(unit, detail),
    )


def _resolve_price(tx: Transaction, params: Parameters) -> Parameters:
    """Return parameters with a price for their `price_data`, if they have any."""
    if "price_data" not in params:
        return params
    if "pricing" in params:
        raise invalid_request("You may only specify one of these parameters: price_data, pricing.", "pricing")
    price = catalog.create_price(tx, {}, {**params["price_data"], "active": False})
    return {**{name: params[name] for name in params if name != "price_data"}, "pricing": {"price": price["id"]}}


def build_pricing(unit: Fraction, detail: Mapping[str, str] | None) -> Body:
    """Build the price fields of an item or a line."""
    pricing: Body = {"type": "price_details", "unit_amount_decimal": format_decimal(unit)}
    if detail is not None:
        pricing["price_details"] = dict(detail)
    return pricing


def format_pricing(price: Fields, unit: Fraction | None = None) -> Body:
    """Build `pricing` of a price, or of one of its tiers."""
    return build_pricing(
        get_unit_cents(price) if unit is None else unit, {"price": price["id"], "product": price["product"]}
    )


def _tax(tx: Transaction, item: Body, params: Parameters) -> None:
    if "tax_rates" in params:
        item["tax_rates"] = [tx.get("tax_rate", id, "tax_rates") for id in params["tax_rates"] or ()]


def require_editable(invoice: Fields) -> None:
    """Refuse to edit an invoice that is not a draft."""
    if invoice["status"] != "draft":
        raise invalid_request(
            "This invoice is no longer editable: it is not a draft any more.", "invoice", "invoice_not_editable"
        )


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update an item that is pending, or on a draft."""
    require_supported(params, "tax_code", "invoicing_rules")
    item = tx.get("invoiceitem", ids["id"])
    invoice = tx.get("invoice", item["invoice"]) if item["invoice"] else None
    if invoice is not None:
        require_editable(invoice)
    if {"amount", "unit_amount_decimal", "price_data", "pricing", "quantity", "quantity_decimal"} & set(params):
        _set_price(tx, item, params)
    set_fields(item, params, "description", "discountable", "period")
    _set_discounts(tx, item, params)
    _set_net_amount(tx, item)
    merge_metadata(item, params)
    _tax(tx, item, params)
    tx.save(item)
    if invoice is not None:
        for line in tx.all("line_item", invoice=invoice["id"], _item=item["id"]):
            tx.save({**line, **invoice_lines.build_line_fields(item)})
        invoice_lines.compute_totals(tx, invoice)
    tx.record_effect("invoiceitem.updated", item["id"], amount=item["amount"], customer=item["customer"])
    return item


def delete(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Delete an item."""
    item = tx.get("invoiceitem", ids["id"])
    if item["invoice"]:
        invoice = tx.get("invoice", item["invoice"])
        require_editable(invoice)
        for line in tx.all("line_item", invoice=invoice["id"], _item=item["id"]):
            tx.drop(line)
        invoice_lines.compute_totals(tx, invoice)
    gone = tx.delete(item)
    tx.record_event("invoiceitem.deleted", item)
    return gone


def list_pending(tx: Transaction, customer: str, subscription: str | None = None) -> list[Body]:
    """List the pending items of a customer, or of a subscription too."""
    items = [pending for pending in tx.all("invoiceitem", customer=customer) if not pending["invoice"]]

    def of(item: Fields) -> str | None:
        details: Mapping[str, str] = (item.get("parent") or {}).get("subscription_details") or {}
        return details.get("subscription")

    return [item for item in items if of(item) is None or of(item) == subscription]


def list_items(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List items; `pending` are those without an invoice."""
    require_supported(params, "customer_account")
    fields = {name: params[name] for name in ("customer", "invoice") if name in params}
    if "created" in params:
        fields["date"] = params["created"]
    where = {True: "json_extract(body, '$.invoice') IS NULL", False: "json_extract(body, '$.invoice') IS NOT NULL"}
    return list_objects(tx, "invoiceitem", params, fields, where[params["pending"]] if "pending" in params else "")
