"""Alerts of data protection requests that are due: operators get one five days before, and one when a request is
overdue."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.states import DAY_MS
from edgeproxy.collector.alerts.alert import Alert
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.database.privacy_tables import privacy_requests
from edgeproxy.collector.database.schema import customers
from edgeproxy.collector.privacy.erasure import is_moving_unsettled

DUE_SOON_MS = 5 * DAY_MS
"""The lead time before a request is due by law. An answer takes some days (docs/privacy/sop.md)."""


async def list_due_alerts(connection: AsyncConnection, now: float) -> list[Alert]:
    """List the alerts of open requests that are due soon or overdue at this Unix second. They name no person."""
    now_ms, columns = round(now * 1000), privacy_requests.c
    is_open = columns.ended_at.is_(None) & (columns.due_at < now_ms + DUE_SOON_MS)
    is_deleting = (customers.c.id == columns.customer) & customers.c.deleting_since.is_not(None)
    # The collector answers these with the erasure.
    is_answered = sa.exists().where(is_deleting, ~is_moving_unsettled())
    is_open &= ~((columns.kind == "erasure") & is_answered)
    selected = sa.select(columns.id, columns.kind, columns.law, columns.due_at).where(is_open)
    alerts = []
    for row in await connection.execute(selected.order_by(columns.due_at)):
        is_over = row.due_at <= now_ms
        stage, when = ("overdue", "was") if is_over else ("due", "is")
        at = row.due_at if is_over else row.due_at - DUE_SOON_MS
        due_at = format_timestamp(row.due_at)
        alerts.append(
            Alert(
                key=f"privacy_request:{row.id}:{stage}",
                kind=AlertKind.PRIVACY_REQUEST_DUE,
                severity="page" if is_over else "warn",
                title=f"Request {row.id} ({row.kind}, {row.law}) {when} to be answered by {due_at}",
                at=at / 1000,
                details={"request": row.id, "kind": row.kind, "law": row.law, "due_at": due_at},
            )
        )
    return alerts
