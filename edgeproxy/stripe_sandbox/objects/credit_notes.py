"""Credit notes: corrections of an invoice, before or after its payment."""

from fractions import Fraction

from edgeproxy.stripe_sandbox.amounts import round_to_cents
from edgeproxy.stripe_sandbox.lists import Ids, Parameters, format_list, slice_list
from edgeproxy.stripe_sandbox.objects import collection, customers, payments
from edgeproxy.stripe_sandbox.objects.fields import (
    compute_previous_attributes,
    merge_metadata,
    require_supported,
    set_fields,
)
from edgeproxy.stripe_sandbox.refusal import invalid_request
from edgeproxy.stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

REFUSED = ("refunds", "shipping_cost")
SHOWN = 10


def create(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Create a credit note: of the amount due, or by a refund, a credit to the balance, or out of band."""
    made, lines = _made(tx, p)
    invoice = tx.get("invoice", p["invoice"], "invoice")
    customer = tx.get("customer", invoice["customer"])
    count = len(tx.all("credit_note", invoice=invoice["id"])) + 1
    made["number"] = f"{invoice['number']}-CN-{count:02}"
    for line in lines:
        tx.insert(line)
    if made["_refund"]:
        intent = tx.get("payment_intent", invoice["_intent"])
        charge = tx.get("charge", intent["latest_charge"])
        refund = payments.refund_charge(tx, charge, made["_refund"], {})
        made["refunds"] = [{"amount_refunded": refund["amount"], "refund": refund["id"], "type": "refund"}]
    if made["_credit"]:
        booked = customers.add_to_balance(
            tx, customer, -made["_credit"], invoice["currency"], "credit_note", credit_note=made["id"]
        )
        made["customer_balance_transaction"] = booked["id"]
    tx.insert(made)
    before = dict(invoice)
    invoice["pre_payment_credit_notes_amount"] += made["pre_payment_amount"]
    invoice["post_payment_credit_notes_amount"] += made["post_payment_amount"]
    invoice["amount_due"] -= made["pre_payment_amount"]
    invoice["amount_remaining"] -= made["pre_payment_amount"]
    tx.save(invoice)
    tx.emit("credit_note.created", made)
    tx.emit("invoice.updated", invoice, compute_previous_attributes(before, invoice))
    if made["pre_payment_amount"]:
        _lower(tx, invoice)
    return made


def _lower(tx: Transaction, invoice: Body) -> None:
    """Lower the amount due."""
    intent = tx.get("payment_intent", invoice["_intent"])
    if not invoice["amount_remaining"]:
        payments.cancel_intent(tx, intent, "void_invoice")
        collection.mark_paid(tx, invoice, None)
        return
    tx.save({**intent, "amount": invoice["amount_remaining"]})
    payment = tx.get("invoice_payment", invoice["_payment"])
    tx.save({**payment, "amount_requested": invoice["amount_remaining"]})


def _made(tx: Transaction, p: Parameters) -> tuple[Body, list[Body]]:
    """Build a credit note and its lines, which are not stored yet."""
    require_supported(p, *REFUSED)
    invoice = tx.get("invoice", p["invoice"], "invoice")
    if invoice["status"] not in ("open", "paid", "uncollectible"):
        raise invalid_request("You can only create credit notes for finalized invoices.", "invoice")
    if ("lines" in p) == ("amount" in p):
        raise invalid_request("You must specify either amount or lines.", "amount")
    id = generate_id("cn")
    lines = [_line(tx, invoice, id, said, n) for n, said in enumerate(p.get("lines", ()))]
    total = sum(line["amount"] for line in lines) if lines else p["amount"]
    if total < 1:
        raise invalid_request("The total of a credit note must be above 0.", "amount")

    refund, credit, outside = (p.get(name, 0) for name in ("refund_amount", "credit_amount", "out_of_band_amount"))
    paid = invoice["status"] == "paid"
    if paid:
        left = invoice["amount_paid"] - invoice["post_payment_credit_notes_amount"]
        if total > left:
            raise invalid_request(
                f"The amount of the credit note is more than what is left of the invoice, {left}.", "amount"
            )
        if refund + credit + outside != total:
            raise invalid_request(
                "The sum of refund_amount, credit_amount and out_of_band_amount must be the credit note's total, "
                f"{total}.",
                "refund_amount",
            )
    elif refund or credit or outside:
        raise invalid_request("Nothing was paid that could be given back.", "refund_amount")
    elif total > invoice["amount_remaining"]:
        raise invalid_request(
            f"The amount of the credit note is more than what remains to be paid, {invoice['amount_remaining']}.",
            "amount",
        )
    now = tx.time(invoice["test_clock"])
    made: Body = {
        "id": id,
        "object": "credit_note",
        "amount": total,
        "amount_shipping": 0,
        "created": now,
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "discount_amount": 0,
        "discount_amounts": [],
        "effective_at": p.get("effective_at", now),
        "invoice": invoice["id"],
        "livemode": tx.live,
        "number": f"{invoice['number']}-CN",
        "out_of_band_amount": p.get("out_of_band_amount"),
        "pdf": f"{tx.account.base}/_sandbox/credit_notes/{id}/pdf",
        "post_payment_amount": total if paid else 0,
        "pre_payment_amount": 0 if paid else total,
        "pretax_credit_amounts": [],
        "reason": p.get("reason"),
        "refunds": [],
        "status": "issued",
        "subtotal": total,
        "subtotal_excluding_tax": total,
        "total": total,
        "total_excluding_tax": total,
        "total_taxes": [],
        "type": "post_payment" if paid else "pre_payment",
        "_refund": refund,
        "_credit": credit,
    }
    set_fields(made, p, "memo")
    merge_metadata(made, p)
    return made, lines


def _line(tx: Transaction, invoice: Body, note: str, said: Fields, place: int) -> Body:
    require_supported(said, "tax_amounts", "tax_rates")
    unit = said.get("unit_amount_decimal", said.get("unit_amount"))
    quantity = said.get("quantity", 1 if "amount" not in said else None)
    of_invoice = None
    if said["type"] == "invoice_line_item":
        of_invoice = tx.get("line_item", said.get("invoice_line_item", ""), f"lines[{place}][invoice_line_item]")
        if of_invoice["invoice"] != invoice["id"]:
            raise invalid_request("The line belongs to another invoice.", f"lines[{place}][invoice_line_item]")
        unit = unit if unit is not None else of_invoice["pricing"]["unit_amount_decimal"]
    if "amount" in said:
        amount = said["amount"]
    elif unit is None or quantity is None:
        raise invalid_request("Each line needs an amount, or a unit_amount and a quantity.", f"lines[{place}]")
    else:
        amount = round_to_cents(Fraction(unit) * quantity)
    if of_invoice is not None and amount > of_invoice["amount"]:
        raise invalid_request("The amount is more than that of the invoice's line.", f"lines[{place}][amount]")
    return {
        "id": generate_id("cnli"),
        "object": "credit_note_line_item",
        "amount": amount,
        "description": said.get("description") or (of_invoice or {}).get("description"),
        "discount_amount": 0,
        "discount_amounts": [],
        "invoice_line_item": None if of_invoice is None else of_invoice["id"],
        "livemode": tx.live,
        "metadata": said.get("metadata", {}),
        "pretax_credit_amounts": [],
        "quantity": quantity,
        "tax_rates": [],
        "taxes": [],
        "type": said["type"],
        "unit_amount": said.get("unit_amount"),
        "unit_amount_decimal": None if unit is None else str(unit),
        "_note": note,
    }


def preview(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Preview a credit note."""
    made, lines = _made(tx, p)
    return {**made, "_lines": lines}


def preview_lines(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Preview the lines of a credit note."""
    return slice_list(tx, _made(tx, p)[1], p)


def list_lines(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """List the lines of a credit note."""
    return slice_list(tx, tx.all("credit_note_line_item", _note=tx.get("credit_note", ids["id"])["id"]), p)


def view(tx: Transaction, body: Body) -> Body:
    """Return a credit note with its first lines."""
    lines = body["_lines"] if "_lines" in body else tx.all("credit_note_line_item", _note=body["id"])
    return {**body, "lines": format_list(tx, lines[:SHOWN], len(lines) > SHOWN, f"/v1/credit_notes/{body['id']}/lines")}


def update(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Update the fields of a credit note beside amounts."""
    made = tx.get("credit_note", ids["id"])
    before = dict(made)
    set_fields(made, p, "memo")
    merge_metadata(made, p)
    tx.save(made)
    tx.emit("credit_note.updated", made, compute_previous_attributes(before, made))
    return made


def void(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Void a credit note of an unpaid invoice."""
    made = tx.get("credit_note", ids["id"])
    invoice = tx.get("invoice", made["invoice"])
    if made["status"] == "void":
        raise invalid_request("This credit note is void already.")
    if invoice["status"] != "open":
        raise invalid_request("You can only void credit notes of open invoices.")
    made.update(status="void", voided_at=tx.time(invoice["test_clock"]))
    tx.save(made)
    invoice["pre_payment_credit_notes_amount"] -= made["pre_payment_amount"]
    invoice["amount_due"] += made["pre_payment_amount"]
    invoice["amount_remaining"] += made["pre_payment_amount"]
    tx.save(invoice)
    _lower(tx, invoice)
    tx.emit("credit_note.voided", made)
    return made
