"""Deliveries as rows: an alert on its way to a channel.

    due ──▶ sent
    │ ▲ ▲      │
    ▼ │ └──────┘ replayed
    dead

A delivery stays `due` while it is tried again. TRANSITIONS has all steps that are allowed, and `transition` makes them.
"""

from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from operator import attrgetter
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.alerts.message import AlertMessage, parse_message
from edgeproxy.collector.database.alert_tables import alert_deliveries, alerts
from edgeproxy.collector.database.database import build_insert_new
from edgeproxy.collector.database.unreadable_rows import parse_rows
from edgeproxy.collector.encryption.rows import open_rows, seal_rows

TO_CUSTOMER = ":customer"
"""Suffix of the channel for deliveries to the customer itself. No configured channel has it."""
columns = alert_deliveries.c


class DeliveryState(StrEnum):
    """The state of a delivery."""

    DUE = "due"
    """Not sent yet."""
    SENT = "sent"
    """Accepted by the channel."""
    DEAD = "dead"
    """Given up: a dead letter."""


TRANSITIONS: Final[Mapping[DeliveryState, frozenset[DeliveryState]]] = {
    DeliveryState.DUE: frozenset({DeliveryState.DUE, DeliveryState.SENT, DeliveryState.DEAD}),
    DeliveryState.SENT: frozenset({DeliveryState.DUE}),
    DeliveryState.DEAD: frozenset({DeliveryState.DUE}),
}
"""The possible next states of each state."""


class DeliveryStateError(Exception):
    """A delivery cannot change from its state to the requested state."""


class NewDelivery(NamedTuple):
    """A new delivery by a channel.

    `recipient` overrides the channel's recipient. `language` is the recipient's, if known.
    """

    alert: int
    channel: str
    recipient: str | None = None
    language: str | None = None


class Recipient(NamedTuple):
    """The address for a customer's own alerts, and its language; None: not chosen."""

    email: str
    language: str | None


class DueDelivery(NamedTuple):
    """A due delivery: its alert, its recipient as in NewDelivery, and the number of failed attempts."""

    message: AlertMessage
    recipient: str | None
    language: str | None
    attempts: int


async def insert_deliveries(connection: AsyncConnection, deliveries: Iterable[NewDelivery], now_ms: int) -> None:
    """Insert deliveries that are due now. Existing ones are unchanged."""
    about = {"state": DeliveryState.DUE, "attempts": 0, "due_at": now_ms}
    rows = [{**delivery._asdict(), **about} for delivery in deliveries]
    if rows:
        stored = await seal_rows(connection, alert_deliveries.name, rows)
        await connection.execute(build_insert_new(connection, alert_deliveries, "alert", "channel"), stored)


async def transition(
    connection: AsyncConnection,
    alert: int,
    channel: str,
    before: DeliveryState,
    after: DeliveryState,
    **values: int | str | None,
) -> None:
    """Change a delivery's state and set these columns.

    Raises DeliveryStateError if TRANSITIONS does not permit it, or if the delivery is not in the state `before`.
    """
    if after not in TRANSITIONS[before]:
        raise DeliveryStateError(f"a delivery cannot go from {before} to {after}")
    own = (columns.alert == alert) & (columns.channel == channel) & (columns.state == before)
    if (await connection.execute(sa.update(alert_deliveries).where(own).values(state=after, **values))).rowcount != 1:
        raise DeliveryStateError(f"the delivery of alert {alert} by {channel} is not {before} any more")


def is_due(now_ms: int) -> sa.ColumnElement[bool]:
    """Return the SQL condition that a delivery is due."""
    return (columns.state == DeliveryState.DUE) & (columns.due_at <= now_ms)


async def list_due_channels(connection: AsyncConnection, now_ms: int) -> set[str]:
    """Return the channels with due deliveries."""
    return set(await connection.scalars(sa.select(columns.channel).distinct().where(is_due(now_ms))))


async def list_due(
    connection: AsyncConnection, channel: str, now_ms: int, limit: int
) -> tuple[list[DueDelivery], list[int]]:
    """Return the due deliveries of a channel, and the ids of alerts that cannot be read.

    First comes the oldest due delivery of each customer, then the second of each, and so on. So a customer with many
    deliveries does not delay others.
    """
    turn = sa.func.row_number().over(partition_by=alerts.c.customer, order_by=(columns.due_at, columns.alert))
    statement = (
        sa.select(alerts, columns.alert, columns.channel, columns.recipient, columns.language, columns.attempts)
        .join_from(alert_deliveries, alerts, alerts.c.id == columns.alert)
        .where(is_due(now_ms), columns.channel == channel)
        .order_by(turn, columns.due_at, columns.alert)
        .limit(limit)
    )
    rows = (await connection.execute(statement)).all()
    own = ("alert", "channel", "recipient")
    stored = [{name: row._mapping[name] for name in own} for row in rows]
    opened = await open_rows(connection, alert_deliveries.name, stored)
    recipients = {row["alert"]: row["recipient"] for row in opened}

    def parse(row: sa.Row[tuple[object, ...]]) -> DueDelivery:
        return DueDelivery(parse_message(row), recipients[row.alert], row.language, row.attempts)  # type: ignore[arg-type]

    due = parse_rows(alerts.name, (row for row in rows if row.alert in recipients), parse, attrgetter("alert"))
    readable = {row.message.id for row in due}
    return due, [row.alert for row in rows if row.alert not in readable]


async def count_by_state(connection: AsyncConnection, states: Collection[DeliveryState]) -> dict[str, int]:
    """Return the number of deliveries in each of these states. States without deliveries are left out."""
    count = sa.select(columns.state, sa.func.count()).where(columns.state.in_(states)).group_by(columns.state)
    return {row[0]: row[1] for row in await connection.execute(count)}


async def replay_deliveries(connection: AsyncConnection, alert: int, channel: str | None, now_ms: int) -> list[str]:
    """Make an alert's deliveries due again, by this channel or by all channels that gave up. Return the channels.

    A pending delivery is unchanged.
    """
    chosen = columns.state == DeliveryState.DEAD if channel is None else columns.channel == channel
    statement = (
        sa.select(columns.channel, columns.state)
        .where(columns.alert == alert, columns.state != DeliveryState.DUE, chosen)
        .order_by(columns.channel)
        .with_for_update()
    )
    rows = (await connection.execute(statement)).all()
    for row in rows:
        before, fresh = DeliveryState(row.state), {"attempts": 0, "due_at": now_ms, "sent_at": None}
        await transition(connection, alert, row.channel, before, DeliveryState.DUE, **fresh)
    return [row.channel for row in rows]
