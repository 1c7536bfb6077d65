"""The page of billing details shows Stripe's last answer, and its changes reach Stripe."""

import io
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
import stripe
from pypdf import PdfReader

from edgeproxy.collector.api.billing_details import find_expiry
from edgeproxy.config.collector.tax_numbers import COUNTRIES, TAX_NUMBER_TYPES
from loadtest.testbed.collector import ADMIN
from loadtest.testbed.process import ROOT
from loadtest.testbed.waiting import until
from tests.support.site import PagesStage
from tests.support.visitor import Visitor

PAGE = "/account/invoices/details"
FORM = {
    "name": "Acme B.V.",
    "email": "books@acme.example",
    "line1": "Keizersgracht 1",
    "line2": "",
    "postal_code": "1015 CN",
    "city": "Amsterdam",
    "state": "",
    "country": "NL",
    "tax_number": "NL 1234 56789 B01",
}


@pytest.fixture(scope="module")
def acme(stage: PagesStage) -> Iterator[Visitor]:
    """An owner of acme, which has bought credits by card."""
    with stage.customer("acme") as visitor:
        stage.buy(visitor, "25")
        yield visitor


def details(stage: PagesStage, customer: str = "acme") -> dict[str, Any]:
    answer = stage.collector.get("/billing/details", token=ADMIN, customer=customer)
    assert answer.status == 200, answer
    read: dict[str, Any] = answer.json()
    return read


def wait_for_row(stage: PagesStage, query: str, what: str) -> None:
    """Poll the database until a query returns a row. The API allows only a hundred requests a minute."""
    with closing(sqlite3.connect(stage.collector.database, timeout=30)) as database:
        until(lambda: database.execute(query).fetchone(), what)


def wait_for_events(stage: PagesStage) -> None:
    """Wait until Stripe has sent all its events and the collector has applied them."""

    def is_sent() -> bool:
        deliveries = stage.sandbox.control("deliveries?limit=10000")["deliveries"]
        return all(delivery["state"] == "delivered" for delivery in deliveries)

    until(is_sent, "the events are sent")
    none_waits = "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM webhook_events WHERE state = 'waiting')"
    wait_for_row(stage, none_waits, "the events are applied")


def stripe_id(stage: PagesStage) -> str:
    async def find(client: stripe.StripeClient) -> str:
        return (await client.v1.customers.list_async({"limit": 1})).data[0].id

    return stage.sandbox.run(find)


def pay_by(stage: PagesStage, card: str, **fields: int) -> None:
    """Charge the customer's invoices to another card, as Stripe's own page does."""
    customer = stripe_id(stage)

    async def change(client: stripe.StripeClient) -> None:
        method = await client.v1.payment_methods.attach_async(card, {"customer": customer})
        chosen: Any = {"invoice_settings": {"default_payment_method": method.id}}
        await client.v1.customers.update_async(customer, chosen)
        if fields:
            expiry: Any = {"card": fields}
            await client.v1.payment_methods.update_async(method.id, expiry)

    stage.sandbox.run(change)


def test_reading_billing_details_creates_no_stripe_customer(stage: PagesStage) -> None:
    with stage.customer("bolt") as bolt:
        assert "There is no card" in bolt.get("/account/invoices").text
    shown = details(stage, "bolt")
    assert (shown["payment_method"], shown["address"], shown["read_at"], shown["is_stale"]) == (None, None, None, False)


def test_owner_changes_billing_details_and_audit_log_names_the_fields(stage: PagesStage, acme: Visitor) -> None:
    before = details(stage)
    assert (before["name"], before["email"], before["follows_contacts"]) == ("acme", "acme@example.com", True)
    acme.get(PAGE)
    # First the API refuses the form and returns the typed values. Then Stripe refuses it, and nothing changes.
    acme.send(PAGE, **FORM | {"country": ""})
    assert (acme.status, acme.read.form(PAGE).fields["line1"]) == (422, "Keizersgracht 1")
    assert "Choose a country." in acme.read.text
    acme.send(PAGE, **FORM | {"tax_number": "NL?"})
    assert (acme.status, "as the tax office writes it" in acme.read.text) == (422, True)
    acme.send(PAGE, **FORM | {"country": "MC"})
    assert (acme.status, "Choose a country above" in acme.read.text) == (422, True)
    assert details(stage) == before | {"read_at": details(stage)["read_at"]}
    acme.send(PAGE, **FORM)
    assert (acme.status, acme.answer.url.path) == (200, "/account/invoices")
    for words in ("Acme B.V.", "Keizersgracht 1", "1015 CN Amsterdam", "Netherlands", "NL123456789B01"):
        assert words in acme.read.text, words
    customer = stripe_id(stage)

    async def read(client: stripe.StripeClient) -> stripe.Customer:
        return await client.v1.customers.retrieve_async(customer, {"expand": ["tax_ids"]})

    there = stage.sandbox.run(read)
    assert there.address is not None
    assert there.tax_ids is not None
    assert (there.name, there.email, there.address.country) == ("Acme B.V.", "books@acme.example", "NL")
    assert [(one.type, one.value) for one in there.tax_ids.data] == [("eu_vat", "NL123456789B01")]
    (*_, entry) = stage.entries("billing.details")
    assert entry["after"] == {"fields": ["address", "email", "name", "tax_number"]}
    assert entry["actor"] == "contact:acme@example.com"
    # A new tax number replaces the old one, and an empty field removes it. Contacts no longer change the address.
    acme.get(PAGE)
    acme.send(PAGE, **FORM | {"tax_number": "NL999999999B99"})
    assert [tax_number["value"] for tax_number in details(stage)["tax_numbers"]] == ["NL999999999B99"]
    acme.get(PAGE)
    acme.send(PAGE, **FORM | {"tax_number": "", "email": ""})
    after = details(stage)
    assert (after["tax_numbers"], after["email"], after["follows_contacts"]) == ([], "acme@example.com", True)


def test_billing_details_show_a_changed_card_after_its_event(stage: PagesStage, acme: Visitor) -> None:
    pay_by(stage, "pm_card_mastercard")
    wait_for_events(stage)
    assert details(stage)["payment_method"]["brand"] == "mastercard"
    assert "Mastercard ending in 4444" in acme.get("/account/invoices").text
    now = datetime.now(UTC)
    pay_by(stage, "pm_card_visa", exp_month=now.month, exp_year=now.year)
    wait_for_events(stage)
    assert details(stage)["payment_method"]["state"] == "expires_soon"
    assert "expires soon" in acme.get("/account/invoices").text
    customer = stripe_id(stage)

    async def add(client: stripe.StripeClient) -> None:
        await client.v1.customers.tax_ids.create_async(customer, {"type": "eu_vat", "value": "DE123456789"})

    stage.sandbox.run(add)
    wait_for_events(stage)
    assert [tax_number["value"] for tax_number in details(stage)["tax_numbers"]] == ["DE123456789"]


def test_stripe_outage_shows_cached_billing_details_and_keeps_typed_values(stage: PagesStage, acme: Visitor) -> None:
    pay_by(stage, "pm_card_visa")
    wait_for_events(stage)
    # The visitor may have changed anything on Stripe's page, so the next page asks Stripe again.
    acme.get("/account/invoices")
    acme.send("/account/invoices/stripe")
    stage.sandbox.kill()
    began = time.monotonic()
    text = acme.get("/account/invoices").text
    assert "Visa ending in 4242" in text
    assert "Stripe does not answer now" in text
    assert time.monotonic() - began < 20
    acme.get(PAGE)
    acme.send(PAGE, **FORM | {"name": "Acme Holding"})
    assert (acme.status, acme.read.form(PAGE).fields["name"]) == (503, "Acme Holding")
    stage.sandbox.start()
    assert details(stage)["is_stale"] is False


def test_developers_neither_see_nor_change_billing_details(stage: PagesStage, acme: Visitor) -> None:
    contact = {"email": "dev@example.com", "role": "developer"}
    assert stage.collector.send("POST", "/v1/customers/acme/contacts", contact).status == 201
    with stage.customer("dev") as developer:
        assert developer.client.get(PAGE).status_code == 403
        answer = developer.client.post(PAGE, data=FORM, headers={"Origin": stage.site})
        assert answer.status_code == 403


def test_a_card_expires_after_its_month() -> None:
    now = datetime(2026, 12, 31, 23, tzinfo=UTC).timestamp()
    card: Any = {"exp_month": 12, "exp_year": 2026}
    assert find_expiry(card, now) == "expires_soon"
    assert find_expiry(card, now + 3600) == "expired"
    assert find_expiry(card | {"exp_month": 2, "exp_year": 2027}, now) == "valid"
    assert find_expiry(card | {"exp_month": None, "exp_year": None}, now) == "valid"


def test_each_type_of_tax_number_is_one_of_stripe() -> None:
    described = (ROOT / "stripe_sandbox/stripe-api.json").read_text()
    assert [kind for kind in set(TAX_NUMBER_TYPES.values()) if f'"{kind}"' not in described] == []
    assert set(TAX_NUMBER_TYPES) <= COUNTRIES


def test_an_invoice_keeps_the_parties_that_it_was_issued_with(stage: PagesStage, acme: Visitor) -> None:
    address = {name: FORM[name] for name in ("line1", "postal_code", "city", "country")}
    printed = {"name": "Acme B.V.", "address": address, "tax_number": "NL123456789B01"}
    assert stage.collector.send("PATCH", "/billing/details?customer=acme", printed, token=ADMIN).status == 200
    pay_by(stage, "pm_card_visa")
    assert stage.collector.send("POST", "/billing/subscription?customer=acme", {"plan": "standard"}).status == 201
    wait_for_row(stage, "SELECT 1 FROM invoices WHERE state = 'paid'", "the first fee is paid by the card")
    query = {"token": ADMIN, "customer": "acme", "state": "paid"}
    (invoice,) = stage.collector.get("/billing/invoices", **query).json()["invoices"]
    assert "buyer" not in invoice, "of one invoice alone, not of a list"
    moved = {"name": "Moved B.V.", "tax_number": None}
    assert stage.collector.send("PATCH", "/billing/details?customer=acme", moved, token=ADMIN).status == 200
    text = " ".join(acme.get(f"/account/invoices/{invoice['id']}").text.split())
    assert "Example Edge Ltd1 Harbour RowDublin D01Tax number IE1234567FA" in text
    assert "Acme B.V.Keizersgracht 11015 CN AmsterdamNetherlandsTax number NL123456789B01" in text
    file = acme.client.get(f"{stage.site}/account/invoices/{invoice['id']}/pdf", follow_redirects=True)
    pages = PdfReader(io.BytesIO(file.content)).pages
    pdf = " ".join(" ".join(page.extract_text() for page in pages).split())
    for part in ("Example Edge Ltd 1 Harbour Row Dublin D01 Tax number: IE1234567FA", "Acme B.V.", "NL123456789B01"):
        assert part in pdf, (part, pdf)


def test_name_follows_the_operators_changes_unless_another_one_is_entered(stage: PagesStage) -> None:
    def send(path: str, body: dict[str, object]) -> None:
        answer = stage.collector.send("PATCH", path, body)
        assert answer.status == 200, answer

    sent = "SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM billing_customers WHERE email_changed_at IS NOT NULL)"
    other, own = "Bolt B.V.", "Zephyr GmbH & Co"
    for entered, expected in ((other, other), (None, own), (other, other), ("bolt", own)):
        send("/billing/details?customer=bolt", {"name": entered})
        send("/v1/customers/bolt", {"metadata": {"name": "Zephyr GmbH & Co"}})
        wait_for_row(stage, sent, "Stripe has the name")
        wait_for_events(stage)
        assert details(stage, "bolt")["name"] == expected
        send("/v1/customers/bolt", {"metadata": {}})
        wait_for_row(stage, sent, "Stripe has the name")


def test_an_empty_name_in_the_form_is_that_of_the_account(stage: PagesStage) -> None:
    with stage.customer("bolt") as bolt:
        for entered, expected in (("Bolt B.V.", "Bolt B.V."), ("", "bolt")):
            bolt.get(PAGE)
            bolt.send(PAGE, name=entered)
            assert (bolt.answer.url.path, details(stage, "bolt")["name"]) == ("/account/invoices", expected)
