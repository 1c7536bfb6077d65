"""The creation of charges, with descriptions of the charged method and the bank's outcome."""

from collections.abc import Mapping

from stripe_sandbox.json_values import JsonValue
from stripe_sandbox.transaction import Body, Transaction, generate_id

AUTHORIZATION_CODE = "000000"
AUTHORIZATION_SECONDS = 7 * 86400
"""Seconds within which an authorized amount can be captured."""


def create_charge(tx: Transaction, intent: Body, method: Body, error: Mapping[str, JsonValue] | None) -> Body:
    """Create the charge of an intent; with an `error` it has failed."""
    id = generate_id("ch")
    customer = (tx.find("customer", intent["customer"]) if intent["customer"] else None) or {}
    billing = method["billing_details"]
    billing = {**billing, **{name: billing.get(name) or customer.get(name) for name in ("email", "name")}}
    charge: Body = {
        "id": id,
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": 0,
        "amount_refunded": 0,
        "billing_details": billing,
        "calculated_statement_descriptor": "SANDBOX",
        "captured": False,
        "created": tx.now,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent.get("description"),
        "disputed": False,
        "failure_code": None if error is None else error["code"],
        "failure_message": None if error is None else error["message"],
        "fraud_details": {},
        "livemode": tx.live,
        "metadata": intent["metadata"],
        "outcome": describe_outcome(error),
        "paid": error is None,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": _describe_method(tx, intent, method, is_paid=error is None),
        "receipt_email": intent.get("receipt_email"),
        "receipt_url": None if error else f"{tx.account.base}/_sandbox/receipts/{id}",
        "refunded": False,
        "shipping": intent.get("shipping"),
        "statement_descriptor": intent.get("statement_descriptor"),
        "statement_descriptor_suffix": intent.get("statement_descriptor_suffix"),
        "status": "failed" if error else "succeeded",
        "transfer_group": intent.get("transfer_group"),
    }
    return tx.insert(charge)


def _describe_method(tx: Transaction, intent: Body, method: Body, *, is_paid: bool) -> Body:
    """Describe the card or bank account of a charge (`payment_method_details`)."""
    if method["type"] != "card":
        return {"type": method["type"], method["type"]: {}}
    card = method["card"]
    shown = (
        "brand",
        "last4",
        "exp_month",
        "exp_year",
        "country",
        "checks",
        "fingerprint",
        "funding",
        "regulated_status",
    )
    holds = is_paid and intent["capture_method"] == "manual"
    return {
        "type": "card",
        "card": {
            "amount_authorized": intent["amount"] if is_paid else None,
            "authorization_code": AUTHORIZATION_CODE if is_paid else None,
            **({"capture_before": tx.now + AUTHORIZATION_SECONDS} if holds else {}),
            **{name: card[name] for name in shown},
            "extended_authorization": {"status": "disabled"},
            "incremental_authorization": {"status": "unavailable"},
            "installments": None,
            "mandate": None,
            "multicapture": {"status": "unavailable"},
            "network": card["brand"],
            "network_token": {"used": False},
            "network_transaction_id": f"{tx.now:015}" if is_paid else None,
            "overcapture": {"maximum_amount_capturable": intent["amount"], "status": "unavailable"},
            "three_d_secure": None,
            "wallet": None,
        },
    }


def describe_outcome(error: Mapping[str, JsonValue] | None) -> Body:
    """Return the outcome of a charge."""
    outcome: Body = {"advice_code": None, "network_advice_code": None, "network_decline_code": None}
    outcome |= {"risk_level": "normal", "risk_score": 20}
    if error is None:
        accepted = {"network_status": "approved_by_network", "reason": None, "type": "authorized"}
        return {**outcome, **accepted, "seller_message": "Payment complete."}
    return {
        **outcome,
        "network_status": "declined_by_network",
        "reason": error["decline_code"],
        "seller_message": "The bank did not return any further details with this decline.",
        "type": "issuer_declined",
    }
