"""Pages that customers see: authentications of cards' owners, sessions of Checkout, and invoices with their PDF."""

import io
import re
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from pypdf import PdfReader

from loadtest.testbed.http_client import Answer, ask
from tests.support.stripe_sandbox import Sandbox

ASKS_OWNER, ASKS_OWNER_THEN_DECLINED = "4000 0027 6000 3184", "4000 0084 0000 1629"
BACK = "https://shop.example/done?order=1"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
HOSTILE = "<script>alert(1)</script>"


def call(sandbox: Sandbox, path: str, **form: str) -> Any:
    """The answer to a call of the API, which must be well."""
    answer = sandbox.call("POST", f"/v1/{path}", urlencode(form))
    assert answer.status == 200, answer
    return answer.json()


def get(sandbox: Sandbox, path: str) -> Any:
    """An object of the API."""
    return sandbox.call("GET", f"/v1/{path}").json()


def post(sandbox: Sandbox, path: str, **form: str) -> Answer:
    """Send a form of a page, and return the answer."""
    return ask(sandbox.port, f"/_sandbox/{path}", method="POST", fields=FORM, body=urlencode(form).encode())


def enter(sandbox: Sandbox, page: str, number: str, **more: str) -> Answer:
    """Enter a card on a page."""
    return post(sandbox, f"{page}/pay", number=number, expiry="12/40", cvc="123", **more)


def finish(sandbox: Sandbox, challenge: str, outcome: str) -> Answer:
    """Complete a challenge or fail it; the page after it."""
    parts = urlsplit(challenge)
    path = parts.path.removeprefix("/_sandbox/")
    done = post(sandbox, path, outcome=outcome, client_secret=parse_qs(parts.query)["client_secret"][0])
    assert done.status == 303, done
    return ask(sandbox.port, done["location"])


def find_refresh(page: Answer) -> str:
    """Return the address of a page's automatic redirect."""
    (url,) = re.findall(rb'http-equiv="refresh" content="0;url=([^"]+)"', page.body)
    return str(url.decode().replace("&amp;", "&"))


@pytest.mark.parametrize(
    ("kind", "number", "outcome", "status", "redirect_status", "code"),
    [
        ("payment_intent", ASKS_OWNER, "complete", "succeeded", "succeeded", None),
        (
            "payment_intent",
            ASKS_OWNER,
            "fail",
            "requires_payment_method",
            "failed",
            "payment_intent_authentication_failure",
        ),
        ("payment_intent", ASKS_OWNER_THEN_DECLINED, "complete", "requires_payment_method", "failed", "card_declined"),
        ("setup_intent", ASKS_OWNER, "complete", "succeeded", "succeeded", None),
        (
            "setup_intent",
            ASKS_OWNER,
            "fail",
            "requires_payment_method",
            "failed",
            "setup_intent_authentication_failure",
        ),
    ],
)
def test_the_owner_of_a_card_authenticates_and_is_sent_back(
    stripe_sandbox: Sandbox, kind: str, number: str, outcome: str, status: str, redirect_status: str, code: str | None
) -> None:
    params = {"amount": "2000", "currency": "usd"} if kind == "payment_intent" else {}
    card = {"number": number, "exp_month": "12", "exp_year": "2040"}
    params |= {f"payment_method_data[card][{name}]": value for name, value in card.items()}
    params |= {"payment_method_data[type]": "card", "confirm": "true", "return_url": BACK}
    intent = call(stripe_sandbox, f"{kind}s", **params)
    assert intent["status"] == "requires_action"
    url = intent["next_action"]["redirect_to_url"]["url"]
    challenge = url.removeprefix(stripe_sandbox.url)
    stolen = post(stripe_sandbox, f"authenticate/{intent['id']}", outcome="complete", client_secret="of-another")
    assert stolen.status == 404
    assert b'value="complete"' in ask(stripe_sandbox.port, challenge).body
    back = find_refresh(finish(stripe_sandbox, challenge, outcome))
    assert back.startswith(f"{BACK}&")
    query = {name: values[0] for name, values in parse_qs(urlsplit(back).query).items()}
    secret = {kind: intent["id"], f"{kind}_client_secret": intent["client_secret"]}
    assert query == {"order": "1", "redirect_status": redirect_status, **secret}
    done = get(stripe_sandbox, f"{kind}s/{intent['id']}")
    error = done["last_payment_error" if kind == "payment_intent" else "last_setup_error"] or {}
    assert (done["status"], error.get("code")) == (status, code)
    again = post(
        stripe_sandbox, urlsplit(challenge).path[10:], outcome="complete", client_secret=intent["client_secret"]
    )
    assert again.status == 400, "the payment is authenticated only once"


@pytest.mark.parametrize("mode", ["payment", "invoiced", "subscription", "setup"])
def test_checkout_session_waits_for_authentication_and_pays_once(stripe_sandbox: Sandbox, mode: str) -> None:
    params = {"mode": "payment" if mode == "invoiced" else mode, "success_url": f"{BACK}&s={{CHECKOUT_SESSION_ID}}"}
    if mode != "setup":
        price = {"currency": "usd", "unit_amount": "900", "product_data][name": HOSTILE}
        price |= {"recurring][interval": "month"} if mode == "subscription" else {}
        params |= {f"line_items[0][price_data][{name}]": value for name, value in price.items()}
        params["line_items[0][quantity]"] = "1"
    if mode == "invoiced":
        params["invoice_creation[enabled]"] = "true"
    session = call(stripe_sandbox, "checkout/sessions", **params)
    page, email = f"checkout/{session['id']}", f"{mode}-{session['id'][-8:]}@example.com"
    shown = ask(stripe_sandbox.port, f"/_sandbox/{page}")
    assert (HOSTILE.encode() in shown.body, "script-src" in shown["content-security-policy"]) == (False, False)
    for number, message in (
        ("4242 4242 4242 4241", b"Your card number is incorrect."),
        ("4000 0000 0000 9995", b"Your card has insufficient funds."),
    ):
        declined = enter(stripe_sandbox, page, number, email=email)
        assert (declined.status, message in declined.body) == (402, True)
    failed = enter(stripe_sandbox, page, ASKS_OWNER)
    assert failed.status == 303, failed
    returned = find_refresh(finish(stripe_sandbox, failed["location"], "fail"))
    assert b"We are unable to authenticate" in ask(stripe_sandbox.port, returned.removeprefix(stripe_sandbox.url)).body
    assert get(stripe_sandbox, f"checkout/sessions/{session['id']}")["status"] == "open"
    challenge = enter(stripe_sandbox, page, ASKS_OWNER)["location"]
    returned = find_refresh(finish(stripe_sandbox, challenge, "complete"))
    complete = ask(stripe_sandbox.port, returned.removeprefix(stripe_sandbox.url))
    assert find_refresh(complete) == f"{BACK}&s={session['id']}"
    done = get(stripe_sandbox, f"checkout/sessions/{session['id']}?expand[]=subscription&expand[]=invoice")
    assert (done["status"], done["customer_details"]["email"]) == ("complete", email)
    intent = done["setup_intent"] or done["payment_intent"] or done["invoice"]["id"]
    assert intent in challenge or mode == "subscription"
    if mode in ("invoiced", "subscription"):
        assert (done["invoice"]["status"], done["invoice"]["amount_paid"]) == ("paid", 900)
    if mode == "subscription":
        assert done["subscription"]["status"] == "active"
        assert done["subscription"]["default_payment_method"]
    if mode == "payment":
        charges = get(stripe_sandbox, f"charges?payment_intent={intent}")["data"]
        assert sorted(charge["status"] for charge in charges) == ["failed", "succeeded"]
    assert enter(stripe_sandbox, page, "4242 4242 4242 4242").status == 200, "the page redirects and pays only once"


def create_invoice(sandbox: Sandbox, lines: int = 1) -> Any:
    """An open invoice, of 12.50 for each line."""
    customer = call(sandbox, "customers", name=HOSTILE, email="jenny@example.com")["id"]
    invoice = call(sandbox, "invoices", customer=customer, auto_advance="false")
    for number in range(lines):
        item = {"customer": customer, "invoice": invoice["id"], "unit_amount_decimal": "250", "quantity": "5"}
        call(sandbox, "invoiceitems", description=f"Item {number} & <b>more</b>", currency="usd", **item)
    return call(sandbox, f"invoices/{invoice['id']}/finalize")


def test_an_invoice_is_paid_on_its_page_and_is_a_pdf(stripe_sandbox: Sandbox) -> None:
    invoice = create_invoice(stripe_sandbox, 60)
    page = f"invoices/{invoice['id']}"
    call(stripe_sandbox, "credit_notes", invoice=invoice["id"], amount="5000", memo="Sorry, عذرا")
    shown = ask(stripe_sandbox.port, f"/_sandbox/{page}")
    assert (HOSTILE.encode() in shown.body, b"Pay $700.00" in shown.body) == (False, True)
    declined = enter(stripe_sandbox, page, "4000 0000 0000 0069")
    assert (declined.status, b"Your card has expired." in declined.body) == (402, True)
    challenge = enter(stripe_sandbox, page, ASKS_OWNER)["location"]
    assert challenge in ask(stripe_sandbox.port, f"/_sandbox/{page}").body.decode().replace("&amp;", "&")
    back = find_refresh(finish(stripe_sandbox, challenge, "complete"))
    assert back.startswith(invoice["hosted_invoice_url"])
    paid = get(stripe_sandbox, f"invoices/{invoice['id']}")
    assert (paid["status"], paid["amount_paid"], paid["amount_remaining"]) == ("paid", 70_000, 0)
    assert enter(stripe_sandbox, page, "4242 4242 4242 4242").status == 400
    assert b"This invoice is paid." in ask(stripe_sandbox.port, f"/_sandbox/{page}").body

    pdf = ask(stripe_sandbox.port, paid["invoice_pdf"].removeprefix(stripe_sandbox.url))
    reader = PdfReader(io.BytesIO(pdf.body))
    text = "\n".join(page.extract_text() for page in reader.pages)
    assert len(reader.pages) > 1
    assert reader.metadata is not None
    assert reader.metadata.title == f"Invoice {paid['number']}"
    assert [f"Item {number} & <b>more</b>" in text for number in range(60)] == [True] * 60
    for part in (HOSTILE, "$2.50", "$12.50", "$750.00", "-$50.00", "Amount paid $700.00"):
        assert part in text, (part, text)
    (note,) = get(stripe_sandbox, f"credit_notes?invoice={invoice['id']}")["data"]
    pdf = ask(stripe_sandbox.port, note["pdf"].removeprefix(stripe_sandbox.url))
    text = PdfReader(io.BytesIO(pdf.body)).pages[0].extract_text()
    assert [part in text for part in (note["number"], "$50.00", "عذرا")] == [True] * 3


@pytest.mark.difference(
    "a promotion code after a card was declined in Checkout",
    "begins another payment intent; of subscriptions and invoices it is refused then",
)
def test_a_code_is_applied_on_the_page_and_an_expired_session_has_no_payment(stripe_sandbox: Sandbox) -> None:
    coupon = call(stripe_sandbox, "coupons", percent_off="50", duration="once")["id"]
    code = call(
        stripe_sandbox,
        "promotion_codes",
        **{
            "promotion[type]": "coupon",
            "promotion[coupon]": coupon,
            "restrictions[first_time_transaction]": "true",
        },
    )
    customer = call(stripe_sandbox, "customers")["id"]
    price = {"currency": "jpy", "unit_amount": "2000", "product_data][name": "Tea"}
    params = {f"line_items[0][price_data][{name}]": value for name, value in price.items()}
    params |= {"line_items[0][quantity]": "1", "allow_promotion_codes": "true", "customer": customer}
    params |= {"mode": "payment", "success_url": BACK, "cancel_url": "javascript:alert(1)"}
    session = call(stripe_sandbox, "checkout/sessions", **params)
    page = f"checkout/{session['id']}"
    assert enter(stripe_sandbox, page, "4000 0000 0000 0341").status == 402
    unknown = post(stripe_sandbox, f"{page}/promotion_code", promotion_code="none")
    assert (unknown.status, b"This code is invalid." in unknown.body) == (400, True)
    assert post(stripe_sandbox, f"{page}/promotion_code", promotion_code=code["code"]).status == 303
    body = ask(stripe_sandbox.port, f"/_sandbox/{page}").body
    assert (b"-\xc2\xa51,000" in body, b"Pay \xc2\xa51,000" in body, b"javascript:" in body) == (True, True, False)
    assert enter(stripe_sandbox, page, "4000 0000 0000 0341").status == 402
    assert enter(stripe_sandbox, page, "4242 4242 4242 4242").status == 303
    paid = get(stripe_sandbox, f"checkout/sessions/{session['id']}?expand[]=payment_intent")["payment_intent"]
    assert (paid["amount"], paid["status"]) == (1000, "succeeded")
    assert get(stripe_sandbox, f"coupons/{coupon}")["times_redeemed"] == 1

    session = call(stripe_sandbox, "checkout/sessions", **params)
    challenge = enter(stripe_sandbox, f"checkout/{session['id']}", ASKS_OWNER)["location"]
    call(stripe_sandbox, f"checkout/sessions/{session['id']}/expire")
    secret = parse_qs(urlsplit(challenge).query)["client_secret"][0]
    late = post(stripe_sandbox, urlsplit(challenge).path[10:], outcome="complete", client_secret=secret)
    assert (late.status, b"canceled" in late.body) == (400, True)
