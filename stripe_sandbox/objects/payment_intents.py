"""Calls of payment intents: created, confirmed, captured and canceled, by their rules."""

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.objects import collection, payment_methods, payments
from stripe_sandbox.objects.currencies import parse_currency, require_minimum
from stripe_sandbox.objects.fields import merge_metadata, require_supported, set_fields
from stripe_sandbox.refusal import ApiError, invalid_request
from stripe_sandbox.transaction import Body, Fields, Transaction

UNSUPPORTED = ("confirmation_token", "customer_account", "payment_method_options", "radar_options")
CONFIRMING = ("error_on_requires_action", "off_session", "return_url", "use_stripe_sdk")
"""Parameters of a confirmation."""
METHODS = {"enabled": True, "allow_redirects": "always"}
"""`automatic_payment_methods` unless a call says otherwise."""


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a payment intent, and confirm it on demand."""
    require_supported(params, *UNSUPPORTED)
    if "customer" in params:
        tx.get("customer", params["customer"], "customer")
    currency = parse_currency(params["currency"])
    require_minimum(params["amount"], currency)
    if not params.get("confirm"):
        for name in CONFIRMING:
            if params.get(name):
                raise invalid_request(
                    f"You can only specify the `{name}` parameter when `confirm` is set to true.", name
                )
    methods = parse_methods(params)
    if params.get("confirm"):
        require_return_url(params, methods)
    intent = payments.create_intent(
        tx, params["amount"], currency, params.get("customer"), automatic_payment_methods=methods
    )
    for name in ("capture_method", "confirmation_method"):
        if name in params:
            intent[name] = params[name]
    _put(tx, intent, params)
    tx.save(intent)
    return _confirm(tx, intent, params) if params.get("confirm") else intent


def parse_methods(params: Parameters) -> Body:
    """Return the `automatic_payment_methods` of an intent, which are on unless a call says otherwise."""
    return {**METHODS, **params.get("automatic_payment_methods", {})}


def require_return_url(params: Parameters, methods: Fields | None, what: str = "PaymentIntent") -> None:
    """Raise the refusal of a confirmation that may send the customer to another page, and does not say where to come
    back to."""
    may_redirect = methods is not None and methods["enabled"] and methods["allow_redirects"] != "never"
    if may_redirect and not params.get("return_url"):
        raise invalid_request(
            f"This {what} is configured to accept payment methods enabled in your Dashboard. Because some of "
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
    put_method(tx, intent, params)


def put_method(tx: Transaction, intent: Body, params: Parameters) -> None:
    """Set the payment method of an intent: one that there is, or one of `payment_method_data`."""
    if "payment_method" in params and "payment_method_data" in params:
        raise invalid_request(
            "You may only specify one of these parameters: payment_method, payment_method_data.", "payment_method"
        )
    if "payment_method" in params:
        method = payment_methods.get_method(tx, params["payment_method"], "payment_method")
    elif "payment_method_data" in params:
        method = payment_methods.create_from_data(tx, params["payment_method_data"], "payment_method_data")
    else:
        return
    payment_methods.require_customer(method, intent["customer"], payments.KINDS[intent["object"]])
    intent["payment_method"], intent["next_action"] = method["id"], None
    if intent["status"] in payments.CHANGEABLE:
        intent["status"] = "requires_confirmation"


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update an unpaid intent."""
    require_supported(params, *UNSUPPORTED)
    intent = tx.get("payment_intent", ids["id"])
    fixed = {"amount", "currency", "customer", "payment_method", "payment_method_data"} & params.keys()
    payments.require_status(tx, intent, payments.CHANGEABLE if fixed else payments.UNFINISHED, "updated")
    if "customer" in params:
        intent["customer"] = tx.get("customer", params["customer"], "customer")["id"]
    if "currency" in params:
        intent["currency"] = parse_currency(params["currency"])
    if "amount" in params or "currency" in params:
        intent["amount"] = params.get("amount", intent["amount"])
        require_minimum(intent["amount"], intent["currency"])
    set_fields(intent, params, "capture_method")
    _put(tx, intent, params)
    return tx.save(intent)


def confirm(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Confirm an intent."""
    require_supported(params, *UNSUPPORTED, "amount_to_confirm")
    intent = tx.get("payment_intent", ids["id"])
    payments.require_confirmable(tx, intent)
    require_return_url(params, intent.get("automatic_payment_methods"))
    set_fields(intent, params, "capture_method")
    _put(tx, intent, params)
    return _confirm(tx, intent, params)


def _confirm(tx: Transaction, intent: Body, params: Parameters) -> Body:
    """Confirm an intent, and pay the invoice that it is of."""
    off_session = bool(params.get("off_session"))
    if off_session and params.get("setup_future_usage"):
        raise invalid_request("You cannot use `setup_future_usage` when `off_session` is set to true.", "off_session")
    if params.get("use_stripe_sdk"):
        intent.pop("_return_url", None)
    elif "return_url" in params:
        intent["_return_url"] = params["return_url"]
    fails = off_session or bool(params.get("error_on_requires_action"))
    try:
        confirmed = payments.confirm_intent(tx, intent, payments.Session(off_session, fails))
    except ApiError as error:
        if error.commits:
            collection.record_declined_intent(tx, intent)
        raise
    collection.record_paid_intent(tx, confirmed)
    return confirmed


def capture(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Capture the amount of an authorized intent."""
    require_supported(params, "application_fee_amount")
    if params.get("final_capture") is False:
        raise invalid_request("Multicapture is not available for this PaymentIntent.", "final_capture")
    intent = tx.get("payment_intent", ids["id"])
    payments.require_status(tx, intent, ("requires_capture",), "captured")
    amount = params.get("amount_to_capture", intent["amount"])
    if not 0 < amount <= intent["amount"]:
        raise invalid_request(
            f"The amount_to_capture must be above 0 and at most the intent's amount of {intent['amount']}.",
            "amount_to_capture",
        )
    merge_metadata(intent, params)
    set_fields(intent, params, "statement_descriptor", "statement_descriptor_suffix")
    tx.cancel_timer("expire_authorization", intent["id"])
    charge = tx.get("charge", intent["latest_charge"])
    return payments.capture_charge(tx, intent, charge, amount, "charge.captured")


def cancel(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Cancel an intent."""
    intent = tx.get("payment_intent", ids["id"])
    payments.require_status(tx, intent, payments.UNFINISHED, "canceled", "cancel")
    return payments.cancel_intent(tx, intent, params.get("cancellation_reason"))


def due_to_expire(tx: Transaction, id: str) -> None:
    """Release an amount that was not captured in time."""
    intent = tx.find("payment_intent", id)
    if intent is not None and intent["status"] == "requires_capture":
        tx.record_event("charge.expired", tx.get("charge", intent["latest_charge"]))
        payments.cancel_intent(tx, intent, "automatic")


def update_charge(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update what people have written of a charge."""
    require_supported(params, "fraud_details")
    charge = tx.get("charge", ids["id"])
    if "customer" in params and charge["customer"] is not None:
        raise invalid_request("You cannot change the customer of a charge that has one.", "customer")
    set_fields(charge, params, "customer", "description", "receipt_email", "shipping", "transfer_group")
    merge_metadata(charge, params)
    tx.save(charge)
    tx.record_event("charge.updated", charge)
    return charge
