"""Reports in one currency: its books, and the usage and the customers who are charged in it."""

from datetime import UTC, date, datetime

import pytest
import sqlalchemy as sa
from prometheus_client.core import GaugeMetricFamily

from edgeproxy.collector.billing.credits.statements import CalendarMonth
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.reports import business_report, revenue, rollout_figures
from edgeproxy.collector.billing.reports.currency_scope import CurrencyScope, list_scopes
from edgeproxy.collector.billing.reports.recurring_revenue import (
    PlanSubscribers,
    RecurringRevenue,
    fetch_recurring_revenue,
)
from edgeproxy.collector.billing.reports.sales import Sales
from edgeproxy.collector.billing.subscriptions import plan_versions
from edgeproxy.collector.billing_metrics import build_revenue_families
from edgeproxy.collector.database.billing_tables import plan_versions as plan_versions_table
from edgeproxy.collector.database.billing_tables import segments, subscriptions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, customers
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.money import reading_in
from tests.collector.billing.reports.test_business_report import invoice, pay, subscribe
from tests.support.credited import count, run, write

FIRST = date(2027, 3, 1)
BEGIN = int(datetime(2027, 3, 1, tzinfo=UTC).timestamp())
MONTH = BEGIN + 31 * DAY
LATER = MONTH + 40 * DAY
BILLING = Billing.model_validate(
    {"plans": "p.yaml", "credits": {"cogs": {"tokens": {"usd": "0.000001", "jpy": "0.0002"}, "images": "1"}}}
)
PAID = {"fee": {"usd": "31", "jpy": "3100"}}


@pytest.mark.both_databases
def test_a_report_is_of_the_books_and_the_customers_of_its_currency(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "now_ms", lambda: (BEGIN + 60) * 1000)

    async def work(opened: Database) -> None:
        await write(opened, plan_versions.record_plans, {"paid@1": Plan.model_validate(PAID)})
        chosen = sa.update(customers).where(customers.c.name == sa.bindparam("who")).values(currency=sa.bindparam("in"))
        async with opened.writing() as connection:
            await connection.execute(chosen, [{"who": "dollar", "in": "usd"}, {"who": "yen", "in": "jpy"}])
        for who, currency, amount in (("dollar", "usd", 3100), ("yen", "jpy", 6200)):
            await subscribe(opened, f"id-{who}", "paid@1", BEGIN, MONTH)
            await write(opened, invoice, f"id-{who}", who, amount, BEGIN, MONTH, currency)
            await write(opened, pay, f"id-{who}", who, amount, currency)
        used = (("dollar", 1_000_000), ("free", 500_000), ("yen", 1000), ("of-files", 500_000))
        await count(opened, BEGIN, *((who, "tokens", number, "m1") for who, number in used))
        await count(opened, BEGIN + 60, ("yen", "images", 3, "m2"))

        async with opened.reading(whole=True) as connection:
            scopes = await list_scopes(connection, "usd")
            assert scopes == [CurrencyScope("usd", True, False), CurrencyScope("jpy", False, False)]
            assert [scope.currency for scope in await list_scopes(connection, "eur")] == ["eur", "jpy", "usd"]
            costs = [BILLING.credits.list_costs(scope.currency) for scope in scopes]  # type: ignore[union-attr]
            days = [
                (await business_report.fetch_days(connection, FIRST, FIRST, LATER, cogs, scope))[0]
                for scope, cogs in zip(scopes, costs, strict=True)
            ]
            # 100 cents and 200 yen a day; 2,000,000 tokens at a 10,000th of a cent, and 1,000 at a 5,000th of a yen.
            assert [(day.fees, day.cost) for day in days] == [(100 * CENT, 2_000_000), (200 * CENT, 2000)]
            weeks = [
                await business_report.fetch_week(connection, FIRST, cogs, scope)
                for scope, cogs in zip(scopes, costs, strict=True)
            ]
            assert [{customer.customer for customer in week.customers} for week in weeks] == [
                {"dollar", "free", "of-files"},
                {"yen"},
            ]
            assert [[model.cost for model in week.models] for week in weeks] == [[2_000_000], [2000]]
            march = CalendarMonth(2027, 3)
            months = [
                await business_report.fetch_month(connection, march, LATER, cogs, scope)
                for scope, cogs in zip(scopes, costs, strict=True)
            ]
            assert [month.revenue for month in months] == [3100 * CENT, 6200 * CENT]
            assert [(month.active, month.converted, month.convertible) for month in months] == [(1, 1, 2), (1, 1, 1)]
            assert months[1].sales == Sales(0, 0, 0)
            tomorrow = BEGIN + DAY + 60
            margin = await rollout_figures._fetch_margin(connection, tomorrow, BILLING, "usd")
            assert margin == pytest.approx(0.5), "the lowest one: a dollar of revenue, two of cost"
            figures = await revenue.fetch_revenue(connection, BILLING, "usd", tomorrow)
        families = {family.name: family for family in build_revenue_families(figures)}
        assert read_samples(families["billing_revenue"]) == {
            ("usd", "paid"): 1.0,
            ("usd", "none"): 0.0,
            ("jpy", "paid"): 200.0,
            ("jpy", "none"): 0.0,
        }
        assert read_samples(families["billing_cogs"]) == {("usd",): 2.0, ("jpy",): 0.2}
        assert read_samples(families["billing_margin"]) == {("usd",): -1.0, ("jpy",): 199.8}
        assert read_samples(families["billing_margin_ratio"]) == {("usd",): 0.5, ("jpy",): 1000.0}
        assert read_samples(families["billing_model_cost"]) == {("usd", "m1"): 2.0, ("jpy", "m1"): 0.2}

    run(database, work, "dollar", "yen", "free")


def read_samples(family: GaugeMetricFamily) -> dict[tuple[str, ...], float]:
    """Return the values of a metric by label values."""
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


@pytest.mark.both_databases
def test_recurring_revenue_covers_one_currency_and_lists_changes(database: str) -> None:
    usd = {"fee": {"usd": "10", "jpy": "1000"}}
    sold = {
        "small@1": Plan.model_validate({**usd, "quantity": {"max": 9}}),
        "large@1": Plan.model_validate({"fee": {"usd": "100", "jpy": "9000"}, "annual": {"discount": "10%"}}),
    }
    before, after = BEGIN - 9 * DAY, MONTH + 9 * DAY

    async def work(opened: Database) -> None:
        await write(opened, plan_versions.record_plans, sold)

        async def hold(
            name: str, *terms: tuple[str, int, int, dict[str, int]], trial_ends_at: int | None = None
        ) -> None:
            first, *others = terms
            await subscribe(opened, f"id-{name}", first[0], first[1], first[2])
            async with opened.writing() as connection:
                own = sa.update(segments).where(segments.c.subscription == f"id-{name}")
                await connection.execute(own.values(plan_version=first[0], **first[3]))
                for version, start, end, more in others:
                    times = {"start": start, "end": end, "period_start": start, "period_end": end}
                    row = {"subscription": f"id-{name}", "meter": "", "plan_version": version, "is_yearly": 0, **times}
                    await connection.execute(
                        sa.insert(segments).values(**{**row, "paid_start": start, "paid_end": end, **more})
                    )
                values = {"trial_ends_at": trial_ends_at}
                await connection.execute(
                    sa.update(subscriptions).where(subscriptions.c.customer == f"id-{name}").values(**values)
                )

        middle = BEGIN + 9 * DAY
        await hold("grows", ("small@1", before, middle, {"quantity": 2}), ("small@1", middle, after, {"quantity": 5}))
        await hold("shrinks", ("large@1", before, middle, {}), ("small@1", middle, after, {}))
        await hold("yearly", ("large@1", before, after, {"is_yearly": 1}))
        await hold("leaves", ("large@1", before, middle, {}))
        await hold("comes", ("small@1", middle, after, {}))
        await hold("tries", ("large@1", middle, after, {}), trial_ends_at=after)
        await hold("rests", ("large@1", before, middle, {}), ("large@1", middle, after, {"is_resting": 1}))
        await hold("tokyo", ("large@1", middle, after, {}))
        async with opened.writing() as connection:
            await connection.execute(sa.update(customers).where(customers.c.id == "id-tokyo").values(currency="jpy"))
        async with opened.reading(whole=True) as connection:
            dollars, yen = [
                await fetch_recurring_revenue(connection, BEGIN - 1, MONTH - 1, scope)
                for scope in await list_scopes(connection, "usd")
            ]
        cents = CENT * 100
        assert dollars == RecurringRevenue(
            mrr=(50 + 10 + 90 + 10) * cents,
            before=(20 + 100 + 90 + 100 + 100) * cents,
            new=10 * cents,
            expansion=30 * cents,
            contraction=90 * cents,
            churned=200 * cents,
            plans=[
                PlanSubscribers("large", 2, 1, 2, 90 * cents),
                PlanSubscribers("small", 3, 0, 7, 70 * cents),
            ],
        )
        assert dollars.before + dollars.new + dollars.expansion - dollars.contraction - dollars.churned == dollars.mrr
        assert yen == RecurringRevenue(
            *[9000 * CENT, 0, 9000 * CENT, 0, 0, 0], [PlanSubscribers("large", 1, 0, 1, 9000 * CENT)]
        )

    run(database, work, "grows", "shrinks", "yearly", "leaves", "comes", "tries", "rests", "tokyo")


@pytest.mark.both_databases
def test_recurring_revenue_counts_ended_periods_and_leaves_out_unpriced_plans(database: str) -> None:
    sold = {version: Plan.model_validate({"fee": "10"}) for version in ("small@1", "damaged@1")}
    with reading_in("jpy"):
        sold["yen@1"] = Plan.model_validate({"fee": "1000"})

    async def work(opened: Database) -> None:
        await write(opened, plan_versions.record_plans, sold)
        for name, version, values in (
            ("waits", "small@1", {"state": "active"}),
            ("ends", "small@1", {"state": "active", "cancel_at": MONTH}),
            ("left", "small@1", {}),
            ("damaged", "damaged@1", {"state": "active"}),
            ("tokyo", "yen@1", {"state": "active"}),
        ):
            await subscribe(opened, f"id-{name}", version, BEGIN, MONTH)
            async with opened.writing() as connection:
                own = sa.update(subscriptions).where(subscriptions.c.customer == f"id-{name}")
                await connection.execute(own.values(period_end=MONTH, **values))
        async with opened.writing() as connection:
            earlier = {"start": BEGIN - DAY, "end": BEGIN, "period_start": BEGIN - DAY, "period_end": BEGIN}
            paid = {"paid_start": BEGIN - DAY, "paid_end": BEGIN, "is_yearly": 0, "plan_version": "small@1"}
            await connection.execute(sa.insert(segments).values(subscription="id-waits", meter="", **earlier, **paid))
            damaged = sa.update(plan_versions_table).where(plan_versions_table.c.version == "damaged@1")
            await connection.execute(damaged.values(settings="{"))
        async with opened.reading(whole=True) as connection:
            (scope,) = await list_scopes(connection, "usd")
            revenue = await fetch_recurring_revenue(connection, MONTH - 1, MONTH + 60, scope)
        fee = 1000 * CENT
        small = [PlanSubscribers("small", 1, 0, 1, fee)]
        assert revenue == RecurringRevenue(fee, 3 * fee, 0, 0, 0, 2 * fee, small)

    run(database, work, "waits", "ends", "left", "damaged", "tokyo")
