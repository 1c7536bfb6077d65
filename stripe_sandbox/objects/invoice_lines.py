"""Lines of invoices, and their sums."""

from fractions import Fraction

from stripe_sandbox.amounts import round_to_cents
from stripe_sandbox.json_values import JsonValue
from stripe_sandbox.objects import discounts
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

PENDING, SUBSCRIBED, ADDED = range(3)
"""Groups of lines, in the order of an invoice, each with its newest first."""
SHOWN = 10
"""Lines that an invoice itself shows."""


def add_line(tx: Transaction, invoice: Body, group: int, *, amount: int, **more: JsonValue) -> Body:
    """Add a line to a draft."""
    line: Body = {
        "id": generate_id("il"),
        "object": "line_item",
        "amount": amount,
        "currency": invoice["currency"],
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice["id"],
        "livemode": tx.live,
        "metadata": {},
        "pretax_credit_amounts": [],
        "subtotal": amount,
        "taxes": [],
        "_group": group,
        **more,
    }
    return tx.insert(line)


def add_item(tx: Transaction, invoice: Body, item: Fields, group: int) -> Body:
    """Add an invoice item to an invoice."""
    return add_line(tx, invoice, group, **build_line_fields(item))


def build_line_fields(item: Fields) -> Body:
    """Build the fields of the line of an invoice item."""
    subscription = (item.get("parent") or {}).get("subscription_details") or {}
    return {
        "amount": item["amount"],
        "subtotal": item["amount"],
        "description": item.get("description"),
        "discountable": item["discountable"],
        "discounts": item["discounts"],
        "metadata": item.get("metadata") or {},
        "parent": {
            "type": "invoice_item_details",
            "invoice_item_details": {
                "invoice_item": item["id"],
                "proration": item["proration"],
                "proration_details": {},
                "subscription": subscription.get("subscription"),
            },
        },
        "period": item["period"],
        "pricing": item["pricing"],
        "quantity": item["quantity"],
        "quantity_decimal": item["quantity_decimal"],
        "subscription": subscription.get("subscription"),
        "_item": item["id"],
        "_tax_rates": [rate["id"] for rate in item.get("tax_rates") or ()],
    }


def list_lines(tx: Transaction, invoice: Fields) -> list[Body]:
    """List the lines of an invoice in their order."""
    lines = tx.all("line_item", invoice=invoice["id"])
    lines.reverse()
    return sorted(lines, key=lambda line: line["_group"])


def compute_totals(tx: Transaction, invoice: Body) -> Body:
    """Compute the totals of a draft: discounts, then credits, then taxes of what is left."""
    lines = list_lines(tx, invoice)
    before = {line["id"]: dict(line) for line in lines}
    invoice["total_discount_amounts"] = discounts.apply_discounts(tx, invoice, lines)
    pretax = [{**discount, "type": "discount"} for discount in invoice["total_discount_amounts"]]
    subtotal, credits, exclusive, inclusive = 0, 0, 0, 0
    sums: dict[str, Body] = {}
    for line in lines:
        subtotal += line["amount"]
        granted = [credit for credit in line["pretax_credit_amounts"] if credit["type"] != "discount"]
        pretax += granted
        line["pretax_credit_amounts"] = [
            *({**discount, "type": "discount"} for discount in line["discount_amounts"]),
            *granted,
        ]
        paid = sum(credit["amount"] for credit in line["pretax_credit_amounts"])
        credits += paid
        line["taxes"] = [_build_tax(line["amount"] - paid, rate) for rate in _list_tax_rates(tx, invoice, line)]
        if line != before[line["id"]]:
            tx.save(line)
        for tax in line["taxes"]:
            exclusive += tax["amount"] if tax["tax_behavior"] == "exclusive" else 0
            inclusive += tax["amount"] if tax["tax_behavior"] == "inclusive" else 0
            whole = sums.setdefault(tax["tax_rate_details"]["tax_rate"], {**tax, "amount": 0, "taxable_amount": 0})
            whole["amount"] += tax["amount"]
            whole["taxable_amount"] += tax["taxable_amount"]
    invoice.update(
        subtotal=subtotal,
        subtotal_excluding_tax=subtotal - inclusive,
        total=subtotal - credits + exclusive,
        total_excluding_tax=subtotal - credits - inclusive,
        total_pretax_credit_amounts=pretax,
        total_taxes=list(sums.values()),
        amount_due=max(subtotal - credits + exclusive, 0),
        amount_remaining=max(subtotal - credits + exclusive, 0),
    )
    return tx.save(invoice)


def _list_tax_rates(tx: Transaction, invoice: Fields, line: Fields) -> list[Body]:
    if line.get("_tax_rates"):
        return [tx.get("tax_rate", id) for id in line["_tax_rates"]]
    return list(invoice["default_tax_rates"])


def _build_tax(amount: int, rate: Fields) -> Body:
    share = Fraction(str(rate["percentage"])) / 100
    tax = round_to_cents(amount * share / (1 + share)) if rate["inclusive"] else round_to_cents(amount * share)
    return {
        "amount": tax,
        "tax_behavior": "inclusive" if rate["inclusive"] else "exclusive",
        "tax_rate_details": {"tax_rate": rate["id"]},
        "taxability_reason": "not_available",
        "taxable_amount": amount - tax if rate["inclusive"] else amount,
        "type": "tax_rate_details",
    }


def view(tx: Transaction, invoice: Body) -> Body:
    """Return an invoice with its first lines."""
    lines = invoice["_lines"] if "_lines" in invoice else list_lines(tx, invoice)
    url = f"/v1/invoices/{invoice['id']}/lines" if invoice.get("id") else "/v1/invoices/upcoming/lines"
    shown = {"object": "list", "data": lines[:SHOWN], "has_more": len(lines) > SHOWN, "url": url}
    return {**invoice, "lines": shown}
