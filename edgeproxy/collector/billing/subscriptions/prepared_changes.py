"""Changes of subscriptions, decided and rated without writing, for previews and before each change."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.invoices import invoiced_lines
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.discounts import Discount, rate_discounts
from edgeproxy.collector.billing.rating.rater import RatedLine, Segment
from edgeproxy.collector.billing.subscriptions import (
    changes,
    customer_currency,
    plan_versions,
    plans_on_sale,
    subscription_rows,
)
from edgeproxy.collector.billing.subscriptions.changes import PlanChange, PlanChangeError, SubscriptionState, When
from edgeproxy.collector.billing.subscriptions.subscription_rows import LoadedSubscription, Subscriber
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.settings import CollectorSettings


class PlanTerms(NamedTuple):
    """The requested terms besides the plan. None keeps a term, or uses the default of a new subscription."""

    is_yearly: bool | None = None
    quantity: int | None = None
    currency: str | None = None
    """The currency, if none was chosen yet."""


async def prepare_subscription(
    connection: AsyncConnection,
    plan: str,
    customer: Subscriber,
    terms: PlanTerms,
    *,
    settings: CollectorSettings,
    now: float,
) -> tuple[SubscriptionState, str]:
    """Return a subscription that would begin now, and the plan's default currency. Raises ChangeRejectedError.

    The subscription is in the requested currency if none was chosen yet.
    """
    plans = await plan_versions.fetch_plans_on_sale(connection, settings.plans, now, customer.name)
    version = plans_on_sale.resolve_version(plan, plans, customer.name)
    # Ended subscriptions count, too: a customer gets one trial, whatever the plan.
    has_trial = not await subscription_rows.has_had_trial(connection, customer.id)
    assert settings.billing is not None
    anchor = periods.floor_to_minute(now) if settings.billing.anchor == "signup" else None
    sold = await customer_currency.choose_plan_currency(connection, customer, version, plans[version], terms.currency)
    try:
        prepared = changes.begin_subscription(
            version,
            sold,
            now=now,
            anchor=anchor,
            is_yearly=bool(terms.is_yearly),
            has_trial=has_trial,
            quantity=terms.quantity or 1,
        )
    except PlanChangeError as error:
        raise ChangeRejectedError(error.code, error.why, params=error.params) from None
    return prepared, plans[version].currency


async def prepare_resumption(
    connection: AsyncConnection,
    loaded: LoadedSubscription,
    plan: str,
    terms: PlanTerms,
    *,
    plans: Mapping[str, Plan],
    now: float,
) -> PlanChange:
    """Return the effects of resuming a subscription that ended within its period, without writing.

    Its plan is one of the `plans` on sale. Raises ChangeRejectedError.
    """
    version = plans_on_sale.resolve_version(plan, plans, loaded.customer.name)
    sold = await customer_currency.choose_plan_currency(
        connection, loaded.customer, version, plans[version], terms.currency
    )
    is_yearly, quantity = bool(terms.is_yearly), terms.quantity or 1
    invoiced = await invoiced_lines.fetch_lines_of_subscription(connection, loaded.row.id)
    try:
        change = changes.resume_plan(
            loaded.current, version, sold, now, invoiced, is_yearly=is_yearly, quantity=quantity
        )
    except PlanChangeError as error:
        raise ChangeRejectedError(error.code, error.why, params=error.params) from None
    return discount_change(loaded, change, invoiced, loaded.discounts)


async def prepare_change(
    connection: AsyncConnection,
    loaded: LoadedSubscription,
    plan: str,
    when: When | None,
    terms: PlanTerms,
    *,
    plans: Mapping[str, Plan],
    now: float,
) -> PlanChange:
    """Return the effects of a change to one of the `plans` on sale, or to another interval or quantity, without
    writing.

    The currency applies if none was chosen yet. Raises ChangeRejectedError.
    """
    version = plans_on_sale.resolve_version(plan, plans, loaded.customer.name)
    sold = await customer_currency.choose_plan_currency(
        connection, loaded.customer, version, plans[version], terms.currency
    )
    invoiced = await invoiced_lines.fetch_lines_of_subscription(connection, loaded.row.id)
    try:
        change = changes.change_plan(
            *(loaded.current, version, sold, when, now, invoiced),
            is_yearly=terms.is_yearly,
            quantity=terms.quantity,
        )
    except PlanChangeError as error:
        raise ChangeRejectedError(error.code, error.why, params=error.params) from None
    return discount_change(loaded, change, invoiced, loaded.discounts)


def compute_resumed_state(loaded: LoadedSubscription, begun: Segment) -> SubscriptionState:
    """Return a subscription that continues with the segment that has begun."""
    return loaded.current._replace(segments=[*loaded.current.segments, begun], cancel_at=None, next_version=None)


async def add_discount(
    connection: AsyncConnection, loaded: LoadedSubscription, change: PlanChange, discount: Discount
) -> PlanChange:
    """Return an immediate change with the lines of a coupon that begins with it."""
    assert change.begun is not None
    invoiced = await invoiced_lines.fetch_lines_of_subscription(connection, loaded.row.id)
    # Computed anew: `change.lines` has the lines of earlier discounts, too, which are rated again below.
    fees = changes.compute_fees([*loaded.current.segments, change.begun], invoiced)
    return discount_change(loaded, change._replace(lines=fees), invoiced, [*loaded.discounts, discount])


def discount_change(
    loaded: LoadedSubscription, change: PlanChange, invoiced: Sequence[RatedLine], discounts: Sequence[Discount]
) -> PlanChange:
    """Return an immediate change with the lines of discounts."""
    # A later change has its lines when it begins. Coupons may have ended by then.
    if change.begun is None:
        return change
    segments = [*loaded.current.segments, change.begun]
    return change._replace(lines=[*change.lines, *rate_discounts(change.lines, invoiced, segments, discounts)])
