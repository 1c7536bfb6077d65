"""Periodic work of customers' webhooks: sending, alerts about disabled endpoints, and retention."""

import time
from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import Job, Rest, repeat
from edgeproxy.collector.metrics import Metrics
from edgeproxy.collector.webhooks import messages
from edgeproxy.collector.webhooks.sender import DisabledEndpoint, WebhookSender
from edgeproxy.config.collector.webhooks import Webhooks

ROUND_SECONDS = 600.0
"""Seconds between two checks for expired messages."""
REST_SECONDS = 1.0
"""Seconds until the next check after some were deleted."""


class WebhookJobs:
    """The jobs of customers' webhooks."""

    def __init__(self, database: Database, get_settings: Callable[[], Webhooks | None], metrics: Metrics) -> None:
        self._database = database
        self.sender = WebhookSender(database, get_settings, metrics, raise_disabled)

    async def run_retention(self) -> None:
        """Delete expired messages until cancelled."""
        failed = "old webhooks could not be dropped, and are later"
        await repeat(Job("webhook-retention", ROUND_SECONDS, failed, self._drop_now), log.RateLimitedLog(60.0))

    async def _drop_now(self) -> Rest | None:
        return Rest(REST_SECONDS) if await self.drop_old(time.time()) else None

    async def drop_old(self, now: float) -> int:
        """Delete some messages that have expired at this Unix second. Return their number."""
        async with self._database.writing() as connection:
            return await messages.drop_messages(connection, round((now - messages.RETENTION_SECONDS) * 1000))


async def raise_disabled(connection: AsyncConnection, endpoint: DisabledEndpoint, now: float) -> None:
    """Alert operators and the customer about a disabled endpoint."""
    alert = Alert(
        key=f"webhook:{endpoint.customer}:{endpoint.id}:{int(now)}",
        kind=AlertKind.WEBHOOK_DISABLED,
        title=f"the webhook of {endpoint.customer} to {endpoint.host} is disabled",
        customer=endpoint.customer,
        details={"endpoint": endpoint.id, "host": endpoint.host, "why": endpoint.why},
        at=now,
    )
    await raise_once(connection, alert)
