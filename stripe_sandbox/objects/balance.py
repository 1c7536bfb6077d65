"""The account's balance, and the transactions that move it."""

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.refusal import no_such_object
from stripe_sandbox.transaction import Body, Transaction, generate_id

AVAILABLE_SECONDS = 2 * 86400
"""Seconds after which the money of a movement can be paid out."""


def retrieve(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Return the balance by currency: what can be paid out, and what is pending."""
    sums: dict[str, dict[bool, int]] = {}
    for moved in tx.all("balance_transaction"):
        by_availability = sums.setdefault(moved["currency"], {True: 0, False: 0})
        by_availability[moved["available_on"] <= tx.now] += moved["net"]
    if not sums:
        sums = {"usd": {True: 0, False: 0}}
    amounts = {
        available: [
            {"amount": amount[available], "currency": currency, "source_types": {"card": amount[available]}}
            for currency, amount in sorted(sums.items())
        ]
        for available in (True, False)
    }
    return {"object": "balance", "available": amounts[True], "pending": amounts[False], "livemode": tx.live}


def record_transaction(
    tx: Transaction, source: Body, kind: str, amount: int, fee: int, category: str | None = None
) -> Body:
    """Record a movement of the account's balance, with the reporting category unless it is the type `kind`."""
    details = [
        {"amount": fee, "currency": source["currency"], "description": "Stripe processing fees", "type": "stripe_fee"}
    ]
    transaction: Body = {
        "id": generate_id("txn"),
        "object": "balance_transaction",
        "amount": amount,
        "available_on": tx.now + AVAILABLE_SECONDS,
        "balance_type": "payments",
        "created": tx.now,
        "currency": source["currency"],
        "description": source.get("description"),
        "fee": fee,
        "fee_details": details if fee else [],
        "net": amount - fee,
        "reporting_category": category or kind,
        "source": source["id"],
        "status": "pending",
        "type": kind,
    }
    tx.insert(transaction)
    tx.record_effect(
        "balance_transaction.created",
        transaction["id"],
        amount=amount,
        fee=fee,
        net=transaction["net"],
        source=source["id"],
    )
    return transaction


def retrieve_transaction(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Return a balance transaction; its amount is available after two days."""
    body = tx.find("balance_transaction", ids["id"])
    if body is None:
        raise no_such_object("balance transaction", ids["id"])
    return body


def view_transaction(tx: Transaction, body: Body) -> Body:
    """Return a balance transaction with its availability."""
    return {**body, "status": "available" if tx.now >= body["available_on"] else "pending"}
