"""Breaches of plans' soft caps by customers. A breach starts the grace."""

from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.clock import EPOCH
from edgeproxy.collector.database.quota_tables import quota_passes
from edgeproxy.collector.quotas.quota_status import QuotaUsage
from edgeproxy.config.limits import Entitlement


def is_breached(status: QuotaUsage) -> bool:
    """Return whether a soft cap with a grace is exceeded in its period."""
    quota = status.quota
    has_grace = isinstance(quota, Entitlement) and quota.grace is not None and status.period is not None
    return has_grace and status.used > quota.included


async def write_breaches(
    connection: AsyncConnection, breaches: Mapping[tuple[str, str], QuotaUsage], now: float
) -> None:
    """Write breaches by customer and meter at edge time `now`, except those already stored for this period."""
    of = quota_passes.c
    for (customer, meter), status in breaches.items():
        assert status.period is not None
        assert isinstance(status.quota, Entitlement)
        number, own = status.period.number, (of.customer == customer) & (of.meter == meter)
        if (await connection.execute(sa.select(of.period).where(own, of.period >= number))).first() is not None:
            continue
        await connection.execute(sa.delete(quota_passes).where(own))
        at = int(now + EPOCH)
        ends = {"due": at + (status.quota.grace or 0), "until": int(status.period.until + EPOCH), "is_over": 0}
        row = {"customer": customer, "meter": meter, "period": number, "at": at, **ends}
        await connection.execute(sa.insert(quota_passes), [row])
