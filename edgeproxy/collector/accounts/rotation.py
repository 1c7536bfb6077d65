"""Keys that are due for rotation, with their alerts and reminders."""

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
from edgeproxy.collector.database.statements import AnySelect
from edgeproxy.config.collector.rotation import Rotation
from edgeproxy.config.units import DAY_SECONDS, format_seconds

KEYS_MAX = 500
"""The most keys that one statement fetches."""
FRACTION = 5
"""The alert is raised at the earliest in the last fifth of `rotate_every`."""
OWN_EVERY = customers.c.rotate_every
ALERT_KEY = sa.literal("rotation:") + keys.c.id
"""The key of the first alert of a key."""
ROTATING_CUSTOMERS = sa.select(customers.c.id).where(OWN_EVERY.is_not(None)).correlate(None)
"""Few customers have their own interval. The subquery lets SQLite look up only their keys."""


def get_every(every: float | None) -> sa.ColumnElement[int]:
    """Return the SQL expression for the age in seconds that makes a key due.

    `every` is the setting `rotation.every`.
    """
    return OWN_EVERY if every is None else sa.func.coalesce(OWN_EVERY, round(every))


def get_due_at(every: float | None) -> sa.ColumnElement[int]:
    """Return the SQL expression for the Unix millisecond when a key becomes due for rotation."""
    return keys.c.created_at + get_every(every) * 1000


def select_due_keys(every: float | None) -> AnySelect:
    """Return the query of keys with the columns of DueKey except the last. `is_due` selects the due ones."""
    due_at = get_due_at(every).label("due")
    return sa.select(keys.c.id, keys.c.start, keys.c.name, customers.c.name.label("customer_name"), due_at).join_from(
        keys, customers, customers.c.id == keys.c.customer
    )


class DueKey(NamedTuple):
    """A key that is due, and the key of the alert to raise."""

    id: str
    start: str
    name: str | None
    customer: str
    due: int
    """The Unix millisecond when it becomes due for rotation."""
    alert_key: str

    @property
    def details(self) -> dict[str, object]:
        """The details of the alert."""
        return {"key": self.id, "start": self.start, "name": self.name, "rotate_by": format_day(self.due)}


def is_due(now: float, lead: float, every: float | None) -> sa.ColumnElement[bool]:
    """Return the SQL condition that a key, joined with its customer, is due within `lead` seconds or overdue.

    If `rotate_every` is shorter than five leads, the key is due after four fifths of it.
    """
    due_at, part, ends = get_due_at(every), get_every(every) * 1000 / FRACTION, keys.c.expires_at
    is_candidate: sa.ColumnElement[bool] = keys.c.customer.in_(ROTATING_CUSTOMERS)
    if every is not None:
        is_candidate |= keys.c.created_at <= round((now + lead - every) * 1000)
    return sa.and_(
        is_candidate,
        customers.c.deleting_since.is_(None),
        keys.c.revoked_at.is_(None),
        keys.c.successor.is_(None),
        ends.is_(None) | ((ends > due_at) & (ends > now * 1000)),
        due_at - sa.case((part < lead * 1000, part), else_=lead * 1000) <= now * 1000,
    )


async def count_overdue(connection: AsyncConnection, now: float, every: float | None) -> int:
    """Return the number of keys that are due for rotation."""
    statement = select_due_keys(every).with_only_columns(sa.func.count(), maintain_column_froms=True)
    return int((await connection.execute(statement.where(is_due(now, 0, every)))).scalar_one())


async def list_due_alerts(
    connection: AsyncConnection, now: float, lead: float, every: float | None, more: Mapping[str, str] | None = None
) -> list[Alert]:
    """Return the alerts of keys that are due within `lead` seconds and have no alert yet, at most KEYS_MAX.

    `more` are further details of each alert.
    """
    statement = select_due_keys(every).add_columns(ALERT_KEY).where(is_due(now, lead, every), is_unraised(ALERT_KEY))
    return [
        Alert(
            key=key.alert_key,
            kind=AlertKind.KEY_ROTATION_DUE,
            customer=key.customer,
            title=f"the key {key.start}… of {key.customer} is due for rotation by {format_day(key.due)}",
            details={**key.details, **(more or {})},
            at=now,
        )
        for key in map(DueKey._make, await connection.execute(statement.limit(KEYS_MAX)))
    ]


async def list_reminders(
    connection: AsyncConnection, now: float, rotation: Rotation, more: Mapping[str, str]
) -> list[Alert]:
    """Return the alerts of keys that have been overdue for one of the reminder times, at most KEYS_MAX per time.

    If the first alert of a key came later than its due time, the times count from that alert. Only the last passed time
    raises an alert.
    """
    every = rotation.every
    first, reminders, due_at = alerts.alias("first"), [], get_due_at(every)
    for after, until in pairwise([*rotation.reminders, float("inf")]):
        alert_key = ALERT_KEY + ":" + sa.cast(get_every(every), sa.Text) + f":{format_seconds(after)}"
        begins = sa.case((first.c.at > due_at, first.c.at), else_=due_at)
        is_over = begins <= (now - after) * 1000
        if until != float("inf"):
            is_over &= begins > (now - until) * 1000
        statement = (
            select_due_keys(every)
            .add_columns(alert_key)
            .join(first, first.c.key == ALERT_KEY)
            .where(is_due(now, 0, every), is_over, is_unraised(alert_key))
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


async def list_end_reminders(connection: AsyncConnection, now: float, times: tuple[float, ...]) -> list[Alert]:
    """Return the reminders of keys that end within these times, at most KEYS_MAX per time.

    Only the last passed time raises a reminder. A time that had passed when the key was replaced, or else created,
    raises none. A moved end has reminders of its own.
    """
    new, ends, reminders = keys.alias("new"), keys.c.expires_at, []
    for until, before in pairwise([0.0, *times]):
        alert_key = sa.literal("key-end:") + keys.c.id + f":{format_seconds(before)}:" + sa.cast(ends, sa.Text)
        statement = (
            sa.select(keys.c.id, keys.c.start, keys.c.name, customers.c.name, ends, alert_key, new.c.start)
            .join_from(keys, customers, customers.c.id == keys.c.customer)
            .outerjoin(new, new.c.id == keys.c.successor)
            .where(keys.c.revoked_at.is_(None), customers.c.deleting_since.is_(None), is_unraised(alert_key))
            .where(ends > (now + until) * 1000, ends <= (now + before) * 1000)
            .where(sa.func.coalesce(new.c.created_at, keys.c.created_at) <= ends - before * 1000)
        )
        for *key, new_start in await connection.execute(statement.limit(KEYS_MAX)):
            old = DueKey(*key)
            details = {"key": old.id, "start": old.start, "name": old.name}
            if new_start is not None:
                details["new_start"] = new_start
            reminders.append(
                Alert(
                    key=old.alert_key,
                    kind=AlertKind.KEY_ENDS_SOON,
                    customer=old.customer,
                    title=f"the key {old.start}… of {old.customer} ends on {format_day(old.due)}",
                    details={**details, "ends_on": format_day(old.due)},
                    at=now,
                )
            )
    return reminders


def format_day(ms: int) -> str:
    """Return the UTC day of Unix milliseconds in ISO 8601."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"
