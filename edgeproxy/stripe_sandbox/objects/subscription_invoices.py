"""Charges of subscriptions: fees in advance, usage in arrears, prorations by the second."""

from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction

from edgeproxy.stripe_sandbox.amounts import round_to_cents, split_by_tier
from edgeproxy.stripe_sandbox.objects import collection, invoice_items, invoice_lines, invoices, metered_lines, usage
from edgeproxy.stripe_sandbox.objects.periods import find_period
from edgeproxy.stripe_sandbox.refusal import ApiError
from edgeproxy.stripe_sandbox.transaction import Body, Fields, Transaction

INVOICES = ((10, 60), (20, 86400))
"""New invoices of a subscription by calls: in a minute, in a day."""


def fetch_items(tx: Transaction, subscription: Fields) -> list[Body]:
    """Return the items of a subscription, oldest first."""
    return tx.all("subscription_item", subscription=subscription["id"])


def get_price(tx: Transaction, item: Fields) -> Body:
    """Return the price of an item."""
    return tx.get("price", item["price"])


def is_metered(price: Fields) -> bool:
    """Return whether a price charges usage."""
    return bool(price["recurring"]["usage_type"] == "metered")


def create_draft(tx: Transaction, subscription: Body, reason: str, start: int, end: int) -> Body:
    """Create the draft of a subscription's period."""
    for many, seconds in INVOICES:
        tx.check_rate("subscription.invoiced", subscription["id"], many, seconds)
    tx.record_effect("subscription.invoiced", subscription["id"], reason=reason)
    customer = tx.get("customer", subscription["customer"])
    details = {"subscription": subscription["id"], "metadata": subscription["metadata"]}
    return invoices.create_draft(
        tx,
        customer,
        subscription["currency"],
        auto_advance=(subscription.get("pause_collection") or {}).get("behavior") != "keep_as_draft",
        automatic_tax=invoices.build_automatic_tax(tx, customer["id"], subscription["automatic_tax"]["enabled"]),
        billing_reason=reason,
        collection_method=subscription["collection_method"],
        default_tax_rates=subscription.get("default_tax_rates") or [],
        parent={"type": "subscription_details", "subscription_details": details},
        period_end=end,
        period_start=start,
        _days_until_due=subscription.get("days_until_due") or 30,
        _metered=[],
    )


def add_fee(tx: Transaction, invoice: Body, subscription: Body, item: Body) -> None:
    """Add the fee of an item's current period, or its part of a whole period."""
    price = get_price(tx, item)
    start, end = item["current_period_start"], item["current_period_end"]
    first, last = find_period(subscription["billing_cycle_anchor"], price["recurring"], start)
    share = Fraction(end - start, last - first)
    for tier, part in enumerate(parts := split_by_tier(price, item["quantity"])):
        invoice_lines.add_line(
            tx,
            invoice,
            invoice_lines.SUBSCRIBED,
            amount=(amount := round_to_cents((part.quantity * part.unit + part.flat) * share)),
            subtotal=amount,
            description=metered_lines.build_description(tx, price, part, tier if len(parts) > 1 else None),
            period={"start": start, "end": end},
            parent=metered_lines.build_parent(subscription["id"], item["id"], proration=share != 1),
            pricing=invoice_items.format_pricing(price, part.unit),
            quantity=part.quantity,
            quantity_decimal=str(part.quantity),
            subscription=subscription["id"],
            metadata=item["metadata"],
            _tax_rates=[rate["id"] for rate in item.get("tax_rates") or ()],
        )


def add_usage(invoice: Body, subscription: Body, item: Body, end: int) -> None:
    """Add an item's usage until a moment; the quantity is taken when the invoice is finalized."""
    invoice["_metered"].append(
        {
            "item": item["id"],
            "price": item["price"],
            "start": item["_usage_from"],
            "end": end,
            "subscription": subscription["id"],
            "metadata": item["metadata"],
        }
    )


def open_draft(tx: Transaction, subscription: Body, invoice: Body) -> Body:
    """Complete a draft: with pending items it is stored, totalled and announced."""
    invoices.add_pending(tx, invoice, subscription["id"])
    tx.save(invoice)
    invoice_lines.compute_totals(tx, invoices.refresh(tx, invoice))
    tx.record_event("invoice.created", invoice)
    subscription["latest_invoice"] = invoice["id"]
    tx.save(subscription)
    return invoice


def discard_draft(tx: Transaction, invoice: Body) -> None:
    """Discard a draft without charges."""
    tx.drop(invoice)


def is_empty(tx: Transaction, invoice: Body, subscription: Body) -> bool:
    """Return whether a draft would have no line."""
    pending = invoice_items.list_pending(tx, invoice["customer"], subscription["id"])
    return not invoice["_metered"] and not pending and not invoice_lines.list_lines(tx, invoice)


def charge_now(tx: Transaction, subscription: Body, invoice: Body) -> Body:
    """Finalize a draft and collect it at once; a failed payment is recorded."""
    invoice = collection.finalize_draft(tx, open_draft(tx, subscription, invoice))
    if invoice["status"] != "open":
        return invoice
    if invoice["collection_method"] == "send_invoice":
        return collection.mark_sent(tx, invoice)
    try:
        return collection.collect_payment(tx, invoice, None)
    except ApiError:
        return tx.get("invoice", invoice["id"])


# ---- changes


def credit_unused(tx: Transaction, subscription: Body, item: Body, at: int) -> None:
    """Credit the remainder of a fee that was charged in advance."""
    price = get_price(tx, item)
    amount = -_share(tx, subscription, price, item["quantity"], at, item["current_period_end"])
    _prorate(tx, subscription, item, price, amount, at, "Unused")


def charge_remaining(tx: Transaction, subscription: Body, item: Body, at: int) -> None:
    """Charge a fee for the rest of a period."""
    price = get_price(tx, item)
    amount = _share(tx, subscription, price, item["quantity"], at, item["current_period_end"])
    _prorate(tx, subscription, item, price, amount, at, "Remaining")


def _share(tx: Transaction, subscription: Body, price: Body, quantity: int, at: int, end: int) -> int:
    first, last = find_period(subscription["billing_cycle_anchor"], price["recurring"], at)
    whole = sum((part.quantity * part.unit + part.flat for part in split_by_tier(price, quantity)), Fraction(0))
    return round_to_cents(whole * Fraction(end - at, last - first))


def _prorate(tx: Transaction, subscription: Body, item: Body, price: Body, amount: int, at: int, which: str) -> None:
    product = (tx.find("product", price["product"]) or {"name": price["product"]})["name"]
    many = f"{item['quantity']} × " if item["quantity"] != 1 else ""
    day = datetime.fromtimestamp(at, UTC).strftime("%d %b %Y")
    proration = _pending(tx, subscription, item, {"start": at, "end": item["current_period_end"]})
    proration.update(
        amount=amount,
        description=f"{which} time on {many}{product} after {day}",
        pricing=invoice_items.format_pricing(price),
        proration=True,
        proration_details={"discount_amounts": []},
        quantity=item["quantity"],
        quantity_decimal=str(item["quantity"]),
    )
    invoice_items.save_item(tx, proration, None)


def bill_usage(tx: Transaction, subscription: Body, item: Body, at: int) -> None:
    """Charge the usage of an item that is removed or changes its price: the current count, tier by tier."""
    price = get_price(tx, item)
    quantity = usage.compute_total(tx, price["recurring"]["meter"], subscription["customer"], item["_usage_from"], at)
    charged = split_by_tier(price, quantity)
    for tier, part in enumerate(charged):
        pending = _pending(tx, subscription, item, {"start": item["_usage_from"], "end": at})
        pending.update(
            amount=part.amount,
            description=metered_lines.build_description(tx, price, part, tier if len(charged) > 1 else None),
            pricing=invoice_items.format_pricing(price, part.unit),
            quantity=part.quantity,
            quantity_decimal=str(part.quantity),
        )
        invoice_items.save_item(tx, pending, None)


def _pending(tx: Transaction, subscription: Body, item: Body, period: Mapping[str, int]) -> Body:
    pending_item = invoice_items.build_item(tx, tx.get("customer", subscription["customer"]), period)
    details = {"subscription": subscription["id"], "subscription_item": item["id"]}
    pending_item["currency"] = subscription["currency"]
    pending_item["parent"] = {"type": "subscription_details", "subscription_details": details}
    pending_item["tax_rates"] = item.get("tax_rates") or []
    return pending_item
