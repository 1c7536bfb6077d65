"""Credits in euros, yen and dinars: from Checkout by way of webhooks to the refund, in the books of their currency."""

import csv
import io
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts import documents
from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.database.credit_tables import credit_entries, credit_transactions
from edgeproxy.collector.database.database import Database
from loadtest.testbed.collector import PLANS, SOLD, Collector
from loadtest.testbed.http_client import Answer, ask
from loadtest.testbed.waiting import until
from tests.support.credited import run
from tests.support.stripe_sandbox import KEY, Sandbox

PATH = "/billing/webhooks/stripe"
CENT = 10_000
OTHERS = [
    {"currency": "eur", "meter": "cost_eur", "packages": ["5", "10", "500"]},
    {"currency": "jpy", "meter": "cost_jpy", "packages": ["1000", "5000"]},
    {"currency": "kwd", "meter": "cost_kwd", "packages": ["3", "30.500"]},
]


@pytest.fixture
def sold(tmp_path: Path, database: str) -> Iterator[tuple[Collector, Sandbox]]:
    """A collector that sells credits in four currencies, and a sandbox whose webhooks go to it."""
    key, secrets = tmp_path / "key", tmp_path / "secrets"
    key.write_text(KEY)
    with closing(Sandbox(tmp_path / "sandbox")) as sandbox:
        sandbox.start()
        billing = {
            "plans": PLANS,
            "mode": "live",
            "credits": {"others": OTHERS},
            "stripe": {"base": sandbox.url, "key": str(key), "webhook_secrets": str(secrets)},
        }
        meters = {"cost": {"count": "events"}} | {other["meter"]: {"count": "events"} for other in OTHERS}
        with closing(
            Collector(tmp_path / "collector", database, billing=billing, meters={**SOLD, **meters})
        ) as collector:
            secrets.write_text(sandbox.listen(f"http://127.0.0.1:{collector.port}{PATH}"))
            yield collector.start(), sandbox


def test_credits_are_bought_and_paid_back_in_the_customer_s_currency(
    sold: tuple[Collector, Sandbox], database: str
) -> None:
    (collector, sandbox), numbers = sold, count(1)

    def buy(name: str, units: int, currency: str | None = None) -> Answer:
        body: dict[str, Any] = {"millicredits": units * CENT, "success_url": "https://shop.example/paid"}
        body |= {} if currency is None else {"currency": currency}
        path, fields = f"/billing/checkout?customer={name}", {"Authorization": "Bearer admin-token"}
        source = f"127.9.0.{next(numbers)}"  # Of one address only a few purchases a minute are taken.
        return ask(collector.port, path, method="POST", fields=fields, body=orjson.dumps(body), source=source)

    def balance(name: str) -> tuple[str, str, int]:
        got = collector.get("/billing/balance", token="admin-token", customer=name).json()
        assert (got["usd"] is None) == (got["currency"] != "usd")
        return got["currency"], got["amount"], got["balance"]

    for name, currency, units, amount in (
        ("euros", "eur", 1000, "10.00"),
        ("yen", "jpy", 1000, "1000"),
        ("dinars", "kwd", 30_500, "30.500"),
        ("dollars", None, 1000, "10.00"),
    ):
        assert collector.send("POST", "/v1/customers", {"name": name, "tier": "basic"}).status == 201
        if currency is not None:
            assert buy(name, 10**7, currency).status == 422, "more than the largest package"
            assert collector.get(f"/v1/customers/{name}", token="admin-token").json()["currency"] is None
        bought = buy(name, units, currency)
        assert bought.status == 201, bought
        session = bought.json()["id"]
        assert sandbox.call("GET", f"/v1/checkout/sessions/{session}").json()["currency"] == (currency or "usd")
        assert ask(sandbox.port, f"/_sandbox/checkout/{session}/pay", method="POST", body=b"").status == 303
        expected = (currency or "usd", amount, units * CENT)
        until(lambda name=name, expected=expected: balance(name) == expected, "the credits are there")
        assert collector.get(f"/v1/customers/{name}", token="admin-token").json()["currency"] == (currency or "usd")
        if currency is not None:
            other = buy(name, 1000, "usd")
            assert (other.status, "that cannot change" in other.json()["detail"]) == (409, True)
        gift = {"customer": name, "millicredits": 5000, "why": "sorry"}
        assert collector.send("POST", "/billing/credits/adjust", gift).status == 201
        refund = {"purchase": session, "millicredits": 15 * CENT, "why": "asked"}
        refused = collector.send("POST", "/billing/refunds", refund)
        assert refused.status == (422 if currency == "kwd" else 202), "of fils the last digit is 0"
        if currency == "kwd":
            refund["millicredits"] = 20 * CENT
            refused = collector.send("POST", "/billing/refunds", refund)
        assert (refused.json()["currency"], refused.json()["cents"]) == (
            currency or "usd",
            20 if currency == "kwd" else 15,
        )
    assert buy("dollars", 1000, "eur").status == 409, "its credits are dollars"
    for name, units in (("yen", 999), ("dollars", 499), ("dollars", 1_000_001)):
        refused = buy(name, units)
        assert (refused.status, refused.json()["errors"][0]["field"]) == (422, "millicredits")
    month = collector.get("/billing/statements", token="admin-token", customer="yen").json()["statements"][0]
    statement = collector.get(f"/billing/statements/{month}.csv", token="admin-token", customer="yen")
    rows = list(csv.reader(io.StringIO(statement.body.decode())))
    assert (rows[0][-2:], [row[-1] for row in rows[1:]]) == (
        ["millicredits", "jpy"],
        ["0", "1000", "0.5", "-15", "985.5"],
    )
    pdf = collector.get(f"/billing/statements/{month}.pdf", token="admin-token", customer="yen")
    assert pdf.body.startswith(b"%PDF")

    async def check(opened: Database) -> None:
        async with opened.reading(whole=True) as connection:
            await verify_journal(connection)
            columns, entries = credit_transactions.c, credit_entries.c
            of_balance = columns.kind != "balance_transaction"
            statement = sa.select(columns.currency, entries.account, sa.func.sum(entries.amount)).join_from(
                credit_transactions, credit_entries, entries.seq == columns.seq
            )
            rows = await connection.execute(statement.where(of_balance).group_by(columns.currency, entries.account))
            books = {(currency, account): int(amount) for currency, account, amount in rows}
            terms = await documents.fetch_terms(connection)
        for currency, units, back in (("usd", 1000, 15), ("eur", 1000, 15), ("jpy", 1000, 15), ("kwd", 30_500, 20)):
            assert books[currency, "deferred"] == -(units - back) * CENT - 5000
            assert books[currency, "clearing"] + books.get((currency, "refunds"), 0) == (units - back) * CENT
            granted = documents.compute_entitlements(None, 5, terms, currency)
            assert [entitlement.meter for entitlement in granted] == [
                "cost" if currency == "usd" else f"cost_{currency}"
            ]

    run(database, check)
