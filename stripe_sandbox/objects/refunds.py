"""Refunds of charges. Refunds of some test cards are pending first, or fail later."""

from stripe_sandbox.lists import Ids, Parameters, format_list
from stripe_sandbox.objects import balance, payment_methods
from stripe_sandbox.objects.fields import compute_previous_attributes, merge_metadata, require_supported
from stripe_sandbox.refusal import invalid_request, unsupported
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

OUTCOME_SECONDS = 60
"""Seconds until a bank reports the outcome of a pending or failing refund."""


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a refund of a charge."""
    require_supported(params, "customer", "origin", "instructions_email", "refund_application_fee", "reverse_transfer")
    if "payment_intent" in params and "charge" in params:
        raise invalid_request("You may only specify one of these parameters: charge, payment_intent.", "charge")
    if "payment_intent" in params:
        intent = tx.get("payment_intent", params["payment_intent"], "payment_intent")
        if intent["status"] != "succeeded":
            raise invalid_request(
                f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.", "payment_intent"
            )
        charge = tx.get("charge", intent["latest_charge"])
    elif "charge" in params:
        charge = tx.get("charge", params["charge"], "charge")
        if not charge["captured"]:
            why = "has not been captured" if charge["paid"] else "failed"
            raise invalid_request(f"Charge {charge['id']} {why}, so it cannot be refunded.", "charge")
    else:
        raise invalid_request("One of the following params should be provided: payment_intent or charge.", "charge")
    return refund_charge(tx, charge, params.get("amount"), params)


def refund_charge(tx: Transaction, charge: Body, amount: int | None, params: Fields) -> Body:
    """Refund an amount of a charge, or its remainder; raises ApiError. Credit notes use this too."""
    _require_undisputed(tx, charge)
    left = charge["amount_captured"] - charge["amount_refunded"]
    if left <= 0:
        raise invalid_request(f"Charge {charge['id']} has already been refunded.", code="charge_already_refunded")
    amount = left if amount is None else amount
    if amount < 1:
        raise invalid_request("Invalid positive integer", "amount", "parameter_invalid_integer")
    if amount > left:
        raise invalid_request(
            f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})", "amount"
        )
    outcome = _get_outcome(tx, charge)
    refund: Body = {
        "id": generate_id("re"),
        "object": "refund",
        "amount": amount,
        "charge": charge["id"],
        "created": tx.now,
        "currency": charge["currency"],
        "customer": charge["customer"],
        "destination_details": _build_destination(tx, charge),
        "payment_intent": charge["payment_intent"],
        "payment_method": charge["payment_method"],
        "reason": params.get("reason"),
        "status": "pending" if outcome == "pending" else "succeeded",
    }
    merge_metadata(refund, params)
    refund["balance_transaction"] = balance.record_transaction(tx, refund, "refund", -amount, 0)["id"]
    tx.insert(refund)
    if outcome != "succeeded":
        tx.set_timer(tx.now + OUTCOME_SECONDS, "settle_refund", refund["id"])
    before = dict(charge)
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
    tx.save(charge)
    tx.record_event("refund.created", refund)
    tx.record_event("charge.refunded", charge, compute_previous_attributes(before, charge))
    return refund


def _require_undisputed(tx: Transaction, charge: Fields) -> None:
    """Raise the refusal to refund a charge whose dispute is open or lost."""
    if charge["disputed"] and tx.all("dispute", charge=charge["id"])[-1]["status"] != "won":
        raise invalid_request(
            f"Charge {charge['id']} has been charged back; cannot issue a refund.", code="charge_disputed"
        )


def _build_destination(tx: Transaction, charge: Fields) -> Body:
    """Return the destination of a refund's money."""
    if tx.get("payment_method", charge["payment_method"])["type"] == "us_bank_account":
        return {"type": "us_bank_transfer", "us_bank_transfer": {"reference": None, "reference_status": "pending"}}
    return {"type": "card", "card": {"type": "refund", "reference_status": "pending"}}


def _get_outcome(tx: Transaction, charge: Fields) -> str:
    """Return the outcome of a charge's refunds, from its test card. Refunds of debits are pending first."""
    method = tx.get("payment_method", charge["payment_method"])
    if method["type"] == "us_bank_account":
        return "pending"
    if method["type"] != "card":
        raise unsupported(f"refunds of the type {method['type']}", "charge")
    return payment_methods.get_card(method).refund


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update a refund's metadata."""
    refund = tx.get("refund", ids["id"])
    before = dict(refund)
    merge_metadata(refund, params)
    return _save_changed(tx, refund, before, "refund.updated")


def cancel(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Refuse to cancel a refund: the API cancels only refunds that await an action of the customer."""
    refund = tx.get("refund", ids["id"])
    raise invalid_request(
        f"Refund {refund['id']} cannot be canceled: it has a status of {refund['status']}. Only refunds that require "
        "an action of the customer can be."
    )


def cancel_pending(tx: Transaction, id: str) -> Body:
    """Cancel a refund that is pending, as Stripe's Dashboard does."""
    refund = tx.get("refund", id)
    if refund["status"] != "pending":
        raise invalid_request(f"Refund {id} cannot be canceled: it has a status of {refund['status']}.")
    tx.cancel_timer("settle_refund", id)
    return _take_back(tx, refund, "canceled", "merchant_request")


def due_to_settle(tx: Transaction, id: str) -> None:
    """Settle a refund: a pending one succeeds, a succeeded one fails."""
    refund = tx.get("refund", id)
    if refund["status"] == "pending":
        _save_changed(tx, {**refund, "status": "succeeded"}, refund, "refund.updated")
    else:
        _take_back(tx, refund, "failed", "expired_or_canceled_card")


def _take_back(tx: Transaction, refund: Body, status: str, reason: str) -> Body:
    """End a refund whose money returns to the account, so that its charge can be refunded again."""
    before = dict(refund)
    booked = balance.record_transaction(tx, refund, "refund_failure", refund["amount"], 0)
    refund.update(status=status, failure_reason=reason, failure_balance_transaction=booked["id"])
    charge = tx.get("charge", refund["charge"])
    charge["amount_refunded"] -= refund["amount"]
    charge["refunded"] = False
    tx.save(charge)
    return _save_changed(tx, refund, before, "refund.failed" if status == "failed" else "refund.updated")


def _save_changed(tx: Transaction, refund: Body, before: Fields, event: str) -> Body:
    changed = compute_previous_attributes(before, refund)
    tx.save(refund)
    tx.record_event(event, refund, changed)
    tx.record_event("charge.refund.updated", refund, changed, on_record=False)
    return refund


def expand_refunds(tx: Transaction, charge: Body) -> Body:
    """Return the refunds of a charge, newest first, expanded."""
    bodies = [tx.render(refund) for refund in reversed(tx.all("refund", charge=charge["id"]))]
    return format_list(tx, bodies, False, f"/v1/charges/{charge['id']}/refunds")
