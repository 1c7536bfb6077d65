"""Setup intents: a card is made ready for later payments. Its owner authenticates if the bank demands it."""

from stripe_sandbox.lists import Ids, Parameters, list_objects
from stripe_sandbox.objects import cards, payment_intents, payment_methods, payments, subscription_state
from stripe_sandbox.objects.fields import merge_metadata, require_supported, set_fields
from stripe_sandbox.refusal import ApiError, invalid_request, unsupported
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

UNSUPPORTED = ("confirmation_token", "customer_account", "payment_method_options")


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a setup intent, and confirm it on demand."""
    require_supported(params, *UNSUPPORTED)
    if "return_url" in params and not params.get("confirm"):
        raise invalid_request(
            "You can only specify the `return_url` parameter when `confirm` is set to true.", "return_url"
        )
    customer = tx.get("customer", params["customer"], "customer")["id"] if "customer" in params else None
    methods = payment_intents.parse_methods(params)
    if params.get("confirm"):
        payment_intents.require_return_url(params, methods, "SetupIntent")
    intent = create_intent(tx, customer, params.get("usage", "off_session"), methods)
    _put(tx, intent, params)
    tx.save(intent)
    return _confirm(tx, intent, params) if params.get("confirm") else intent


def create_intent(tx: Transaction, customer: str | None, usage: str, methods: Fields | None = None) -> Body:
    """Create a setup intent, unconfirmed."""
    id = generate_id("seti")
    intent: Body = {
        "id": id,
        "object": "setup_intent",
        "automatic_payment_methods": methods,
        "client_secret": payments.generate_client_secret(id),
        "created": tx.now,
        "customer": customer,
        "livemode": tx.live,
        "metadata": {},
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "status": "requires_payment_method",
        "usage": usage,
    }
    tx.insert(intent)
    tx.record_event("setup_intent.created", intent)
    return intent


def _put(tx: Transaction, intent: Body, params: Parameters) -> None:
    set_fields(intent, params, "description")
    merge_metadata(intent, params)
    payment_intents.put_method(tx, intent, params)


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update a setup intent that is not done."""
    require_supported(params, *UNSUPPORTED)
    intent = tx.get("setup_intent", ids["id"])
    payments.require_status(tx, intent, payments.CHANGEABLE, "updated", "update")
    if "customer" in params:
        intent["customer"] = tx.get("customer", params["customer"], "customer")["id"]
    _put(tx, intent, params)
    return tx.save(intent)


def confirm(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Confirm a setup intent."""
    require_supported(params, *UNSUPPORTED)
    intent = tx.get("setup_intent", ids["id"])
    payments.require_confirmable(tx, intent)
    payment_intents.require_return_url(params, intent.get("automatic_payment_methods"), "SetupIntent")
    _put(tx, intent, params)
    return _confirm(tx, intent, params)


def _confirm(tx: Transaction, intent: Body, params: Parameters) -> Body:
    if params.get("use_stripe_sdk"):
        intent.pop("_return_url", None)
    elif "return_url" in params:
        intent["_return_url"] = params["return_url"]
    return confirm_intent(tx, intent)


def confirm_intent(tx: Transaction, intent: Body) -> Body:
    """Set a card up, or ask its owner; raises the refusal of its bank."""
    if not intent.get("payment_method"):
        raise invalid_request(
            "You cannot confirm this SetupIntent because it's missing a payment method. Update the SetupIntent with a "
            "payment method and then confirm it again.",
            code="setup_intent_unexpected_state",
        )
    method = tx.get("payment_method", intent["payment_method"], "payment_method")
    payment_methods.require_customer(method, intent["customer"], "SetupIntent")
    if payment_methods.find_bank_account(method) is not None:
        raise unsupported("setting a bank account up", "payment_method")
    card = payment_methods.get_card(method)
    if not card.attaches:
        raise _record_failure(tx, intent, method, cards.build_decline(card.declined))
    if card.authentication != "never":
        _record_attempt(tx, intent, method, "requires_action")
        return payments.request_authentication(tx, intent)
    return _succeed(tx, intent, method)


def finish_authentication(tx: Transaction, intent: Body, *, succeeded: bool) -> Body:
    """Set a card up whose owner has authenticated, or not; raises the refusal, once that is recorded."""
    method = tx.get("payment_method", intent["payment_method"])
    intent["next_action"] = None
    if not succeeded:
        raise _record_failure(tx, intent, method, payments.build_authentication_error(intent))
    return _succeed(tx, intent, method)


def _succeed(tx: Transaction, intent: Body, method: Body) -> Body:
    payment_methods.pass_checks(method)
    method["_set_up"] = intent["usage"] == "off_session"
    tx.save(method)
    _record_attempt(tx, intent, method, "succeeded")
    if intent["customer"] is not None:
        payment_methods.save_to_customer(tx, method, intent["customer"], checked=True)
    intent.update(status="succeeded", last_setup_error=None, next_action=None)
    tx.save(intent)
    tx.record_event("setup_intent.succeeded", intent)
    subscription_state.record_setup(tx, intent)
    return intent


def _record_failure(tx: Transaction, intent: Body, method: Body, refusal: ApiError) -> ApiError:
    """Record that a card could not be set up, and return the refusal, which has the intent in it."""
    _record_attempt(tx, intent, method, "failed")
    error = {**refusal.body["error"], "payment_method": tx.render(method)}
    intent.update(status="requires_payment_method", payment_method=None, last_setup_error=error)
    tx.save(intent)
    tx.record_event("setup_intent.setup_failed", intent)
    refusal.body["error"]["setup_intent"] = tx.render(intent)
    return refusal


def _record_attempt(tx: Transaction, intent: Body, method: Body, status: str) -> None:
    """Record an attempt to set a card up, or what became of one that its owner was asked about."""
    attempt = tx.find("setup_attempt", intent["latest_attempt"]) if intent.get("latest_attempt") else None
    if attempt is not None and attempt["status"] == "requires_action" and attempt["payment_method"] == method["id"]:
        tx.save({**attempt, "status": status})
        return
    names = ("brand", "checks", "country", "exp_month", "exp_year", "fingerprint", "funding", "last4")
    attempt = tx.insert(
        {
            "id": generate_id("setatt"),
            "object": "setup_attempt",
            "created": tx.now,
            "customer": intent["customer"],
            "livemode": tx.live,
            "payment_method": method["id"],
            "payment_method_details": {"type": "card", "card": {name: method["card"][name] for name in names}},
            "setup_intent": intent["id"],
            "status": status,
            "usage": intent["usage"],
        }
    )
    intent["latest_attempt"] = attempt["id"]


def list_attempts(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List the attempts of a setup intent."""
    tx.get("setup_intent", params["setup_intent"], "setup_intent")
    fields = {name: params[name] for name in ("setup_intent", "created") if name in params}
    return list_objects(tx, "setup_attempt", params, fields)


def list_intents(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List setup intents, of a customer or by payment method."""
    require_supported(params, "customer_account")
    fields = {name: params[name] for name in ("created", "customer", "payment_method") if name in params}
    return list_objects(tx, "setup_intent", params, fields)


def cancel(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Cancel a setup intent that is not done."""
    intent = tx.get("setup_intent", ids["id"])
    payments.require_status(tx, intent, payments.CHANGEABLE, "canceled", "cancel")
    intent.update(status="canceled", cancellation_reason=params.get("cancellation_reason"), next_action=None)
    tx.save(intent)
    tx.record_event("setup_intent.canceled", intent)
    return intent
