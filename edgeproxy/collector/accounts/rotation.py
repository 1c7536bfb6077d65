"""Keys that are due for rotation: which they are, and the alerts and reminders of them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.alerts.alert import Alert, is_unraised
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.schema import customers, keys
from edgeproxy.config.units import DAY_SECONDS, format_seconds

KEYS_MAX = 500
"""Keys that one statement fetches."""
FRACTION = 5
"""The part of `rotate_every` in which the alert is raised at the earliest: the last fifth."""
EVERY = customers.c.rotate_every
DUE_AT = keys.c.created_at + EVERY * 1000
"""The Unix millisecond by which a key should be rotated."""
ALERT_KEY = sa.literal("rotation:") + keys.c.id
"""The key of the first alert of a key."""
ROTATING_CUSTOMERS = sa.select(customers.c.id).where(EVERY.is_not(None)).correlate(None)
"""Few of all customers: SQLite looks for their keys alone."""
DUE_KEYS = sa.select(
    keys.c.id, keys.c.start, keys.c.name, customers.c.name.label("customer_name"), DUE_AT.label("due")
).join_from(keys, customers, customers.c.id == keys.c.customer)


class DueKey(NamedTuple):
    """A key that is due, and the key of the alert to raise."""

    id: str
    start: str
    name: str | None
    customer: str
    due: int
    """The Unix millisecond by which it should be rotated."""
    alert_key: str

    @property
    def details(self) -> dict[str, object]:
        """The details of the alert."""
        return {"key": self.id, "start": self.start, "name": self.name, "rotate_by": format_day(self.due)}


def is_due(now: float, lead: float) -> sa.ColumnElement[bool]:
    """Return the SQL condition that a key, joined with its customer, is to be rotated within `lead` seconds, or was.

    Where `rotate_every` is shorter than five leads, the key is due when four fifths of it are over.
    """
    part = EVERY * 1000 / FRACTION
    ends = keys.c.expires_at
    return sa.and_(
        keys.c.customer.in_(ROTATING_CUSTOMERS),
        customers.c.deleting_since.is_(None),
        keys.c.revoked_at.is_(None),
        keys.c.successor.is_(None),
        ends.is_(None) | ((ends > DUE_AT) & (ends > now * 1000)),
        DUE_AT - sa.case((part < lead * 1000, part), else_=lead * 1000) <= now * 1000,
    )


async def count_overdue(connection: AsyncConnection, now: float) -> int:
    """Return how many keys are past the time by which they should be rotated."""
    statement = DUE_KEYS.with_only_columns(sa.func.count(), maintain_column_froms=True).where(is_due(now, 0))
    return int((await connection.execute(statement)).scalar_one())


async def list_due_alerts(
    connection: AsyncConnection, now: float, lead: float, more: Mapping[str, str] | None = None
) -> list[Alert]:
    """Return the alerts of keys that are due within `lead` seconds and have none yet, KEYS_MAX at most.

    `more`: further details of each alert.
    """
    statement = DUE_KEYS.add_columns(ALERT_KEY).where(is_due(now, lead), is_unraised(ALERT_KEY)).limit(KEYS_MAX)
    return [
        Alert(
            key=key.alert_key,
            kind=AlertKind.KEY_ROTATION_DUE,
            customer=key.customer,
            title=f"the key {key.start}… of {key.customer} is due for rotation by {format_day(key.due)}",
            details={**key.details, **(more or {})},
            at=now,
        )
        for key in map(DueKey._make, await connection.execute(statement))
    ]


async def list_reminders(
    connection: AsyncConnection, now: float, times: tuple[float, ...], more: Mapping[str, str]
) -> list[Alert]:
    """Return the alerts of keys that nobody has rotated for so many seconds since they were due; KEYS_MAX of each time.

    Where the first alert of a key came later, times count from there. Of those that are over the last one is raised.
    """
    first, reminders = alerts.alias("first"), []
    for after, until in pairwise([*times, float("inf")]):
        alert_key = ALERT_KEY + ":" + sa.cast(EVERY, sa.Text) + f":{format_seconds(after)}"
        begins = sa.case((first.c.at > DUE_AT, first.c.at), else_=DUE_AT)
        is_over = begins <= (now - after) * 1000
        if until != float("inf"):
            is_over &= begins > (now - until) * 1000
        statement = (
            DUE_KEYS.add_columns(alert_key)
            .join(first, first.c.key == ALERT_KEY)
            .where(is_due(now, 0), is_over, is_unraised(alert_key))
        )
        for key in map(DueKey._make, await connection.execute(statement.limit(KEYS_MAX))):
            days = int((now - key.due / 1000) / DAY_SECONDS)
            reminders.append(
                Alert(
                    key=key.alert_key,
                    kind=AlertKind.KEY_ROTATION_OVERDUE,
                    customer=key.customer,
                    title=f"the key {key.start}… of {key.customer} was due for rotation by {format_day(key.due)}",
                    details={**key.details, "days_overdue": days, **more},
                    at=now,
                )
            )
    return reminders


def format_day(ms: int) -> str:
    """Return the day in UTC of Unix milliseconds, as ISO 8601."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"
