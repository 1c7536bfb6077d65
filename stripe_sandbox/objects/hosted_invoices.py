"""Invoices that customers pay on their page, at `/_sandbox/invoices/ID`."""

from stripe_sandbox.objects import checkout_payments, collection, payment_methods
from stripe_sandbox.refusal import invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction

PAYABLE = ("open", "uncollectible")


def pay(tx: Transaction, id: str, method_data: Fields) -> Body:
    """Pay what remains of an invoice by the data of a payment method, which is used once; returns the intent, that may
    await the owner of the card. Raises ApiError, once a decline is recorded."""
    invoice = tx.get("invoice", id)
    if invoice["status"] not in PAYABLE:
        raise invalid_request(f"The invoice is {invoice['status']}.")
    method = payment_methods.create_from_data(tx, method_data, "")
    intent = tx.get("payment_intent", invoice["_intent"])
    intent.update(payment_method=method["id"], _return_url=invoice["hosted_invoice_url"])
    intent = checkout_payments.confirm_intent(tx, intent)
    collection.record_paid_intent(tx, intent)
    return intent
