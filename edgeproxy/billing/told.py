"""Whose usage Stripe is told, and for which segments: what `collection: meters` has written down of subscriptions."""

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.billing import plan_versions
from edgeproxy.billing.rating import Span
from edgeproxy.billing.slices import Told
from edgeproxy.billing.slicing import Pair, Targets
from edgeproxy.config.models import Meter
from edgeproxy.database.billing_tables import billing_customers, segments, subscriptions
from edgeproxy.database.schema import customers


def is_sum(meters: Mapping[str, Meter], meter: str) -> bool:
    """Whether usage of a meter adds up, so that it is told slice by slice."""
    return meter not in meters or meters[meter].aggregate == "sum"


def told(row: Any) -> Told:
    """What is known of a segment that Stripe is told of."""
    return Told(Span(row.start, row.end), row.told_from, row.told_until is not None)


async def targets(connection: AsyncConnection, meters: Mapping[str, Meter], since: float) -> Targets:
    """Return the pairs of which Stripe is told, with their segments that end after a Unix second."""
    joined = segments.join(subscriptions, subscriptions.c.id == segments.c.subscription).join(
        customers, customers.c.id == subscriptions.c.customer
    )
    wanted = (
        sa.select(segments, customers.c.name)
        .select_from(joined)
        .where(segments.c.meter == "", segments.c.told_from.is_not(None), segments.c.end > int(since))
        .order_by(segments.c.start)
    )
    rows = (await connection.execute(wanted)).all()
    plans = await plan_versions.versions(connection, {row.plan_version for row in rows})
    found: dict[Pair, list[Told]] = {}
    for row in rows:
        for meter in plans[row.plan_version].meters:
            if is_sum(meters, meter):
                found.setdefault((row.name, meter), []).append(told(row))
    return found


async def payers(connection: AsyncConnection, names: Iterable[str] | None = None) -> dict[str, str]:
    """Return Stripe's ids of customers by their names here; of all, or of some."""
    joined = billing_customers.join(customers, customers.c.id == billing_customers.c.customer)
    wanted = sa.select(customers.c.name, billing_customers.c.stripe_id).select_from(joined)
    if names is not None:
        wanted = wanted.where(customers.c.name.in_(set(names)))
    return {row[0]: row[1] for row in await connection.execute(wanted)}
