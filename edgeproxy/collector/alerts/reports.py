"""Alerts for who asks: the latest first, with what became of each on its way; and sending one again."""

import time
from collections.abc import Sequence
from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.alerts.delivery import DEAD, DUE
from edgeproxy.collector.alerts.message import format_timestamp
from edgeproxy.collector.database.alert_tables import alert_deliveries, alerts

PAGE_ALERTS_MAX = 1000
"""Alerts of a page."""

AlertReport = dict[str, Any]


async def list_alerts(
    connection: AsyncConnection, before: int | None, limit: int, *, state: str | None = None, **only: str | None
) -> list[AlertReport]:
    """Tell at most `limit` alerts before the one of this id, the latest first.

    `only` those with these columns, and of a `state`: with a delivery of that state.
    """
    statement = sa.select(alerts).order_by(alerts.c.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(alerts.c.id < before)
    statement = statement.where(*(alerts.c[name] == value for name, value in only.items() if value is not None))
    if state is not None:
        of_state = sa.select(alert_deliveries.c.alert).where(alert_deliveries.c.state == state)
        statement = statement.where(alerts.c.id.in_(of_state))
    return await _to_reports(connection, (await connection.execute(statement)).all())


async def find_alert(connection: AsyncConnection, number: int) -> AlertReport | None:
    """Tell an alert; None where there is none of this id."""
    rows = (await connection.execute(sa.select(alerts).where(alerts.c.id == number))).all()
    return (await _to_reports(connection, rows))[0] if rows else None


async def replay_alert(connection: AsyncConnection, number: int, channel: str | None) -> list[str]:
    """Have an alert sent again: by this channel, or else by all that have given it up; return the channels."""
    own = (alert_deliveries.c.alert == number) & (alert_deliveries.c.state != DUE)
    own &= alert_deliveries.c.state == DEAD if channel is None else alert_deliveries.c.channel == channel
    values = {"state": DUE, "attempts": 0, "due_at": round(time.time() * 1000), "sent_at": None}
    again = sa.update(alert_deliveries).where(own).values(values).returning(alert_deliveries.c.channel)
    return sorted((await connection.execute(again)).scalars())


async def _to_reports(connection: AsyncConnection, rows: Sequence[Any]) -> list[AlertReport]:
    deliveries: dict[int, list[AlertReport]] = {row.id: [] for row in rows}
    statement = sa.select(alert_deliveries).where(alert_deliveries.c.alert.in_(list(deliveries)))
    for row in await connection.execute(statement.order_by(alert_deliveries.c.alert, alert_deliveries.c.channel)):
        sent_at = None if row.sent_at is None else format_timestamp(row.sent_at)
        times = {"sent_at": sent_at, "next_at": format_timestamp(row.due_at) if row.state == DUE else None}
        about = {"channel": row.channel, "state": row.state, "attempts": row.attempts, "error": row.error}
        deliveries[row.alert].append({**about, **times})
    return [
        {
            "id": row.id,
            "key": row.key,
            "kind": row.kind,
            "severity": row.severity,
            "customer": row.customer,
            "title": row.title,
            "details": orjson.loads(row.details),
            "at": format_timestamp(row.at),
            "deliveries": deliveries[row.id],
        }
        for row in rows
    ]
