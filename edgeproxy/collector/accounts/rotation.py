"""The alerts of keys that are due for rotation."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.alerts.alert import Alert, is_unraised
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.database.schema import customers, keys

KEYS_MAX = 500
"""Keys that one statement fetches."""
FRACTION = 5
"""The part of `rotate_every` in which the alert is raised at the earliest: the last fifth."""


async def list_due_alerts(connection: AsyncConnection, now: float, lead: float) -> list[Alert]:
    """Return the alerts of keys that are due within `lead` seconds and have none yet, KEYS_MAX at most.

    Where `rotate_every` is shorter than five leads, an alert is due when four fifths of it are over.
    """
    every = customers.c.rotate_every
    due_at = keys.c.created_at + every * 1000
    part = every * 1000 / FRACTION
    soon = due_at - sa.case((part < lead * 1000, part), else_=lead * 1000) <= now * 1000
    statement = (
        sa.select(keys.c.id, keys.c.start, keys.c.name, customers.c.name.label("customer_name"), due_at.label("due"))
        .join_from(keys, customers, customers.c.id == keys.c.customer)
        .where(
            every.is_not(None),
            customers.c.deleting_since.is_(None),
            keys.c.revoked_at.is_(None),
            keys.c.successor.is_(None),
            keys.c.expires_at.is_(None) | (keys.c.expires_at > due_at),
            soon,
            is_unraised(sa.literal("rotation:") + keys.c.id),
        )
        .order_by(keys.c.id)
        .limit(KEYS_MAX)
    )
    return [
        Alert(
            key=f"rotation:{row.id}",
            kind=AlertKind.KEY_ROTATION_DUE,
            customer=row.customer_name,
            title=f"the key {row.start}… of {row.customer_name} is due for rotation by {format_day(row.due)}",
            details={"key": row.id, "start": row.start, "name": row.name, "rotate_by": format_day(row.due)},
            at=now,
        )
        for row in await connection.execute(statement)
    ]


def format_day(ms: int) -> str:
    """Return the day in UTC of Unix milliseconds, as ISO 8601."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"
