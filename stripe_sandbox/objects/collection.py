"""Invoices after the draft: finalized, charged, sent, paid or voided."""

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.objects import (
    credit_grants,
    customers,
    invoice_lines,
    invoices,
    payment_methods,
    payments,
    subscription_state,
)
from stripe_sandbox.objects.currencies import get_minimum, require_minimum
from stripe_sandbox.objects.fields import require_supported
from stripe_sandbox.refusal import ApiError, invalid_request, unsupported
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

DAY = 86400
RETRIES = (3 * DAY, 5 * DAY, 7 * DAY)
"""Seconds between attempts to collect a declined payment."""
PAUSES = ("void", "mark_uncollectible")
"""Paused collections whose invoices are settled at once."""


# ---- finalization


def finalize(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Finalize an invoice."""
    invoice = tx.get("invoice", ids["id"])
    if invoice["status"] != "draft":
        raise invalid_request(
            "This invoice is already finalized, you can't re-finalize a non-draft invoice.",
            code="invoice_not_editable",
        )
    if "auto_advance" in params:
        invoice["auto_advance"] = params["auto_advance"]
    return advance_invoice(tx, finalize_draft(tx, invoice))


def finalize_draft(tx: Transaction, invoice: Body) -> Body:
    """Finalize a draft: take its quantities now, and give it a number, and a payment intent if need be."""
    invoice = invoice_lines.compute_totals(tx, invoices.refresh(tx, invoice))
    credit_grants.apply(tx, invoice)
    invoice_lines.compute_totals(tx, invoice)
    subscription_state.end_discounts(tx, invoice)
    customer = tx.get("customer", invoice["customer"])
    now = tx.get_time(invoice["test_clock"])
    if invoice["automatic_tax"]["enabled"]:
        invoice["automatic_tax"] = invoices.build_automatic_tax(tx, customer["id"], True)
        if invoice["automatic_tax"]["status"] != "complete":
            raise invalid_request("The customer's location isn't recognized.", code="customer_tax_location_invalid")
    if not invoice.get("number"):
        invoice["number"] = f"{customer['invoice_prefix']}-{customer['next_invoice_sequence']:04}"
        customer["next_invoice_sequence"] += 1
    if not customer.get("currency"):
        customer["currency"] = invoice["currency"]
    tx.save(customer)
    if invoice["collection_method"] == "send_invoice" and not invoice.get("due_date"):
        invoice["due_date"] = now + invoice.get("_days_until_due", 30) * DAY
    _settle_balance(tx, invoice, customer)
    _open_invoice(tx, invoice, now)
    tx.record_event("invoice.finalized", invoice)
    if not invoice["amount_due"]:
        mark_paid(tx, invoice, None)
    return invoice


def _open_invoice(tx: Transaction, invoice: Body, now: int) -> None:
    """Save a draft as an open invoice, with an intent to pay the amount due."""
    links = f"{tx.account.base}/_sandbox/invoices/{invoice['id']}"
    invoice.update(
        status="open",
        automatically_finalizes_at=None,
        effective_at=invoice.get("effective_at") or now,
        hosted_invoice_url=links,
        invoice_pdf=f"{links}/pdf",
        status_transitions={**invoice["status_transitions"], "finalized_at": now},
    )
    tx.cancel_timer("finalize", invoice["id"])
    if invoice["amount_due"]:
        intent = payments.create_intent(
            tx, invoice["amount_due"], invoice["currency"], invoice["customer"], _invoice=invoice["id"]
        )
        intent["description"] = f"Payment for Invoice {invoice['number']}"
        if subscription_state.saves_method(subscription_state.find_subscription(tx, invoice)):
            intent["setup_future_usage"] = "off_session"
        tx.save(intent)
        _ask_payment(tx, invoice, intent)
    tx.save(invoice)


def _settle_balance(tx: Transaction, invoice: Body, customer: Body) -> None:
    """Apply the customer's balance."""
    balance, total = customer["balance"], invoice["total"]
    invoice["starting_balance"] = balance
    due = total + balance if total > 0 else total
    if total > 0 and due > 0 and balance:
        customers.add_to_balance(
            tx, customer, -balance, invoice["currency"], "applied_to_invoice", invoice=invoice["id"]
        )
    elif total > 0 >= due and balance:
        customers.add_to_balance(tx, customer, total, invoice["currency"], "applied_to_invoice", invoice=invoice["id"])
        due = 0
    elif total < 0:
        customers.add_to_balance(tx, customer, total, invoice["currency"], "credit_note", invoice=invoice["id"])
        due = 0
    # The customer's balance gets an amount that is too small to be charged, also of an invoice that is sent.
    if 0 < due < get_minimum(invoice["currency"]):
        customers.add_to_balance(tx, customer, due, invoice["currency"], "invoice_too_small", invoice=invoice["id"])
        due = 0
    invoice["ending_balance"] = customer["balance"]
    invoice["amount_due"] = invoice["amount_remaining"] = due


def _ask_payment(tx: Transaction, invoice: Body, intent: Body) -> None:
    payment: Body = {
        "id": generate_id("inpay"),
        "object": "invoice_payment",
        "amount_requested": invoice["amount_due"],
        "created": tx.get_time(invoice["test_clock"]),
        "currency": invoice["currency"],
        "invoice": invoice["id"],
        "is_default": True,
        "livemode": tx.live,
        "payment": {"type": "payment_intent", "payment_intent": intent["id"]},
        "status": "open",
        "status_transitions": {},
    }
    tx.insert(payment)
    invoice["_payment"], invoice["_intent"] = payment["id"], intent["id"]


def settle_paused(tx: Transaction, invoice: Body) -> Body:
    """Void an open invoice of a paused collection, or mark it as uncollectible."""
    behavior = subscription_state.find_pause(tx, invoice)
    if invoice["status"] != "open" or behavior not in PAUSES:
        return invoice
    return void_invoice(tx, invoice) if behavior == "void" else mark_invoice_uncollectible(tx, invoice)


def advance_invoice(tx: Transaction, invoice: Body) -> Body:
    """Advance a finalized invoice: charge it, or send it."""
    if subscription_state.find_pause(tx, invoice) in PAUSES:
        return settle_paused(tx, invoice)
    if invoice["status"] != "open" or not invoice["auto_advance"]:
        return invoice
    if invoice["collection_method"] == "send_invoice":
        return mark_sent(tx, invoice)
    try:
        return collect_payment(tx, invoice, None)
    except ApiError:  # The declined payment is recorded and will be retried.
        return tx.get("invoice", invoice["id"])


# ---- payment


def pay(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Pay an invoice now."""
    require_supported(params, "mandate", "forgive")
    invoice = tx.get("invoice", ids["id"])
    if invoice["status"] == "draft":
        invoice = finalize_draft(tx, invoice)
        if invoice["status"] == "paid":
            return invoice
    if invoice["status"] == "paid":
        raise invalid_request("Invoice is already paid", code="invoice_already_paid")
    if invoice["status"] not in ("open", "uncollectible"):
        raise invalid_request(f"Invoice could not be paid: it is {invoice['status']}.", code="invoice_not_payable")
    if params.get("paid_out_of_band"):
        payments.cancel_intent(tx, tx.get("payment_intent", invoice["_intent"]), "void_invoice")
        invoice["amount_paid_off_stripe"] = invoice["amount_remaining"]
        return mark_paid(tx, invoice, None)
    return collect_payment(tx, invoice, params.get("payment_method"), off_session=params.get("off_session", True))


def collect_payment(tx: Transaction, invoice: Body, method: str | None, *, off_session: bool = True) -> Body:
    """Charge the amount due. Raises the bank's refusal, after the failure is recorded.

    A card whose owner must authenticate is such a failure. The intent then waits for the owner.
    """
    customer = tx.get("customer", invoice["customer"])
    chosen = method or payment_methods.find_default_method(tx, invoice, customer)
    invoice["attempted"] = True
    if chosen is None:
        tx.save(invoice)
        message = (
            "This customer has no attached payment source or default payment method. Please consider adding a "
            "default payment method."
        )
        raise record_failure(tx, invoice, ApiError(400, message, code="resource_missing", commits=True))
    intent = tx.get("payment_intent", invoice["_intent"])
    require_minimum(intent["amount"], intent["currency"])  # A credit note may have lowered it.
    payments.require_confirmable(tx, intent)  # Another payment may be under way.
    invoice["attempt_count"] += 1
    try:
        intent["payment_method"] = payment_methods.attach_method(tx, chosen, customer["id"], "payment_method")["id"]
        intent = payments.confirm_intent(tx, intent, payments.Session(off=off_session))
    except ApiError as error:
        raise record_failure(tx, invoice, error) from None
    if intent["status"] == "requires_action":
        tx.save(invoice)
        tx.record_event("invoice.payment_action_required", invoice)
        unanswered = ApiError(
            402,
            "Your card was declined. This transaction requires authentication.",
            kind="card_error",
            code="invoice_payment_intent_requires_action",
            commits=True,
        )
        raise record_failure(tx, invoice, unanswered)
    if intent["status"] == "processing":
        return tx.save(invoice)
    return mark_paid(tx, invoice, intent)


def record_failure(tx: Transaction, invoice: Body, error: ApiError) -> ApiError:
    """Record a failed attempt, and schedule the next one if the invoice advances automatically."""
    tries = invoice.get("_retries", 0)
    invoice["next_payment_attempt"] = None
    if invoice["auto_advance"] and invoice["billing_reason"] != "subscription_create" and tries < len(RETRIES):
        invoice["_retries"] = tries + 1
        invoice["next_payment_attempt"] = tx.get_time(invoice["test_clock"]) + RETRIES[tries]
        tx.cancel_timer("collect", invoice["id"])
        tx.set_timer(invoice["next_payment_attempt"], "collect", invoice["id"], invoice["test_clock"])
    tx.save(invoice)
    tx.record_event("invoice.payment_failed", invoice)
    subscription_state.record_failed_payment(
        tx, invoice, last=invoice["auto_advance"] and invoice["next_payment_attempt"] is None
    )
    return error


def mark_paid(tx: Transaction, invoice: Body, intent: Body | None) -> Body:
    """Mark an invoice as paid: by this intent, out of band, or with nothing to pay."""
    now, due = tx.get_time(invoice["test_clock"]), invoice["amount_remaining"]
    invoice.update(
        amount_paid=invoice["amount_paid"] + due,
        amount_remaining=0,
        attempted=True,
        auto_advance=False,
        next_payment_attempt=None,
        status="paid",
        status_transitions={**invoice["status_transitions"], "paid_at": now},
    )
    tx.save(invoice)
    tx.cancel_timer("collect", invoice["id"])
    if invoice.get("_payment"):
        payment = tx.get("invoice_payment", invoice["_payment"])
        done = "canceled" if intent is None else "paid"
        payment.update(status=done, amount_paid=due if intent else None, status_transitions={f"{done}_at": now})
        tx.save(payment)
        if intent is not None:
            tx.record_event("invoice_payment.paid", payment)
    tx.record_event("invoice.paid", invoice)
    tx.record_event("invoice.payment_succeeded", invoice, on_record=False)
    subscription_state.record_payment(tx, invoice, None if intent is None else intent["payment_method"])
    return invoice


def record_paid_intent(tx: Transaction, intent: Body) -> None:
    """Mark an intent's invoice as paid, if the intent has one and was paid directly, as on the customer's page."""
    invoice = tx.find("invoice", intent.get("_invoice", ""))
    if invoice is not None and intent["status"] == "succeeded" and invoice["status"] in ("open", "uncollectible"):
        mark_paid(tx, invoice, intent)


def record_declined_intent(tx: Transaction, intent: Body) -> None:
    """Record a failed payment of an intent's invoice, if it has one. No retry is scheduled."""
    invoice = tx.find("invoice", intent.get("_invoice", ""))
    if invoice is not None and invoice["status"] == "open":
        tx.save({**invoice, "attempted": True})
        tx.record_event("invoice.payment_failed", {**invoice, "attempted": True})


def attach(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Attach a succeeded intent to an invoice as its payment."""
    require_supported(params, "payment_record")
    invoice = tx.get("invoice", ids["id"])
    if "payment_intent" not in params:
        raise invalid_request("Missing required param: payment_intent.", "payment_intent", "parameter_missing")
    intent = tx.get("payment_intent", params["payment_intent"], "payment_intent")
    if invoice["status"] != "open":
        raise invalid_request("Payments can be attached to open invoices alone.", code="invoice_not_payable")
    if intent["status"] != "succeeded" or intent["currency"] != invoice["currency"] or intent.get("_invoice"):
        raise invalid_request("The payment intent cannot pay this invoice.", "payment_intent")
    if intent["amount_received"] != invoice["amount_remaining"]:
        raise unsupported("paying a part of an invoice", "payment_intent")
    payments.cancel_intent(tx, tx.get("payment_intent", invoice["_intent"]), "automatic")
    tx.save({**intent, "_invoice": invoice["id"]})
    payment = tx.get("invoice_payment", invoice["_payment"])
    tx.save({**payment, "is_default": False, "payment": {"type": "payment_intent", "payment_intent": intent["id"]}})
    invoice["_intent"] = intent["id"]
    return mark_paid(tx, invoice, intent)


# ---- what else becomes of it


def send(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Send an invoice to the customer; a draft is finalized first."""
    invoice = tx.get("invoice", ids["id"])
    if invoice["status"] == "draft":
        invoice = finalize_draft(tx, invoice)
    if invoice["status"] in ("paid", "void"):
        if invoice["status"] == "paid" and not invoice["amount_due"]:
            return invoice
        raise invalid_request(f"You can't send an invoice that is {invoice['status']}.", code="invoice_not_sendable")
    return mark_sent(tx, invoice)


def mark_sent(tx: Transaction, invoice: Body) -> Body:
    """Mark an invoice as sent."""
    tx.record_event("invoice.sent", invoice)
    return invoice


def void(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Void an invoice."""
    invoice = tx.get("invoice", ids["id"])
    if invoice["status"] not in ("open", "uncollectible"):
        raise invalid_request(
            f"You can only void invoices that are open or uncollectible; this one is {invoice['status']}.",
            code="invoice_not_voidable",
        )
    return void_invoice(tx, invoice)


def void_invoice(tx: Transaction, invoice: Body) -> Body:
    """Void an invoice, and return the part of the customer's balance that it used."""
    transitions = {**invoice["status_transitions"], "voided_at": tx.get_time(invoice["test_clock"])}
    invoice.update(status="void", auto_advance=False, next_payment_attempt=None, status_transitions=transitions)
    tx.save(invoice)
    tx.cancel_timer("collect", invoice["id"])
    _drop_payment(tx, invoice)
    credit_grants.restore_credits(tx, invoice)
    used = invoice["ending_balance"] - invoice["starting_balance"]
    if used:
        customer = tx.get("customer", invoice["customer"])
        customers.add_to_balance(
            tx, customer, -used, invoice["currency"], "unapplied_from_invoice", invoice=invoice["id"]
        )
    tx.record_event("invoice.voided", invoice)
    return invoice


def _drop_payment(tx: Transaction, invoice: Fields) -> None:
    if not invoice.get("_intent"):
        return
    intent = tx.get("payment_intent", invoice["_intent"])
    if intent["status"] == "processing":  # A bank debit cannot be stopped: the money may still arrive.
        return
    if intent["status"] in payments.UNFINISHED:
        payments.cancel_intent(tx, intent, "void_invoice")
    payment = tx.get("invoice_payment", invoice["_payment"])
    now = tx.get_time(invoice["test_clock"])
    tx.save({**payment, "status": "canceled", "status_transitions": {"canceled_at": now}})


def mark_uncollectible(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Mark an invoice as uncollectible."""
    invoice = tx.get("invoice", ids["id"])
    if invoice["status"] != "open":
        raise invalid_request("You can only mark open invoices as uncollectible.", code="invoice_not_editable")
    return mark_invoice_uncollectible(tx, invoice)


def mark_invoice_uncollectible(tx: Transaction, invoice: Body) -> Body:
    """Mark an open invoice as uncollectible."""
    transitions = {**invoice["status_transitions"], "marked_uncollectible_at": tx.get_time(invoice["test_clock"])}
    invoice.update(
        status="uncollectible", auto_advance=False, next_payment_attempt=None, status_transitions=transitions
    )
    tx.save(invoice)
    tx.cancel_timer("collect", invoice["id"])
    tx.record_event("invoice.marked_uncollectible", invoice)
    return invoice


# ---- due timers


def due_to_finalize(tx: Transaction, id: str) -> None:
    """Finalize a draft whose hour is over."""
    invoice = tx.find("invoice", id)
    if invoice is None or invoice["status"] != "draft" or not invoice["auto_advance"]:
        return
    try:
        advance_invoice(tx, finalize_draft(tx, invoice))
    except ApiError as error:
        invoice["last_finalization_error"] = error.body["error"]
        invoice["auto_advance"] = False
        tx.save(invoice)
        tx.record_event("invoice.finalization_failed", invoice)


def due_to_collect(tx: Transaction, id: str) -> None:
    """Retry a declined payment."""
    invoice = tx.find("invoice", id)
    if invoice is not None and invoice["status"] == "open":
        advance_invoice(tx, invoice)
