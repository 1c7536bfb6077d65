"""Keeps the hub's copy of quota counts for edges up to date."""

import orjson

from edgeproxy.base import log
from edgeproxy.collector.database.periodic import Job, Rest, repeat
from edgeproxy.collector.directory.hub_quota_counts import HubUnavailableError, QuotaCountMirror, ResponseError
from edgeproxy.collector.jobs.quotas import QuotaMonitor
from edgeproxy.config.hub_settings import Hub

LOOK_SECONDS = 2.0
"""Seconds between two checks of the hub's content without new changes, because the hub may have been emptied."""
RETRY_SECONDS = 2.0
"""Seconds until a failed copy is repeated."""


class HubQuotaCopy:
    """The copy in one hub."""

    def __init__(self, hub: Hub, watch: QuotaMonitor) -> None:
        self._copy = QuotaCountMirror(hub)
        self._watch = watch
        self._limited_log = log.RateLimitedLog(60.0)

    async def run(self) -> None:
        """Copy until cancelled."""
        failed = "quotas could not be copied to the hub, and are copied again"
        expected = (HubUnavailableError, ResponseError, ValueError)
        try:
            await repeat(Job("hub-quotas", RETRY_SECONDS, failed, self.step, expected), self._limited_log)
        finally:
            await self._copy.close()

    async def step(self) -> Rest:
        """Copy missing changes, as soon as there are some or when the time is over. No other pause is needed."""
        known = await self._copy.fetch_newest()
        newest, changes = await self._watch.behind(known, LOOK_SECONDS)
        if changes:
            lines = [(seq, orjson.dumps(count._asdict())) for seq, count in changes]
            await self._copy.append_changes(lines, replace=known == 0 or known > newest)
        return Rest(0.0)
