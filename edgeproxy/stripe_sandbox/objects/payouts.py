"""Payouts of the account's balance to the bank, which are made by hand."""

from edgeproxy.stripe_sandbox.lists import Ids, Parameters
from edgeproxy.stripe_sandbox.objects import balance
from edgeproxy.stripe_sandbox.objects.fields import merge_metadata, parse_currency, require_supported, set_fields
from edgeproxy.stripe_sandbox.refusal import invalid_request
from edgeproxy.stripe_sandbox.transaction import Body, Transaction, generate_id

ARRIVAL_SECONDS = 2 * 86400


def create(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Pay an available amount out to the bank."""
    require_supported(p, "destination")
    currency, amount = parse_currency(p["currency"]), p["amount"]
    if amount < 1:
        raise invalid_request("Invalid positive integer", "amount", "parameter_invalid_integer")
    funds = [part["amount"] for part in balance.retrieve(tx, ids, {})["available"] if part["currency"] == currency]
    if amount > sum(funds):
        raise invalid_request(
            "You have insufficient funds in your Stripe account for this transfer.", code="balance_insufficient"
        )
    instant = p.get("method") == "instant"
    made: Body = {
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
        "method": p.get("method", "standard"),
        "reconciliation_status": "not_applicable",
        "source_type": p.get("source_type", "card"),
        "status": "pending",
        "type": "bank_account",
    }
    set_fields(made, p, "description", "statement_descriptor")
    merge_metadata(made, p)
    made["balance_transaction"] = _move(tx, made, "payout", -amount)
    tx.insert(made)
    tx.record_event("payout.created", made)
    tx.set_timer(made["arrival_date"], "pay_out", made["id"])
    return made


def cancel(tx: Transaction, ids: Ids, p: Parameters) -> Body:
    """Cancel a payout that has not arrived; its money is available again."""
    made = tx.get("payout", ids["id"])
    if made["status"] != "pending":
        raise invalid_request(f"Payouts can be canceled while they are pending; this one is {made['status']}.")
    made["status"] = "canceled"
    made["failure_balance_transaction"] = _move(tx, made, "payout_cancel", made["amount"])
    tx.cancel_timer("pay_out", made["id"])
    tx.save(made)
    tx.record_event("payout.canceled", made)
    return made


def due_to_arrive(tx: Transaction, id: str) -> None:
    """Let a payout arrive at the bank."""
    made = tx.get("payout", id)
    made["status"] = "paid"
    tx.save(made)
    tx.record_event("payout.paid", made)


def _move(tx: Transaction, made: Body, kind: str, amount: int) -> str:
    """Record a movement between the balance and the bank, which is available at once, and return its id."""
    moved = balance.record_transaction(tx, made, kind, amount, 0, "payout_reversal" if amount > 0 else "payout")
    tx.save({**moved, "available_on": tx.now})
    return str(moved["id"])
