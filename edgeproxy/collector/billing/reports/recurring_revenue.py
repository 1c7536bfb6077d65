"""Monthly recurring revenue (MRR): the monthly fees of running subscriptions, by plan, and their change in a month.

The rater computes each fee (`Segment.fee`: the plan's fee for each of its quantity, and 0 while it rests). A yearly fee
counts a twelfth, a trial nothing. Usage, coupons and tax do not count. Each report is in one currency. Amounts are
ten-thousandths of its smallest unit, millicredits for US dollars.
"""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.calendar import MONTHS
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.rating.money import divide_rounded
from edgeproxy.collector.billing.rating.rater import Segment, Span
from edgeproxy.collector.billing.reports.currency_scope import CurrencyScope
from edgeproxy.collector.billing.subscriptions import plan_versions
from edgeproxy.collector.billing.subscriptions.changes import SubscriptionState
from edgeproxy.collector.database.billing_tables import CANCELED, segments, subscriptions
from edgeproxy.collector.database.statements import AnySelect
from edgeproxy.config.collector.catalog import Plan, get_plan_name

_TERMS = ("plan_version", "is_yearly", "is_resting", "quantity", "is_trial")
_ANY_TIME = Span(0, 1)


class PlanSubscribers(NamedTuple):
    """The subscribers of a plan at a moment."""

    plan: str
    """The name of the plan, for example `standard`."""
    subscribers: int
    """Customers who have it, without those in a trial."""
    trials: int
    """Customers who have it in a trial."""
    quantity: int
    """The sum of the subscribers' quantities, for example seats."""
    mrr: int


class RecurringRevenue(NamedTuple):
    """The recurring revenue at the end of a time, and its change since the start."""

    mrr: int
    before: int
    """The recurring revenue at the start: `before + new + expansion - contraction - churned` is `mrr`."""
    new: int
    """The revenue of customers without recurring revenue at the start."""
    expansion: int
    """The increase of customers who pay more than at the start."""
    contraction: int
    """The decrease of customers who pay less, but still something."""
    churned: int
    """The revenue at the start of customers who have none now."""
    plans: list[PlanSubscribers]
    """The plans by their recurring revenue, largest first."""


class _Terms(NamedTuple):
    """The terms of a fee."""

    version: str
    is_yearly: bool
    is_resting: bool
    quantity: int
    is_trial: bool


async def fetch_recurring_revenue(
    connection: AsyncConnection, begin: int, end: int, scope: CurrencyScope
) -> RecurringRevenue:
    """Return the recurring revenue in a scope at the Unix second `end`, and its change since `begin`.

    Customers are left out if a plan version that they have at one of both times is unreadable, or has no price in the
    currency. The transaction must read one snapshot.
    """
    at_begin, at_end = (_select_terms(second, scope).subquery() for second in (begin, end))
    pairs: list[tuple[_Terms | None, _Terms | None, int]] = []
    # Two joins, one from each side, in place of a full join: customers who are new, and customers who have left.
    for one, other in ((at_begin, at_end), (at_end, at_begin)):
        for row in await connection.execute(_group_pairs(at_begin, at_end, one, other)):
            values = [*row]
            pairs.append((_parse_terms(*values[:5]), _parse_terms(*values[5:10]), int(values[10])))
    versions = {terms.version for one, other, _ in pairs for terms in (one, other) if terms is not None}
    sold = await plan_versions.fetch_readable_plans(connection, versions)
    plans: dict[str, Plan] = {}
    for version, plan in sold.items():
        # A version without a price in the currency is not in `plans`, and the loop below skips its customers.
        with suppress(ValueError):
            plans[version] = plan.in_currency(scope.currency)
    sums: dict[str, int] = defaultdict(int)
    by_plan: dict[str, PlanSubscribers] = {}
    for earlier, later, customers in pairs:
        if any(terms is not None and terms.version not in plans for terms in (earlier, later)):
            continue
        before, now = _compute_fee(plans, earlier), _compute_fee(plans, later)
        sums["before"] += customers * before
        sums["mrr"] += customers * now
        sums[_name_change(before, now)] += customers * abs(now - before)
        if later is not None:
            name = get_plan_name(later.version)
            held = by_plan.get(name, PlanSubscribers(name, 0, 0, 0, 0))
            paying = 0 if later.is_trial else customers
            by_plan[name] = held._replace(
                subscribers=held.subscribers + paying,
                trials=held.trials + customers - paying,
                quantity=held.quantity + paying * later.quantity,
                mrr=held.mrr + customers * now,
            )
    return RecurringRevenue(
        sums["mrr"],
        sums["before"],
        sums["new"],
        sums["expansion"],
        sums["contraction"],
        sums["churned"],
        sorted(by_plan.values(), key=lambda one: (-one.mrr, one.plan)),
    )


def compute_mrr(current: SubscriptionState, now: float) -> int:
    """Return the recurring revenue of one subscription at the Unix second `now`, as the report of all counts it."""
    is_over = current.last.span.end <= now and current.cancel_at is not None and current.cancel_at <= now
    return 0 if is_over else compute_monthly_fee(current.last)


def compute_monthly_fee(segment: Segment) -> int:
    """Return the monthly fee of a segment."""
    if segment.is_trial:
        return 0
    return divide_rounded(segment.fee * CENT, MONTHS) if segment.is_yearly else segment.fee * CENT


def _name_change(before: int, now: int) -> str:
    """Return the field that a change of a customer's recurring revenue belongs to."""
    if not before:
        return "new"
    if not now:
        return "churned"
    return "expansion" if now > before else "contraction"


def _compute_fee(plans: Mapping[str, Plan], terms: _Terms | None) -> int:
    """Return the monthly fee of a customer with these terms; None: no subscription."""
    if terms is None:
        return 0
    segment = Segment(
        *(terms.version, plans[terms.version], _ANY_TIME, _ANY_TIME),
        is_yearly=terms.is_yearly,
        is_trial=terms.is_trial,
        is_resting=terms.is_resting,
        quantity=terms.quantity,
    )
    return compute_monthly_fee(segment)


def _select_terms(second: int, scope: CurrencyScope) -> AnySelect:
    """Return the statement for the terms of each subscription of a scope at a Unix second.

    A subscription whose period is over keeps its last terms until it gets its next period or is canceled.
    """
    columns = segments.c
    is_trial = sa.case((columns.start < sa.func.coalesce(subscriptions.c.trial_ends_at, 0), 1), else_=0)
    terms = (columns.plan_version, columns.is_yearly, columns.is_resting, columns.quantity, is_trial.label("is_trial"))
    is_waiting = (
        (subscriptions.c.state != CANCELED)
        & (subscriptions.c.period_end <= second)
        & (columns.end == subscriptions.c.period_end)
        & (sa.func.coalesce(subscriptions.c.cancel_at, second + 1) > second)
    )
    return (
        sa.select(subscriptions.c.customer, *terms)
        .join_from(segments, subscriptions, subscriptions.c.id == columns.subscription)
        .where(columns.meter == "", columns.start <= second, (columns.end > second) | is_waiting)
        .where(scope.is_charged_in(subscriptions.c.customer))
    )


def _group_pairs(at_begin: sa.Subquery, at_end: sa.Subquery, one: sa.Subquery, other: sa.Subquery) -> AnySelect:
    """Return the statement for the pairs of terms at both times, with the number of customers of each pair.

    With `at_begin` as `one` it has all customers with terms at the begin. With `at_end` it has only customers without
    terms at the begin.
    """
    columns = [table.c[name] for table in (at_begin, at_end) for name in _TERMS]
    statement = sa.select(*columns, sa.func.count()).select_from(
        one.outerjoin(other, one.c.customer == other.c.customer)
    )
    if one is at_end:
        statement = statement.where(at_begin.c.customer.is_(None))
    return statement.group_by(*columns)


def _parse_terms(
    version: str | None, is_yearly: bool, is_resting: bool, quantity: int, is_trial: bool
) -> _Terms | None:
    """Return the terms in the columns of a row, or None if the customer had none."""
    if version is None:
        return None
    return _Terms(version, bool(is_yearly), bool(is_resting), quantity, bool(is_trial))
