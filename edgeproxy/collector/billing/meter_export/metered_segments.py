"""Whose usage Stripe is told, and for which segments: what `collection: meters` has written down of subscriptions."""

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.meter_export import outbox_rows
from edgeproxy.collector.billing.meter_export.exporter import MeterEvents
from edgeproxy.collector.billing.meter_export.outbox import State
from edgeproxy.collector.billing.meter_export.slices import MINUTE, Told
from edgeproxy.collector.billing.meter_export.slicing import Pair, Slicing, Targets
from edgeproxy.collector.billing.mismatch import Row
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.subscriptions import plan_versions
from edgeproxy.collector.database.billing_tables import billing_customers, invoices, segments, subscriptions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import billing_outbox
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.models import Meter

KNOWN_SECONDS = 62 * 86400
"""Seconds after their end in which segments are looked at: longer than slices are, so that none seems gone."""
METERS = "meters"
"""How usage is collected that Stripe is told of."""


class Apart(Exception):
    """Stripe's sums of a segment are not what it was told."""

    def __init__(self, rows: list[Row]) -> None:
        super().__init__("Stripe's sums are not what it was told")
        self.rows = rows
        """The units of each meter that differs: what it has taken, and what it says it has counted."""


def is_sum(meters: Mapping[str, Meter], meter: str) -> bool:
    """Whether usage of a meter adds up, so that it is told slice by slice."""
    return meter not in meters or meters[meter].aggregate == "sum"


def slicing_of(database: Database, is_live: bool, meters: Mapping[str, Meter]) -> Slicing:
    """What is known of the account that a key is of. A database is billed by one account, in each mode of it."""
    gauges = frozenset(meter for meter in meters if not is_sum(meters, meter))
    return Slicing(database, "live" if is_live else "test", gauges)


def told(row: Any) -> Told:
    """What is known of a segment that Stripe is told of."""
    return Told(Span(row.start, row.end), row.told_from, row.told_until is not None)


async def targets(
    connection: AsyncConnection, meters: Mapping[str, Meter], since: float, customer: str | None = None
) -> Targets:
    """Return the pairs of which Stripe is told, with their segments that end after a Unix second: of all customers, or
    of one, by id."""
    joined = segments.join(subscriptions, subscriptions.c.id == segments.c.subscription).join(
        customers, customers.c.id == subscriptions.c.customer
    )
    wanted = (
        sa.select(segments, customers.c.name)
        .select_from(joined)
        .where(segments.c.meter == "", segments.c.told_from.is_not(None), segments.c.end > int(since))
        .order_by(segments.c.start)
    )
    if customer is not None:
        wanted = wanted.where(subscriptions.c.customer == customer)
    rows = (await connection.execute(wanted)).all()
    plans = await plan_versions.versions(connection, {row.plan_version for row in rows})
    found: dict[Pair, list[Told]] = {}
    for row in rows:
        for meter in plans[row.plan_version].meters:
            if is_sum(meters, meter):
                found.setdefault((row.name, meter), []).append(told(row))
    return found


CHARGED = sa.and_(
    segments.c.meter == "",
    segments.c.collection == METERS,
    sa.func.coalesce(segments.c.told_from, segments.c.end) + MINUTE <= segments.c.end,
    segments.c.start + MINUTE <= segments.c.end,
)
"""Segments of which Stripe has counted a minute or more."""
DRAFTED = sa.exists().where(
    segments.c.subscription == invoices.c.subscription, segments.c.period_start == invoices.c.period_start, CHARGED
)
"""Invoices of whose periods there are such: Stripe drafts those by itself."""


async def charged(connection: AsyncConnection, subscription: str, period_start: int) -> list[Any]:
    """Return the segments of a period whose usage Stripe charges, in the order of time: what is over before Stripe
    counted anything is none."""
    of = (segments.c.subscription == subscription, segments.c.period_start == period_start)
    wanted = sa.select(segments).where(*of, CHARGED).order_by(segments.c.start)
    return list((await connection.execute(wanted)).all())


def window(row: Any) -> Span:
    """The time in which all events of a segment are dated."""
    return Span(max(row.start, row.told_from), row.end)


async def is_under_way(connection: AsyncConnection, customer: str, starts: Iterable[int]) -> bool:
    """Whether any usage of these segments of a customer, by name, is still to be sent, or may have been counted."""
    c = billing_outbox.c
    of = (c.customer == customer, c.segment.in_(list(starts)), c.state.in_(outbox_rows.OPEN))
    return (await connection.execute(sa.select(c.revision).where(*of).limit(1))).first() is not None


async def counted(connection: AsyncConnection, customer: str, start: int) -> dict[str, int]:
    """Return what Stripe has taken of a segment of a customer, by meter."""
    c = billing_outbox.c
    of = (c.customer == customer, c.segment == start, c.state.in_([State.ACCEPTED, State.CONFIRMED]))
    found = await connection.execute(sa.select(c.meter, sa.func.sum(c.value)).where(*of).group_by(c.meter))
    return {meter: int(value) for meter, value in found}


async def confirm(connection: AsyncConnection, customer: str, start: int, now: float) -> None:
    """Write that what was taken of a segment is counted: Stripe's sums are the same."""
    c = billing_outbox.c
    of = (c.customer == customer, c.segment == start, c.state == State.ACCEPTED)
    await connection.execute(
        sa.update(billing_outbox).where(*of).values(state=State.CONFIRMED, settled=int(now * 1000))
    )


async def agreed(database: Database, events: MeterEvents, customer: str, row: Any, now: float) -> dict[str, int]:
    """Return what Stripe has counted of a segment, by meter, and write it down; raises Apart and Away."""
    async with database.reading() as connection:
        ours = await counted(connection, customer, row.start)
    rows = [
        Row(customer, meter, quantity, await events.counted(customer, meter, window(row)))
        for meter, quantity in ours.items()
    ]
    if apart := [one for one in rows if one.difference]:
        raise Apart(apart)
    async with database.writing() as connection:
        await confirm(connection, customer, row.start, now)
    return ours


async def payers(connection: AsyncConnection, names: Iterable[str] | None = None) -> dict[str, str]:
    """Return Stripe's ids of customers by their names here; of all, or of some."""
    joined = billing_customers.join(customers, customers.c.id == billing_customers.c.customer)
    wanted = sa.select(customers.c.name, billing_customers.c.stripe_id).select_from(joined)
    if names is not None:
        wanted = wanted.where(customers.c.name.in_(set(names)))
    return {row[0]: row[1] for row in await connection.execute(wanted)}
