"""Muted kinds of alerts. Until a time, their alerts are listed but not sent."""

from collections.abc import Collection, Mapping
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.alerts.kinds import find_policy
from edgeproxy.collector.database.alert_tables import alert_mutes

Side = Literal["operator", "customer"]
"""The side that handles an alert: operators, or the customer concerned."""
DAYS_MAX, PAGING_DAYS_MAX = 90, 2
"""Most days of a mute. For operators and kinds that page, it is a weekend, so that the mute is not forgotten."""
mutes = alert_mutes.c


def get_days_max(kind: str, side: Side) -> int:
    """Return the most days that a side may mute a kind for. A kind of another version may page."""
    policy = find_policy(kind)
    may_page = policy is None or "page" in policy.severities
    return PAGING_DAYS_MAX if side == "operator" and may_page else DAYS_MAX


async def fetch_mutes(
    connection: AsyncConnection, side: Side, customers: Collection[str], now_ms: int
) -> dict[tuple[str, str], Mapping[str, int | str]]:
    """Return the current mutes of a side, by kind and customer."""
    statement = sa.select(alert_mutes).where(
        mutes.side == side, mutes.customer.in_(sorted(customers)), mutes.until > now_ms
    )
    return {(row["kind"], row["customer"]): dict(row) for row in (await connection.execute(statement)).mappings()}
