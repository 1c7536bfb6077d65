"""The business report: revenue, cost and margin by day, the top models and customers of a week, and monthly figures.

A report is in one currency. Its revenue is from that currency's books (accounting.py), so both agree. Its customers are
charged in that currency (currency_scope.py). Amounts are whole millicredits: a million are one US dollar; in other
currencies one is a ten-thousandth of the smallest unit. DEFINITIONS explains each figure, such as churn.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.credits.statements import CalendarMonth
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.reports import accounting, sales, usage_costs
from edgeproxy.collector.billing.reports.accounting import EqualFees
from edgeproxy.collector.billing.reports.currency_scope import IN_USD, CurrencyScope
from edgeproxy.collector.billing.reports.sales import Sales
from edgeproxy.collector.billing.reports.usage_costs import ModelCost, Volume
from edgeproxy.collector.billing.rollout.gates import MARGIN_MIN
from edgeproxy.collector.billing.subscriptions import plan_versions
from edgeproxy.collector.database.billing_tables import plan_versions as version_rows
from edgeproxy.collector.database.billing_tables import segments, subscriptions
from edgeproxy.collector.database.credit_tables import credit_entries, credit_transactions
from edgeproxy.collector.database.schema import DAY
from edgeproxy.config.collector.catalog import get_plan_name
from edgeproxy.config.collector.currency_units import USD

DAYS_MAX = 400
"""The most days that one request may cover."""
DAY_MS = DAY * 1000

DEFINITIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "day": "A day of UTC.",
        "revenue": (
            "Fees of plans over the days that they pay for, usage of plans on the day of its invoice, credits when "
            "they are used, and credits that expired; less what was taken back. Without tax. It is what the books say."
        ),
        "cost": (
            "What the usage of the day cost, at the prices of billing.credits.cogs in this currency: that of all "
            "customers who are charged in it, whether they pay or not. Usage of meters without such a price costs "
            "nothing here."
        ),
        "margin": "Revenue for each unit of cost.",
        "target": f"A margin of more than {MARGIN_MIN:g}.",
        "models": (
            "The dimension model of meters that have a price under billing.credits.cogs, by what their usage of the "
            "week cost."
        ),
        "customers": "For each meter, the customers with the largest usage in the week.",
        "liability": "Credits that customers have and have not used, at the end of the month; those given away too.",
        "fees_ahead": "Fees that were invoiced for days after the month.",
        "conversion": (
            "Customers who paid for the first time in the month, of those who had never paid before it: the ones who "
            "were there and the ones who came."
        ),
        "growth": "Revenue of the month beside that of the month before: 0.1 is a tenth more.",
        "conversion_rate": (
            "Purchases of credits that were paid, of those that were begun at Checkout in the month; 85 of 100 are the "
            "goal."
        ),
        "mean_purchase": "Credits of an average purchase.",
        "active": "Customers who used credits in the month, or had a plan with a fee or billed usage.",
        "churn": "Customers who were active in the month before and not in this one, of those of the month before.",
        "lifetime_value": (
            "Revenue of the month for each active customer, less its share of the cost, divided by the churn."
        ),
        "mrr": (
            "Monthly fees of the subscriptions at the end of the month, or now; a yearly fee counts a twelfth, a trial "
            "nothing. Without usage, coupons and tax."
        ),
        "expansion": "More monthly fees of customers who had some at the start of the month.",
        "contraction": "Less monthly fees of customers who still have some.",
        "churned": "Monthly fees of customers who have none any more.",
    }
)
"""The meaning of each figure, by its name in this module."""

REVENUE = ("revenue", "discounts", "breakage")
"""The revenue accounts without fees, which are earned over time. Discounts reduce revenue."""
NO_PLAN = "none"
"""The plan name of customers without a plan."""


class DayReport(NamedTuple):
    """A day, in millicredits."""

    day: date
    usage: int
    """Revenue from usage and credits."""
    fees: int
    """Revenue from plan fees."""
    cost: int

    @property
    def revenue(self) -> int:
        """The sum of all revenue, in millicredits."""
        return self.usage + self.fees

    @property
    def margin(self) -> float | None:
        """Revenue per unit of cost, or None if there was no cost."""
        return self.revenue / self.cost if self.cost else None

    @property
    def is_on_target(self) -> bool | None:
        """True if the margin is above the target; None if there is no margin."""
        return None if self.margin is None else self.margin > MARGIN_MIN


class WeekReport(NamedTuple):
    """The usage and the costs of seven days."""

    start: date
    cost: int
    """The cost of all usage, in millicredits."""
    models: Sequence[ModelCost]
    """The costliest models, highest cost first."""
    customers: Sequence[Volume]
    """The largest customers of each meter, in that order."""


class MonthReport(NamedTuple):
    """A calendar month, or the part of it that has passed. Amounts are millicredits."""

    month: CalendarMonth
    is_over: bool
    revenue: int
    cost: int
    liability: int
    fees_ahead: int
    converted: int
    """Customers who paid for the first time."""
    convertible: int
    """Customers who had never paid before, including new ones."""
    active: int
    active_before: int
    """Customers who were active in the month before."""
    lost: int | None
    """Customers of the month before who are no longer active; None until the month is over."""
    revenue_before: int
    """Revenue of the month before, in millicredits."""
    sales: Sales

    @property
    def growth(self) -> float | None:
        """Revenue growth over the month before; None until the month is over, or without earlier revenue."""
        return self.revenue / self.revenue_before - 1 if self.is_over and self.revenue_before > 0 else None

    @property
    def conversion(self) -> float | None:
        """The share of convertible customers who paid; None if there were none."""
        return self.converted / self.convertible if self.convertible else None

    @property
    def churn(self) -> float | None:
        """The share of active customers who left; None until the month is over, or if none was active before."""
        return None if self.lost is None or not self.active_before else self.lost / self.active_before

    @property
    def lifetime_value(self) -> int | None:
        """The lifetime value of a customer in millicredits; None if churn is unknown or 0.

        Without churn the expected time as a customer cannot be computed.
        """
        if not self.churn or not self.active:
            return None
        return round((self.revenue - self.cost) / self.active / self.churn)


async def fetch_days(
    connection: AsyncConnection,
    first: date,
    last: date,
    now: float,
    cogs: Mapping[str, int],
    scope: CurrencyScope = IN_USD,
) -> list[DayReport]:
    """Return the days from `first` to `last`, inclusive, as of the Unix second `now`; at most DAYS_MAX.

    `cogs` is the cost of a unit by meter, in 10⁻¹² smallest units of the scope's currency. The transaction must read
    one snapshot. Raises ValueError.
    """
    begin, end = start_of_day(first), start_of_day(last) + DAY
    if not 0 < end - begin <= DAYS_MAX * DAY:
        raise ValueError(f"from 1 to {DAYS_MAX} days can be asked for")
    usage = await _fetch_usage_revenue(connection, begin, end, scope.currency)
    fees = await accounting.fetch_equal_fees(connection, begin, end, scope.currency)
    costs = await usage_costs.fetch_costs(connection, begin, end, cogs, scope)
    return [
        DayReport(date_of(at), usage.get(at, 0), _sum_earned(fees, at, at + DAY, now), costs.get(at, 0))
        for at in range(begin, end, DAY)
    ]


async def fetch_revenue_by_plan(
    connection: AsyncConnection, day: date, now: float, currency: str = USD
) -> dict[str, int]:
    """Return a day's revenue in a currency by the customers' plan name, with NO_PLAN for those without a plan.

    The transaction must read one snapshot. The sum equals the day's revenue from `fetch_days`.
    """
    begin = start_of_day(day)
    end = begin + DAY
    columns, entries = credit_transactions.c, credit_entries.c
    versions = (
        # A customer who changed its plan on this day counts once, under one of its plans. Otherwise the join would
        # count its revenue twice.
        sa.select(subscriptions.c.customer, sa.func.max(segments.c.plan_version).label("version"))
        .join_from(segments, subscriptions, subscriptions.c.id == segments.c.subscription)
        .where(segments.c.meter == "", segments.c.start < end, segments.c.end > begin)
        .group_by(subscriptions.c.customer)
        .subquery()
    )
    used = (
        sa.select(versions.c.version, sa.cast(sa.func.sum(-entries.amount), sa.BigInteger))
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .join(versions, versions.c.customer == columns.customer, isouter=True)
        .where(*_list_revenue_conditions(begin, end, currency))
        .group_by(versions.c.version)
    )
    revenue = {NO_PLAN: 0}

    def add(version: str | None, amount: int) -> None:
        name = NO_PLAN if version is None else get_plan_name(version)
        revenue[name] = revenue.get(name, 0) + amount

    for version, amount in await connection.execute(used):
        add(version, amount)
    for equal_fees in await accounting.fetch_equal_fees(connection, begin, end, currency, versions):
        add(equal_fees.version, _sum_earned([equal_fees], begin, end, now))
    return revenue


async def fetch_week(
    connection: AsyncConnection, start: date, cogs: Mapping[str, int], scope: CurrencyScope = IN_USD
) -> WeekReport:
    """Return the report of the seven days from `start` on. The transaction must read one snapshot."""
    begin = start_of_day(start)
    end = begin + 7 * DAY
    models = await usage_costs.fetch_costliest_models(connection, begin, end, cogs, scope)
    cost = sum((await usage_costs.fetch_costs(connection, begin, end, cogs, scope)).values())
    return WeekReport(start, cost, models, await usage_costs.fetch_largest_customers(connection, begin, end, scope))


async def fetch_month(
    connection: AsyncConnection,
    calendar_month: CalendarMonth,
    now: float,
    cogs: Mapping[str, int],
    scope: CurrencyScope = IN_USD,
) -> MonthReport:
    """Return the report of a month as of the Unix second `now`. The transaction must read one snapshot."""
    begin, end = calendar_month.begin // 1000, calendar_month.end // 1000
    is_over = now >= end
    # A month under way has fees ahead from now on, not only from its end.
    reached = end if is_over else int(now)
    currency = scope.currency
    fees = await accounting.fetch_equal_fees(connection, begin, end, currency)
    invoiced_fees = [equal_fees for equal_fees in fees if equal_fees.fee.booked < reached]
    balances = await accounting.fetch_balances_before(connection, calendar_month.end, currency)
    before = await _select_active(connection, previous_month(calendar_month), scope)
    active = await _select_active(connection, calendar_month, scope)
    earlier = previous_month(calendar_month).begin // 1000
    fees_before = await accounting.fetch_equal_fees(connection, earlier, begin, currency)
    revenue_before = sum((await _fetch_usage_revenue(connection, earlier, begin, currency)).values())
    revenue = sum((await _fetch_usage_revenue(connection, begin, end, currency)).values())
    return MonthReport(
        calendar_month,
        is_over,
        revenue + _sum_earned(fees, begin, end, now),
        sum((await usage_costs.fetch_costs(connection, begin, end, cogs, scope)).values()),
        # The journal has what is owed to customers as a negative balance.
        -balances.get("deferred", 0),
        CENT * sum(count * (fee.amount - fee.compute_earned(reached)) for fee, count, _ in invoiced_fees),
        *await sales.count_conversion(connection, calendar_month, scope),
        await _count(connection, active),
        await _count(connection, before),
        # Until the month is over, customers may still become active.
        await _count(connection, before.except_(active)) if is_over else None,
        revenue_before + _sum_earned(fees_before, earlier, begin, now),
        await sales.fetch_sales(connection, begin * 1000, end * 1000, scope),
    )


def start_of_day(day: date) -> int:
    """Return the Unix second at the start of a day."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def date_of(second: int) -> date:
    """Return the day of a Unix second."""
    return datetime.fromtimestamp(second, UTC).date()


def previous_month(calendar_month: CalendarMonth) -> CalendarMonth:
    """Return the month before."""
    return CalendarMonth(calendar_month.year - (calendar_month.month == 1), (calendar_month.month - 2) % 12 + 1)


def _sum_earned(fees: Iterable[EqualFees], begin: int, end: int, now: float) -> int:
    """Return the fees that became revenue between two Unix seconds, up to `now`."""
    start, until = min(begin, int(now)), min(end, int(now))
    return CENT * sum(count * (fee.compute_earned(until) - fee.compute_earned(start)) for fee, count, _ in fees)


def _list_revenue_conditions(begin: int, end: int, currency: str) -> list[sa.ColumnElement[bool]]:
    """Return the conditions for revenue entries other than fees in a currency, between two Unix seconds."""
    columns = credit_transactions.c
    is_in_time = (columns.at >= begin * 1000, columns.at < end * 1000)
    return [*is_in_time, credit_entries.c.account.in_(REVENUE), columns.currency == currency]


async def _fetch_usage_revenue(connection: AsyncConnection, begin: int, end: int, currency: str) -> dict[int, int]:
    """Return the revenue in a currency other than fees, by the Unix second at the start of its day."""
    columns, entries = credit_transactions.c, credit_entries.c
    day = (columns.at - columns.at % DAY_MS).label("day")
    statement = (
        sa.select(day, sa.cast(sa.func.sum(-entries.amount), sa.BigInteger))
        .join_from(credit_transactions, credit_entries, entries.seq == columns.seq)
        .where(*_list_revenue_conditions(begin, end, currency))
        .group_by(day)
    )
    return {at // 1000: amount for at, amount in await connection.execute(statement)}


async def _select_active(
    connection: AsyncConnection, calendar_month: CalendarMonth, scope: CurrencyScope
) -> sa.Select[str]:
    """Return the statement for the customers of a scope who were active in a month, each once."""
    columns = credit_transactions.c
    used = sa.select(columns.customer).where(
        columns.kind == "consumption",
        columns.currency == scope.currency,
        columns.slice >= calendar_month.begin // 1000,
        columns.slice < calendar_month.end // 1000,
    )
    plans = await plan_versions.fetch_plans(connection, await connection.scalars(sa.select(version_rows.c.version)))
    paid = [version for version, plan in plans.items() if plan.has_prices]
    subscribed = (
        sa.select(subscriptions.c.customer)
        .join_from(segments, subscriptions, subscriptions.c.id == segments.c.subscription)
        .where(segments.c.meter == "", segments.c.plan_version.in_(paid), scope.is_charged_in(subscriptions.c.customer))
        .where(segments.c.start < calendar_month.end // 1000, segments.c.end > calendar_month.begin // 1000)
    )
    return sa.select(used.union(subscribed).subquery().c.customer)


async def _count(connection: AsyncConnection, rows: sa.SelectBase) -> int:
    """Return the number of rows that a statement selects."""
    return int((await connection.execute(sa.select(sa.func.count()).select_from(rows.subquery()))).scalar_one())
