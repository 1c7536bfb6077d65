"""Lines for usage on drafts: a line for each tier, with the current count."""

import hashlib

from stripe_sandbox.amounts import Part, format_decimal, split_by_tier
from stripe_sandbox.objects import invoice_lines, usage
from stripe_sandbox.objects.invoice_items import format_pricing
from stripe_sandbox.transaction import Body, Fields, Transaction


def update_metered_lines(tx: Transaction, invoice: Body) -> Body:
    """Update the usage lines of a draft with the current counts; a finalized invoice stays as it is."""
    if invoice["status"] != "draft" or not invoice.get("_metered"):
        return invoice
    changed = False
    for place, entry in enumerate(invoice["_metered"]):
        changed |= _update_metered_item(tx, invoice, place, entry)
    return invoice_lines.compute_totals(tx, invoice) if changed else invoice


def _update_metered_item(tx: Transaction, invoice: Body, place: int, entry: Fields) -> bool:
    """Update the lines of one metered item; returns whether they changed."""
    price = tx.get("price", entry["price"])
    quantity = usage.compute_total(tx, price["recurring"]["meter"], invoice["customer"], entry["start"], entry["end"])
    charged = split_by_tier(price, quantity)
    there = {line["id"]: line for line in tx.all("line_item", invoice=invoice["id"], _place=place)}
    changed = False
    for tier, part in enumerate(charged):
        id = "il_" + hashlib.sha256(f"{invoice['id']} {place} {tier}".encode()).hexdigest()[:24]
        old = there.pop(id, None)
        if old is not None and (old["quantity"], old["amount"]) == (part.quantity, part.amount):
            continue
        changed = True
        if old is not None:
            tx.drop(old)
        invoice_lines.add_line(
            tx,
            invoice,
            invoice_lines.SUBSCRIBED,
            id=id,
            amount=part.amount,
            subtotal=part.amount,
            description=build_description(tx, price, part, tier if len(charged) > 1 or tier else None),
            period={"start": entry["start"], "end": entry["end"]},
            parent=build_parent(entry["subscription"], entry["item"]),
            pricing=format_pricing(price, part.unit),
            quantity=part.quantity,
            quantity_decimal=str(part.quantity),
            subscription=entry["subscription"],
            discounts=entry.get("discounts", []),
            metadata=entry["metadata"],
            _place=place,
        )
    for line in there.values():
        tx.drop(line)
    return changed or bool(there)


def build_parent(subscription: str, item: str, *, proration: bool = False) -> Body:
    """Build the `parent` of a line of a subscription item."""
    details = {
        "proration": proration,
        "proration_details": {},
        "subscription": subscription,
        "subscription_item": item,
    }
    return {"type": "subscription_item_details", "subscription_item_details": details}


def build_description(tx: Transaction, price: Fields, part: Part, tier: int | None) -> str:
    """Build the description of a line."""
    product = tx.find("product", price["product"]) or {"name": price["product"]}
    each = f"${format_decimal(part.unit / 100)} / {price['recurring']['interval']}"
    where = f"at {each}" if tier is None else f"Tier {tier + 1} at {each}"
    return f"{part.quantity} × {product['name']} ({where})"
