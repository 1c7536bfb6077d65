"""Alerts for lists of the API, with the state of each delivery."""

from collections.abc import Collection, Iterable
from operator import attrgetter

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.json_values import JsonObject, JsonValue
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.alerts.deliveries import DeliveryState
from edgeproxy.collector.alerts.kinds import NOTICES, AlertKind
from edgeproxy.collector.alerts.message import parse_message
from edgeproxy.collector.alerts.mutes import Side
from edgeproxy.collector.database.alert_tables import alert_deliveries, alert_handling, alerts
from edgeproxy.collector.database.statements import AnyRow, AnySelect
from edgeproxy.collector.database.unreadable_rows import ReadPage, find_cursor, parse_rows

PAGE_ALERTS_MAX = 1000
"""Most alerts on a page."""


async def list_alerts(
    connection: AsyncConnection,
    cursor: int | None,
    limit: int,
    *,
    state: str | None = None,
    acknowledged: bool | None = None,
    side: Side = "operator",
    oldest_first: bool = False,
    notices: bool = True,
    kinds: Collection[AlertKind] | None = None,
    has_deliveries: bool = True,
    **filters: str | None,
) -> ReadPage[JsonObject]:
    """Return at most `limit` alerts with ids below `cursor`, latest first. With `oldest_first`, return ids above it.

    `filters` are columns with values; None leaves a column out. `state` selects alerts with a delivery in this state.
    `acknowledged` selects alerts that the side has acknowledged, or must acknowledge. `notices` includes notices of
    actions. `kinds` limits the kinds. `has_deliveries` adds the state of the deliveries.
    """
    statement = sa.select(alerts).order_by(alerts.c.id if oldest_first else alerts.c.id.desc()).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(alerts.c.id > cursor if oldest_first else alerts.c.id < cursor)
    if acknowledged is not None:
        handled = alert_handling.c
        is_known = sa.exists().where(
            handled.alert == alerts.c.id, handled.side == side, handled.acknowledged_at.is_not(None)
        )
        waits = sa.and_(~is_known, alerts.c.severity != "info")  # Other alerts need no acknowledgement.
        statement = statement.where(is_known if acknowledged else waits)
    statement = statement.where(*(alerts.c[name] == value for name, value in filters.items() if value is not None))
    if not notices:
        statement = statement.where(alerts.c.kind.not_in(sorted(NOTICES)))
    if kinds is not None:
        statement = statement.where(alerts.c.kind.in_(sorted(kinds)))
    if state is not None:
        of_state = sa.select(alert_deliveries.c.alert).where(alert_deliveries.c.state == state)
        statement = statement.where(alerts.c.id.in_(of_state))
    return await _fetch_page(connection, statement, limit, has_deliveries=has_deliveries)


async def _fetch_page(
    connection: AsyncConnection, statement: AnySelect, limit: int, *, has_deliveries: bool
) -> ReadPage[JsonObject]:
    rows = (await connection.execute(statement)).all()
    reports = await _to_reports(connection, rows[:limit], has_deliveries=has_deliveries)
    return ReadPage(reports, find_cursor(rows, limit, attrgetter("id")))


async def find_alert(connection: AsyncConnection, number: int, *, has_deliveries: bool = True) -> JsonObject | None:
    """Return the alert with this id, or None. `has_deliveries` adds the state of its deliveries."""
    rows = await connection.execute(sa.select(alerts).where(alerts.c.id == number))
    return next(iter(await _to_reports(connection, rows, has_deliveries=has_deliveries)), None)


async def _to_reports(connection: AsyncConnection, rows: Iterable[AnyRow], *, has_deliveries: bool) -> list[JsonObject]:
    messages = parse_rows(alerts.name, rows, parse_message, attrgetter("id"))
    reports: list[JsonObject] = [{**message._asdict(), "at": message.moment} for message in messages]
    if not (has_deliveries and messages):
        return reports
    deliveries: dict[int, list[JsonValue]] = {message.id: [] for message in messages}
    columns = alert_deliveries.c
    statement = sa.select(alert_deliveries).where(columns.alert.in_(list(deliveries)))
    for row in await connection.execute(statement.order_by(columns.alert, columns.channel)):
        next_at = format_timestamp(row.due_at) if row.state == DeliveryState.DUE else None
        times = {"sent_at": format_timestamp(row.sent_at), "next_at": next_at}
        about = {"channel": row.channel, "state": row.state, "attempts": row.attempts, "error": row.error}
        deliveries[row.alert].append({**about, **times})
    for message, report in zip(messages, reports, strict=True):
        report["deliveries"] = deliveries[message.id]
    return reports
