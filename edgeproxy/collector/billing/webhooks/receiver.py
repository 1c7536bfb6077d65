"""Events of Stripe's are kept before they are acknowledged, each once, however often and whichever way they come."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.ids import moment
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.billing.stripe.payload_encryption import Payloads
from edgeproxy.collector.billing.stripe.webhook_event import Event
from edgeproxy.collector.database.database import insert_new
from edgeproxy.collector.database.delivery_tables import webhook_events, webhook_polls

LISTED_MAX = 100
DROPPED_MAX = 1000
"""Events that are dropped at once."""
columns = webhook_events.c


class State(StrEnum):
    """What becomes of an event."""

    WAITING = "waiting"
    """It is applied, or tried once more, when it is due."""
    APPLIED = "applied"
    IGNORED = "ignored"
    """Nothing is done about events of its type."""
    OTHER_MODE = "other_mode"
    """It is of test mode where we are live, or the other way round."""
    DEAD = "dead"
    """It could not be applied, and is not tried again until somebody says so."""


Row = dict[str, Any]
"""An event as it is kept, by column."""


class Received(NamedTuple):
    """An event with its bytes, and the way that it came."""

    event: Event
    payload: bytes
    source: str = "webhook"


def rows_of(some: Sequence[Received], payloads: Payloads, *, live: bool, now: int) -> list[Row]:
    """Make rows of events, each once: what takes time is done before a transaction. `now`: Unix ms."""
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
            "state": _state_of(event, live),
            "due": now,
            "payload": payloads.close(payload, event.id),
        }
        for event, payload, source in some
    }
    return [rows[id] for id in sorted(rows)]


async def put(connection: AsyncConnection, rows: Sequence[Row], now: int) -> list[str]:
    """Keep those of these rows that are new; return their ids."""
    if not rows:
        return []
    made = insert_new(connection, webhook_events, "id").returning(columns.id)
    kept = list((await connection.execute(made, list(rows))).scalars())
    new = set(kept)
    foreign = next((row for row in rows if row["state"] is State.OTHER_MODE and row["id"] in new), None)
    if foreign is not None:
        alert = Alert(
            key=f"billing-livemode-{now // 86_400_000}",
            kind="billing_livemode",
            severity="warn",
            title=f"Stripe sends events of {'live' if foreign['livemode'] else 'test'} mode, which is not ours",
            details={"event": foreign["id"], "type": foreign["type"]},
            at=now / 1000,
        )
        await raise_once(connection, alert)
    return kept


def _state_of(event: Event, live: bool) -> State:
    if event.livemode != live:
        return State.OTHER_MODE
    return State.WAITING if event.is_taken and event.object else State.IGNORED


async def replay(connection: AsyncConnection, event: str, now: int) -> bool:
    """Have an event applied once more; False where it is not kept here, or is of the other mode."""
    again = (
        sa.update(webhook_events)
        .where(columns.id == event, columns.state != State.OTHER_MODE, columns.object != "")
        .values(state=State.WAITING, attempts=0, due=now, error=None)
    )
    return (await connection.execute(again)).rowcount > 0


async def drop(connection: AsyncConnection, before: int) -> int:
    """Drop some events that were received before a Unix millisecond, but what is still to be applied and dead letters;
    return how many. Stripe lists none of an age of more than 30 days, so none comes back.
    """
    settled = columns.state.in_([State.APPLIED, State.IGNORED, State.OTHER_MODE])
    old = sa.select(columns.id).where(columns.received < before, settled).limit(DROPPED_MAX)
    return (await connection.execute(sa.delete(webhook_events).where(columns.id.in_(old)))).rowcount


async def read_until(connection: AsyncConnection, name: str) -> int | None:
    """Return up to which second of its clock a list of Stripe's was read; None before the first time. What has arrived
    since says nothing of what was lost before it."""
    reads = webhook_polls.c
    found = await connection.execute(sa.select(reads.until).where(reads.list == name))
    return found.scalar_one_or_none()


async def note_read(connection: AsyncConnection, name: str, until: int) -> None:
    """Write down that a list of Stripe's was read up to this second of its clock."""
    made = insert_new(connection, webhook_polls, "list").values(list=name, until=until).returning(webhook_polls.c.list)
    if (await connection.execute(made)).first() is None:
        await connection.execute(sa.update(webhook_polls).where(webhook_polls.c.list == name).values(until=until))


async def standing(connection: AsyncConnection) -> dict[str, int]:
    """Return how many events are in each state."""
    counted = await connection.execute(sa.select(columns.state, sa.func.count()).group_by(columns.state))
    return dict.fromkeys(map(str, State), 0) | {row[0]: row[1] for row in counted}


async def listing(
    connection: AsyncConnection, state: str | None, before: int | None, limit: int
) -> list[dict[str, Any]]:
    """Tell of events without their payload, the latest first: those received before this Unix millisecond."""
    wanted = sa.select(*(column for column in columns if column is not columns.payload))
    if state is not None:
        wanted = wanted.where(columns.state == state)
    if before is not None:
        wanted = wanted.where(columns.received < before)
    rows = await connection.execute(wanted.order_by(columns.received.desc(), columns.id).limit(limit))
    return [
        {
            **{name: getattr(row, name) for name in ("id", "type", "object", "state", "source", "attempts", "error")},
            "livemode": bool(row.livemode),
            "created": moment(row.created * 1000),
            "received": moment(row.received),
            "applied": moment(row.applied),
        }
        for row in rows
    ]
