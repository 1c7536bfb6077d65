"""Rotation of due keys: alerts to operators and customers, and new keys sent to customers' webhooks."""

import time
from collections.abc import Callable

from edgeproxy.base import log
from edgeproxy.collector.accounts import key_delivery, rotation
from edgeproxy.collector.alerts.alert import raise_alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import Job, repeat
from edgeproxy.collector.metrics import Metrics
from edgeproxy.collector.pages.urls import describe_site
from edgeproxy.config.collector.rotation import GRACE_SECONDS
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.units import format_seconds

CHECK_SECONDS = 60.0
FAILURE = "keys that are due for rotation were not looked at, and are later"


class KeyRotationJob:
    """Raises the alerts and sends new keys until it is cancelled."""

    def __init__(self, database: Database, metrics: Metrics, settings: Callable[[], CollectorSettings]) -> None:
        """`settings` returns the settings of the last reload."""
        self._database = database
        self._metrics = metrics
        self._settings = settings

    async def run(self) -> None:
        """Do due work every CHECK_SECONDS, until cancelled."""
        job = Job("key-rotation", CHECK_SECONDS, FAILURE, lambda: self.step(time.time()))
        await repeat(job, log.RateLimitedLog(60.0))

    async def step(self, now: float) -> None:
        """Do the work due at this Unix second. An alert is raised once, even with several collectors."""
        settings = self._settings()
        rotated, more = settings.rotation, list_instructions(settings)
        await key_delivery.settle_deliveries(self._database, GRACE_SECONDS if rotated is None else rotated.grace, now)
        if rotated is not None and rotated.deliver == "webhook":
            await key_delivery.deliver_due_keys(self._database, rotated.every, now)
        every = None if rotated is None else rotated.every
        async with self._database.reading() as connection:
            due = await rotation.list_due_alerts(connection, now, settings.alerts.rotation, every, more)
            if rotated is not None:
                due += await rotation.list_reminders(connection, now, rotated, more)
                due += await rotation.list_end_reminders(connection, now, rotated.remind_end)
            self._metrics.keys_due_for_rotation.set(await rotation.count_overdue(connection, now, every))
        if due:
            async with self._database.writing() as connection:
                await raise_alerts(connection, due)


def list_instructions(settings: CollectorSettings) -> dict[str, str]:
    """Return an alert's details about how the customer rotates the key. Pure."""
    if settings.rotation is None:
        return {}
    instructions = {"overlap": format_seconds(settings.rotation.grace)}
    if portal := describe_site(settings).portal:
        instructions["rotate_at"] = f"{portal}/account/keys"
    return instructions
