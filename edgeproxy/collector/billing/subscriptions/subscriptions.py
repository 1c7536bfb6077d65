"""Who has which plan: each change of a subscription in one transaction with its segments, the customer's tier at the
edge, the invoice that it leads to, and the audit entry. What a change does is decided in changes.py.
"""

from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import Caller, Entry
from edgeproxy.collector.accounts.change import Refused, must_match
from edgeproxy.collector.accounts.ids import moment, new_id, now_ms
from edgeproxy.collector.accounts.models import CustomerChange
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.rater import Segment, Span
from edgeproxy.collector.billing.subscriptions import changes, entitlements, plan_versions
from edgeproxy.collector.billing.subscriptions.changes import Change, Held, No, When
from edgeproxy.collector.database.billing_tables import CANCELED, segments, subscriptions
from edgeproxy.collector.database.quota_tables import quota_passes
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.config.catalog import Plan, name_of, newest, owner_of, tier_of
from edgeproxy.config.collector import Settings

ACTIVE, PAST_DUE = "active", "past_due"
CHANGING = "changing"
"""What is told of one whose usage Stripe still charges by the plan before."""
RUNNER = Caller("billing")
"""Who changes what changes by itself when a period ends, for the audit log."""
NONE = "there is no subscription"


class SubscriptionTold(TypedDict):
    """A subscription."""

    id: str
    customer: str
    plan: str
    interval: str
    state: str
    period_start: str | None
    period_end: str | None
    next_plan: str | None
    cancel_at: str | None
    created_at: str | None


class Loaded(NamedTuple):
    """A subscription with all that is decided by."""

    row: Any
    customer: Any
    held: Held
    plans: dict[str, Plan]
    """The versions that it had, has, or is to have."""


def told(row: Any, customer: str) -> SubscriptionTold:
    """Tell a subscription as the API does."""
    return {
        "id": row.id,
        "customer": customer,
        "plan": row.plan_version,
        "interval": "year" if row.is_yearly else "month",
        "state": CHANGING if row.told_version not in (None, row.plan_version) else row.state,
        "period_start": moment(row.period_start * 1000),
        "period_end": moment(row.period_end * 1000),
        "next_plan": row.next_version,
        "cancel_at": None if row.cancel_at is None else moment(row.cancel_at * 1000),
        "created_at": moment(row.created_at),
    }


def resolved(plan: str, plans: dict[str, Plan], customer: str) -> str:
    """The version that a plan's name, or a version, stands for with a customer; raises Refused."""
    version = newest(plans, customer).get(plan, plan)
    if version not in plans or owner_of(version) not in (None, customer):
        raise not_sold(plans, customer)
    return version


def must_be_sold(plan: str, plans: dict[str, Plan], customer: str, held: str | None = None) -> None:
    """Raise Refused where a customer chooses a version that is not sold any more, which staff alone may give.

    `held` is the version that the customer has, and may keep.
    """
    sold = newest(plans, customer)
    if plan not in (held, *sold, *sold.values()):
        raise not_sold(plans, customer)


def not_sold(plans: dict[str, Plan], customer: str) -> Refused:
    """What is said of a plan that a customer cannot have."""
    sold = ", ".join(newest(plans, customer))
    return Refused(422, "some fields cannot be used", [("plan", f"is not on sale; write one of {sold}")])


def of_tier(tier: str, plans: dict[str, Plan], customer: str) -> str:
    """The newest version of the plan with this tier at the edge; raises Refused."""
    for version in newest(plans, customer).values():
        if tier in (tier_of(version, plans[version]), name_of(version)):
            return version
    raise Refused(422, "some fields cannot be used", [("tier", "no plan on sale has it")])


async def live(connection: AsyncConnection, customer: str, *, lock: bool = False) -> Any:
    """The row of the subscription of a customer, by id, that is not over; None where there is none."""
    statement = sa.select(subscriptions).where(subscriptions.c.customer == customer, subscriptions.c.state != CANCELED)
    return (await connection.execute(statement.with_for_update() if lock else statement)).one_or_none()


async def load(connection: AsyncConnection, row: Any) -> Loaded:
    """All that is decided by, of a row."""
    of_fees = sa.select(segments).where(segments.c.subscription == row.id, segments.c.meter == "")
    rows = (await connection.execute(of_fees.order_by(segments.c.start))).all()
    wanted = {one.plan_version for one in rows} | ({row.next_version} - {None})
    plans = await plan_versions.versions(connection, wanted)
    found = [
        Segment(
            one.plan_version,
            plans[one.plan_version],
            Span(one.start, one.end),
            Span(one.paid_start, one.paid_end),
            bool(one.is_yearly),
        )
        for one in rows
    ]
    held = Held(found, Span(row.period_start, row.period_end), row.anchor, row.next_version, row.cancel_at)
    customer = await customers.find(connection, row.customer)
    return Loaded(row, customer, held, plans)


async def of_id(connection: AsyncConnection, number: str) -> Loaded:
    """A subscription by id, which nobody else changes until the transaction ends."""
    wanted = sa.select(subscriptions).where(subscriptions.c.id == number).with_for_update()
    return await load(connection, (await connection.execute(wanted)).one())


async def of_customer(connection: AsyncConnection, ref: str, *, lock: bool = False) -> Loaded:
    """The subscription of a customer by id or name that is not over; raises Refused."""
    customer = await customers.find(connection, ref)
    row = await live(connection, customer.id, lock=lock)
    if row is None:
        raise Refused(404, NONE)
    return await load(connection, row)


async def subscribe(
    connection: AsyncConnection, caller: Caller, ref: str, plan: str, *, is_yearly: bool, known: Settings, now: float
) -> tuple[SubscriptionTold, int]:
    """Begin a subscription; raises Refused."""
    customer = await customers.find(connection, ref, lock=True)
    await may_subscribe(connection, customer, now)
    held = first(plan, customer.name, is_yearly=is_yearly, known=known, now=now)
    (segment,) = held.segments
    row = {
        "id": new_id(),
        "customer": customer.id,
        "plan_version": segment.version,
        "is_yearly": int(is_yearly),
        "state": ACTIVE,
        "anchor": held.anchor,
        "period_start": held.period.start,
        "period_end": held.period.end,
        "next_version": None,
        "cancel_at": None,
        "tier_before": customer.tier,
        "stripe_id": None,
        "told_version": None,
        "created_at": now_ms(),
        "version": 1,
    }
    await connection.execute(sa.insert(subscriptions), [row])
    assert known.billing is not None
    await begin_segment(connection, row["id"], segment, held.period, known.billing.collection)
    await _hold(connection, caller, customer, segment, held.anchor, known)
    made = (await connection.execute(sa.select(subscriptions).where(subscriptions.c.id == row["id"]))).one()
    await invoices.make(connection, made, changes.START, held.period, changes.fees(held.segments, ()), now=now)
    said = told(made, customer.name)
    await audit.append(connection, caller, Entry("subscription.create", customer.name, None, dict(said)))
    return said, 1


async def may_subscribe(connection: AsyncConnection, customer: Any, now: float) -> None:
    """Raise Refused where a customer cannot begin a subscription now."""
    if customer.deleting_since is not None:
        raise Refused(409, "the customer is being deleted")
    if await live(connection, customer.id) is not None:
        raise Refused(409, "there is a subscription already: change that one")
    # Else whoever ends one and begins it anew has the included amounts of this period twice.
    over = sa.select(sa.func.max(subscriptions.c.period_end)).where(subscriptions.c.customer == customer.id)
    end = (await connection.execute(over)).scalar_one()
    if end is not None and end > now:
        raise Refused(409, f"the last subscription ended within its period: the next can begin on {moment(end * 1000)}")


def first(plan: str, customer: str, *, is_yearly: bool, known: Settings, now: float) -> Held:
    """What a subscription that begins now is; raises Refused."""
    version = resolved(plan, known.plans, customer)
    assert known.billing is not None
    anchor = periods.minute(now) if known.billing.anchor == "signup" else None
    try:
        return changes.begun(version, known.plans[version], now=now, anchor=anchor, is_yearly=is_yearly)
    except No as no:
        raise Refused(no.status, no.why) from None


async def planned(
    connection: AsyncConnection, loaded: Loaded, plan: str, when: When | None, *, known: Settings, now: float
) -> Change:
    """What a change comes to, of which nothing is written; raises Refused."""
    version = resolved(plan, known.plans, loaded.customer.name)
    invoiced = await invoices.lines_of_subscription(connection, loaded.row.id)
    try:
        return changes.changed(loaded.held, version, known.plans[version], when, now, invoiced)
    except No as no:
        raise Refused(no.status, no.why) from None


async def change(
    connection: AsyncConnection,
    caller: Caller,
    ref: str,
    plan: str,
    when: When | None,
    *,
    known: Settings,
    now: float,
    match: frozenset[int] | None = None,
) -> tuple[SubscriptionTold, int]:
    """Change to another plan, at once or when what is paid ends; raises Refused."""
    loaded = await of_customer(connection, ref, lock=True)
    row, held = loaded.row, loaded.held
    must_match(row.version, match)
    done = await planned(connection, loaded, plan, when, known=known, now=now)
    values: dict[str, Any] = {"next_version": done.next_version, "cancel_at": None}
    if done.begun is not None:
        values["plan_version"] = done.begun.version
        await end_segment(connection, row.id, held.last, done.at)
        # How usage is collected changes at a period's end alone.
        same = await collection_of(connection, row.id, held.last)
        await begin_segment(connection, row.id, done.begun, held.period, same)
        await _hold(connection, caller, loaded.customer, done.begun, held.anchor, known)
        await invoices.make(connection, row, changes.CHANGE, held.period, done.lines, now=now)
    return await _changed(connection, caller, loaded, values)


async def cancel(
    connection: AsyncConnection,
    caller: Caller,
    ref: str,
    when: When,
    *,
    known: Settings,
    now: float,
    match: frozenset[int] | None = None,
) -> tuple[SubscriptionTold, int]:
    """End a subscription, when what is paid ends or at once; raises Refused. Nothing is paid back."""
    loaded = await of_customer(connection, ref, lock=True)
    must_match(loaded.row.version, match)
    if when == "period_end":
        values = {"cancel_at": loaded.held.last.paid.end, "next_version": None}
        return await _changed(connection, caller, loaded, values)
    last, period = loaded.held.last, loaded.held.period
    at = min(periods.boundary(now, last.span.start), period.end)
    await end_segment(connection, loaded.row.id, last, at)
    await _end(connection, caller, loaded, at, known)
    return await _changed(connection, caller, loaded, {"state": CANCELED, "cancel_at": at, "next_version": None})


async def roll(connection: AsyncConnection, number: str, *, known: Settings, now: float) -> bool:
    """Begin the next period of a subscription, by id, where the one that it is in is over; whether it was."""
    wanted = sa.select(subscriptions).where(subscriptions.c.id == number, subscriptions.c.state != CANCELED)
    row = (await connection.execute(wanted.with_for_update())).one_or_none()
    if row is None or row.period_end > now:
        return False
    loaded = await load(connection, row)
    held = loaded.held
    begun = changes.following(held, loaded.plans)
    if begun is None:
        await _end(connection, RUNNER, loaded, held.period.end, known)
        await _changed(connection, RUNNER, loaded, {"state": CANCELED, "next_version": None})
        return True
    period = periods.period_after(held.period, held.anchor)
    assert known.billing is not None
    await begin_segment(connection, row.id, begun, period, known.billing.collection)
    values: dict[str, Any] = {"period_start": period.start, "period_end": period.end}
    if begun.version != held.last.version:
        values |= {"plan_version": begun.version, "next_version": None, "is_yearly": int(begun.is_yearly)}
        await _hold(connection, RUNNER, loaded.customer, begun, held.anchor, known)
    await _invoice(connection, loaded, now, known, begun)
    await _changed(connection, RUNNER, loaded, values, is_told="next_version" in values)
    return True


async def due(connection: AsyncConnection, now: float, limit: int) -> list[str]:
    """The ids of subscriptions whose period is over."""
    wanted = sa.select(subscriptions.c.id).where(subscriptions.c.state != CANCELED, subscriptions.c.period_end <= now)
    return list((await connection.execute(wanted.order_by(subscriptions.c.period_end).limit(limit))).scalars())


async def of_deleted(connection: AsyncConnection, limit: int) -> list[str]:
    """The ids of customers who are being deleted, and have a subscription still."""
    joined = subscriptions.join(customers_table, customers_table.c.id == subscriptions.c.customer)
    wanted = (
        sa.select(customers_table.c.id)
        .select_from(joined)
        .where(subscriptions.c.state != CANCELED, customers_table.c.deleting_since.is_not(None))
    )
    return list((await connection.execute(wanted.limit(limit))).scalars())


async def collection_of(connection: AsyncConnection, subscription: str, segment: Segment) -> str:
    """How usage of a segment is collected."""
    of = (segments.c.subscription == subscription) & (segments.c.start == segment.span.start)
    return str((await connection.execute(sa.select(segments.c.collection).where(of))).scalar_one())


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
    """Write that a segment ends earlier than was thought."""
    of = (segments.c.subscription == subscription) & (segments.c.start == segment.span.start)
    await connection.execute(sa.update(segments).where(of).values(end=at))


async def _end(connection: AsyncConnection, caller: Caller, loaded: Loaded, at: int, known: Settings) -> None:
    """What the end of a subscription leads to: its last invoice, and the tier that the customer had before."""
    row = loaded.row
    await _invoice(connection, loaded, at, known)
    if loaded.customer.deleting_since is None:
        await _set_tier(connection, caller, row.customer, row.tier_before, known)
    await entitlements.follow(connection, loaded.customer, None, known.meters)


async def _hold(
    connection: AsyncConnection, caller: Caller, customer: Any, begun: Segment, anchor: int | None, known: Settings
) -> None:
    """Have a customer, a row, held by what has begun: by the tier and by the caps of the plan."""
    await _set_tier(connection, caller, customer.id, tier_of(begun.version, begun.plan), known)
    await entitlements.follow(connection, customer, (begun.version, begun.plan, anchor), known.meters)


async def _set_tier(connection: AsyncConnection, caller: Caller, customer: str, tier: str, known: Settings) -> None:
    await customers.change(connection, caller, customer, CustomerChange.model_validate({"tier": tier}), known)


async def with_plans(connection: AsyncConnection, after: str, limit: int) -> list[str]:
    """The next customers behind the id `after` who have a subscription, by id."""
    wanted = sa.select(subscriptions.c.customer).where(subscriptions.c.state != CANCELED)
    wanted = wanted.where(subscriptions.c.customer > after)
    return list((await connection.execute(wanted.order_by(subscriptions.c.customer).limit(limit))).scalars())


async def follow_plan(connection: AsyncConnection, customer: str, known: Settings) -> None:
    """Have the caps of the plan hold a customer, by id, as they are by now: with a meter that is new."""
    row = await live(connection, customer)
    if row is not None:
        plan = (await plan_versions.versions(connection, {row.plan_version}))[row.plan_version]
        found = await customers.find(connection, row.customer)
        await entitlements.follow(connection, found, (row.plan_version, plan, row.anchor), known.meters)


async def with_passes(connection: AsyncConnection, now: float, limit: int) -> list[str]:
    """Customers, by name, whose grace, or whose period with it, is over by this Unix second."""
    of = quota_passes.c
    over, ended = (of.due <= now) & (of.is_over == 0), of.until <= now
    due = sa.select(of.customer).distinct().where(over | ended).limit(limit)
    return list((await connection.execute(due)).scalars())


async def follow_passes(connection: AsyncConnection, name: str, known: Settings, now: float) -> None:
    """Have caps hold a customer, by name, whose grace is over, and no longer one whose period is."""
    of = quota_passes.c
    own = of.customer == name
    await connection.execute(sa.delete(quota_passes).where(own, of.until <= now))
    await connection.execute(sa.update(quota_passes).where(own, of.due <= now, of.is_over == 0).values(is_over=1))
    customer = await customers.look(connection, name)
    if customer is not None:
        await follow_plan(connection, customer.id, known)


async def _changed(
    connection: AsyncConnection, caller: Caller, loaded: Loaded, values: dict[str, Any], *, is_told: bool = True
) -> tuple[SubscriptionTold, int]:
    """Write what has changed of a subscription, and tell it; on record is what `is_told`."""
    row = loaded.row
    statement = sa.update(subscriptions).where(subscriptions.c.id == row.id)
    await connection.execute(statement.values(**values, version=row.version + 1))
    after = (await connection.execute(sa.select(subscriptions).where(subscriptions.c.id == row.id))).one()
    said, before = told(after, loaded.customer.name), told(row, loaded.customer.name)
    if is_told:
        entry = Entry("subscription.change", loaded.customer.name, *customers.differing(before, said))
        await audit.append(connection, caller, entry)
    return said, after.version


async def _invoice(connection: AsyncConnection, loaded: Loaded, now: float, known: Settings, *begun: Segment) -> None:
    """Make the invoice of the period that is over; with the fee of the segment that has `begun`."""
    assert known.billing is not None
    of_period = [one for one in loaded.held.segments if one.span.start >= loaded.held.period.start]
    costs = any(invoices.can_cost(one.plan) for one in (*of_period, *begun))
    freeze = known.billing.freeze
    await invoices.make(
        connection, loaded.row, changes.PERIOD, loaded.held.period, None, now=now, freeze=freeze, costs=costs
    )
