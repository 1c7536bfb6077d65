"""Stripe's quickstarts for Node and Python run unmodified against the sandbox. Only the address is changed.

The programs are in `quickstarts/`, one for each language. They serve the endpoints that a shop's pages call.
"""

import os
import re
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import orjson
import pytest
import stripe

from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.ports import Ports
from loadtest.testbed.process import Process
from loadtest.testbed.waiting import until
from tests.support.stripe_sandbox import Sandbox

NODE = shutil.which("node")
MODULES = Path(sys.prefix) / "npm/node_modules"
PROGRAMS = Path(__file__).with_name("quickstarts")

Serve = Callable[..., Callable[..., Answer]]
"""Starts a quickstart by name, with environment variables, and returns a function that calls its endpoints."""


class NodeShop:
    """A quickstart in a Node process."""

    def __init__(self, name: str, folder: Path, environ: dict[str, str]) -> None:
        self._ports = Ports(1)
        (self.port,) = self._ports.numbers
        environ = {**environ, "PORT": str(self.port), "NODE_PATH": str(MODULES)}
        self.process = Process([NODE or "node", PROGRAMS / f"{name}.cjs"], folder / f"{name}.log", environ=environ)
        until(lambda: self._answers() or not self.process.running, "the quickstart serves", seconds=60)
        assert self.process.running, self.process.output

    def _answers(self) -> bool:
        try:
            return ask(self.port, "/").status == 404
        except OSError:
            return False

    def call(self, method: str, path: str, sent: object = None) -> Answer:
        """Call an endpoint as the shop's page does."""
        body, fields = (None, {}) if sent is None else (orjson.dumps(sent), {"Content-Type": "application/json"})
        return ask(self.port, path, method=method, fields=fields, body=body)

    def close(self) -> None:
        """Stop the process."""
        print(self.process.output)  # pytest shows it if the test failed
        self.process.stop()
        self._ports.close()


@pytest.fixture(params=["python", "node"])
def serve(
    request: pytest.FixtureRequest, stripe_sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Serve]:
    """Return a function that serves a quickstart in one of the languages."""
    shops: list[NodeShop] = []

    def serve_node(name: str, **environ: str) -> Callable[..., Answer]:
        shop = NodeShop(name, tmp_path, {"STRIPE_BASE": stripe_sandbox.url, **environ})
        shops.append(shop)
        return shop.call

    def serve_python(name: str, **environ: str) -> Callable[..., Answer]:
        monkeypatch.setattr(stripe, "api_base", stripe.api_base)  # The program sets both; the fixture restores them.
        monkeypatch.setattr(stripe, "api_key", stripe.api_key)
        for word, value in {"STRIPE_BASE": stripe_sandbox.url, **environ}.items():
            monkeypatch.setitem(os.environ, word, value)
        client = runpy.run_path(str(PROGRAMS / f"{name}.py"))["app"].test_client()

        def call(method: str, path: str, sent: object = None) -> Answer:
            answer: Any = client.open(path, method=method, json=sent)
            fields = [(field.lower(), value) for field, value in answer.headers.items()]
            return Answer(answer.status_code, fields, answer.data)

        return call

    if request.param == "node" and (NODE is None or not (MODULES / "stripe").exists()):
        pytest.skip("there is no Node here" if NODE is None else "Stripe's package for Node is not here")
    yield serve_node if request.param == "node" else serve_python
    for shop in shops:
        shop.close()


def create_price(sandbox: Sandbox, **params: Any) -> str:
    """Create a product with a price, and return the price."""

    async def create(client: stripe.StripeClient) -> str:
        product: Any = {"name": "T-shirt"}
        price = await client.v1.prices.create_async({"currency": "usd", "product_data": product, **params})
        return price.id

    return sandbox.run(create)


def test_checkout_quickstart_takes_a_payment(serve: Serve, stripe_sandbox: Sandbox) -> None:
    call = serve("checkout", PRICE_ID=create_price(stripe_sandbox, unit_amount=2_000))
    page = call("POST", "/create-checkout-session")
    assert page.status == 303, page
    paid = ask(stripe_sandbox.port, urlsplit(page["location"]).path + "/pay", method="POST")
    back = urlsplit(paid["location"])
    (session,) = parse_qs(back.query)["session_id"]
    assert (paid.status, back.path) == (303, "/success.html")
    assert call("GET", f"/session-status?session_id={session}").json()["status"] == "complete"


def test_subscription_quickstart_begins_a_trial(serve: Serve, stripe_sandbox: Sandbox) -> None:
    key = f"trial_{os.urandom(4).hex()}"
    create_price(stripe_sandbox, unit_amount=2_000, recurring={"interval": "month"}, lookup_key=key)
    call = serve("trial")
    page = call("POST", "/create-checkout-session", {"lookup_key": key})
    assert page.status == 303, page
    paid = ask(stripe_sandbox.port, urlsplit(page["location"]).path + "/pay", method="POST")
    (id,) = parse_qs(urlsplit(paid["location"]).query)["session_id"]
    session = stripe_sandbox.call("GET", f"/v1/checkout/sessions/{id}?expand[]=subscription").json()
    assert (session["subscription"]["status"], session["amount_total"]) == ("trialing", 0)
    portal = call("POST", "/create-portal-session", {"session_id": id})
    assert portal.status == 303, portal


def test_usage_based_billing(serve: Serve, stripe_sandbox: Sandbox) -> None:
    call, event_name = serve("usage"), f"tokens_{os.urandom(4).hex()}"
    sold = call("POST", "/create-subscription", {"event_name": event_name}).json()
    used = call("POST", "/record-usage", {"event_name": event_name, "customer": sold["customer"]})
    assert used.status == 200, used
    address = f"/upcoming-invoice?subscription={sold['subscription']}"
    until(lambda: call("GET", address).json() == {"total": 400}, "the usage is on the next invoice")


def confirm_in_browser(sandbox: Sandbox, client_secret: str, number: str) -> Answer:
    """Confirm an intent with a typed card, as Stripe's script in browsers does: with a publishable key.

    The answer has fewer fields than the API description demands, so it is not checked against it.
    """
    id = client_secret.partition("_secret_")[0]
    kind = "setup_intents" if id.startswith("seti_") else "payment_intents"
    typed = {
        "type": "card",
        "card[number]": number,
        "card[exp_month]": "12",
        "card[exp_year]": "34",
        "card[cvc]": "123",
    }
    form = {"client_secret": client_secret, "return_url": "http://localhost:4242/complete"}
    form |= {re.sub(r"^(\w+)", r"payment_method_data[\1]", name): value for name, value in typed.items()}
    fields = {"Authorization": "Bearer pk_test_quickstart", "Content-Type": "application/x-www-form-urlencoded"}
    return sandbox.ask(f"/v1/{kind}/{id}/confirm", "POST", fields, urlencode(form).encode())


def test_accept_a_payment(serve: Serve, stripe_sandbox: Sandbox) -> None:
    secret = serve("accept_a_payment")("POST", "/create-payment-intent", {"items": [{"amount": 1_000}]}).json()
    declined = confirm_in_browser(stripe_sandbox, secret["clientSecret"], "4000000000009995")
    assert (declined.status, declined.json()["error"]["decline_code"]) == (402, "insufficient_funds")
    paid = confirm_in_browser(stripe_sandbox, secret["clientSecret"], "4242424242424242").json()
    assert (paid["status"], paid["amount"]) == ("succeeded", 1_000)


@pytest.mark.parametrize(
    ("number", "charged"),
    [
        ("4242424242424242", (200, {"status": "succeeded"})),
        ("4000000000000341", (402, {"code": "card_declined"})),
    ],
)
def test_save_a_card(serve: Serve, stripe_sandbox: Sandbox, number: str, charged: tuple[int, object]) -> None:
    call = serve("save_a_card")
    shown = call("POST", "/create-setup-intent").json()
    assert confirm_in_browser(stripe_sandbox, shown["clientSecret"], number).json()["status"] == "succeeded"
    answer = call("POST", "/charge", {"customer": shown["customer"]})
    assert (answer.status, answer.json()) == charged
