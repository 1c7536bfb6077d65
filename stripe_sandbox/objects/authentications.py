"""Authentications (3D Secure): the owner of a card confirms on a page that a payment or a card is theirs."""

import hmac
from urllib.parse import urlencode, urlsplit, urlunsplit

from stripe_sandbox.objects import checkout_payments, collection, payments, setup_intents
from stripe_sandbox.refusal import ApiError, no_such_object
from stripe_sandbox.transaction import Body, Fields, Transaction

OUTCOMES = {"requires_payment_method": "failed", "succeeded": "succeeded", "requires_capture": "succeeded"}
"""`redirect_status` of an intent that was authenticated, or not, by its status."""


def get_intent(tx: Transaction, id: str, client_secret: str) -> Body:
    """Return an intent by its id and its client secret; raises ApiError for a wrong one."""
    intent = tx.find("setup_intent" if id.startswith("seti_") else "payment_intent", id)
    if intent is None or not hmac.compare_digest(intent["client_secret"].encode(), client_secret.encode()):
        raise no_such_object("intent", id)
    return intent


def authenticate(tx: Transaction, intent: Body, *, succeeded: bool) -> Body:
    """Finish an intent that awaits the owner of its card; raises ApiError, once a failure is recorded."""
    payments.require_status(tx, intent, ("requires_action",), "authenticated")
    method = intent["payment_method"]
    is_setup = intent["object"] == "setup_intent"
    finish = setup_intents.finish_authentication if is_setup else payments.finish_authentication
    try:
        finished = finish(tx, intent, succeeded=succeeded)
    except ApiError:
        collection.record_declined_intent(tx, intent)
        raise
    if intent.get("_session"):
        checkout_payments.complete(tx, tx.get("checkout.session", intent["_session"]), finished, method)
    else:
        collection.record_paid_intent(tx, finished)
    return finished


def build_return_url(tx: Transaction, intent: Fields) -> str | None:
    """Build the address to which the customer is sent back, with the outcome; None where there is no address or no
    outcome yet."""
    outcome = OUTCOMES.get(intent["status"])
    invoice = tx.find("invoice", intent.get("_invoice") or "") or {}
    back = intent.get("_return_url") or invoice.get("hosted_invoice_url")
    if back is None or outcome is None:
        return None
    parts = urlsplit(back)
    added = urlencode(
        {
            intent["object"]: intent["id"],
            f"{intent['object']}_client_secret": intent["client_secret"],
            "redirect_status": outcome,
        }
    )
    return urlunsplit(parts._replace(query=f"{parts.query}&{added}" if parts.query else added))
