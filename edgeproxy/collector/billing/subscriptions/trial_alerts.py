"""The alerts of trials that end soon, one per trial."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.alerts.alert import Alert, is_unraised
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.subscriptions.subscription_rows import TRIALING
from edgeproxy.collector.database.billing_tables import subscriptions
from edgeproxy.collector.database.schema import customers

LEAD_SECONDS = 3 * 86400
"""The alert is raised this many seconds before the end of a trial."""
TRIALS_MAX = 500
"""The most trials that one statement fetches."""


async def list_trial_alerts(connection: AsyncConnection, now: float) -> list[Alert]:
    """Return the alerts of trials that end soon, continue as a plan, and have no alert yet, at most TRIALS_MAX."""
    columns = subscriptions.c
    statement = (
        sa.select(columns.id, columns.plan_version, columns.next_version, columns.trial_ends_at, customers.c.name)
        .join_from(subscriptions, customers, customers.c.id == columns.customer)
        .where(
            columns.state == TRIALING,
            columns.cancel_at.is_(None),
            columns.trial_ends_at <= int(now) + LEAD_SECONDS,
            is_unraised(sa.literal("trial-will-end:") + columns.id),
        )
        .order_by(columns.id)
        .limit(TRIALS_MAX)
    )
    return [
        Alert(
            key=f"trial-will-end:{row.id}",
            kind=AlertKind.TRIAL_WILL_END,
            customer=row.name,
            title=f"The trial of {row.name} ends at {format_minute(row.trial_ends_at)}: from then on the plan is paid",
            details={
                "plan": row.next_version or row.plan_version,
                "trial_ends_at": format_timestamp(row.trial_ends_at * 1000),
            },
            at=now,
        )
        for row in await connection.execute(statement)
    ]


def format_minute(at: int) -> str:
    """Return the UTC minute of a Unix second in readable form."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"
