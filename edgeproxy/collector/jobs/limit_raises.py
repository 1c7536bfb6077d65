"""Ends raises of limits: expired ones leave the database and the directory within seconds."""

from edgeproxy.base import log
from edgeproxy.collector.accounts.limit_raises import end_all_due
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import Job, repeat
from edgeproxy.collector.metrics import Metrics

CHECK_SECONDS = 5.0
FAILURE = "raises of limits could not be ended in the database, and edges leave them out all the same"


class LimitRaiseJob:
    """Ends raises of limits until it is cancelled."""

    def __init__(self, database: Database, metrics: Metrics) -> None:
        self._database = database
        self._metrics = metrics

    async def run(self) -> None:
        """End expired raises every CHECK_SECONDS, until cancelled."""
        await repeat(Job("limit-raises", CHECK_SECONDS, FAILURE, self.step), log.RateLimitedLog(60.0))

    async def step(self) -> None:
        """End expired raises."""
        self._metrics.limit_raises = await end_all_due(self._database)
