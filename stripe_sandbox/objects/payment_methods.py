"""Payment methods: cards, by Stripe's test tokens or numbers, and bank accounts, by tokens; attached to customers and
detached from them."""

from datetime import UTC, datetime

from stripe_sandbox.lists import Ids, Parameters, list_objects
from stripe_sandbox.objects import bank_accounts, cards, tokens
from stripe_sandbox.objects.fields import compute_previous_attributes, merge_metadata, require_supported
from stripe_sandbox.refusal import ApiError, invalid_request, no_such_object, unsupported
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

EXPIRES = (12, 2040)
"""Month and year until which test tokens are valid."""
ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))


# ---- calls


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a payment method of a card, without a customer yet."""
    require_supported(params, "payment_method", "customer", "radar_options")
    if "type" not in params:
        raise invalid_request("Missing required param: type.", "type", "parameter_missing")
    return create_from_data(tx, params, "")


def create_from_data(tx: Transaction, data: Fields, param: str) -> Body:
    """Create a payment method from `payment_method_data`, or from the parameters of a call if `param` is empty."""

    def name(field: str) -> str:
        return f"{param}[{field}]" if param else field

    if data["type"] != "card":
        raise unsupported(f"payment methods of the type {data['type']}", name("type"))
    card = data.get("card")
    if card is None:
        raise invalid_request(f"Missing required param: {name('card')}.", name("card"), "parameter_missing")
    if "token" in card:
        if len(card) > 1:
            raise invalid_request("You cannot specify a token and other fields of a card.", name("card"))
        described = tokens.use_token(tx, card["token"], f"{name('card')}[token]")
    else:
        for field in ("number", "exp_month", "exp_year"):
            if field not in card:
                missing = f"{name('card')}[{field}]"
                raise invalid_request(f"Missing required param: {missing}.", missing, "parameter_missing")
        described = tokens.describe_typed_card(tx, card)
    method = _insert(tx, described["token"], described["card"])
    _put(method, data)
    return tx.save(method)


def _insert(tx: Transaction, token: str, card: Body | None) -> Body:
    """Store a new payment method: a card, or a bank account if `card` is None."""
    return tx.insert(
        {
            "id": generate_id("pm"),
            "object": "payment_method",
            "allow_redisplay": "unspecified",
            "billing_details": {"address": ADDRESS},
            **({} if card is None else {"card": card}),
            "created": tx.now,
            "customer": None,
            "livemode": tx.live,
            "metadata": {},
            "type": bank_accounts.TYPE if card is None else "card",
            "_token": token,
        }
    )


def _put(method: Body, params: Fields) -> None:
    for field, value in params.get("billing_details", {}).items():
        details = method["billing_details"]
        if field == "address":
            details["address"] = dict(ADDRESS) if value == "" else {**(details["address"] or ADDRESS), **value}
        else:
            details[field] = value or None
    if "allow_redisplay" in params:
        method["allow_redisplay"] = params["allow_redisplay"]
    merge_metadata(method, params)


def retrieve(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Return a payment method, or a new one of a test token."""
    return get_method(tx, ids["id"])


def retrieve_of_customer(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Return a payment method of a customer."""
    tx.get("customer", ids["customer_id"])
    method = tx.find("payment_method", ids["id"])
    if method is None or method["customer"] != ids["customer_id"]:
        raise no_such_object("PaymentMethod", ids["id"])
    return method


def update(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Update an attached payment method."""
    require_supported(params, "us_bank_account", "payto")
    method = tx.get("payment_method", ids["id"])
    if method["customer"] is None:
        raise invalid_request("You must save this PaymentMethod to a customer before you can update it.")
    before = {**method, "billing_details": dict(method["billing_details"])}
    change = params.get("card", {})
    require_supported(change, "networks")
    if change:
        if method["type"] != "card":
            raise invalid_request(f"You cannot update `card` of a PaymentMethod of the type {method['type']}.", "card")
        today = datetime.fromtimestamp(tx.now, UTC)
        month, year = (change.get(name, method["card"][name]) for name in ("exp_month", "exp_year"))
        cards.check_card(get_card(method).number, month, year, None, today.year, today.month)
        method["card"] = {**method["card"], "exp_month": month, "exp_year": year}
    _put(method, params)
    tx.save(method)
    tx.record_event("payment_method.updated", method, compute_previous_attributes(before, method))
    return method


def list_methods(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """List payment methods, of a customer or by type."""
    require_supported(params, "customer_account")
    if "customer" in params:
        tx.get("customer", params["customer"], "customer")
    fields = {name: params[name] for name in ("customer", "type", "allow_redisplay") if name in params}
    return list_objects(tx, "payment_method", params, fields)


def attach(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Attach a payment method to a customer; raises the refusal of its bank."""
    require_supported(params, "customer_account")
    if "customer" not in params:
        raise invalid_request("Missing required param: customer.", "customer", "parameter_missing")
    customer = tx.get("customer", params["customer"], "customer")
    method = get_method(tx, ids["id"])
    if method["customer"] not in (None, customer["id"]):
        raise invalid_request("The payment method you provided has already been attached to a customer.")
    return save_to_customer(tx, method, customer["id"])


def detach(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Detach a payment method from its customer. It cannot be used again."""
    method = tx.get("payment_method", ids["id"])
    if method["customer"] is None:
        raise invalid_request(
            "The payment method you provided is not attached to a customer so detachment is impossible."
        )
    customer = tx.find("customer", method["customer"])
    if customer is not None and customer["invoice_settings"].get("default_payment_method") == method["id"]:
        before = dict(customer)
        customer["invoice_settings"] = {**customer["invoice_settings"], "default_payment_method": None}
        tx.save(customer)
        tx.record_event("customer.updated", customer, compute_previous_attributes(before, customer))
    for subscription in tx.all("subscription", customer=method["customer"], default_payment_method=method["id"]):
        tx.save({**subscription, "default_payment_method": None})
    before = dict(method)
    method.update(customer=None, _consumed=True)
    tx.save(method)
    tx.record_event("payment_method.detached", method, compute_previous_attributes(before, method))
    return method


# ---- used by others


def get_card(method: Fields) -> cards.Card:
    """Return the test card of a payment method."""
    return cards.CARDS[method["_token"]]


def find_bank_account(method: Fields) -> bank_accounts.BankAccount | None:
    """Return the test bank account of a payment method; None for a card."""
    return bank_accounts.BANK_ACCOUNTS.get(method["_token"])


def get_method(tx: Transaction, id: str, param: str | None = None) -> Body:
    """Return a payment method by its id, or by a test token, which creates one."""
    if id.startswith("pm_card_") and id in cards.CARDS:
        return _insert(tx, id, cards.describe_card(id, None, *EXPIRES, None))
    if id in bank_accounts.BANK_ACCOUNTS:
        return _insert(tx, id, None)
    method = tx.find("payment_method", id)
    if method is None:
        raise no_such_object("PaymentMethod", id, param)
    return method


def find_default_method(tx: Transaction, invoice: Fields, customer: Fields) -> str | None:
    """Find the default payment method of an invoice, else of its subscription, else of its customer."""
    parent = ((invoice.get("parent") or {}).get("subscription_details") or {}).get("subscription")
    subscription = tx.find("subscription", parent) if parent else None
    method: str | None = (
        invoice.get("default_payment_method")
        or (subscription or {}).get("default_payment_method")
        or customer["invoice_settings"].get("default_payment_method")
    )
    return method


def attach_method(tx: Transaction, id: str, customer: str, param: str) -> Body:
    """Return a payment method of a customer, attached before or now; a test token creates one for each customer."""
    if id in cards.CARDS or id in bank_accounts.BANK_ACCOUNTS:
        for attached in tx.all("payment_method", customer=customer, _token=id):
            return attached
    method = get_method(tx, id, param)
    if method["customer"] not in (None, customer):
        raise invalid_request("The payment method does not belong to this customer.", param)
    return save_to_customer(tx, method, customer)


def save_to_customer(tx: Transaction, method: Body, customer: str, *, checked: bool = False) -> Body:
    """Attach a payment method without a customer. Raises the bank's refusal, unless a payment has already checked
    it.
    """
    if method["customer"] is not None:
        return method
    if not checked:
        require_unused(method)
    if find_bank_account(method) is None and not get_card(method).attaches:
        raise cards.build_decline(get_card(method).declined)
    method["customer"] = customer
    pass_checks(method)
    tx.save(method)
    tx.record_event("payment_method.attached", method)
    return method


def pass_checks(method: Body) -> None:
    """Mark the security code of a card as correct, if one was given."""
    if method["type"] == "card" and method["card"]["checks"]["cvc_check"] == "unchecked":
        method["card"] = {**method["card"], "checks": {**method["card"]["checks"], "cvc_check": "pass"}}


def require_unused(method: Fields) -> None:
    """Raise the refusal of a payment method that was used without a customer, or detached from one."""
    if method.get("_consumed"):
        raise invalid_request(
            "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment, shared "
            "with a connected account without Customer attachment, or was detached from a Customer. It may not be used "
            "again. To use a PaymentMethod multiple times, you must attach it to a Customer first.",
        )


def require_customer(method: Fields, customer: str | None, what: str) -> None:
    """Raise the refusal of a payment method whose customer differs from the customer of an intent, `what`."""
    owner = method["customer"]
    if owner is not None and owner != customer:
        raise ApiError(
            400,
            f"The `payment_method` parameter supplied {method['id']} belongs to the Customer {owner}. Please include "
            f"the Customer in the `customer` parameter on the {what}.",
            code="parameter_missing",
            param="customer",
        )
    require_unused(method)
