"""Publishes the begin and end of planned maintenance on the status page, in its feed and to its subscribers."""

import time

from edgeproxy.base import log
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import Job, repeat
from edgeproxy.collector.pages.incidents import insert_update
from edgeproxy.collector.pages.maintenance import list_untold

ROUND_SECONDS = 5.0
FAILURE = "that maintenance has begun or is over could not be told, and is told later"


class MaintenanceClock:
    """Publishes each state once, even with several collectors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self) -> None:
        """Check every ROUND_SECONDS, until cancelled."""
        await repeat(Job("maintenance-clock", ROUND_SECONDS, FAILURE, self._step), log.RateLimitedLog(60.0))

    async def _step(self) -> None:
        now = int(time.time())
        async with self._database.reading() as connection:
            if not await list_untold(connection, now):
                return
        async with self._database.writing() as connection:
            for id_, state in await list_untold(connection, now, lock=True):
                await insert_update(connection, id_, now, state, "")
