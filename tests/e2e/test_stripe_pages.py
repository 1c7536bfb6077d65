"""Chromium at the Stripe sandbox: customers pay in Checkout and on an invoice; a page of another site does nothing."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.e2e.browser import Chromium, Tab, tab
from tests.support.stripe_sandbox import Sandbox

pytestmark = pytest.mark.chromium

SECONDS = 60
"""For all that a test does in the browser: machines may be busy."""
ASKS_OWNER = "4000002760003184"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[Chromium]:
    with closing(Closing(chromium, tmp_path_factory.mktemp("browser-of-stripe"))) as browser:
        yield browser


class Closing(Chromium):
    """A browser that `closing` ends."""

    close = Chromium.stop


def call(sandbox: Sandbox, path: str, **form: str) -> Any:
    """The answer to a call of the API, which must be well."""
    answer = sandbox.call("POST", f"/v1/{path}", urlencode(form))
    assert answer.status == 200, answer
    return answer.json()


def create_session(sandbox: Sandbox) -> Any:
    """Create a session of 20.00 that redirects to another origin: the one of the name `localhost`."""
    price = {"currency": "usd", "unit_amount": "2000", "product_data][name": "T-shirt"}
    params = {f"line_items[0][price_data][{name}]": value for name, value in price.items()}
    params["success_url"] = f"http://localhost:{sandbox.port}/_sandbox/ready?paid={{CHECKOUT_SESSION_ID}}"
    return call(sandbox, "checkout/sessions", mode="payment", **{"line_items[0][quantity]": "1"}, **params)


async def enter(page: Tab, number: str) -> None:
    """Enter a card, and send it."""
    async with page.loading():
        await page.run(
            "const email = document.querySelector('[name=email]'), number = document.querySelector('[name=number]');"
            f"if (email) email.value = 'jenny@example.com'; number.value = '{number}';"
            "number.form.querySelector('button').click();"
        )


async def choose(page: Tab, outcome: str) -> None:
    """Complete a challenge, or fail it."""
    async with page.loading():
        await page.run(f"document.querySelector('button[value={outcome}]').click();")


async def read_alert(page: Tab) -> str:
    """Return the error message on the page."""
    return str(await page.run("return document.querySelector('[role=alert]')?.textContent ?? ''"))


def test_a_customer_pays_in_checkout_and_on_an_invoice(browser: Chromium, stripe_sandbox: Sandbox) -> None:
    session, challenged = create_session(stripe_sandbox), create_session(stripe_sandbox)
    customer = call(stripe_sandbox, "customers", name="Jenny")["id"]
    invoice = call(stripe_sandbox, "invoices", customer=customer, auto_advance="false")
    call(stripe_sandbox, "invoiceitems", customer=customer, invoice=invoice["id"], amount="1250", currency="usd")
    invoice = call(stripe_sandbox, f"invoices/{invoice['id']}/finalize")

    async def pay() -> None:
        async with asyncio.timeout(SECONDS), tab(browser) as page:
            await page.goto(session["url"])
            assert page.troubles == [], "the policy allows the style sheet"
            await enter(page, "4000000000009995")
            assert await read_alert(page) == "Your card has insufficient funds."
            await enter(page, "4242424242424242")
            await page.arrive(f"http://localhost:{stripe_sandbox.port}/_sandbox/ready?paid={session['id']}")

            await page.goto(challenged["url"])
            await enter(page, ASKS_OWNER)
            await choose(page, "fail")
            await page.arrive(f"checkout/{challenged['id']}")
            assert (await read_alert(page)).startswith("We are unable to authenticate")
            await enter(page, ASKS_OWNER)
            await choose(page, "complete")
            await page.arrive(f"/_sandbox/ready?paid={challenged['id']}")

            await page.goto(invoice["hosted_invoice_url"])
            await enter(page, "4242424242424242")
            assert (
                await page.run("return document.querySelector('.status').textContent.trim()") == "This invoice is paid."
            )

            before = stripe_sandbox.control("clock")["now"]
            form = f"<form method=post enctype=text/plain action={stripe_sandbox.url}/_sandbox/clock>"
            form += "<input name='{\"advance\": 86400, \"a' value='\": 1}'>"
            await page.goto(f"data:text/html,{quote(form)}")
            async with page.loading():
                await page.run("document.querySelector('form').submit();")
            (told,) = [response["status"] for response in page.responses if response["url"].endswith("/_sandbox/clock")]
            assert told == 403
            assert stripe_sandbox.control("clock")["now"] < before + 86400

    asyncio.run(pay())
    for id in (session["id"], challenged["id"]):
        assert stripe_sandbox.call("GET", f"/v1/checkout/sessions/{id}").json()["payment_status"] == "paid"
    assert stripe_sandbox.call("GET", f"/v1/invoices/{invoice['id']}").json()["amount_paid"] == 1250
