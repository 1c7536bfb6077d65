"""Payments: the processing of payment intents by card charges, owners' authentication, and debits of bank accounts."""

import os
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from stripe_sandbox.amounts import round_to_cents
from stripe_sandbox.json_values import JsonValue
from stripe_sandbox.objects import balance, bank_accounts, cards, charges, disputes, payment_methods
from stripe_sandbox.refusal import ApiError, invalid_request, unsupported
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

FEE_SHARE, FEE_CENTS = Fraction(29, 1000), 30
"""Stripe's fee of a charge by card: 2.9 % and 30 cents."""
AMOUNT_MAX = 99_999_999
UNFINISHED = ("requires_payment_method", "requires_capture", "requires_confirmation", "requires_action", "processing")
CHANGEABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
"""Statuses that allow an intent's confirmation and a change of its amount."""
KINDS = {"payment_intent": "PaymentIntent", "setup_intent": "SetupIntent"}
"""The names of intents in messages."""


class Session(NamedTuple):
    """The presence of the customer: `off` in a payment without them, and whether a payment that needs them fails."""

    off: bool = False
    fails: bool = False


ON_SESSION = Session()


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
        "client_secret": generate_client_secret(id),
        "confirmation_method": "automatic",
        "created": tx.now,
        "currency": currency,
        "customer": customer,
        "livemode": tx.live,
        "metadata": {},
        "payment_method_options": {
            "card": {
                "installments": None,
                "mandate_options": None,
                "network": None,
                "request_three_d_secure": "automatic",
            }
        },
        "payment_method_types": ["card"],
        "status": "requires_payment_method",
        **more,
    }
    tx.insert(intent)
    tx.record_event("payment_intent.created", intent)
    return intent


def generate_client_secret(id: str) -> str:
    """Generate the secret that lets a customer's browser confirm an intent."""
    return f"{id}_secret_{os.urandom(16).hex()}"


# ---- confirmation


def confirm_intent(tx: Transaction, intent: Body, session: Session = ON_SESSION) -> Body:
    """Pay an intent, or ask the owner of the card to authenticate. Raises the refusal of a declining bank."""
    require_confirmable(tx, intent)
    if not intent.get("payment_method"):
        raise invalid_request(
            "You cannot confirm this PaymentIntent because it's missing a payment method. You can either update the "
            "PaymentIntent with a payment method and then confirm it again, or confirm it again directly with a "
            "payment method or ConfirmationToken.",
            code="payment_intent_unexpected_state",
        )
    method = tx.get("payment_method", intent["payment_method"], "payment_method")
    payment_methods.require_customer(method, intent["customer"], "PaymentIntent")
    if must_authenticate(method, off_session=session.off):
        if session.fails:
            raise _record_decline(tx, intent, method, "authentication_required")
        return request_authentication(tx, intent)
    return _charge_intent(tx, intent, method)


def must_authenticate(method: Fields, *, off_session: bool) -> bool:
    """Return whether the owner of a card must authenticate a payment."""
    if payment_methods.find_bank_account(method) is not None:
        return False
    when = payment_methods.get_card(method).authentication
    if when == "on_session" or (when == "until_set_up" and method.get("_set_up")):
        return not off_session
    return when != "never"


def request_authentication(tx: Transaction, intent: Body) -> Body:
    """Ask the owner of a card to authenticate on a page. The page of `redirect_to_url` redirects to the
    `return_url`.
    """
    url = f"{tx.account.base}/_sandbox/authenticate/{intent['id']}?client_secret={intent['client_secret']}"
    back = intent.get("_return_url")
    intent["status"] = "requires_action"
    if back is None:
        intent["next_action"] = {
            "type": "use_stripe_sdk",
            "use_stripe_sdk": {"type": "three_d_secure_redirect", "stripe_js": url},
        }
    else:
        intent["next_action"] = {"type": "redirect_to_url", "redirect_to_url": {"return_url": back, "url": url}}
    tx.save(intent)
    tx.record_event(f"{intent['object']}.requires_action", intent)
    return intent


def finish_authentication(tx: Transaction, intent: Body, *, succeeded: bool) -> Body:
    """Pay an intent after its owner's authentication, or refuse it. Raises the refusal after recording it."""
    method = tx.get("payment_method", intent["payment_method"])
    intent["next_action"] = None
    if succeeded:
        return _charge_intent(tx, intent, method)
    intent["status"], intent["payment_method"] = "requires_payment_method", None
    refusal = build_authentication_error(intent)
    intent["last_payment_error"] = {**refusal.body["error"], "payment_method": tx.render(method)}
    tx.save(intent)
    tx.record_event("payment_intent.payment_failed", intent)
    raise refusal


def build_authentication_error(intent: Fields) -> ApiError:
    """Build the refusal of a card whose owner has not authenticated."""
    return ApiError(
        402,
        "We are unable to authenticate your payment method. Please choose a different payment method and try again.",
        kind="invalid_request_error",
        code=f"{intent['object']}_authentication_failure",
        commits=True,
    )


def _charge_intent(tx: Transaction, intent: Body, method: Body) -> Body:
    """Charge the card of an intent, or begin to debit its bank account; raises the refusal of its bank."""
    account = payment_methods.find_bank_account(method)
    if account is not None:
        _require_debit(intent)
    elif (declined := payment_methods.get_card(method).declined) is not None:
        raise _record_decline(tx, intent, method, declined)
    payment_methods.pass_checks(method)
    charge = charges.create_charge(tx, intent, method, None)
    if intent.get("setup_future_usage"):
        method["_set_up"] = True
        if intent["customer"] is not None:
            payment_methods.save_to_customer(tx, method, intent["customer"], checked=True)
    if method["customer"] is None:
        method["_consumed"] = True
    tx.save(method)
    intent["latest_charge"] = charge["id"]
    intent["next_action"] = intent["last_payment_error"] = None
    if account is not None:
        return _begin_debit(tx, intent, charge, account)
    if intent["capture_method"] == "manual":
        intent["status"], intent["amount_capturable"] = "requires_capture", intent["amount"]
        tx.save(intent)
        tx.set_timer(tx.now + charges.AUTHORIZATION_SECONDS, "expire_authorization", intent["id"])
        tx.record_event("charge.succeeded", charge)
        tx.record_event("payment_intent.amount_capturable_updated", intent)
        return intent
    return capture_charge(tx, intent, charge, intent["amount"], "charge.succeeded")


def _require_debit(intent: Fields) -> None:
    """Raise the refusal of a payment that no bank account can make."""
    if intent["currency"] != bank_accounts.CURRENCY:
        raise invalid_request(
            f"The currency provided ({intent['currency']}) is invalid. Payments with {bank_accounts.TYPE} support the "
            f"following currencies: {bank_accounts.CURRENCY}.",
            "currency",
        )
    if intent["capture_method"] == "manual":
        raise unsupported(f"capture_method=manual for {bank_accounts.TYPE}", "capture_method")


def _begin_debit(tx: Transaction, intent: Body, charge: Body, account: bank_accounts.BankAccount) -> Body:
    """Begin to debit a bank account: the intent is processing until its bank has answered."""
    charge.update(paid=False, status="pending", receipt_url=None)
    tx.save(charge)
    intent["status"] = "processing"
    tx.save(intent)
    if account.settles:
        tx.set_timer(tx.now + bank_accounts.DEBIT_SECONDS, "settle_debit", intent["id"])
    tx.record_event("charge.pending", charge)
    tx.record_event("payment_intent.processing", intent)
    return intent


def settle_debit(tx: Transaction, intent: Body) -> ApiError | None:
    """Settle a debit that is under way: the intent is paid, or the error of its bank is recorded and returned."""
    charge, method = tx.get("charge", intent["latest_charge"]), tx.get("payment_method", intent["payment_method"])
    account = payment_methods.find_bank_account(method)
    if account is None or account.declined is None:
        charge.update(paid=True, status="succeeded", receipt_url=f"{tx.account.base}/_sandbox/receipts/{charge['id']}")
        capture_charge(tx, intent, charge, intent["amount"], "charge.succeeded")
        return None
    refusal = bank_accounts.build_return(account.declined)
    error = refusal.body["error"]
    charge.update(
        status="failed",
        failure_code=error["code"],
        failure_message=error["message"],
        outcome=charges.describe_outcome(error),
    )
    tx.save(charge)
    intent.update(
        status="requires_payment_method",
        payment_method=None,
        last_payment_error={**error, "charge": charge["id"], "payment_method": tx.render(method)},
    )
    tx.save(intent)
    tx.record_event("charge.failed", charge)
    tx.record_event("payment_intent.payment_failed", intent)
    return refusal


def _record_decline(tx: Transaction, intent: Body, method: Body, why: str) -> ApiError:
    """Record the decline of a bank, and return its refusal, which contains the intent."""
    refusal = cards.build_decline(why)
    error = refusal.body["error"]
    charge = charges.create_charge(tx, intent, method, error)
    error["charge"] = charge["id"]
    intent.update(
        status="requires_payment_method",
        payment_method=None,
        latest_charge=charge["id"],
        last_payment_error={**error, "payment_method": tx.render(method)},
    )
    tx.save(intent)
    tx.record_event("charge.failed", charge)
    tx.record_event("payment_intent.payment_failed", intent)
    error["payment_intent"] = tx.render(intent)
    return refusal


# ---- captured, canceled


def capture_charge(tx: Transaction, intent: Body, charge: Body, amount: int, event: str) -> Body:
    """Capture an amount of a charge, which is the event of this name, and pay its intent."""
    method = tx.get("payment_method", charge["payment_method"])
    charge["captured"], charge["amount_captured"] = True, amount
    fee = round_to_cents(amount * FEE_SHARE) + FEE_CENTS
    booked = balance.record_transaction(tx, charge, "charge", amount, fee)
    card = None if payment_methods.find_bank_account(method) else payment_methods.get_card(method)
    if card is not None and card.available:
        tx.save({**booked, "available_on": tx.now})
    charge["balance_transaction"] = booked["id"]
    tx.save(charge)
    intent["status"], intent["amount_received"], intent["amount_capturable"] = "succeeded", amount, 0
    tx.save(intent)
    tx.record_event(event, charge)
    tx.record_event("payment_intent.succeeded", intent)
    if card is not None and card.dispute is not None:
        disputes.open_dispute(tx, charge, card.dispute)
    return intent


def cancel_intent(tx: Transaction, intent: Body, reason: str | None) -> Body:
    """Cancel an intent for this reason, and release an authorized amount."""
    if intent["status"] == "requires_capture":
        charge = tx.get("charge", intent["latest_charge"])
        charge.update(amount_refunded=charge["amount"], refunded=True)
        tx.save(charge)
        tx.cancel_timer("expire_authorization", intent["id"])
        tx.record_event("charge.refunded", charge)
    intent.update(
        status="canceled", canceled_at=tx.now, cancellation_reason=reason, amount_capturable=0, next_action=None
    )
    tx.save(intent)
    tx.record_event("payment_intent.canceled", intent)
    return intent


# ---- refusals of states


def require_confirmable(tx: Transaction, intent: Fields) -> None:
    """Raise the refusal of a late confirmation."""
    if intent["status"] == "succeeded":
        name = KINDS[intent["object"]]
        why = "it has already succeeded after being previously confirmed"
        raise build_state_error(tx, intent, f"You cannot confirm this {name} because {why}.")
    require_status(tx, intent, CHANGEABLE, "confirmed", "confirm")


def require_status(
    tx: Transaction, intent: Fields, statuses: Sequence[str], action: str, verb: str | None = None
) -> None:
    """Raise the refusal of an action (for example `captured`) that needs an intent in one of these statuses."""
    if intent["status"] in statuses:
        return
    name = KINDS[intent["object"]]
    start = f"This {name} could not be {action}" if verb is None else f"You cannot {verb} this {name}"
    allowed = f"Only a {name} with one of the following statuses may be {action}: {', '.join(statuses)}."
    raise build_state_error(tx, intent, f"{start} because it has a status of {intent['status']}. {allowed}")


def build_state_error(tx: Transaction, intent: Fields, message: str) -> ApiError:
    """Build the refusal of an action that the intent's state does not allow. It contains the intent."""
    kind = intent["object"]
    error = ApiError(400, message, code=f"{kind}_unexpected_state")
    error.body["error"][kind] = tx.render(dict(intent))
    return error
