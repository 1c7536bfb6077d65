"""Subscriptions: each change in one transaction with its segments, the customer's tier at the edge, the invoice that it
leads to, and the audit entry. `changes.py` decides what a change does.
"""

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.change import ChangeRejectedError, require_version
from edgeproxy.collector.accounts.ids import generate_id, now_ms
from edgeproxy.collector.accounts.models import UpdateCustomerRequest
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.rater import Segment, Span
from edgeproxy.collector.billing.subscriptions import changes, entitlements, plan_versions
from edgeproxy.collector.billing.subscriptions.changes import PlanChange, PlanChangeError, SubscriptionState, When
from edgeproxy.collector.database.billing_tables import CANCELED, segments, subscriptions
from edgeproxy.collector.database.quota_tables import quota_passes
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.config.collector.catalog import (
    Plan,
    find_newest_versions,
    find_version_owner,
    get_plan_name,
    get_plan_tier,
)
from edgeproxy.config.collector.settings import Settings

ACTIVE, PAST_DUE = "active", "past_due"
CHANGING = "changing"
"""The state that the API writes while Stripe still charges usage by the plan before."""
RUNNER = Caller("billing")
"""The caller in the audit log of changes at the end of a period."""
NO_SUBSCRIPTION = "there is no subscription"


class Subscription(TypedDict):
    """A subscription, as the API writes it."""

    id: str
    """The id of the subscription."""
    customer: str
    """The customer, by name."""
    plan: str
    """The version of the plan, such as `standard@3`."""
    interval: str
    """`month` or `year`: the time for which the fee is paid in advance."""
    state: str
    """The state of the subscription, such as `active`; `changing` until Stripe has the change too."""
    period_start: str | None
    """The beginning of the period."""
    period_end: str | None
    """The end of the period."""
    next_plan: str | None
    """The version of the plan after this period; null where it stays."""
    cancel_at: str | None
    """The time at which the subscription ends; null where it goes on."""
    created_at: str | None
    """The time at which the subscription was created."""


class SubscriptionRow(NamedTuple):
    """A subscription as the database has it. Times are Unix seconds."""

    id: str
    customer: str
    plan_version: str
    is_yearly: int
    state: str
    anchor: int | None
    period_start: int
    period_end: int
    next_version: str | None
    cancel_at: int | None
    tier_before: str
    stripe_id: str | None
    created_at: int
    """Unix milliseconds."""
    version: int
    stripe_version: str | None
    """The version whose prices Stripe's subscription has; None where there is none any more."""


FIELDS = [*(subscriptions.c[name] for name in SubscriptionRow._fields[:-1]), subscriptions.c.told_version]


class LoadedSubscription(NamedTuple):
    """A subscription with everything that decisions need."""

    row: SubscriptionRow
    customer: Any
    current: SubscriptionState
    plans: dict[str, Plan]
    """The versions that it had, has, or is to have."""


def to_response(row: SubscriptionRow, customer: str) -> Subscription:
    """Return a subscription as the API writes it."""
    return {
        "id": row.id,
        "customer": customer,
        "plan": row.plan_version,
        "interval": "year" if row.is_yearly else "month",
        "state": CHANGING if row.stripe_version not in (None, row.plan_version) else row.state,
        "period_start": format_timestamp(row.period_start * 1000),
        "period_end": format_timestamp(row.period_end * 1000),
        "next_plan": row.next_version,
        "cancel_at": None if row.cancel_at is None else format_timestamp(row.cancel_at * 1000),
        "created_at": format_timestamp(row.created_at),
    }


def resolve_version(plan: str, plans: dict[str, Plan], customer: str) -> str:
    """Return the version that a plan's name, or a version, means for a customer; raises Refused."""
    version = find_newest_versions(plans, customer).get(plan, plan)
    if version not in plans or find_version_owner(version) not in (None, customer):
        raise build_not_sold_error(plans, customer)
    return version


def check_sold(plan: str, plans: dict[str, Plan], customer: str, held: str | None = None) -> None:
    """Raise Refused where a customer chooses a version that is not sold any more; only staff may give it.

    `held` is the version that the customer has, and may keep.
    """
    sold = find_newest_versions(plans, customer)
    if plan not in (held, *sold, *sold.values()):
        raise build_not_sold_error(plans, customer)


def build_not_sold_error(plans: dict[str, Plan], customer: str) -> ChangeRejectedError:
    """Return the error about a plan that a customer cannot have."""
    sold = ", ".join(find_newest_versions(plans, customer))
    return ChangeRejectedError(422, "some fields cannot be used", [("plan", f"is not on sale; write one of {sold}")])


def get_version_of_tier(tier: str, plans: dict[str, Plan], customer: str) -> str:
    """Return the newest version of the plan with this tier at the edge; raises Refused."""
    for version in find_newest_versions(plans, customer).values():
        if tier in (get_plan_tier(version, plans[version]), get_plan_name(version)):
            return version
    raise ChangeRejectedError(422, "some fields cannot be used", [("tier", "no plan on sale has it")])


async def find_live(connection: AsyncConnection, customer: str, *, lock: bool = False) -> SubscriptionRow | None:
    """Return the row of the subscription of a customer, by id, that is not over; None where there is none."""
    statement = sa.select(*FIELDS).where(subscriptions.c.customer == customer, subscriptions.c.state != CANCELED)
    row = (await connection.execute(statement.with_for_update() if lock else statement)).one_or_none()
    return None if row is None else SubscriptionRow(*row)


async def load_subscription(connection: AsyncConnection, row: SubscriptionRow) -> LoadedSubscription:
    """Return a row's subscription with everything that decisions need."""
    of_fees = sa.select(segments).where(segments.c.subscription == row.id, segments.c.meter == "")
    rows = (await connection.execute(of_fees.order_by(segments.c.start))).all()
    versions = {segment.plan_version for segment in rows}
    if row.next_version is not None:
        versions.add(row.next_version)
    plans = await plan_versions.fetch_plans(connection, versions)
    loaded_segments = [
        Segment(
            segment.plan_version,
            plans[segment.plan_version],
            Span(segment.start, segment.end),
            Span(segment.paid_start, segment.paid_end),
            bool(segment.is_yearly),
        )
        for segment in rows
    ]
    current = SubscriptionState(
        loaded_segments, Span(row.period_start, row.period_end), row.anchor, row.next_version, row.cancel_at
    )
    customer = await customers.get_row(connection, row.customer)
    return LoadedSubscription(row, customer, current, plans)


async def get_by_id(connection: AsyncConnection, number: str) -> LoadedSubscription:
    """Return a subscription by id, locked until the transaction ends."""
    statement = sa.select(*FIELDS).where(subscriptions.c.id == number).with_for_update()
    return await load_subscription(connection, SubscriptionRow(*(await connection.execute(statement)).one()))


async def get_by_customer(connection: AsyncConnection, ref: str, *, lock: bool = False) -> LoadedSubscription:
    """Return the subscription of a customer by id or name that is not over; raises Refused."""
    customer = await customers.get_row(connection, ref)
    row = await find_live(connection, customer.id, lock=lock)
    if row is None:
        raise ChangeRejectedError(404, NO_SUBSCRIPTION)
    return await load_subscription(connection, row)


async def create_subscription(
    connection: AsyncConnection, caller: Caller, ref: str, plan: str, *, is_yearly: bool, settings: Settings, now: float
) -> tuple[Subscription, int]:
    """Create a subscription that begins now; raises Refused."""
    customer = await customers.get_row(connection, ref, lock=True)
    await check_may_subscribe(connection, customer, now)
    current = prepare_subscription(plan, customer.name, is_yearly=is_yearly, settings=settings, now=now)
    (segment,) = current.segments
    row = {
        "id": generate_id(),
        "customer": customer.id,
        "plan_version": segment.version,
        "is_yearly": int(is_yearly),
        "state": ACTIVE,
        "anchor": current.anchor,
        "period_start": current.period.start,
        "period_end": current.period.end,
        "next_version": None,
        "cancel_at": None,
        "tier_before": customer.tier,
        "stripe_id": None,
        "told_version": None,
        "created_at": now_ms(),
        "version": 1,
    }
    await connection.execute(sa.insert(subscriptions), [row])
    assert settings.billing is not None
    await begin_segment(connection, row["id"], segment, current.period, settings.billing.collection)
    await _apply_plan(connection, caller, customer, segment, current.anchor, settings)
    created = SubscriptionRow(
        *(await connection.execute(sa.select(*FIELDS).where(subscriptions.c.id == row["id"]))).one()
    )
    await invoices.create_invoice(
        connection,
        customer.id,
        created.id,
        changes.START,
        current.period,
        changes.compute_fees(current.segments, ()),
        now=now,
    )
    response = to_response(created, customer.name)
    await audit.append_entry(connection, caller, AuditEntry("subscription.create", customer.name, None, dict(response)))
    return response, 1


async def check_may_subscribe(connection: AsyncConnection, customer: Any, now: float) -> None:
    """Raise Refused where a customer cannot begin a subscription now."""
    if customer.deleting_since is not None:
        raise ChangeRejectedError(409, "the customer is being deleted")
    if await find_live(connection, customer.id) is not None:
        raise ChangeRejectedError(409, "there is a subscription already: change that one")
    # Else ending and subscribing again would give the included amounts of this period twice.
    over = sa.select(sa.func.max(subscriptions.c.period_end)).where(subscriptions.c.customer == customer.id)
    end = (await connection.execute(over)).scalar_one()
    if end is not None and end > now:
        raise ChangeRejectedError(
            409, f"the last subscription ended within its period: the next can begin on {format_timestamp(end * 1000)}"
        )


def prepare_subscription(
    plan: str, customer: str, *, is_yearly: bool, settings: Settings, now: float
) -> SubscriptionState:
    """Return what a subscription that begins now would be; raises Refused."""
    version = resolve_version(plan, settings.plans, customer)
    assert settings.billing is not None
    anchor = periods.floor_to_minute(now) if settings.billing.anchor == "signup" else None
    try:
        return changes.begin_subscription(version, settings.plans[version], now=now, anchor=anchor, is_yearly=is_yearly)
    except PlanChangeError as error:
        raise ChangeRejectedError(error.status, error.why) from None


async def prepare_change(
    connection: AsyncConnection,
    loaded: LoadedSubscription,
    plan: str,
    when: When | None,
    *,
    settings: Settings,
    now: float,
) -> PlanChange:
    """Return what a change would do, without writing anything; raises Refused."""
    version = resolve_version(plan, settings.plans, loaded.customer.name)
    invoiced = await invoices.fetch_lines_of_subscription(connection, loaded.row.id)
    try:
        return changes.change_plan(loaded.current, version, settings.plans[version], when, now, invoiced)
    except PlanChangeError as error:
        raise ChangeRejectedError(error.status, error.why) from None


async def change_subscription(
    connection: AsyncConnection,
    caller: Caller,
    ref: str,
    plan: str,
    when: When | None,
    *,
    settings: Settings,
    now: float,
    match: frozenset[int] | None = None,
) -> tuple[Subscription, int]:
    """Change to another plan, at once or when the paid time ends; raises Refused."""
    loaded = await get_by_customer(connection, ref, lock=True)
    row, current = loaded.row, loaded.current
    require_version(row.version, match)
    plan_change = await prepare_change(connection, loaded, plan, when, settings=settings, now=now)
    values: dict[str, Any] = {"next_version": plan_change.next_version, "cancel_at": None}
    if plan_change.begun is not None:
        values["plan_version"] = plan_change.begun.version
        await end_segment(connection, row.id, current.last, plan_change.at)
        # How usage is collected changes at a period's end alone.
        same = await get_collection(connection, row.id, current.last)
        await begin_segment(connection, row.id, plan_change.begun, current.period, same)
        await _apply_plan(connection, caller, loaded.customer, plan_change.begun, current.anchor, settings)
        await invoices.create_invoice(
            connection, row.customer, row.id, changes.CHANGE, current.period, plan_change.lines, now=now
        )
    return await _write_change(connection, caller, loaded, values)


async def cancel_subscription(
    connection: AsyncConnection,
    caller: Caller,
    ref: str,
    when: When,
    *,
    settings: Settings,
    now: float,
    match: frozenset[int] | None = None,
) -> tuple[Subscription, int]:
    """End a subscription, when the paid time ends or at once; raises Refused. Nothing is paid back."""
    loaded = await get_by_customer(connection, ref, lock=True)
    require_version(loaded.row.version, match)
    if when == "period_end":
        values = {"cancel_at": loaded.current.last.paid.end, "next_version": None}
        return await _write_change(connection, caller, loaded, values)
    last, period = loaded.current.last, loaded.current.period
    at = min(periods.compute_boundary(now, last.span.start), period.end)
    await end_segment(connection, loaded.row.id, last, at)
    await _end_subscription(connection, caller, loaded, at, settings)
    return await _write_change(connection, caller, loaded, {"state": CANCELED, "cancel_at": at, "next_version": None})


async def roll_period(connection: AsyncConnection, number: str, *, settings: Settings, now: float) -> bool:
    """Begin the next period of a subscription, by id, where the current one is over; return whether it was."""
    statement = sa.select(*FIELDS).where(subscriptions.c.id == number, subscriptions.c.state != CANCELED)
    row = (await connection.execute(statement.with_for_update())).one_or_none()
    if row is None or row.period_end > now:
        return False
    loaded = await load_subscription(connection, SubscriptionRow(*row))
    current = loaded.current
    begun = changes.next_segment(current, loaded.plans)
    if begun is None:
        await _end_subscription(connection, RUNNER, loaded, current.period.end, settings)
        await _write_change(connection, RUNNER, loaded, {"state": CANCELED, "next_version": None})
        return True
    period = periods.period_after(current.period, current.anchor)
    assert settings.billing is not None
    await begin_segment(connection, row.id, begun, period, settings.billing.collection)
    values: dict[str, Any] = {"period_start": period.start, "period_end": period.end}
    if begun.version != current.last.version:
        values |= {"plan_version": begun.version, "next_version": None, "is_yearly": int(begun.is_yearly)}
        await _apply_plan(connection, RUNNER, loaded.customer, begun, current.anchor, settings)
    await _create_period_invoice(connection, loaded, now, settings, begun)
    await _write_change(connection, RUNNER, loaded, values, is_recorded="next_version" in values)
    return True


async def list_due(connection: AsyncConnection, now: float, limit: int) -> list[str]:
    """Return the ids of subscriptions whose period is over."""
    statement = sa.select(subscriptions.c.id).where(
        subscriptions.c.state != CANCELED, subscriptions.c.period_end <= now
    )
    return list((await connection.execute(statement.order_by(subscriptions.c.period_end).limit(limit))).scalars())


async def list_deleted_customers(connection: AsyncConnection, limit: int) -> list[str]:
    """Return the ids of customers who are being deleted, and still have a subscription."""
    joined = subscriptions.join(customers_table, customers_table.c.id == subscriptions.c.customer)
    statement = (
        sa.select(customers_table.c.id)
        .select_from(joined)
        .where(subscriptions.c.state != CANCELED, customers_table.c.deleting_since.is_not(None))
    )
    return list((await connection.execute(statement.limit(limit))).scalars())


async def get_collection(connection: AsyncConnection, subscription: str, segment: Segment) -> str:
    """Return how usage of a segment is collected."""
    condition = (segments.c.subscription == subscription) & (segments.c.start == segment.span.start)
    return str((await connection.execute(sa.select(segments.c.collection).where(condition))).scalar_one())


async def begin_segment(
    connection: AsyncConnection, subscription: str, segment: Segment, period: Span, collection: str
) -> None:
    """Write a segment that begins, and how its usage is collected."""
    row = {
        "subscription": subscription,
        "meter": "",
        "start": segment.span.start,
        "end": segment.span.end,
        "plan_version": segment.version,
        "is_yearly": int(segment.is_yearly),
        "period_start": period.start,
        "period_end": period.end,
        "paid_start": segment.paid.start,
        "paid_end": segment.paid.end,
        "collection": collection,
    }
    await connection.execute(sa.insert(segments), [row])


async def end_segment(connection: AsyncConnection, subscription: str, segment: Segment, at: int) -> None:
    """Write that a segment ends earlier than planned."""
    condition = (segments.c.subscription == subscription) & (segments.c.start == segment.span.start)
    await connection.execute(sa.update(segments).where(condition).values(end=at))


async def _end_subscription(
    connection: AsyncConnection, caller: Caller, loaded: LoadedSubscription, at: int, settings: Settings
) -> None:
    """Create the last invoice of a subscription, and restore the tier that the customer had before."""
    row = loaded.row
    await _create_period_invoice(connection, loaded, at, settings)
    if loaded.customer.deleting_since is None:
        await _set_tier(connection, caller, row.customer, row.tier_before, settings)
    await entitlements.update_entitlements(connection, loaded.customer, None, settings.meters)


async def _apply_plan(
    connection: AsyncConnection, caller: Caller, customer: Any, begun: Segment, anchor: int | None, settings: Settings
) -> None:
    """Apply the tier and the caps of the plan that has begun to a customer, a row."""
    await _set_tier(connection, caller, customer.id, get_plan_tier(begun.version, begun.plan), settings)
    await entitlements.update_entitlements(connection, customer, (begun.version, begun.plan, anchor), settings.meters)


async def _set_tier(connection: AsyncConnection, caller: Caller, customer: str, tier: str, settings: Settings) -> None:
    await customers.update_customer(
        connection, caller, customer, UpdateCustomerRequest.model_validate({"tier": tier}), settings
    )


async def list_subscribed_customers(connection: AsyncConnection, after: str, limit: int) -> list[str]:
    """Return the ids of the next customers behind the id `after` who have a subscription."""
    statement = sa.select(subscriptions.c.customer).where(subscriptions.c.state != CANCELED)
    statement = statement.where(subscriptions.c.customer > after)
    return list((await connection.execute(statement.order_by(subscriptions.c.customer).limit(limit))).scalars())


async def refresh_entitlements(connection: AsyncConnection, customer: str, settings: Settings) -> None:
    """Write the caps of a customer's plan, by id, as they are by now: with a meter that is new."""
    row = await find_live(connection, customer)
    if row is not None:
        plan = (await plan_versions.fetch_plans(connection, {row.plan_version}))[row.plan_version]
        customer_row = await customers.get_row(connection, row.customer)
        await entitlements.update_entitlements(
            connection, customer_row, (row.plan_version, plan, row.anchor), settings.meters
        )


async def list_breached_customers(connection: AsyncConnection, now: float, limit: int) -> list[str]:
    """Return the names of customers whose grace, or whose period with it, is over by this Unix second."""
    columns = quota_passes.c
    over, ended = (columns.due <= now) & (columns.is_over == 0), columns.until <= now
    due = sa.select(columns.customer).distinct().where(over | ended).limit(limit)
    return list((await connection.execute(due)).scalars())


async def apply_cap_breaches(connection: AsyncConnection, name: str, settings: Settings, now: float) -> None:
    """Apply caps to a customer, by name, whose grace is over, and drop those of a period that is over."""
    columns = quota_passes.c
    condition = columns.customer == name
    await connection.execute(sa.delete(quota_passes).where(condition, columns.until <= now))
    await connection.execute(
        sa.update(quota_passes).where(condition, columns.due <= now, columns.is_over == 0).values(is_over=1)
    )
    customer = await customers.find_row(connection, name)
    if customer is not None:
        await refresh_entitlements(connection, customer.id, settings)


async def _write_change(
    connection: AsyncConnection,
    caller: Caller,
    loaded: LoadedSubscription,
    values: dict[str, Any],
    *,
    is_recorded: bool = True,
) -> tuple[Subscription, int]:
    """Write the changed columns of a subscription, and return it; `is_recorded` adds it to the audit log."""
    row = loaded.row
    statement = sa.update(subscriptions).where(subscriptions.c.id == row.id)
    await connection.execute(statement.values(**values, version=row.version + 1))
    after = SubscriptionRow(*(await connection.execute(sa.select(*FIELDS).where(subscriptions.c.id == row.id))).one())
    response, before = to_response(after, loaded.customer.name), to_response(row, loaded.customer.name)
    if is_recorded:
        entry = AuditEntry("subscription.change", loaded.customer.name, *customers.compute_difference(before, response))
        await audit.append_entry(connection, caller, entry)
    return response, after.version


async def _create_period_invoice(
    connection: AsyncConnection, loaded: LoadedSubscription, now: float, settings: Settings, *begun: Segment
) -> None:
    """Create the invoice of the period that is over, with the fee of the segment that has `begun`."""
    assert settings.billing is not None
    of_period = [segment for segment in loaded.current.segments if segment.span.start >= loaded.current.period.start]
    costs = any(invoices.can_cost(segment.plan) for segment in (*of_period, *begun))
    freeze = settings.billing.freeze
    await invoices.create_invoice(
        connection,
        loaded.row.customer,
        loaded.row.id,
        changes.PERIOD,
        loaded.current.period,
        None,
        now=now,
        freeze=freeze,
        costs=costs,
    )
