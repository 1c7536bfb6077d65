"""Debits of bank accounts: under way for days, until the bank has paid or sent them back."""

from stripe_sandbox.objects import collection, payments
from stripe_sandbox.transaction import Transaction


def due_to_settle(tx: Transaction, id: str) -> None:
    """Settle the debit of an intent, and its invoice, where it has one."""
    intent = tx.find("payment_intent", id)
    if intent is None or intent["status"] != "processing":  # It was canceled meanwhile.
        return
    refusal = payments.settle_debit(tx, intent)
    invoice = tx.find("invoice", intent.get("_invoice", ""))
    if refusal is None:
        collection.record_paid_intent(tx, intent)
    elif invoice is not None and invoice["status"] == "open":
        collection.record_failure(tx, invoice, refusal)
