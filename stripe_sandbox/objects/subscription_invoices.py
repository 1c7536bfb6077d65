"""Charges of subscriptions: fees in advance, usage in arrears, prorations by the second."""

from collections.abc import Mapping
from datetime import UTC, datetime
from fractions import Fraction

from stripe_sandbox.amounts import round_to_cents, split_by_tier
from stripe_sandbox.objects import (
    collection,
    discounts,
    invoice_items,
    invoice_lines,
    invoices,
    metered_lines,
    subscription_state,
    usage,
)
from stripe_sandbox.objects.periods import find_item_period, find_period
from stripe_sandbox.refusal import ApiError
from stripe_sandbox.transaction import Body, Fields, Transaction

INVOICES = ((10, 60), (20, 86400))
"""The most new invoices of a subscription by calls: in a minute, in a day."""


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
        discounts=list(subscription["discounts"]),
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
            discounts=list(item["discounts"]),
            metadata=item["metadata"],
            _tax_rates=[rate["id"] for rate in item.get("tax_rates") or ()],
        )


def add_trial(tx: Transaction, invoice: Body, subscription: Body, item: Body) -> None:
    """Add the trial of an item, which costs nothing."""
    price = get_price(tx, item)
    invoice_lines.add_line(
        tx,
        invoice,
        invoice_lines.SUBSCRIBED,
        amount=0,
        description=f"Trial period for {get_product_name(tx, price)}",
        period={"start": item["current_period_start"], "end": item["current_period_end"]},
        parent=metered_lines.build_parent(subscription["id"], item["id"]),
        pricing=invoice_items.format_pricing(price, Fraction(0)),
        quantity=item["quantity"],
        quantity_decimal=str(item["quantity"]),
        subscription=subscription["id"],
        metadata=item["metadata"],
    )


def add_usage(invoice: Body, subscription: Body, item: Body, end: int) -> None:
    """Add an item's usage until a moment. The quantity is read when the invoice is finalized."""
    invoice["_metered"].append(
        {
            "item": item["id"],
            "price": item["price"],
            "start": item["_usage_from"],
            "end": end,
            "subscription": subscription["id"],
            "discounts": list(item["discounts"]),
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
    discounts.end_once(tx, subscription, invoice)
    for item in fetch_items(tx, subscription):
        discounts.end_once(tx, item, invoice)
    return invoice


def advance_later(tx: Transaction, invoice: Body) -> None:
    """Finalize a draft in an hour. If collection is paused, the invoice becomes void or uncollectible at once."""
    if subscription_state.find_pause(tx, invoice) in collection.PAUSES:
        collection.settle_paused(tx, collection.finalize_draft(tx, invoice))
    else:
        invoices.schedule_advance(tx, tx.get("invoice", invoice["id"]))


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
    if subscription_state.find_pause(tx, invoice) in collection.PAUSES:
        return collection.settle_paused(tx, invoice)
    if invoice["collection_method"] == "send_invoice":
        return collection.mark_sent(tx, invoice)
    try:
        return collection.collect_payment(tx, invoice, None)
    except ApiError:
        return tx.get("invoice", invoice["id"])


# ---- changes


def credit_unused(tx: Transaction, subscription: Body, item: Body, at: int) -> None:
    """Credit the remainder of a fee charged in advance, less its discounts."""
    if is_free(subscription, at):
        return
    price = get_price(tx, item)
    gross = _compute_share(subscription, price, item["quantity"], at, item["current_period_end"])
    charged = _find_charged(tx, item, at)
    whole = charged["amount"] if charged else 0
    taken_off = [
        {"amount": -round_to_cents(Fraction(off["amount"], whole) * gross), "discount": off["discount"]}
        for off in (charged["off"] if charged else ())
    ]
    _prorate(tx, subscription, item, price, -round_to_cents(gross), taken_off, at, "Unused")


def charge_remaining(tx: Transaction, subscription: Body, item: Body, at: int) -> None:
    """Charge a fee for the rest of a period, less the subscription's discounts."""
    if is_free(subscription, at):
        return
    price = get_price(tx, item)
    gross = _compute_share(subscription, price, item["quantity"], at, item["current_period_end"])
    whole = sum((part.amount for part in split_by_tier(price, item["quantity"])), 0)
    line = {"amount": whole, "pricing": invoice_items.format_pricing(price)}
    ids = [*item["discounts"], *subscription["discounts"]]
    taken_off = [
        {"amount": round_to_cents(Fraction(off["amount"], whole or 1) * gross), "discount": off["discount"]}
        for off in discounts.compute_amounts(tx, ids, line, subscription["currency"])
    ]
    _prorate(tx, subscription, item, price, round_to_cents(gross), taken_off, at, "Remaining")


def is_free(subscription: Fields, at: int) -> bool:
    """Return whether the subscription is free at a moment, as in a trial."""
    return bool(subscription.get("trial_end")) and at < subscription["trial_end"]


def _compute_share(subscription: Body, price: Body, quantity: int, at: int, end: int) -> Fraction:
    first, last = find_period(subscription["billing_cycle_anchor"], price["recurring"], at)
    whole = sum((part.quantity * part.unit + part.flat for part in split_by_tier(price, quantity)), Fraction(0))
    return whole * Fraction(end - at, last - first)


def _find_charged(tx: Transaction, item: Fields, at: int) -> Body | None:
    """Find the last charge of an item for a moment: its amount and its discounts."""
    of_item = {"parent.subscription_item_details.subscription_item": item["id"]}
    prorated = {"parent.subscription_details.subscription_item": item["id"], "proration": True}
    charges = [
        {"start": line["period"]["start"], "amount": line["amount"], "off": line["discount_amounts"]}
        for line in tx.all("line_item", **of_item)
        if line["amount"] > 0 and line["period"]["start"] <= at < line["period"]["end"]
    ]
    for charge in tx.all("invoiceitem", **prorated):
        off = charge["proration_details"]["discount_amounts"]
        amount = charge["amount"] + sum(entry["amount"] for entry in off)
        if amount > 0 and charge["period"]["start"] <= at < charge["period"]["end"]:
            charges.append({"start": charge["period"]["start"], "amount": amount, "off": off})
    return max(charges, key=lambda charge: charge["start"], default=None)


def _prorate(
    tx: Transaction,
    subscription: Body,
    item: Body,
    price: Body,
    gross: int,
    taken_off: list[Body],
    at: int,
    which: str,
) -> None:
    many = f"{item['quantity']} × " if item["quantity"] != 1 else ""
    day = datetime.fromtimestamp(at, UTC).strftime("%d %b %Y")
    proration = _pending(tx, subscription, item, {"start": at, "end": item["current_period_end"]})
    proration.update(
        amount=gross - sum(off["amount"] for off in taken_off),
        description=f"{which} time on {many}{get_product_name(tx, price)} after {day}",
        pricing=invoice_items.format_pricing(price),
        proration=True,
        proration_details={"discount_amounts": taken_off},
        quantity=item["quantity"],
        quantity_decimal=str(item["quantity"]),
    )
    invoice_items.save_item(tx, proration, None)


def get_product_name(tx: Transaction, price: Fields) -> str:
    """Return the name of a price's product, or the id of one that was deleted."""
    product = tx.find("product", price["product"])
    return str(price["product"] if product is None else product["name"])


def restart_cycle(tx: Transaction, subscription: Body, at: int, anchor: int, *, prorate: bool) -> None:
    """Begin new periods at a moment, by a new anchor; the open part of the old periods is charged and credited."""
    items = fetch_items(tx, subscription)
    for item in items if prorate else ():
        if is_metered(get_price(tx, item)):
            if not is_free(subscription, at):
                bill_usage(tx, subscription, item, at)
        else:
            credit_unused(tx, subscription, item, at)
    subscription["billing_cycle_anchor"] = anchor
    for item in items:
        start, end = find_item_period(subscription, get_price(tx, item)["recurring"], at)
        item.update(current_period_start=start, current_period_end=end, _usage_from=at)
        tx.save(item)
    tx.save(subscription)


def charge_fees(tx: Transaction, subscription: Body, at: int) -> Body | None:
    """Charge the fees of the current periods at once. Returns the invoice, or None if nothing is due."""
    invoice = create_draft(tx, subscription, "subscription_update", at, at)
    for item in fetch_items(tx, subscription):
        if not is_metered(get_price(tx, item)):
            add_fee(tx, invoice, subscription, item)
    if is_empty(tx, invoice, subscription):
        discard_draft(tx, invoice)
        return None
    return charge_now(tx, subscription, invoice)


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
            discountable=True,
            discounts=list(item["discounts"]),
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
