"""Webhook events as rows: each is stored once, before it is acknowledged, however it arrives."""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.states import DAY_MS
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.stripe.webhook_event import StripeEvent
from edgeproxy.collector.database.database import build_insert_new
from edgeproxy.collector.database.delivery_tables import webhook_events, webhook_polls
from edgeproxy.collector.database.encryption import ColumnCipher

LISTED_MAX = 100
DROPPED_MAX = 1000
"""The most events deleted at once."""
columns = webhook_events.c


class EventState(StrEnum):
    """The state of an event."""

    WAITING = "waiting"
    """The event will be applied, or retried, when it is due."""
    APPLIED = "applied"
    IGNORED = "ignored"
    """Events of this type are ignored."""
    OTHER_MODE = "other_mode"
    """The event is of test mode while we are live, or the other way round."""
    DEAD = "dead"
    """The event could not be applied, and is not retried until a person replays it."""


EventRow = dict[str, object]
"""An event as stored, by column."""


class ReceivedEvent(NamedTuple):
    """An event with its bytes and its source."""

    event: StripeEvent
    payload: bytes
    source: str = "webhook"


def build_rows(events: Sequence[ReceivedEvent], payloads: ColumnCipher, *, live: bool, now: int) -> list[EventRow]:
    """Return the rows of events, each once, before the transaction begins. `now` is in Unix milliseconds."""
    rows = {
        event.id: {
            "id": event.id,
            "type": event.type,
            "object_type": event.object_type,
            "object": event.object,
            "livemode": int(event.livemode),
            "created": event.created,
            "received": now,
            "source": source,
            "state": _choose_state(event, live),
            "due": now,
            "payload": payloads.encrypt(payload, event.id),
        }
        for event, payload, source in events
    }
    # In one order, so that two transactions with equal events wait for each other instead of a deadlock.
    return [rows[id] for id in sorted(rows)]


async def insert_events(connection: AsyncConnection, rows: Sequence[EventRow], now: int) -> list[str]:
    """Insert the new ones of these rows, and return their ids."""
    if not rows:
        return []
    statement = build_insert_new(connection, webhook_events, "id").returning(columns.id)
    inserted = list(await connection.scalars(statement, list(rows)))
    new = set(inserted)
    # Only a new event: Stripe sends one again until it is accepted, and each try would raise the alert.
    foreign = next((row for row in rows if row["state"] is EventState.OTHER_MODE and row["id"] in new), None)
    if foreign is not None:
        alert = Alert(
            key=f"billing-livemode-{now // DAY_MS}",
            kind=AlertKind.WEBHOOK_MODE_MISMATCH,
            title=f"Stripe sends events of {'live' if foreign['livemode'] else 'test'} mode, which is not ours",
            details={
                "event": foreign["id"],
                "mode": "live" if foreign["livemode"] else "test",
                "type": foreign["type"],
            },
            at=now / 1000,
        )
        await raise_once(connection, alert)
    return inserted


def _choose_state(event: StripeEvent, live: bool) -> EventState:
    if event.livemode != live:
        return EventState.OTHER_MODE
    # An event without an object has nothing to fetch.
    return EventState.WAITING if event.is_applied and event.object else EventState.IGNORED


async def replay_event(connection: AsyncConnection, event: str, now: int) -> bool:
    """Schedule an event for another application. Return False if it is not stored here or is of the other mode."""
    again = (
        sa.update(webhook_events)
        .where(columns.id == event, columns.state != EventState.OTHER_MODE, columns.object != "")
        .values(state=EventState.WAITING, attempts=0, due=now, error=None)
    )
    return (await connection.execute(again)).rowcount > 0


async def drop_events(connection: AsyncConnection, before: int) -> int:
    """Delete some events received before a Unix millisecond, except waiting events and dead letters.

    Returns their number. Stripe lists no events older than 30 days, so none returns.
    """
    settled = columns.state.in_([EventState.APPLIED, EventState.IGNORED, EventState.OTHER_MODE])
    old = sa.select(columns.id).where(columns.received < before, settled).limit(DROPPED_MAX)
    return (await connection.execute(sa.delete(webhook_events).where(columns.id.in_(old)))).rowcount


async def find_read_until(connection: AsyncConnection, name: str) -> int | None:
    """Return the latest second of Stripe's clock that a list was read up to, or None before the first read.

    Events that arrive later do not count, because they prove nothing about events lost before.
    """
    reads = webhook_polls.c
    rows = await connection.execute(sa.select(reads.until).where(reads.list == name))
    return rows.scalar_one_or_none()


async def record_read(connection: AsyncConnection, name: str, until: int, began: int | None = None) -> None:
    """Record that a Stripe list was read up to this second of Stripe's clock.

    `began` is the Unix millisecond of our clock when the read began.
    """
    values = {"until": until, "began": began}
    statement = (
        build_insert_new(connection, webhook_polls, "list").values(list=name, **values).returning(webhook_polls.c.list)
    )
    if (await connection.execute(statement)).first() is None:
        await connection.execute(sa.update(webhook_polls).where(webhook_polls.c.list == name).values(values))


async def find_read_began(connection: AsyncConnection, name: str) -> int | None:
    """Return the Unix millisecond when the last complete read of a list began, or None before the first."""
    reads = webhook_polls.c
    return await connection.scalar(sa.select(reads.began).where(reads.list == name))


async def count_waiting(connection: AsyncConnection, until: int) -> int:
    """Return the number of waiting events that Stripe created before this Unix second."""
    waiting = (columns.state == EventState.WAITING, columns.created < until)
    return int((await connection.execute(sa.select(sa.func.count()).where(*waiting))).scalar_one())


async def is_waiting(connection: AsyncConnection, object_type: str) -> bool:
    """Return whether an event about an object of this type waits to be applied."""
    waiting = sa.select(columns.id).where(columns.state == EventState.WAITING, columns.object_type == object_type)
    return (await connection.execute(waiting.limit(1))).first() is not None


async def count_by_state(connection: AsyncConnection) -> dict[str, int]:
    """Return the number of events in each state."""
    counted = await connection.execute(sa.select(columns.state, sa.func.count()).group_by(columns.state))
    return dict.fromkeys(map(str, EventState), 0) | {row[0]: row[1] for row in counted}


async def list_events(
    connection: AsyncConnection, state: str | None, before: int | None, limit: int
) -> list[JsonObject]:
    """Return events without their payload that were received before this Unix millisecond, latest first."""
    statement = sa.select(*(column for column in columns if column is not columns.payload))
    if state is not None:
        statement = statement.where(columns.state == state)
    if before is not None:
        statement = statement.where(columns.received < before)
    rows = await connection.execute(statement.order_by(columns.received.desc(), columns.id).limit(limit))
    return [
        {
            **{name: getattr(row, name) for name in ("id", "type", "object", "state", "source", "attempts", "error")},
            "livemode": bool(row.livemode),
            "created": format_timestamp(row.created * 1000),
            "received": format_timestamp(row.received),
            "applied": format_timestamp(row.applied),
        }
        for row in rows
    ]
