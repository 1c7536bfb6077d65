"""Keys that are due for rotation: who is to hear of it, and how long before."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.alerts.alert import Alert, is_unraised
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.database.schema import customers, keys

KEYS_MAX = 500
"""Keys that are looked up at once."""
FRACTION = 5
"""Of `rotate_every`, the part before its end in which there is an alert at the earliest."""


async def list_due_alerts(connection: AsyncConnection, now: float, lead: float) -> list[Alert]:
    """The alerts of keys that are due within `lead` seconds, of which there is none yet: KEYS_MAX at most.

    A key that lives shorter than five times that long has its alert when four fifths of its time are over.
    """
    every = customers.c.rotate_every
    due_at = keys.c.created_at + every * 1000
    part = every * 1000 / FRACTION
    soon = due_at - sa.case((part < lead * 1000, part), else_=lead * 1000) <= now * 1000
    statement = (
        sa.select(keys.c.id, keys.c.start, keys.c.name, customers.c.name.label("owner"), due_at.label("due"))
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
            customer=row.owner,
            title=f"the key {row.start}… of {row.owner} is due for rotation by {format_day(row.due)}",
            details={"key": row.id, "start": row.start, "name": row.name, "rotate_by": format_day(row.due)},
            at=now,
        )
        for row in await connection.execute(statement)
    ]


def format_day(ms: int) -> str:
    """Write the day of UTC that Unix milliseconds are in."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"
