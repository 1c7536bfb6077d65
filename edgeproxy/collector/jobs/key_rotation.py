"""Alerts of keys that are due for rotation, to operators and to the customers who are to rotate them."""

import time
from collections.abc import Callable

from edgeproxy.base import log
from edgeproxy.collector.accounts import rotation
from edgeproxy.collector.alerts.alert import raise_alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import Job, repeat
from edgeproxy.collector.metrics import Metrics
from edgeproxy.collector.pages.urls import build_url, select_listener
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.units import format_seconds

CHECK_SECONDS = 60.0
FAILURE = "nobody was alerted of keys that are due for rotation, and somebody is later"


class KeyRotationJob:
    """Raises the alerts until it is cancelled."""

    def __init__(self, database: Database, metrics: Metrics, settings: Callable[[], CollectorSettings]) -> None:
        """`settings` returns those of the last reload."""
        self._database = database
        self._metrics = metrics
        self._settings = settings

    async def run(self) -> None:
        """Raise what is due every CHECK_SECONDS, for ever."""
        job = Job("key-rotation", CHECK_SECONDS, FAILURE, lambda: self.step(time.time()))
        await repeat(job, log.RateLimitedLog(60.0))

    async def step(self, now: float) -> None:
        """Raise what is due at this Unix second. An alert is raised once, however many collectors do this."""
        settings = self._settings()
        rotated, more = settings.rotation, list_instructions(settings)
        async with self._database.reading() as connection:
            due = await rotation.list_due_alerts(connection, now, settings.alerts.rotation, more)
            if rotated is not None:
                due += await rotation.list_reminders(connection, now, rotated.remind, more)
            self._metrics.keys_due_for_rotation.set(await rotation.count_overdue(connection, now))
        if due:
            async with self._database.writing() as connection:
                await raise_alerts(connection, due)


def list_instructions(settings: CollectorSettings) -> dict[str, str]:
    """Return the details of an alert that say how its customer rotates the key. Pure."""
    if settings.rotation is None:
        return {}
    url = build_url(settings, select_listener(settings, "portal"))
    return {"rotate_at": f"{url}/account/keys", "overlap": format_seconds(settings.rotation.overlap)}
