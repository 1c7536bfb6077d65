"""Credit notes: corrections of an invoice, before or after its payment."""

from fractions import Fraction

from stripe_sandbox.amounts import round_to_cents
from stripe_sandbox.lists import Ids, Parameters, format_list, slice_list
from stripe_sandbox.objects import collection, customers, payments, refunds
from stripe_sandbox.objects.fields import (
    compute_previous_attributes,
    merge_metadata,
    require_supported,
    set_fields,
)
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

REFUSED = ("refunds", "shipping_cost")
SHOWN = 10


EMPTY_LISTS = ("discount_amounts", "pretax_credit_amounts", "refunds", "total_taxes")


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a credit note: off the amount due, or as a refund, a credit to the balance, or out of band."""
    note, lines = _build_note(tx, params)
    invoice = tx.get("invoice", params["invoice"], "invoice")
    customer = tx.get("customer", invoice["customer"])
    count = len(tx.all("credit_note", invoice=invoice["id"])) + 1
    note["number"] = f"{invoice['number']}-CN-{count:02}"
    for line in lines:
        tx.insert(line)
    if note["_refund"]:
        intent = tx.get("payment_intent", invoice["_intent"])
        charge = tx.get("charge", intent["latest_charge"])
        refund = refunds.refund_charge(tx, charge, note["_refund"], {})
        note["refunds"] = [{"amount_refunded": refund["amount"], "refund": refund["id"], "type": "refund"}]
    if note["_credit"]:
        booked = customers.add_to_balance(
            tx, customer, -note["_credit"], invoice["currency"], "credit_note", credit_note=note["id"]
        )
        note["customer_balance_transaction"] = booked["id"]
    tx.insert(note)
    before = dict(invoice)
    invoice["pre_payment_credit_notes_amount"] += note["pre_payment_amount"]
    invoice["post_payment_credit_notes_amount"] += note["post_payment_amount"]
    invoice["amount_due"] -= note["pre_payment_amount"]
    invoice["amount_remaining"] -= note["pre_payment_amount"]
    tx.save(invoice)
    tx.record_event("credit_note.created", note)
    tx.record_event("invoice.updated", invoice, compute_previous_attributes(before, invoice))
    if note["pre_payment_amount"]:
        _lower_amount_due(tx, invoice)
    return note


def _lower_amount_due(tx: Transaction, invoice: Body) -> None:
    """Lower the amount due."""
    intent = tx.get("payment_intent", invoice["_intent"])
    if not invoice["amount_remaining"]:
        payments.cancel_intent(tx, intent, "void_invoice")
        collection.mark_paid(tx, invoice, None)
        return
    tx.save({**intent, "amount": invoice["amount_remaining"]})
    payment = tx.get("invoice_payment", invoice["_payment"])
    tx.save({**payment, "amount_requested": invoice["amount_remaining"]})


def _build_note(tx: Transaction, params: Parameters) -> tuple[Body, list[Body]]:
    """Build a credit note and its lines, which are not stored yet."""
    require_supported(params, *REFUSED)
    invoice = tx.get("invoice", params["invoice"], "invoice")
    _check_invoice(invoice, params)
    id = generate_id("cn")
    lines = [_build_line(tx, invoice, id, parameters, n) for n, parameters in enumerate(params.get("lines", ()))]
    total = sum(line["amount"] for line in lines) if lines else params["amount"]
    if total < 1:
        raise invalid_request("The total of a credit note must be above 0.", "amount")
    paid = invoice["status"] == "paid"
    _check_amounts(tx, invoice, params, total)
    now = tx.get_time(invoice["test_clock"])
    note: Body = {
        "id": id,
        "object": "credit_note",
        "created": now,
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        **{name: [] for name in EMPTY_LISTS},
        **dict.fromkeys(("amount_shipping", "discount_amount"), 0),
        "effective_at": params.get("effective_at", now),
        "invoice": invoice["id"],
        "livemode": tx.live,
        "number": f"{invoice['number']}-CN",
        "out_of_band_amount": params.get("out_of_band_amount"),
        "pdf": f"{tx.account.base}/_sandbox/credit_notes/{id}/pdf",
        "post_payment_amount": total if paid else 0,
        "pre_payment_amount": 0 if paid else total,
        "reason": params.get("reason"),
        "status": "issued",
        **dict.fromkeys(("amount", "subtotal", "subtotal_excluding_tax", "total", "total_excluding_tax"), total),
        "type": "post_payment" if paid else "pre_payment",
        "_refund": params.get("refund_amount", 0),
        "_credit": params.get("credit_amount", 0),
    }
    set_fields(note, params, "memo")
    merge_metadata(note, params)
    return note, lines


def _check_invoice(invoice: Fields, params: Fields) -> None:
    """Raise the refusal of a credit note without a finalized invoice, or without either amount or lines."""
    if invoice["status"] not in ("open", "paid", "uncollectible"):
        raise invalid_request("You can only create credit notes for finalized invoices.", "invoice")
    if ("lines" in params) == ("amount" in params):
        raise invalid_request("You must specify either amount or lines.", "amount")


def _check_amounts(tx: Transaction, invoice: Fields, params: Fields, total: int) -> None:
    """Raise the refusal of a credit note above the remainder of its invoice, or with parts that do not add up to its
    total.
    """
    refund, credit, outside = (params.get(name, 0) for name in ("refund_amount", "credit_amount", "out_of_band_amount"))
    if invoice["status"] == "paid":
        # The part paid from the customer's balance can be credited to the balance again.
        left = invoice["total"] - sum(invoice[f"{name}_payment_credit_notes_amount"] for name in ("pre", "post"))
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
        if refund > (left := _compute_refundable(tx, invoice)):
            raise invalid_request(
                f"The refund_amount is greater than the amount that can be refunded, {left}.", "refund_amount"
            )
    elif refund or credit or outside:
        raise invalid_request("Nothing was paid that could be given back.", "refund_amount")
    elif total > invoice["amount_remaining"]:
        raise invalid_request(
            f"The amount of the credit note is more than what remains to be paid, {invoice['amount_remaining']}.",
            "amount",
        )


def _compute_refundable(tx: Transaction, invoice: Fields) -> int:
    """Return the refundable remainder of the charge that paid an invoice: 0 if it was paid out of band."""
    intent = tx.get("payment_intent", invoice["_intent"]) if invoice.get("_intent") else {}
    if intent.get("status") != "succeeded":
        return 0
    charge = tx.get("charge", intent["latest_charge"])
    return int(charge["amount_captured"] - charge["amount_refunded"])


def _build_line(tx: Transaction, invoice: Body, note: str, parameters: Fields, place: int) -> Body:
    require_supported(parameters, "tax_amounts", "tax_rates")
    unit = parameters.get("unit_amount_decimal", parameters.get("unit_amount"))
    quantity = parameters.get("quantity", 1 if "amount" not in parameters else None)
    of_invoice = None
    if parameters["type"] == "invoice_line_item":
        of_invoice = tx.get("line_item", parameters.get("invoice_line_item", ""), f"lines[{place}][invoice_line_item]")
        if of_invoice["invoice"] != invoice["id"]:
            raise invalid_request("The line belongs to another invoice.", f"lines[{place}][invoice_line_item]")
        unit = unit if unit is not None else of_invoice["pricing"]["unit_amount_decimal"]
    if "amount" in parameters:
        amount = parameters["amount"]
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
        "description": parameters.get("description") or (of_invoice or {}).get("description"),
        **{name: [] for name in EMPTY_LISTS},
        **dict.fromkeys(("amount_shipping", "discount_amount"), 0),
        "invoice_line_item": None if of_invoice is None else of_invoice["id"],
        "livemode": tx.live,
        "metadata": parameters.get("metadata", {}),
        "quantity": quantity,
        "tax_rates": [],
        "taxes": [],
        "type": parameters["type"],
        "unit_amount": parameters.get("unit_amount"),
        "unit_amount_decimal": None if unit is None else str(unit),
        "_note": note,
    }


def preview(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Preview a credit note."""
    note, lines = _build_note(tx, params)
    return {**note, "_lines": lines}


def preview_lines(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Preview the lines of a credit note."""
    return slice_list(tx, _build_note(tx, params)[1], params)


def list_lines(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List the lines of a credit note."""
    return slice_list(tx, tx.all("credit_note_line_item", _note=tx.get("credit_note", ids["id"])["id"]), params)


def view(tx: Transaction, body: Body) -> Body:
    """Return a credit note with its first lines."""
    lines = body["_lines"] if "_lines" in body else tx.all("credit_note_line_item", _note=body["id"])
    return {**body, "lines": format_list(tx, lines[:SHOWN], len(lines) > SHOWN, f"/v1/credit_notes/{body['id']}/lines")}


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update the fields of a credit note except amounts."""
    note = tx.get("credit_note", ids["id"])
    before = dict(note)
    set_fields(note, params, "memo")
    merge_metadata(note, params)
    tx.save(note)
    tx.record_event("credit_note.updated", note, compute_previous_attributes(before, note))
    return note


def void(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Void a credit note of an unpaid invoice."""
    note = tx.get("credit_note", ids["id"])
    invoice = tx.get("invoice", note["invoice"])
    if note["status"] == "void":
        raise invalid_request("This credit note is void already.")
    if invoice["status"] != "open":
        raise invalid_request("You can only void credit notes of open invoices.")
    note.update(status="void", voided_at=tx.get_time(invoice["test_clock"]))
    tx.save(note)
    before = dict(invoice)
    invoice["pre_payment_credit_notes_amount"] -= note["pre_payment_amount"]
    invoice["amount_due"] += note["pre_payment_amount"]
    invoice["amount_remaining"] += note["pre_payment_amount"]
    tx.save(invoice)
    _lower_amount_due(tx, invoice)
    tx.record_event("credit_note.voided", note)
    tx.record_event("invoice.updated", invoice, compute_previous_attributes(before, invoice))
    return note
