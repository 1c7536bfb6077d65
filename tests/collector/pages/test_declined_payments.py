"""A declined payment on a customer's pages: its reason and the remedy, in the language of the reader."""

import sqlite3
import time
from contextlib import closing

import orjson
import pytest

from loadtest.testbed.collector import ADMIN
from loadtest.testbed.waiting import until
from tests.support.site import PagesStage

FUNDS = {
    "en": "There is not enough money in the account.",
    "de": "Das Konto ist nicht ausreichend gedeckt.",
    "nl": "Er staat te weinig geld op de rekening.",
}
ANY = {"en": "The bank did not allow the payment.", "de": "Die Bank hat die Zahlung nicht zugelassen."}


@pytest.fixture(scope="module")
def invoice(stage: PagesStage) -> str:
    """Return the id of an open invoice whose payment was declined, with the alert of it."""
    assert stage.collector.send("POST", "/billing/subscription?customer=acme", {"plan": "standard"}).status == 201
    query = {"token": ADMIN, "customer": "acme", "state": "open"}
    until(lambda: stage.collector.get("/billing/invoices", **query).json()["invoices"], "the first fee is due")
    (opened,) = stage.collector.get("/billing/invoices", **query).json()["invoices"]
    now = int(time.time())
    details = {"invoice": opened["id"], "amount": "99.00 USD", "why": "Stripe's sentence.", "decline_reason": "funds"}
    with closing(sqlite3.connect(stage.collector.database, timeout=30)) as database, database:
        row = (opened["id"], "retrying", 1, now, now + 86400, "funds")
        database.execute(
            "INSERT INTO dunning (invoice, state, declines, declined_at, retry_at, why) VALUES (?, ?, ?, ?, ?, ?)", row
        )
        alert = ("declined", "payment_failed", "warn", "acme", "Stripe's sentence.", orjson.dumps(details).decode())
        database.execute(
            "INSERT INTO alerts (key, kind, severity, customer, title, details, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*alert, now * 1000),
        )
    return str(opened["id"])


@pytest.mark.parametrize("language", sorted(FUNDS))
def test_reason_stands_on_the_invoice_and_beside_the_alert(stage: PagesStage, invoice: str, language: str) -> None:
    with stage.customer("acme") as acme:
        for path in (f"/account/invoices/{invoice}", "/account/alerts", "/account/invoices"):
            text = " ".join(acme.get(f"{path}?lang={language}").text.split())
            assert FUNDS[language] in text, (path, text)
            assert "Stripe's sentence." not in text, path


@pytest.mark.parametrize("language", sorted(ANY))
def test_sentence_of_an_older_version_is_a_general_reason(stage: PagesStage, invoice: str, language: str) -> None:
    with closing(sqlite3.connect(stage.collector.database, timeout=30)) as database, database:
        database.execute("UPDATE dunning SET why = 'Your card was declined.' WHERE invoice = ?", [invoice])
    with stage.customer("acme") as acme:
        text = acme.get(f"/account/invoices/{invoice}?lang={language}").text
        assert ANY[language] in text
        assert "Your card was declined." not in text


@pytest.mark.parametrize("language", sorted(FUNDS))
@pytest.mark.parametrize(("state", "declines", "due_at"), [("on", 1, 4_000_000_000_000), ("declined", 3, None)])
def test_reason_stands_beside_the_automatic_top_up(
    stage: PagesStage, language: str, state: str, declines: int, due_at: int | None
) -> None:
    acme_id = stage.collector.get("/v1/customers/acme", token=ADMIN).json()["id"]
    row: dict[str, object] = {"customer": acme_id, "state": state, "declines": declines, "due_at": due_at}
    row |= {"below": 5_000_000, "amount": 25_000_000, "month_max": 50_000_000, "month": 0, "spent": 0}
    row |= {"purchase_amount": 0, "begun_at": 0, "decline_reason": "funds"}
    with closing(sqlite3.connect(stage.collector.database, timeout=30)) as database, database:
        columns = f"({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
        database.execute(f"INSERT OR REPLACE INTO credit_top_ups {columns}", list(row.values()))
    shown = stage.collector.get("/billing/credits/top-up", token=ADMIN, customer="acme").json()
    assert (shown["declines"], shown["decline_reason"]) == (declines, "funds")
    with stage.customer("acme") as acme:
        assert FUNDS[language] in " ".join(acme.get(f"/account/credits?lang={language}").text.split())
    page = stage.operator.get(f"/console/customers/acme/credits?lang={language}")
    assert FUNDS[language] in " ".join(page.text.split())
