"""The business report: daily figures equal to the books, the week's largest, the month's customers."""

import time
from datetime import UTC, date, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.credits.credits import Payment
from edgeproxy.collector.billing.credits.statements import CalendarMonth as Calendar
from edgeproxy.collector.billing.journal import journal, postings
from edgeproxy.collector.billing.journal.journal import Posting
from edgeproxy.collector.billing.journal.postings import CENT, ConsumptionPart, JournalEntry
from edgeproxy.collector.billing.reports import business_report, revenue
from edgeproxy.collector.billing.reports.accounting import fetch_day_journal
from edgeproxy.collector.billing.reports.business_report import (
    DEFINITIONS,
    DayReport,
    MonthReport,
    fetch_month,
    previous_month,
    start_of_day,
)
from edgeproxy.collector.billing.reports.recurring_revenue import RecurringRevenue
from edgeproxy.collector.billing.reports.sales import Sales, fetch_sales
from edgeproxy.collector.billing.subscriptions import plan_versions
from edgeproxy.collector.database.billing_tables import segments, subscriptions
from edgeproxy.collector.database.database import Database
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.credits import Credits
from edgeproxy.config.collector.money import PRICE_SCALE
from tests.support.credited import ALICE, count, read, run, write

MARCH = Calendar(2027, 3)
FIRST_DAY, LAST_DAY = date(2027, 3, 1), date(2027, 3, 31)
LATER = datetime(2027, 6, 1, tzinfo=UTC).timestamp()
CREDIT_PRICE = PRICE_SCALE // 10_000
"""A unit that costs a millicredit."""
COGS = {"tokens": CREDIT_PRICE, "images": 250 * CREDIT_PRICE}


def at(day: date, hour: int = 0) -> int:
    return start_of_day(day) + 3600 * hour


async def consume(connection: Any, customer: str, source: str, amount: int, hour: int) -> None:
    async with journal.open_journal(connection) as books:
        entries = postings.consumption_entries(
            await books.fetch_credit_balance(customer), [ConsumptionPart("cost", "", amount)]
        )
        books.book(Posting(customer, "consumption", source, entries, slice=hour))


async def invoice(
    connection: Any, customer: str, source: str, cents: int, start: int, end: int, currency: str = "usd"
) -> None:
    async with journal.open_journal(connection) as books:
        entries = (JournalEntry("receivable", cents * CENT), JournalEntry("deferred_fees", -cents * CENT))
        details = {"fees": [[cents, start, end]]}
        books.book(Posting(customer, "invoice", source, entries, slice=end, details=details, currency=currency))


async def pay(connection: Any, customer: str, source: str, cents: int, currency: str = "usd") -> None:
    async with journal.open_journal(connection) as books:
        entries = postings.plain_entries("invoice_paid", cents * CENT)
        books.book(Posting(customer, "invoice_paid", source, entries, currency=currency))


async def subscribe(database: Database, customer: str, version: str, start: int, end: int) -> None:
    """Have a segment of a plan."""
    async with database.writing() as connection:
        row = {"id": customer, "customer": customer, "plan_version": version, "is_yearly": 0, "state": "canceled"}
        times = {"period_start": start, "period_end": end, "tier_before": "", "created_at": 0, "version": 1}
        await connection.execute(sa.insert(subscriptions), [{**row, **times}])
        of = {"subscription": customer, "meter": "", "start": start, "end": end, "plan_version": version}
        paid = {"period_start": start, "period_end": end, "paid_start": start, "paid_end": end, "is_yearly": 0}
        await connection.execute(sa.insert(segments), [{**of, **paid}])


def test_business_report_states_each_day_of_a_month(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0
    monkeypatch.setattr(journal, "now_ms", lambda: now)

    async def work(opened: Database) -> None:
        nonlocal now
        sold = {"free@1": Plan.model_validate({"fee": "0"}), "paid@1": Plan.model_validate({"fee": "99"})}
        await write(opened, plan_versions.record_plans, sold)
        february, april = start_of_day(date(2027, 2, 1)), start_of_day(date(2027, 4, 1))
        await subscribe(opened, "id-left", "paid@1", february, at(FIRST_DAY))
        await subscribe(opened, "id-stays", "paid@1", february, april)
        await subscribe(opened, "id-free", "free@1", february, april)
        now = (february + 60) * 1000
        for who in ("id-left", "id-stays"):
            await write(opened, invoice, who, f"{who}/2", 2800, february, at(FIRST_DAY))
            await write(opened, pay, who, f"{who}/2", 2800)
        now = at(FIRST_DAY) * 1000
        await write(opened, invoice, "id-stays", "stays/3", 3100, at(FIRST_DAY), april)
        now = at(date(2027, 3, 10)) * 1000
        await write(opened, credits.book_purchase, "id-new", Payment("cs_1", "pi_1", 1000 * CENT))
        await write(opened, credits.book_gift, ALICE, "id-new", "g", 5 * CENT, "sorry", None)
        now = at(date(2027, 3, 10), 5) * 1000
        await write(opened, consume, "id-new", "u1", 300 * CENT, at(date(2027, 3, 10), 4))
        now = at(date(2027, 3, 12), 1) * 1000
        await write(opened, consume, "id-new", "u2", 200 * CENT, at(date(2027, 3, 12)))
        await count(opened, at(date(2027, 3, 10), 4), ("new", "tokens", 400_000, "m1"), ("free", "tokens", 100_000, ""))
        await count(opened, at(date(2027, 3, 12)), ("new", "images", 1000, "m2"), ("stays", "tokens", 100_000, "m1"))
        await count(opened, at(date(2027, 3, 12)), ("new", "calls", 7, ""))

        days = await read(opened, business_report.fetch_days, FIRST_DAY, LAST_DAY, LATER, COGS)
        assert [day.day.day for day in days] == list(range(1, 32))
        busy = {day.day.day: (day.usage // CENT, day.cost) for day in days if day.usage or day.cost}
        assert busy == {10: (300, 500_000), 12: (200, 350_000)}
        assert [day.fees for day in days] == [100 * CENT] * 31
        assert days[9].margin == 4_000_000 / 500_000
        for day in days:
            async with opened.writing() as connection:
                books = await fetch_day_journal(connection, day.day, LATER)
            booked = sum(
                movement.amount for movement in books.movements if movement.account in ("revenue", "revenue_fees")
            )
            assert day.revenue == -booked
        noon = at(date(2027, 3, 3), 12)
        assert [
            day.fees // CENT
            for day in (await read(opened, business_report.fetch_days, FIRST_DAY, LAST_DAY, noon, {}))[:5]
        ] == [*(100, 100, 50, 0, 0)]
        with pytest.raises(ValueError, match="from 1 to 400 days"):
            await read(opened, business_report.fetch_days, LAST_DAY, FIRST_DAY, LATER, {})

        week = await read(opened, business_report.fetch_week, date(2027, 3, 8), COGS)
        assert week.cost == 850_000
        assert [tuple(model) for model in week.models] == [
            ("m1", "tokens", 500_000, 500_000),
            ("m2", "images", 1000, 250_000),
            ("", "tokens", 100_000, 100_000),
        ]
        assert [tuple(customer) for customer in week.customers] == [
            ("calls", "new", 7, 1.0),
            ("images", "new", 1000, 1.0),
            ("tokens", "new", 400_000, 4 / 6),
            ("tokens", "free", 100_000, 1 / 6),
            ("tokens", "stays", 100_000, 1 / 6),
        ]

        month_report = await read(opened, fetch_month, MARCH, LATER, COGS)
        assert (month_report.revenue, month_report.cost, month_report.liability, month_report.fees_ahead) == (
            3600 * CENT,
            850_000,
            505 * CENT,
            0,
        )
        assert month_report.revenue == sum(day.revenue for day in days)
        # Two have paid before; of the other three, one bought credits.
        assert (month_report.converted, month_report.convertible) == (1, 3)
        assert (month_report.active, month_report.active_before, month_report.lost) == (2, 2, 1)
        assert month_report.churn == 0.5
        assert month_report.lifetime_value == (3600 * CENT - 850_000) / 2 / 0.5
        sales = await read(opened, fetch_sales, MARCH.begin, MARCH.end)
        assert month_report.sales == sales
        assert (sales.checkouts, sales.purchases > 0, sales.conversion_rate) == (0, True, None)
        assert sales.mean_purchase == sales.purchased // sales.purchases
        for _ in range(4 * sales.purchases):
            entry = AuditEntry("credits.checkout", "new", None, {})
            await write(opened, audit.append_entry, Caller("test"), entry)
        now = round(time.time() * 1000)
        assert (await read(opened, fetch_sales, now - 60_000, now + 60_000)).checkouts == 4 * sales.purchases
        assert sales._replace(checkouts=4 * sales.purchases).conversion_rate == 0.25
        before = await read(opened, fetch_month, previous_month(MARCH), LATER, COGS)
        assert month_report.revenue_before == before.revenue
        assert month_report.growth == (month_report.revenue / before.revenue - 1 if before.revenue > 0 else None)
        early = await read(opened, fetch_month, MARCH, at(date(2027, 3, 2)), COGS)
        assert (early.is_over, early.fees_ahead, early.lost, early.churn) == (False, 3000 * CENT, None, None)

    run(database, work, "left", "stays", "free", "new", "late")


def test_every_figure_that_is_not_plain_has_its_definition() -> None:
    shown = {"revenue", "cost", "margin", "liability", "fees_ahead", "conversion", "active", "churn", "lifetime_value"}
    shown |= {"growth", "conversion_rate", "mean_purchase", "mrr", "expansion", "contraction", "churned"}
    assert shown <= {
        name
        for report in (DayReport, MonthReport, Sales, RecurringRevenue)
        for name in (*report._fields, *vars(report))
    }
    assert shown | {"day", "target", "models", "customers"} == set(DEFINITIONS)


@pytest.mark.parametrize(
    ("revenue", "cost", "margin", "is_on_target"),
    [(0, 0, None, None), (5, 0, None, None), (0, 5, 0.0, False), (400, 100, 4.0, False), (401, 100, 4.01, True)],
)
def test_margin_is_compared_with_the_target(
    revenue: int, cost: int, margin: float | None, is_on_target: bool | None
) -> None:
    day = DayReport(FIRST_DAY, revenue, 0, cost)
    assert (day.margin, day.is_on_target) == (margin, is_on_target)


@pytest.mark.parametrize(("of", "before"), [((2027, 1), (2026, 12)), ((2027, 2), (2027, 1)), ((2027, 12), (2027, 11))])
def test_month_before_january_is_in_the_year_before(of: tuple[int, int], before: tuple[int, int]) -> None:
    assert previous_month(Calendar(*of)) == Calendar(*before)


def test_the_metrics_of_money_tell_of_the_last_day_that_is_over(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = at(date(2027, 3, 10), 6)
    monkeypatch.setattr(journal, "now_ms", lambda: now * 1000)
    billing = Billing.model_validate({"plans": "plans.yaml", "credits": Credits(cogs={"tokens": "0.000001"})})

    async def work(opened: Database) -> None:
        nothing = await read(opened, revenue.fetch_revenue, billing, "usd", now)
        yesterday = nothing.currencies["usd"]
        assert (yesterday.yesterday.margin, nothing.liability, yesterday.models) == (None, 0, {})
        await write(opened, credits.book_purchase, "id-new", Payment("cs_1", "pi_1", 1000 * CENT))
        await write(opened, consume, "id-new", "u1", 300 * CENT, now - 3600)
        await write(opened, credits.book_chargeback, "pi_1", "dp_1", 200 * CENT)
        await count(opened, now // 60 * 60, ("new", "tokens", 600_000, "m1"), ("new", "tokens", 150_000, ""))
        figures = await read(opened, revenue.fetch_revenue, billing, "usd", now + 86400)
        assert figures.currencies.keys() == {"usd"}
        dollars = figures.currencies["usd"]
        assert (dollars.yesterday.day, dollars.yesterday.margin) == (date(2027, 3, 10), 4.0)
        assert (figures.liability, dollars.refunds) == (500 * CENT, 200 * CENT)
        assert (figures.purchased, dollars.plans) == (1000 * CENT, {"none": dollars.yesterday.revenue})
        assert (dollars.models, figures.invoices) == ({"m1": 600_000, "none": 150_000}, {})

    run(database, work, "new")
