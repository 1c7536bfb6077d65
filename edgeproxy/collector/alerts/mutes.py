"""Kinds of alerts that are muted: they are listed, and not sent, until a time."""

from collections.abc import Collection, Mapping
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.alerts.kinds import ALERT_POLICIES, AlertKind
from edgeproxy.collector.database.alert_tables import alert_mutes

Side = Literal["operator", "customer"]
"""Who handles an alert: operators, or the customer whom it is about."""
DAYS_MAX, PAGING_DAYS_MAX = 90, 2
"""Days for which a kind is muted at most; and for operators one that pages: over a weekend, and not forgotten."""
mutes = alert_mutes.c


def get_days_max(kind: AlertKind, side: Side) -> int:
    """Return the days for which a side may mute a kind at most."""
    return PAGING_DAYS_MAX if side == "operator" and "page" in ALERT_POLICIES[kind].severities else DAYS_MAX


async def fetch_mutes(
    connection: AsyncConnection, side: Side, customers: Collection[str], now_ms: int
) -> dict[tuple[str, str], Mapping[str, int | str]]:
    """Return the mutes of a side that hold now, by kind and customer."""
    statement = sa.select(alert_mutes).where(
        mutes.side == side, mutes.customer.in_(sorted(customers)), mutes.until > now_ms
    )
    return {(row["kind"], row["customer"]): dict(row) for row in (await connection.execute(statement)).mappings()}
