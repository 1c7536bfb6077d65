"""Customers' debts are summed by currency. Debts due for a day or longer have a separate sum."""

import sqlalchemy as sa

from edgeproxy.collector.billing.invoices.receivables import sum_receivables
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, customers
from edgeproxy.collector.pages import invoice_status
from tests.support.credited import run

NOW = 1_795_000_000
BIG = 2**62
"""An amount whose sum in PostgreSQL exceeds bigint unless it is cast."""


def test_open_invoices_are_summed_by_currency(database: str) -> None:
    async def work(opened: Database) -> None:
        rows = [
            ("open", "usd", 500, NOW - 3 * DAY),
            ("open", "usd", 700, NOW - DAY),
            ("open", "usd", 20, NOW - DAY + 1),
            ("open", "usd", 1, None),
            ("paid", "usd", 9000, NOW - 9 * DAY),
            ("open", "usd", 0, NOW - DAY),
            ("open", "eur", BIG, NOW + DAY),
        ]
        zeros = dict.fromkeys(
            (
                "subtotal",
                "total",
                "period_start",
                "period_end",
                "closes_at",
                "failures",
                "tries",
                "try_at",
                "created_at",
            ),
            0,
        )
        async with opened.writing() as connection:
            customer = (await connection.execute(sa.select(customers.c.id))).scalar_one()
            for number, (state, currency, due, due_at) in enumerate(rows):
                own = {
                    "id": f"inv-{number}",
                    "customer": customer,
                    "period": f"2027-01-{number + 1:02}",
                    "kind": "period",
                }
                values = {"state": state, "currency": currency, "amount_due": due, "due_at": due_at}
                await connection.execute(sa.insert(invoices), [{**zeros, **own, **values}])
        async with opened.reading() as connection:
            summed = await sum_receivables(connection, NOW)
            assert await sum_receivables(connection, NOW, customer) == summed
            assert await sum_receivables(connection, NOW, "another") == []
        assert summed == [
            {
                "currency": "eur",
                "invoices": 1,
                "amount_due": BIG,
                "due": 0,
                "next_due_at": "2026-11-19T11:06:40.000Z",
                "overdue_invoices": 0,
                "overdue": 0,
                "oldest_due_at": None,
            },
            {
                "currency": "usd",
                "invoices": 4,
                "amount_due": 1221,
                "due": 1221,
                "next_due_at": None,
                "overdue_invoices": 2,
                "overdue": 1200,
                "oldest_due_at": "2026-11-15T11:06:40.000Z",
            },
        ]
        shown = invoice_status.sum_receivables([invoice_status.OwedAmounts(**one) for one in summed], NOW)
        assert shown == invoice_status.Receivables(
            number=5,
            due={"eur": BIG, "usd": 1221},
            passed={"usd": 1221},
            later={"eur": BIG},
            next_due_at="2026-11-19T11:06:40.000Z",
            overdue=2,
            sums={"usd": 1200},
            days=3,
        )

    run(database, work, "acme")
