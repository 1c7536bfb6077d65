"""Subscriptions and their segments as rows.

    active ◀─▶ canceled, and back within the period
       ▲          ▲
    trialing ─────┘

TRANSITIONS lists all allowed steps, and `transition` makes them. A subscription with an unpaid period is active, too:
its customer is paused (invoices/dunning.py). Plans change within a state.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import customers
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.rating.discounts import Discount
from edgeproxy.collector.billing.rating.rater import Segment, Span
from edgeproxy.collector.billing.subscriptions import coupon_rows, plan_versions
from edgeproxy.collector.billing.subscriptions.changes import SubscriptionState
from edgeproxy.collector.billing.subscriptions.price_moves import list_next_moves
from edgeproxy.collector.database.billing_tables import CANCELED, segments, subscriptions
from edgeproxy.collector.database.read_once import fetch_once
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.database.statements import lock_rows
from edgeproxy.collector.database.unreadable_rows import reading_row
from edgeproxy.collector.problems import billing_codes
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.collector.currency_units import DECIMALS

ACTIVE, TRIALING = "active", "trialing"
TRANSITIONS: Final[Mapping[str, frozenset[str]]] = {
    TRIALING: frozenset({TRIALING, ACTIVE, CANCELED}),
    ACTIVE: frozenset({ACTIVE, CANCELED}),
    CANCELED: frozenset({ACTIVE}),
}
"""The states that may follow each state."""
NO_SUBSCRIPTION = "there is no subscription"


class SubscriptionStateError(Exception):
    """The subscription cannot make this transition from its state."""


class Subscriber(NamedTuple):
    """The customer of a subscription."""

    id: str
    name: str
    tier: str
    created_at: int
    """Unix milliseconds."""
    deleting_since: int | None
    currency: str | None = None
    """The currency of all its charges, or None if none was chosen yet."""


class SubscriptionRow(NamedTuple):
    """A subscription row. Times are Unix seconds."""

    id: str
    customer: str
    plan_version: str
    is_yearly: int
    state: str
    anchor: int | None
    period_start: int
    period_end: int
    tier_before: str
    created_at: int
    """Unix milliseconds."""
    version: int = 1
    next_version: str | None = None
    cancel_at: int | None = None
    next_is_yearly: int | None = None
    """Payment by the year after the paid time ends; None leaves it unchanged."""
    quantity: int = 1
    """The number of units of the plan."""
    next_quantity: int | None = None
    """The quantity after the paid time ends; None leaves it unchanged."""
    trial_ends_at: int | None = None
    """The end of its trial, including a past one, or None if it had none."""
    stripe_id: str | None = None
    stripe_version: str | None = None
    """The plan version whose prices Stripe's subscription has, or None if that subscription is gone."""


FIELDS = [*(subscriptions.c[name] for name in SubscriptionRow._fields[:-1]), subscriptions.c.told_version]


class LoadedSubscription(NamedTuple):
    """A subscription with all data that decisions need."""

    row: SubscriptionRow
    customer: Subscriber
    current: SubscriptionState
    plans: dict[str, Plan]
    """Its past, current and planned plan versions, with prices in the customer's currency."""
    discounts: Sequence[Discount] = ()
    """The discounts of its coupons."""


async def insert_subscription(connection: AsyncConnection, row: SubscriptionRow) -> None:
    """Insert a new subscription."""
    values = {column.name: value for column, value in zip(FIELDS, row, strict=True)}
    await connection.execute(sa.insert(subscriptions), [values])


async def transition(
    connection: AsyncConnection, row: SubscriptionRow, state: str, **values: object
) -> SubscriptionRow:
    """Set a subscription's state and these columns, and return it with its version increased by one.

    Raises SubscriptionStateError if TRANSITIONS has no such step, or if the subscription has changed since `row`.
    """
    if state not in TRANSITIONS[row.state]:
        raise SubscriptionStateError(f"a subscription cannot go from {row.state} to {state}")
    unchanged = (
        subscriptions.c.id == row.id,
        subscriptions.c.state == row.state,
        subscriptions.c.version == row.version,
    )
    # The version finds a change that left the state as it was.
    statement = sa.update(subscriptions).where(*unchanged).values(state=state, version=row.version + 1, **values)
    if (await connection.execute(statement)).rowcount != 1:
        raise SubscriptionStateError(f"the subscription {row.id} has changed meanwhile")
    (changed,) = await fetch_subscriptions(connection, subscriptions.c.id == row.id)
    return changed


async def fetch_subscriptions(
    connection: AsyncConnection, *conditions: sa.ColumnElement[bool], lock: bool = False
) -> list[SubscriptionRow]:
    """Return the subscriptions that meet all conditions. `lock` locks them until the transaction ends."""
    statement = sa.select(*FIELDS).where(*conditions)
    rows = await connection.execute(lock_rows(statement) if lock else statement)
    return [SubscriptionRow._make(row) for row in rows]


async def find_live(connection: AsyncConnection, customer: str, *, lock: bool = False) -> SubscriptionRow | None:
    """Return the row of a customer's subscription, by customer id, that is not over, or None."""
    is_live = (subscriptions.c.customer == customer, subscriptions.c.state != CANCELED)
    fetch = partial(fetch_subscriptions, connection, *is_live, lock=lock)
    rows = await fetch() if lock else await fetch_once((find_live, customer), fetch)
    return next(iter(rows), None)


async def load_subscription(connection: AsyncConnection, row: SubscriptionRow) -> LoadedSubscription:
    """Return a row's subscription with all data that decisions need."""
    return await fetch_once(("subscription", row), lambda: _load_subscription(connection, row))


async def _load_subscription(connection: AsyncConnection, row: SubscriptionRow) -> LoadedSubscription:
    of_fees = sa.select(segments).where(segments.c.subscription == row.id, segments.c.meter == "")
    rows = (await connection.execute(of_fees.order_by(segments.c.start))).all()
    # Old segments keep their version, whose prices do not change, so earlier periods are rated as they were.
    versions = {segment.plan_version for segment in rows}
    if row.next_version is not None:
        versions.add(row.next_version)
    subscriber = await get_subscriber(connection, row.customer)
    all_moves = await plan_versions.fetch_moves(connection)
    moves = list_next_moves(row.next_version or row.plan_version, subscriber.name, all_moves)
    # A projected invoice may need the prices after the next price change.
    versions |= {move.after for move in moves}
    plans = await plan_versions.fetch_plans(connection, versions, subscriber.currency)
    loaded_segments = [
        Segment(
            segment.plan_version,
            plans[segment.plan_version],
            Span(segment.start, segment.end),
            Span(segment.paid_start, segment.paid_end),
            bool(segment.is_yearly),
            Span(segment.period_start, segment.period_end),
            is_trial=segment.start < (row.trial_ends_at or 0),
            is_resting=bool(segment.is_resting),
            quantity=segment.quantity,
        )
        for segment in rows
    ]
    current = SubscriptionState(
        *(loaded_segments, Span(row.period_start, row.period_end), row.anchor, row.next_version, row.cancel_at, moves),
        next_is_yearly=None if row.next_is_yearly is None else bool(row.next_is_yearly),
        next_quantity=row.next_quantity,
    )
    discounts = await coupon_rows.fetch_discounts(connection, row.id)
    return LoadedSubscription(row, subscriber, current, plans, discounts)


async def get_by_id(connection: AsyncConnection, number: str) -> LoadedSubscription:
    """Return a subscription by id, locked until the transaction ends."""
    (row,) = await fetch_subscriptions(connection, subscriptions.c.id == number, lock=True)
    return await load_subscription(connection, row)


async def get_by_customer(connection: AsyncConnection, ref: str, *, lock: bool = False) -> LoadedSubscription:
    """Return the current subscription of a customer by id or name. Raises ChangeRejectedError."""
    customer = await get_subscriber(connection, ref)
    row = await find_live(connection, customer.id, lock=lock)
    if row is None:
        raise ChangeRejectedError(billing_codes.SUBSCRIPTION_NOT_FOUND, NO_SUBSCRIPTION)
    return await load_subscription(connection, row)


async def get_subscriber(connection: AsyncConnection, ref: str, *, lock: bool = False) -> Subscriber:
    """Return a customer by id or name. Raises ChangeRejectedError if it does not exist."""
    row = await customers.get_row(connection, ref, lock=lock)
    # A currency that this version does not know must not reach the computation of amounts.
    with reading_row(customers_table.name, row.id):
        if row.currency is not None and row.currency not in DECIMALS:
            raise ValueError("there is no such currency")
    return Subscriber(row.id, row.name, row.tier, row.created_at, row.deleting_since, row.currency)


async def list_due(
    connection: AsyncConnection, now: float, limit: int, *, without: Collection[str] = (), is_trial: bool = False
) -> list[str]:
    """Return the ids of subscriptions with an ended period, except `without`: trials if `is_trial`, else the others."""
    is_trialing = subscriptions.c.state == TRIALING
    statement = sa.select(subscriptions.c.id).where(
        subscriptions.c.state != CANCELED, subscriptions.c.period_end <= now, is_trialing if is_trial else ~is_trialing
    )
    statement = statement.where(subscriptions.c.id.not_in(without))
    return list(await connection.scalars(statement.order_by(subscriptions.c.period_end).limit(limit)))


async def has_had_trial(connection: AsyncConnection, customer: str) -> bool:
    """Return whether a customer, by id, has had a trial."""
    statement = sa.select(subscriptions.c.id).where(subscriptions.c.customer == customer)
    trials = statement.where(subscriptions.c.trial_ends_at.is_not(None)).limit(1)
    return (await connection.execute(trials)).first() is not None


async def list_deleted_customers(
    connection: AsyncConnection, limit: int, *, without: Collection[str] = ()
) -> list[str]:
    """Return the ids of customers in deletion that still have a subscription, except `without`."""
    joined = subscriptions.join(customers_table, customers_table.c.id == subscriptions.c.customer)
    statement = (
        sa.select(customers_table.c.id)
        .select_from(joined)
        .where(subscriptions.c.state != CANCELED, customers_table.c.deleting_since.is_not(None))
        .where(customers_table.c.id.not_in(without))
    )
    return list(await connection.scalars(statement.limit(limit)))


async def get_collection(connection: AsyncConnection, subscription: str, segment: Segment) -> str:
    """Return the collection of a segment's usage: `meters` or `invoice_items`."""
    condition = (segments.c.subscription == subscription) & (segments.c.start == segment.span.start)
    return str((await connection.execute(sa.select(segments.c.collection).where(condition))).scalar_one())


async def begin_segment(
    connection: AsyncConnection, subscription: str, segment: Segment, period: Span, collection: str
) -> None:
    """Write a segment that begins, with the collection of its usage."""
    row = {
        "subscription": subscription,
        # The row of the plan. Stripe's meters have rows of their own.
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
        "is_resting": int(segment.is_resting),
        "quantity": segment.quantity,
    }
    await connection.execute(sa.insert(segments), [row])


async def end_segment(connection: AsyncConnection, subscription: str, segment: Segment, at: int) -> None:
    """Record that a segment ends earlier than planned."""
    condition = (segments.c.subscription == subscription) & (segments.c.start == segment.span.start)
    await connection.execute(sa.update(segments).where(condition).values(end=at))


async def set_fee_charged(connection: AsyncConnection, subscription: str, segment: Segment) -> None:
    """Record that the fee of a segment is not suspended."""
    condition = (segments.c.subscription == subscription) & (segments.c.start == segment.span.start)
    await connection.execute(sa.update(segments).where(condition).values(is_resting=0))


async def list_subscribed_customers(connection: AsyncConnection, after: str, limit: int) -> list[str]:
    """Return the ids of the next customers after the id `after` who have a subscription."""
    statement = sa.select(subscriptions.c.customer).where(subscriptions.c.state != CANCELED)
    statement = statement.where(subscriptions.c.customer > after)
    return list(await connection.scalars(statement.order_by(subscriptions.c.customer).limit(limit)))
