"""Payments: intents, charges and refunds."""

from fractions import Fraction

from edgeproxy.base.json_values import JsonValue
from edgeproxy.stripe_sandbox.amounts import round_to_cents
from edgeproxy.stripe_sandbox.lists import Ids, Parameters, format_list
from edgeproxy.stripe_sandbox.objects import balance, disputes, payment_methods
from edgeproxy.stripe_sandbox.objects.currencies import parse_currency, require_minimum
from edgeproxy.stripe_sandbox.objects.fields import (
    compute_previous_attributes,
    merge_metadata,
    require_supported,
    set_fields,
)
from edgeproxy.stripe_sandbox.refusal import ApiError, invalid_request
from edgeproxy.stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

FEE_SHARE, FEE_CENTS = Fraction(29, 1000), 30
"""Stripe's fee of a charge by card: 2.9 % and 30 cents."""
AMOUNT_MAX = 99_999_999
UNFINISHED = ("requires_payment_method", "requires_confirmation", "requires_action", "requires_capture", "processing")


# ---- payment intents


def create_intent(tx: Transaction, amount: int, currency: str, customer: str | None, **more: JsonValue) -> Body:
    """Create a payment intent, unconfirmed."""
    if not 1 <= amount <= AMOUNT_MAX:
        raise invalid_request("Invalid amount: must be from 1 to 99999999", "amount", "parameter_invalid_integer")
    id = generate_id("pi")
    intent: Body = {
        "id": id,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_received": 0,
        "capture_method": "automatic_async",
        "client_secret": f"{id}_secret_{id[-8:]}",
        "confirmation_method": "automatic",
        "created": tx.now,
        "currency": currency,
        "customer": customer,
        "livemode": tx.live,
        "metadata": {},
        "payment_method_types": ["card"],
        "status": "requires_payment_method",
        **more,
    }
    tx.insert(intent)
    tx.record_event("payment_intent.created", intent)
    return intent


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a payment intent, and confirm it on demand."""
    require_supported(params, "confirmation_token", "customer_account", "application_fee_amount", "mandate")
    if "customer" in params:
        tx.get("customer", params["customer"], "customer")
    currency = parse_currency(params["currency"])
    require_minimum(params["amount"], currency)
    if params.get("confirm"):
        _require_return_url(params, params.get("automatic_payment_methods"))
    intent = create_intent(tx, params["amount"], currency, params.get("customer"))
    for name in ("automatic_payment_methods", "capture_method", "confirmation_method"):
        if name in params:
            intent[name] = params[name]
    _put(tx, intent, params)
    tx.save(intent)
    return confirm_intent(tx, intent) if params.get("confirm") else intent


def _require_return_url(params: Parameters, methods: Fields | None) -> None:
    """Raise the refusal of a confirmation that may send the customer to another page, and does not say where to come
    back to."""
    may_redirect = methods is not None and methods.get("enabled") and methods.get("allow_redirects") != "never"
    if may_redirect and not params.get("return_url"):
        raise invalid_request(
            "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because some of "
            "these payment methods might redirect your customer off of your page, you must provide a `return_url`. If "
            "you don't want to accept redirect-based payment methods, set `automatic_payment_methods[enabled]` to "
            "`true` and `automatic_payment_methods[allow_redirects]` to `never` when creating Setup Intents and "
            "Payment Intents.",
            "return_url",
        )


def _put(tx: Transaction, intent: Body, params: Parameters) -> None:
    set_fields(intent, params, "description", "receipt_email", "setup_future_usage", "shipping", "statement_descriptor")
    set_fields(intent, params, "statement_descriptor_suffix", "transfer_group")
    merge_metadata(intent, params)
    if "payment_method" in params:
        intent["payment_method"] = payment_methods.get_method(tx, params["payment_method"], "payment_method")["id"]
        if intent["status"] == "requires_payment_method":
            intent["status"] = "requires_confirmation"


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update an unpaid intent."""
    intent = tx.get("payment_intent", ids["id"])
    if intent["status"] not in UNFINISHED:
        raise build_state_error(intent, "updated")
    if "customer" in params:
        intent["customer"] = tx.get("customer", params["customer"], "customer")["id"]
    set_fields(intent, params, "amount", "currency")
    _put(tx, intent, params)
    return tx.save(intent)


def confirm(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Confirm an intent."""
    require_supported(params, "confirmation_token", "mandate", "amount_to_confirm")
    intent = tx.get("payment_intent", ids["id"])
    _require_return_url(params, intent.get("automatic_payment_methods"))
    _put(tx, intent, params)
    return confirm_intent(tx, intent)


def confirm_intent(tx: Transaction, intent: Body) -> Body:
    """Pay an intent; raises the refusal of a bank that declines."""
    if intent["status"] not in ("requires_payment_method", "requires_confirmation", "requires_action"):
        raise build_state_error(intent, "confirmed")
    if not intent.get("payment_method"):
        raise invalid_request(
            "You cannot confirm this PaymentIntent because it's missing a payment method.", code="parameter_missing"
        )
    method = tx.get("payment_method", intent["payment_method"], "payment_method")
    card = payment_methods.get_card(method)
    if card.authenticates:
        intent["status"] = "requires_action"
        intent["next_action"] = {"type": "use_stripe_sdk"}
        tx.save(intent)
        tx.record_event("payment_intent.requires_action", intent)
        return intent
    charge = _charge(tx, intent, method, card)
    intent["latest_charge"] = charge["id"]
    if card.declined is not None:
        intent["status"], intent["payment_method"] = "requires_payment_method", None
        refusal = payment_methods.decline_error(card, charge=charge["id"])
        intent["last_payment_error"] = dict(refusal.body["error"])
        tx.save(intent)
        tx.record_event("charge.failed", charge)
        tx.record_event("payment_intent.payment_failed", intent)
        refusal.body["error"]["payment_intent"] = tx.render(intent)
        raise refusal
    if intent["capture_method"] == "manual":
        intent["status"], intent["amount_capturable"] = "requires_capture", intent["amount"]
        tx.save(intent)
        tx.record_event("payment_intent.amount_capturable_updated", intent)
        return intent
    return _capture_charge(tx, intent, charge, intent["amount"])


def _charge(tx: Transaction, intent: Body, method: Body, card: payment_methods.Card) -> Body:
    id = generate_id("ch")
    declined = card.declined is not None
    details = {name: method["card"][name] for name in ("brand", "last4", "exp_month", "exp_year", "country")}
    customer = tx.find("customer", intent["customer"]) if intent["customer"] else None
    charge: Body = {
        "id": id,
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": 0,
        "amount_refunded": 0,
        "billing_details": {"email": (customer or {}).get("email"), "name": (customer or {}).get("name")},
        "captured": False,
        "created": tx.now,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent.get("description"),
        "disputed": False,
        "failure_code": "card_declined" if declined else None,
        "failure_message": "Your card was declined." if declined else None,
        "livemode": tx.live,
        "metadata": intent["metadata"],
        "outcome": {"type": "issuer_declined" if declined else "authorized", "network_status": "approved_by_network"},
        "paid": not declined,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {"type": "card", "card": details},
        "receipt_url": None if declined else f"{tx.account.base}/_sandbox/receipts/{id}",
        "refunded": False,
        "status": "failed" if declined else "succeeded",
    }
    return tx.insert(charge)


def _capture_charge(tx: Transaction, intent: Body, charge: Body, amount: int) -> Body:
    charge["captured"], charge["amount_captured"] = True, amount
    fee = round_to_cents(amount * FEE_SHARE) + FEE_CENTS
    charge["balance_transaction"] = balance.record_transaction(tx, charge, "charge", amount, fee)["id"]
    tx.save(charge)
    intent["status"], intent["amount_received"], intent["amount_capturable"] = "succeeded", amount, 0
    intent["next_action"] = intent["last_payment_error"] = None
    tx.save(intent)
    tx.record_event("charge.succeeded", charge)
    tx.record_event("payment_intent.succeeded", intent)
    if payment_methods.get_card(tx.get("payment_method", charge["payment_method"])).disputes:
        disputes.open_dispute(tx, charge)
    return intent


def capture(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Capture the amount of an authorized intent."""
    require_supported(params, "application_fee_amount")
    intent = tx.get("payment_intent", ids["id"])
    if intent["status"] != "requires_capture":
        raise build_state_error(intent, "captured")
    amount = params.get("amount_to_capture", intent["amount"])
    if not 0 < amount <= intent["amount"]:
        raise invalid_request(
            "The amount to capture must be above 0 and at most that of the intent.", "amount_to_capture"
        )
    merge_metadata(intent, params)
    return _capture_charge(tx, intent, tx.get("charge", intent["latest_charge"]), amount)


def cancel(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Cancel an intent."""
    intent = tx.get("payment_intent", ids["id"])
    if intent["status"] not in UNFINISHED:
        raise build_state_error(intent, "canceled")
    return cancel_intent(tx, intent, params.get("cancellation_reason"))


def cancel_intent(tx: Transaction, intent: Body, reason: str | None) -> Body:
    """Cancel an intent for this reason."""
    intent.update(status="canceled", canceled_at=tx.now, cancellation_reason=reason, amount_capturable=0)
    tx.save(intent)
    tx.record_event("payment_intent.canceled", intent)
    return intent


def build_state_error(intent: Fields, what: str) -> ApiError:
    """Build the refusal of an action that the intent's state does not allow."""
    return invalid_request(
        f"This PaymentIntent could not be {what} because it has a status of {intent['status']}.",
        code="payment_intent_unexpected_state",
    )


# ---- refunds


def create_refund(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a refund of a charge."""
    require_supported(params, "customer", "origin", "instructions_email", "refund_application_fee", "reverse_transfer")
    if "payment_intent" in params:
        intent = tx.get("payment_intent", params["payment_intent"], "payment_intent")
        if intent["status"] != "succeeded":
            raise invalid_request(
                f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.", "payment_intent"
            )
        charge = tx.get("charge", intent["latest_charge"])
    elif "charge" in params:
        charge = tx.get("charge", params["charge"], "charge")
    else:
        raise invalid_request("One of the following params should be provided: payment_intent or charge.", "charge")
    return refund_charge(tx, charge, params.get("amount"), params)


def refund_charge(tx: Transaction, charge: Body, amount: int | None, params: Fields) -> Body:
    """Refund an amount of a charge, or its remainder."""
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
    refund: Body = {
        "id": generate_id("re"),
        "object": "refund",
        "amount": amount,
        "charge": charge["id"],
        "created": tx.now,
        "currency": charge["currency"],
        "customer": charge["customer"],
        "payment_intent": charge["payment_intent"],
        "payment_method": charge["payment_method"],
        "reason": params.get("reason"),
        "status": "succeeded",
    }
    merge_metadata(refund, params)
    refund["balance_transaction"] = balance.record_transaction(tx, refund, "refund", -amount, 0)["id"]
    tx.insert(refund)
    before = dict(charge)
    charge["amount_refunded"] += amount
    charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
    tx.save(charge)
    tx.record_event("refund.created", refund)
    tx.record_event("charge.refunded", charge, compute_previous_attributes(before, charge))
    return refund


def update_refund(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update a refund's metadata."""
    refund = tx.get("refund", ids["id"])
    before = dict(refund)
    merge_metadata(refund, params)
    tx.save(refund)
    tx.record_event("refund.updated", refund, compute_previous_attributes(before, refund))
    return refund


def cancel_refund(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Refuse to cancel a refund: those of cards cannot be canceled."""
    refund = tx.get("refund", ids["id"])
    raise invalid_request(f"Refund {refund['id']} cannot be canceled: it has a status of {refund['status']}.")


def expand_refunds(tx: Transaction, charge: Body) -> Body:
    """Return the refunds of a charge, newest first, expanded."""
    bodies = [tx.render(refund) for refund in reversed(tx.all("refund", charge=charge["id"]))]
    return format_list(tx, bodies, False, f"/v1/charges/{charge['id']}/refunds")
