"""The ledger's counts of quotas, which the supervisor that maintains the tables follows and writes into them.

The collector publishes nearly used-up quotas at once: a request to it waits for news. It also publishes them to the
hub, if edges follow the directory there, and the first to arrive counts: so none is missed while one of the two is
away. While neither can be reached the last counts apply, and requests do not wait.
"""

import asyncio
import random
from collections.abc import Iterable
from time import monotonic
from typing import Protocol

import orjson

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.config.customers import Customer
from edgeproxy.config.edge.customer_store import CustomerMap
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.config.edge.usage import Usage
from edgeproxy.config.hub_settings import Hub
from edgeproxy.config.tiers import Tier
from edgeproxy.edge.counters.rows import RowUnavailableError
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.directory.collector_client import WAIT_SECONDS, CollectorClient
from edgeproxy.edge.sync.ledger_counts import LedgerCount, parse_count, write_count
from edgeproxy.hub.errors import HubRefusalError, HubUnavailableError
from edgeproxy.wire.directory_versions import CallHub, UnreadableDirectoryError

LEAD_SECONDS = 0.5
"""Seconds between two checks whether this supervisor maintains the tables."""
RETRY_SECONDS, RETRY_SECONDS_MAX = 1.0, 30.0
"""Seconds until the next request to the collector after a failure, at first and at most."""
UNWRITTEN_MAX = 10_000
"""Counts without a row in the table that are held at most."""


class LedgerCountSource(Protocol):
    """A source of counts: the collector, or the hub."""

    async def fetch_news(self) -> list[object]:
        """Wait for news or for the end of a while, and return the new counts as the source encodes them."""

    async def close(self) -> None:
        """Close the connection."""


class CollectorCountSource:
    """The collector as a source of counts."""

    def __init__(self, usage: Usage) -> None:
        self._client = CollectorClient(usage)
        self._seq = 0

    async def fetch_news(self) -> list[object]:
        """Wait for news or for half a minute, and return the new counts.

        Raises HubUnavailableError and UnreadableDirectoryError.
        """
        body = await self._client.get("/quotas", {"after": str(self._seq), "wait": str(WAIT_SECONDS)})
        try:
            document = orjson.loads(body)
            changes = list(document["quotas"])
            self._seq = int(changes[-1]["seq"] if changes else document["newest"])
        except (ValueError, LookupError, TypeError) as error:
            raise UnreadableDirectoryError("the collector's answer cannot be read: is it one?") from error
        return changes

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()


class LedgerCountWriter:
    """The writer of ledger counts into the tables of one supervisor."""

    def __init__(self, store: Store, settings: EdgeSettings, ask: CallHub) -> None:
        """`ask` sends a command to the hub."""
        self._store = store
        self._ask = ask
        self._sources = find_sources(settings)
        self._unwritten: dict[tuple[str, str, str, str], LedgerCount] = {}
        self._tasks = Tasks()
        self._log = log.get_logger()
        self._rare_log = log.RateLimitedLog(60.0)

    def begin(self) -> None:
        """Follow the configured sources."""
        usages, hub = self._sources
        # The column for these counts is made with the table, at a start.
        if self._store.quotas.hub is None:
            if usages:
                self._log.warning("quotas go by this edge alone until it is started anew: usage was not shipped before")
            return
        for usage in usages:
            self._tasks.start("ledger counts of a collector", self._follow(CollectorCountSource(usage)))
        if hub is not None:
            from edgeproxy.edge.directory.counted_log import QuotaCountLog

            self._tasks.start("ledger counts of the hub", self._follow(QuotaCountLog(self._ask, hub)))

    async def follow(self, settings: EdgeSettings) -> None:
        """Apply another configuration."""
        before, self._sources = self._sources, find_sources(settings)
        if before != self._sources:
            await self.end()
            self.begin()

    async def end(self) -> None:
        """Stop following."""
        await self._tasks.cancel()

    async def _follow(self, counts: LedgerCountSource) -> None:
        """Write news of a source into the tables until cancelled."""
        in_vain = 0
        try:
            while True:
                # The column has one writer. Another supervisor of this state directory may hold it.
                if not self._store.identity.try_acquire():
                    await asyncio.sleep(LEAD_SECONDS)
                    continue
                try:
                    counted = [parse_count(count) for count in await counts.fetch_news()]
                except (HubUnavailableError, HubRefusalError, UnreadableDirectoryError, ValueError, OSError) as error:
                    self._rare_log.error(
                        "quotas go by what is known here: the ledger's counts cannot be had", str(error)
                    )
                    pause = min(RETRY_SECONDS_MAX, RETRY_SECONDS * 2 ** min(in_vain, 10))
                    in_vain += 1
                    await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                    continue
                in_vain = 0
                self._write(counted)
        finally:
            await counts.close()

    def _write(self, counts: Iterable[LedgerCount]) -> None:
        """Write these counts, and earlier ones that had no row then."""
        now = monotonic() + self._store.offset
        left, self._unwritten = self._unwritten, {}
        left |= {count[:4]: count for count in counts}
        for name, count in left.items():
            try:
                write_count(self._store.quotas, count, now)
            except RowUnavailableError:
                if len(self._unwritten) < UNWRITTEN_MAX:
                    self._unwritten[name] = count


def find_sources(settings: EdgeSettings) -> tuple[list[Usage], Hub | None]:
    """Return the collectors and the hub to follow; none if no customer can have a quota."""
    parts: list[Tier | Customer] = [*settings.tiers.values(), *CustomerMap.from_customers(settings.customers).terms]
    if settings.directory is None and not any(part.quotas or part.caps for part in parts):
        return [], None
    follows_hub = settings.directory is not None and settings.directory.from_ == "hub"
    return list(settings.list_usages().values()), settings.hub if follows_hub else None
