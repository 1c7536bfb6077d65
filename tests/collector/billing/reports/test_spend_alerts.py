"""Spend alerts: an amount is reached by fees and usage of the period, and each is raised once a period."""

from calendar import timegm
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.period_close import invoice_lines
from edgeproxy.collector.billing.reports import spend_alerts
from edgeproxy.collector.billing.subscriptions import subscription_rows
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import credit_notes, invoices
from tests.support.sold import CALLER, Sold, sold

MARCH, APRIL = (timegm((2027, month, 1, 0, 0, 0)) for month in (3, 4))
DAY = 86400
FAR = 10**9


async def spend(customers: Sold, name: str) -> int:
    async with customers.database.reading(whole=True) as connection:
        loaded = await subscription_rows.get_by_customer(connection, name)
        return await invoice_lines.compute_running_cost(connection, loaded, customers.known.meters)


async def look(customers: Sold, now: float) -> list[Any]:
    """Check all customers. Return the keys and details of all alerts."""
    async with customers.database.writing() as connection:
        for customer in await spend_alerts.list_customers(connection, "", 100):
            await spend_alerts.raise_reached(connection, customer, customers.known.meters, now)
    async with customers.database.reading() as connection:
        rows = await connection.execute(sa.select(alerts.c.key, alerts.c.customer).order_by(alerts.c.id))
        return [tuple(row) for row in rows]


async def test_an_amount_that_fees_and_usage_reach_is_raised_once_a_period(
    tmp_path: Path, sqlite_database: str
) -> None:
    async with sold(tmp_path, sqlite_database, "http://127.0.0.1:1") as (customers, _):
        await customers.customer("acme", "standard", now=MARCH)
        await customers.customer("quiet", "standard", now=MARCH)
        fee = await spend(customers, "acme")
        assert fee > 0
        async with customers.database.writing() as connection:
            await spend_alerts.put_amounts(connection, CALLER, "acme", [fee + 1, FAR, fee + 1])
        assert await look(customers, MARCH + DAY) == [], "the fee alone is less"

        await customers.use("acme", {"api_calls": 3_000_000}, at=MARCH + DAY)
        await customers.use("quiet", {"api_calls": 3_000_000}, at=MARCH + DAY)
        spent = await spend(customers, "acme")
        assert fee < spent < FAR
        for _ in range(2):
            assert await look(customers, MARCH + 2 * DAY) == [(f"spend:acme:2027-03-01:{fee + 1}", "acme")]


async def test_repeated_changes_of_spend_amounts_raise_few_alerts(tmp_path: Path, sqlite_database: str) -> None:
    async with sold(tmp_path, sqlite_database, "http://127.0.0.1:1") as (customers, _):
        await customers.customer("acme", "standard", now=MARCH)
        for first in range(1, 100, spend_alerts.AMOUNTS_MAX):
            async with customers.database.writing() as connection:
                chosen = range(first, first + spend_alerts.AMOUNTS_MAX)
                await spend_alerts.put_amounts(connection, CALLER, "acme", chosen)
            raised = await look(customers, MARCH + DAY)
        assert len(raised) == spend_alerts.PERIOD_ALERTS_MAX


@pytest.mark.parametrize(("state", "part"), [("void", 0), ("uncollectible", 0), ("paid", 1)])
async def test_a_fee_that_was_taken_off_is_not_spent(
    tmp_path: Path, sqlite_database: str, state: str, part: int
) -> None:
    async with sold(tmp_path, sqlite_database, "http://127.0.0.1:1") as (customers, _):
        await customers.customer("acme", "standard", now=MARCH)
        fee = await spend(customers, "acme")
        async with customers.database.writing() as connection:
            await connection.execute(sa.update(invoices).values(state=state))
        assert await spend(customers, "acme") == part * fee
        await customers.use("acme", {"api_calls": 3_000_000}, at=MARCH + DAY)
        used = await spend(customers, "acme") - part * fee
        assert used > 0
        note = {"id": "n", "amount": fee // 3, "why": "sorry", "state": "made", "tries": 0, "created_at": 0}
        async with customers.database.writing() as connection:
            number = (await connection.execute(sa.select(invoices.c.id))).scalar_one()
            await connection.execute(sa.insert(credit_notes).values(invoice=number, **note))
        assert await spend(customers, "acme") == used + part * (fee - fee // 3)


@pytest.mark.parametrize("interval", ["month", "year"])
async def test_a_fee_counts_in_the_period_that_begins_with_it(
    tmp_path: Path, sqlite_database: str, interval: str
) -> None:
    async with sold(tmp_path, sqlite_database, "http://127.0.0.1:1") as (customers, close):
        await customers.customer("acme", "standard", now=MARCH, is_yearly=interval == "year")
        first = await spend(customers, "acme")
        assert first > 0
        await close.step(APRIL + 1)
        assert await spend(customers, "acme") == (first if interval == "month" else 0)
