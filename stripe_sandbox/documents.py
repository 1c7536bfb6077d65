"""Invoices and credit notes for people, on pages and as PDF."""

from collections.abc import Iterator
from datetime import UTC, datetime
from fractions import Fraction
from typing import NamedTuple

from stripe_sandbox.objects import invoice_lines
from stripe_sandbox.objects.currencies import format_amount
from stripe_sandbox.objects.discounts import get_discount
from stripe_sandbox.transaction import Body, Fields, Transaction


class Line(NamedTuple):
    """A line of a document."""

    description: str
    quantity: str
    unit: str
    amount: str


class Document(NamedTuple):
    """An invoice or a credit note, all of it as text."""

    title: str
    """The kind of document, and its number."""
    facts: tuple[tuple[str, str], ...]
    """Dates and further facts, with their names."""
    recipient: tuple[str, ...]
    lines: tuple[Line, ...]
    sums: tuple[tuple[str, str], ...]
    """Amounts below the lines, with their names; the last one is the most important."""
    notes: tuple[str, ...]


def describe_invoice(tx: Transaction, invoice: Body) -> Document:
    """Describe an invoice with all its lines."""
    currency = invoice["currency"]
    transitions = invoice["status_transitions"]
    dates = (
        ("Date of issue", invoice.get("effective_at") or invoice["created"]),
        ("Date due", invoice.get("due_date") or invoice.get("effective_at") or invoice["created"]),
        ("Date paid", transitions.get("paid_at")),
    )
    facts = [(name, format_date(at)) for name, at in dates if at is not None]
    return Document(
        f"Invoice {invoice.get('number') or invoice['id']}",
        (*facts, ("Status", invoice["status"])),
        _describe_recipient(invoice),
        tuple(_describe_line(line, currency) for line in invoice_lines.list_lines(tx, invoice)),
        tuple((name, format_amount(amount, currency)) for name, amount in _list_sums(tx, invoice)),
        tuple(filter(None, (invoice.get("description"), invoice.get("footer")))),
    )


def describe_credit_note(tx: Transaction, note: Fields) -> Document:
    """Describe a credit note with all its lines."""
    invoice, currency = tx.get("invoice", note["invoice"]), note["currency"]
    lines = tuple(_describe_line(line, currency) for line in tx.all("credit_note_line_item", _note=note["id"]))
    total = format_amount(note["total"], currency)
    return Document(
        f"Credit note {note['number']}",
        (
            ("Date of issue", format_date(note["effective_at"])),
            ("Invoice", str(invoice["number"])),
            ("Reason", str(note["reason"] or "").replace("_", " ")),
            ("Status", note["status"]),
        ),
        _describe_recipient(invoice),
        lines or (Line("Credit", "", "", total),),
        (("Total", total),),
        tuple(filter(None, (note.get("memo"),))),
    )


def format_date(seconds: int) -> str:
    """Format a time as its day, of UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%B %-d, %Y")


def _describe_recipient(invoice: Fields) -> tuple[str, ...]:
    address = invoice.get("customer_address") or {}
    town = " ".join(filter(None, (address.get("postal_code"), address.get("city"), address.get("state"))))
    parts = (
        invoice.get("customer_name"),
        address.get("line1"),
        address.get("line2"),
        town,
        address.get("country"),
        invoice.get("customer_email"),
        *(number.get("value") for number in invoice.get("customer_tax_ids") or ()),
    )
    return tuple(filter(None, parts)) or (str(invoice["customer"]),)


def _describe_line(line: Fields, currency: str) -> Line:
    unit = (line.get("pricing") or line).get("unit_amount_decimal")
    return Line(
        str(line.get("description") or ""),
        str(line.get("quantity") or line.get("quantity_decimal") or ""),
        "" if unit is None else format_amount(Fraction(unit), currency),
        format_amount(line["amount"], currency),
    )


def _list_sums(tx: Transaction, invoice: Fields) -> Iterator[tuple[str, int]]:
    """Yield the amounts of an invoice from the subtotal to the amount due, without zeros."""
    yield "Subtotal", invoice["subtotal"]
    for entry in invoice["total_discount_amounts"]:
        coupon = tx.find_any(get_discount(tx, entry["discount"])["source"]["coupon"]) or {}
        yield f"Discount ({coupon.get('name') or coupon.get('id')})", -entry["amount"]
    credits = sum(entry["amount"] for entry in invoice["total_pretax_credit_amounts"] if entry["type"] != "discount")
    if credits:
        yield "Billing credits", -credits
    for tax in invoice["total_taxes"]:
        rate = tx.get("tax_rate", tax["tax_rate_details"]["tax_rate"])
        yield f"{rate['display_name']} ({rate['percentage']:g}% {tax['tax_behavior']})", tax["amount"]
    yield "Total", invoice["total"]
    before = invoice["pre_payment_credit_notes_amount"]
    if before:
        yield "Credit notes", -before
    if balance := invoice["amount_due"] + before - invoice["total"]:
        yield "Applied balance", balance
    yield "Amount due", invoice["amount_due"]
    yield "Amount paid", invoice["amount_paid"]
    if invoice["post_payment_credit_notes_amount"]:
        yield "Credit notes after payment", invoice["post_payment_credit_notes_amount"]
    if invoice["amount_remaining"]:
        yield "Amount remaining", invoice["amount_remaining"]
