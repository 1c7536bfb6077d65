"""The sandbox refuses every call that Stripe refuses. A lenient sandbox would hide it until the first real call."""

import orjson
import pytest

from loadtest.testbed.http_client import ask
from stripe_sandbox.objects.cards import CARDS, NUMBERS
from tests.support.stripe_sandbox import Api, Sandbox

INTENT = "/v1/payment_intents"
SETUP = "/v1/setup_intents"
METHOD = "/v1/payment_methods"
BACK = "return_url=https://shop.example"
YEAR = "card[exp_year]=2040"
UNTIL = f"card[exp_month]=1&{YEAR}"
NUMBER = "card[number]=4242424242424242"
TYPED = "payment_method_data[type]=card&payment_method_data[card][number]="
VALID = "payment_method_data[card][exp_month]=1&payment_method_data[card][exp_year]=2040"
METHODS = "automatic_payment_methods[enabled]=true"
CONFIRMED = "amount=1000&currency=usd&payment_method=pm_card_visa&confirm=true"


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "param"),
    [
        (INTENT, "amount=49&currency=usd", 400, "amount_too_small", "amount"),
        (INTENT, "amount=50&currency=usd", 200, None, None),
        (INTENT, "amount=29&currency=gbp", 400, "amount_too_small", "amount"),
        (INTENT, "amount=30&currency=gbp", 200, None, None),
        (INTENT, "amount=49&currency=jpy", 400, "amount_too_small", "amount"),
        (INTENT, "amount=1000&currency=abc", 400, None, "currency"),
        (INTENT, "amount=1000&currency=EUR", 200, None, None),
        (INTENT, f"{CONFIRMED}&{METHODS}", 400, None, "return_url"),
        (INTENT, CONFIRMED, 400, None, "return_url"),
        (INTENT, "amount=1000&currency=usd&off_session=true", 400, None, "off_session"),
        (INTENT, f"{CONFIRMED}&{BACK}&off_session=true&setup_future_usage=off_session", 400, None, "off_session"),
        (INTENT, f"amount=1000&currency=usd&{TYPED}4242424242424242&{VALID}", 200, None, None),
        (INTENT, f"amount=1000&currency=usd&{TYPED}4242424242424241&{VALID}", 402, "incorrect_number", "number"),
        (SETUP, "confirm=true&payment_method=pm_card_visa", 400, None, "return_url"),
        (SETUP, BACK, 400, None, "return_url"),
        (SETUP, f"confirm=true&{BACK}", 400, "setup_intent_unexpected_state", None),
        (SETUP, f"confirm=true&{BACK}&payment_method=pm_card_visa&usage=on_session", 200, None, None),
        (SETUP, f"confirm=true&{BACK}&payment_method=pm_card_chargeDeclined", 402, "card_declined", None),
        (SETUP, "payment_method=pm_none", 400, "resource_missing", "payment_method"),
        (SETUP, "usage=often", 400, None, "usage"),
        (METHOD, "type=card", 400, "parameter_missing", "card"),
        (METHOD, "card[token]=tok_visa", 400, "parameter_missing", "type"),
        (METHOD, "type=card&card[token]=tok_none", 400, "resource_missing", "card[token]"),
        (METHOD, "type=card&card[token]=tok_visa", 200, None, None),
        (METHOD, "type=card&card[number]=4242424242424242", 400, "parameter_missing", "card[exp_month]"),
        (
            METHOD,
            f"type=card&card[number]=4242&{UNTIL}",
            402,
            "incorrect_number",
            "number",
        ),
        (
            METHOD,
            f"type=card&{NUMBER}&card[exp_month]=13&{YEAR}",
            402,
            "invalid_expiry_month",
            "exp_month",
        ),
        (METHOD, f"type=card&{NUMBER}&card[exp_month]=1&card[exp_year]=2020", 402, "invalid_expiry_year", "exp_year"),
        (METHOD, f"type=card&{NUMBER}&card[exp_month]=1&card[exp_year]=40&card[cvc]=1", 402, "invalid_cvc", "cvc"),
        (
            METHOD,
            f"type=card&card[number]=4111111111111111&{UNTIL}",
            402,
            "card_declined",
            "number",
        ),
        (
            METHOD,
            "type=us_bank_account&us_bank_account[account_number]=1",
            400,
            "sandbox_unsupported",
            "us_bank_account",
        ),
        (METHOD, "type=card&card[token]=tok_visa&colour=red", 400, "parameter_unknown", "colour"),
        (f"{METHOD}/pm_card_visa/attach", "", 400, "parameter_missing", "customer"),
        (f"{METHOD}/pm_card_visa/attach", "customer=cus_none", 400, "resource_missing", "customer"),
        (f"{METHOD}/pm_card_visa/detach", "", 404, "resource_missing", "id"),
        (f"{METHOD}/pm_card_visa", "metadata[a]=b", 404, "resource_missing", "id"),
        (INTENT, f"{CONFIRMED}&{METHODS}&return_url=https://shop.example", 200, None, None),
        (INTENT, f"{CONFIRMED}&{METHODS}&automatic_payment_methods[allow_redirects]=never", 200, None, None),
    ],
)
def test_a_payment_is_refused_as_stripe_refuses_it(
    stripe_api: Api, path: str, body: str, status: int, code: str | None, param: str | None
) -> None:
    answer = stripe_api.call("POST", path, body)
    error = answer.json().get("error", {})
    assert (answer.status, error.get("code"), error.get("param")) == (status, code, param), answer


def test_confirming_a_redirect_intent_needs_a_return_url(stripe_api: Api) -> None:
    body = f"amount=1000&currency=usd&payment_method=pm_card_visa&{METHODS}"
    intent = stripe_api.call("POST", INTENT, body).json()["id"]
    answer = stripe_api.call("POST", f"{INTENT}/{intent}/confirm")
    assert (answer.status, answer.json()["error"]["param"]) == (400, "return_url")
    yes = stripe_api.call("POST", f"{INTENT}/{intent}/confirm", "return_url=https://shop.example")
    assert yes.json()["status"] == "succeeded"


def test_a_subscription_that_is_canceled_cannot_be_canceled_again(stripe_api: Api) -> None:
    customer = "payment_method=pm_card_visa&invoice_settings[default_payment_method]=pm_card_visa"
    id = stripe_api.call("POST", "/v1/customers", customer).json()["id"]
    product = stripe_api.call("POST", "/v1/products", "name=Pro").json()["id"]
    price = stripe_api.call(
        "POST", "/v1/prices", f"product={product}&currency=usd&unit_amount=1000&recurring[interval]=month"
    ).json()["id"]
    made = stripe_api.call("POST", "/v1/subscriptions", f"customer={id}&items[0][price]={price}").json()["id"]
    assert stripe_api.call("DELETE", f"/v1/subscriptions/{made}").status == 200
    again = stripe_api.call("DELETE", f"/v1/subscriptions/{made}")
    assert (again.status, again.json()["error"]["code"]) == (404, "resource_missing")


@pytest.mark.parametrize(
    ("number", "code", "decline_code"),
    [
        ("4242 4242 4242 4242", None, None),
        ("4000000000000002", "card_declined", "generic_decline"),
        ("4000000000009995", "card_declined", "insufficient_funds"),
        ("4000000000009987", "card_declined", "lost_card"),
        ("4100000000000019", "card_declined", "fraudulent"),
        ("4000000000000069", "expired_card", "expired_card"),
        ("4000000000000127", "incorrect_cvc", "incorrect_cvc"),
        ("4000000000000119", "processing_error", "processing_error"),
    ],
)
def test_a_page_takes_the_numbers_of_stripes_test_cards(
    stripe_sandbox: Sandbox, number: str, code: str | None, decline_code: str | None
) -> None:
    body = (
        "mode=payment&success_url=https://shop.example&line_items[0][quantity]=1&line_items[0][price_data][currency]="
        "usd&line_items[0][price_data][unit_amount]=1000&line_items[0][price_data][product_data][name]=Credits"
    )
    session = stripe_sandbox.call("POST", "/v1/checkout/sessions", body).json()
    path = session["url"].partition(f":{stripe_sandbox.port}")[2]
    fields, card = {"Content-Type": "application/json"}, orjson.dumps({"card": number})
    answer = ask(stripe_sandbox.port, f"{path}/pay", method="POST", fields=fields, body=card)
    error = answer.json().get("error", {}) if answer.body else {}
    assert (error.get("code"), error.get("decline_code")) == (code, decline_code), answer


def test_each_number_is_of_a_card() -> None:
    assert set(NUMBERS.values()) <= set(CARDS)
    assert {card.number for card in CARDS.values()} <= set(NUMBERS)
