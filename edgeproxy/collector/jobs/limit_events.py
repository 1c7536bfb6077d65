"""The event `limit.exceeded` for customers' webhooks: the first refusals by a limit in an hour, from the ledger.

Several collectors may check at once. The id of a message is derived from its content, so there is only one.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial

import sqlalchemy as sa

from edgeproxy.base import log
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import Job, repeat
from edgeproxy.collector.database.schema import HOUR, customers
from edgeproxy.collector.database.webhook_tables import webhook_endpoints
from edgeproxy.collector.ledger import refusals
from edgeproxy.collector.ledger.refusals import RefusalCount
from edgeproxy.collector.webhooks.event_types import EventType
from edgeproxy.collector.webhooks.messages import ENABLED, enqueue_event, includes_type, select_id
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.meters import MEASURES

CHECK_SECONDS = 60.0
LATE_SECONDS = 900
"""Seconds of checks after the end of an hour, because edges ship counts with a delay."""
CUSTOMERS_MAX = 10
"""Customers per query. It returns up to 50 pairs of a customer and a limit."""
FAILURE = "refusals could not be looked at for webhooks, and are later"


class LimitEvents:
    """Notifies customers' webhooks of limits that refused requests, until it is cancelled."""

    def __init__(self, database: Database, get_settings: Callable[[], CollectorSettings]) -> None:
        self._database = database
        self._get_settings = get_settings

    async def run(self) -> None:
        """Check every CHECK_SECONDS, until cancelled."""
        job = Job("webhook-limits", CHECK_SECONDS, FAILURE, lambda: self.step(time.time()))
        await repeat(job, log.RateLimitedLog(60.0))

    async def step(self, now: float) -> None:
        """Check the current hour and, for a while, the previous one."""
        settings = self._get_settings()
        meters = [name for name, meter in settings.meters.items() if MEASURES[meter.count].is_of_refusals]
        if settings.webhooks is None or not meters or not (names := await self._list_customers()):
            return
        for hour in sorted({int(second) // HOUR * HOUR for second in (now - LATE_SECONDS, now)}):
            until = min(hour + HOUR, int(now))
            for first in range(0, len(names) if until > hour else 0, CUSTOMERS_MAX):
                some = names[first : first + CUSTOMERS_MAX]
                async with self._database.reading(whole=True) as connection:
                    report = await refusals.fetch_refusals(connection, meters, hour, until, some)
                if report.customers:
                    await self._enqueue(report.customers, hour, now)

    async def _list_customers(self) -> list[str]:
        """Return the names of customers with an endpoint for this event."""
        columns = webhook_endpoints.c
        statement = (
            sa.select(customers.c.name, columns.id, columns.types)
            .join_from(webhook_endpoints, customers, customers.c.id == columns.customer)
            .where(columns.state == ENABLED)
        )
        async with self._database.reading() as connection:
            rows = await connection.execute(statement)
            return sorted({row.name for row in rows if includes_type(row.id, row.types, EventType.LIMIT_EXCEEDED)})

    async def _enqueue(self, counts: Sequence[RefusalCount], hour: int, now: float) -> None:
        async with self._database.writing() as connection:
            for count in counts:
                occasion = (hour * 1000, f"{count.customer} {count.limit}")
                build_data = partial(_build_data, count, hour)
                owner, at = select_id(count.customer), round(now * 1000)
                await enqueue_event(connection, owner, EventType.LIMIT_EXCEEDED, at, build_data, occasion)


async def _build_data(count: RefusalCount, hour: int) -> dict[str, object]:
    about = {"customer": count.customer, "limit": count.limit}
    return {**about, "hour": format_timestamp(hour * 1000), "refused": count.refused}
