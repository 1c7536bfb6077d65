"""Tokens of the older API: a card that can be used once, or one of Stripe's test tokens."""

from datetime import UTC, datetime

from stripe_sandbox.lists import Ids, Parameters
from stripe_sandbox.objects import cards
from stripe_sandbox.objects.fields import require_supported
from stripe_sandbox.refusal import invalid_request, no_such_object, unsupported
from stripe_sandbox.transaction import Body, Fields, Transaction, generate_id

EXPIRES = (12, 2040)
"""Month and year until which test tokens are valid."""


def create(tx: Transaction, ids: Ids, params: Parameters) -> Body:
    """Create a token of a card."""
    require_supported(params, "customer")
    if not isinstance(params.get("card"), dict):
        if "card" in params:
            raise unsupported("tokens of cards that are kept", "card")
        raise invalid_request("You must supply either a card, customer, PII data, bank account, or account.", "card")
    typed = {**params["card"]}
    for name in ("exp_month", "exp_year"):
        if not typed[name].isdecimal():
            raise invalid_request(f"Invalid integer: {typed[name]}", f"card[{name}]", "parameter_invalid_integer")
        typed[name] = int(typed[name])
    described = describe_typed_card(tx, typed)
    card = {**described["card"], "id": generate_id("card"), "object": "card", "name": typed.get("name")}
    for name in ("checks", "display_brand", "three_d_secure_usage"):
        del card[name]
    brands = {"visa": "Visa", "mastercard": "MasterCard", "amex": "American Express"}
    card["brand"] = brands.get(card["brand"], card["brand"].title())
    return tx.insert(
        {
            "id": generate_id("tok"),
            "object": "token",
            "card": {**card, "cvc_check": "unchecked" if typed.get("cvc") else None, "metadata": {}},
            "created": tx.now,
            "livemode": tx.live,
            "type": "card",
            "used": False,
            "_described": described,
        }
    )


def describe_typed_card(tx: Transaction, typed: Fields) -> Body:
    """Return the `token` of a card that was typed in, and the `card` of its payment method; raises what is wrong."""
    today = datetime.fromtimestamp(tx.now, UTC)
    month, year, cvc = typed["exp_month"], typed["exp_year"], typed.get("cvc")
    token = cards.check_card(typed["number"], month, year, cvc, today.year, today.month)
    digits = typed["number"].replace(" ", "").replace("-", "")
    return {"token": token, "card": cards.describe_card(token, digits, month, year, cvc)}


def use_token(tx: Transaction, id: str, param: str) -> Body:
    """Use a token, which is over then, or a test token: the `token` of its card, and the `card` of a payment method."""
    test_token = cards.find_token(id) if id.startswith("tok_") else None
    if test_token is not None:
        return {"token": test_token, "card": cards.describe_card(test_token, None, *EXPIRES, None)}
    token = tx.find("token", id)
    if token is None:
        raise no_such_object("token", id, param)
    if token["used"]:
        raise invalid_request(f"You cannot use a Stripe token more than once: {id}.", param, code="token_already_used")
    tx.save({**token, "used": True})
    described: Body = token["_described"]
    return described
