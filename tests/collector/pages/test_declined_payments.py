"""Amounts due on pages: the sums of all invoices, and why a payment was declined."""

import re
import sqlite3
import time
from contextlib import closing

import orjson
import pytest

from edgeproxy.collector.pages.invoices import INVOICES_MAX
from loadtest.testbed.collector import ADMIN
from loadtest.testbed.waiting import until
from tests.support.copied_invoices import copy_invoice
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


def test_console_shows_lines_of_an_invoice_in_the_language_of_the_reader(stage: PagesStage, invoice: str) -> None:
    text = stage.operator.get(f"/console/invoices/{invoice}?lang=de").text
    assert "Tarif Standard" in text
    assert re.findall(r".*\d{4}-\d\d-\d\d.*", text) == []
    stage.operator.get("/console?lang=en")


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


def test_amounts_due_are_those_of_all_invoices_and_a_held_one_is_no_paid_one(stage: PagesStage) -> None:
    stage.join("owing")
    assert stage.collector.send("POST", "/billing/subscription?customer=owing", {"plan": "standard"}).status == 201
    (invoice,) = stage.collector.get("/billing/invoices", token=ADMIN, customer="owing").json()["invoices"]
    count = INVOICES_MAX + 6
    passed = {"stripe_id": None, "state": "open", "booked": "open", "amount_due": 12_300, "due_at": int(time.time())}
    copy_invoice(stage, invoice["id"], count, passed)
    with stage.customer("owing") as owing:
        home = " ".join(owing.get("/account?lang=en").text.split())
        summed = stage.collector.get("/billing/receivables", token=ADMIN, customer="owing").json()
        (owed,) = summed["receivables"]
        assert (owed["invoices"], owed["due"]) in ((count, 12_300 * count), (count + 1, 12_300 * count + 9_900))
        assert f"Due now ${owed['due'] / 100:,.2f}" in home
        assert f"{owed['invoices']} open invoices" in home
        console = " ".join(stage.operator.get("/console/customers/owing?lang=en").text.split())
        assert f"Open invoices${owed['amount_due'] / 100:,.2f} ({owed['invoices']})" in console
        with closing(sqlite3.connect(stage.collector.database, timeout=30)) as database, database:
            own = "WHERE customer = (SELECT customer FROM invoices WHERE id = ?)"
            database.execute(f"UPDATE invoices SET state = 'held' {own} AND id <> ?", [invoice["id"], invoice["id"]])
            database.execute("UPDATE invoices SET state = 'void' WHERE id = ?", [invoice["id"]])
        home = " ".join(owing.get("/account?lang=en").text.split())
        assert ("an invoice is held" in home, "all paid" in home) == (True, False)
