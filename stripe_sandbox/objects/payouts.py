"""Payouts of the account's balance to the bank, which are made by hand."""

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.objects import balance
from stripe_sandbox.objects.currencies import parse_currency
from stripe_sandbox.objects.fields import merge_metadata, require_supported, set_fields
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Transaction, generate_id

ARRIVAL_SECONDS = 2 * 86400


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Pay an available amount out to the bank."""
    require_supported(params, "destination")
    currency, amount = parse_currency(params["currency"]), params["amount"]
    if amount < 1:
        raise invalid_request("Invalid positive integer", "amount", "parameter_invalid_integer")
    funds = [part["amount"] for part in balance.retrieve(tx, ids, {})["available"] if part["currency"] == currency]
    if amount > sum(funds):
        raise invalid_request(
            "You have insufficient funds in your Stripe account for this transfer.", code="balance_insufficient"
        )
    instant = params.get("method") == "instant"
    payout: Body = {
        "id": generate_id("po"),
        "object": "payout",
        "amount": amount,
        "arrival_date": tx.now + (0 if instant else ARRIVAL_SECONDS),
        "automatic": False,
        "created": tx.now,
        "currency": currency,
        "destination": f"ba_{tx.account.description.version.partition('.')[2]}",
        "livemode": tx.live,
        "metadata": {},
        "method": params.get("method", "standard"),
        "reconciliation_status": "not_applicable",
        "source_type": params.get("source_type", "card"),
        "status": "pending",
        "type": "bank_account",
    }
    set_fields(payout, params, "description", "statement_descriptor")
    merge_metadata(payout, params)
    payout["balance_transaction"] = _move(tx, payout, "payout", -amount)
    tx.insert(payout)
    tx.record_event("payout.created", payout)
    tx.set_timer(payout["arrival_date"], "pay_out", payout["id"])
    return payout


def cancel(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Cancel a payout that has not arrived; its money is available again."""
    payout = tx.get("payout", ids["id"])
    if payout["status"] != "pending":
        raise invalid_request(f"Payouts can be canceled while they are pending; this one is {payout['status']}.")
    payout["status"] = "canceled"
    payout["failure_balance_transaction"] = _move(tx, payout, "payout_cancel", payout["amount"])
    tx.cancel_timer("pay_out", payout["id"])
    tx.save(payout)
    tx.record_event("payout.canceled", payout)
    return payout


def due_to_arrive(tx: Transaction, id: str) -> None:
    """Let a payout arrive at the bank."""
    payout = tx.get("payout", id)
    payout["status"] = "paid"
    tx.save(payout)
    tx.record_event("payout.paid", payout)


def _move(tx: Transaction, payout: Body, kind: str, amount: int) -> str:
    """Record a movement between the balance and the bank, which is available at once, and return its id."""
    moved = balance.record_transaction(tx, payout, kind, amount, 0, "payout_reversal" if amount > 0 else "payout")
    tx.save({**moved, "available_on": tx.now})
    return str(moved["id"])
