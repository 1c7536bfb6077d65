"""Kinds of alerts that are muted: they are listed, and not sent, until a time."""

from collections.abc import Collection, Mapping
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.alert_tables import alert_mutes

Side = Literal["operator", "customer"]
"""Who handles an alert: operators, or the customer whom it is about."""
mutes = alert_mutes.c


async def fetch_mutes(
    connection: AsyncConnection, side: Side, customers: Collection[str], now_ms: int
) -> dict[tuple[str, str], Mapping[str, int | str]]:
    """Return the mutes of a side that hold now, by kind and customer."""
    statement = sa.select(alert_mutes).where(
        mutes.side == side, mutes.customer.in_(sorted(customers)), mutes.until > now_ms
    )
    return {(row["kind"], row["customer"]): dict(row) for row in (await connection.execute(statement)).mappings()}
