"""Checks of regions: the collector requests each region at intervals and counts the results by day.

The request is one that customers could send. Times without a running collector are not measured: they count neither as
successes nor as failures.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping

import aiohttp
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.base.http_peer import HttpPeer, open_session
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.page_tables import checks
from edgeproxy.collector.database.periodic import run_guarded
from edgeproxy.collector.database.schema import DAY
from edgeproxy.config.collector.pages import StatusPage, WatchedRegion

PEER = HttpPeer("the region", 10.0, 64 << 10, reads_prefix=True)
FAILED, FAST = "failed", "fast"
"""Results besides latency buckets: the check failed, or it was within the objective."""
BUCKETS_MS = (10, 25, 50, 100, 200, 400, 800, 1600, 3200, 10000)
"""The upper ends of the latency buckets, in milliseconds."""
RETENTION_DAYS = 400
START_SECONDS = 60.0
"""Seconds after the start in which a region that has not answered yet is not counted: both may have been started."""
HEADERS = {"User-Agent": "edgeproxy-status"}

Row = tuple[str, int, str]
"""A region, the Unix second when a day begins, and a result."""


class RegionChecks:
    """Checks the regions until it is cancelled."""

    def __init__(self, database: Database, settings: StatusPage, began: float = 0.0) -> None:
        """`began` is the Unix second when the collector started."""
        self._database = database
        self._settings = settings
        self._counts: Counter[Row] = Counter()
        """Counts that are not written yet."""
        self.last: dict[str, bool] = {}
        """True for each region whose last check succeeded."""
        self.failing_since: dict[str, float] = {}
        """For failing regions, the Unix second of the first failed check after a success."""
        self.changed = asyncio.Event()
        """Set once a region answers, or no longer does."""
        self._began = began
        self._log = log.RateLimitedLog(600.0)

    async def run(self) -> None:
        """Check all regions at intervals, until cancelled."""
        watched = self._settings.watched
        async with open_session(PEER, headers=HEADERS) as session:
            while watched:
                began, before = time.monotonic(), dict(self.last)
                await asyncio.gather(*(self._check(session, name, region) for name, region in watched.items()))
                # If another collector has inserted the day's row meanwhile, the next attempt updates that row.
                failed = "checks of regions could not be written, and are the next time"
                await run_guarded(self._log, failed, self.write(), sa.exc.IntegrityError)
                if self.last != before:
                    self.changed.set()
                await asyncio.sleep(max(0.0, self._settings.every - (time.monotonic() - began)))

    async def _check(self, session: aiohttp.ClientSession, name: str, region: WatchedRegion) -> None:
        began = time.monotonic()
        try:
            async with session.get(region.url, allow_redirects=False) as response:
                is_well = response.status < 400
                await response.content.readany()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            is_well = False
        self.note(name, time.time(), time.monotonic() - began if is_well else None, region.latency)

    def note(self, region: str, now: float, seconds: float | None, objective: float) -> None:
        """Count the result of a check at the Unix second `now`. `seconds` is the latency, or None after a failure."""
        day = int(now) // DAY * DAY
        if seconds is None and region not in self.last and now < self._began + START_SECONDS:
            return
        if seconds is not None:
            self.failing_since.pop(region, None)
        elif self.last.get(region):
            self.failing_since[region] = now
        self.last[region] = seconds is not None
        self._counts[region, day, FAILED if seconds is None else find_bucket(seconds)] += 1
        if seconds is not None and seconds <= objective:
            self._counts[region, day, FAST] += 1

    async def write(self) -> None:
        """Write the counts. If it raises, the next call writes them too."""
        counts, self._counts = self._counts, Counter()
        try:
            async with self._database.writing() as connection:
                await add_counts(connection, counts)
        except Exception:  # The next call writes them.
            self._counts.update(counts)
            raise


def find_bucket(seconds: float) -> str:
    """Return the bucket of a latency: its upper end in milliseconds."""
    return str(next((end for end in BUCKETS_MS if seconds * 1000 <= end), BUCKETS_MS[-1]))


async def add_counts(connection: AsyncConnection, counts: Mapping[Row, int]) -> None:
    """Add counts to those in the database."""
    columns = checks.c
    for (region, day, result), count in counts.items():
        is_same = (columns.region == region) & (columns.day == day) & (columns.result == result)
        grown = await connection.execute(sa.update(checks).where(is_same).values(count=columns.count + count))
        if not grown.rowcount:
            row = {"region": region, "day": day, "result": result, "count": count}
            await connection.execute(sa.insert(checks), [row])
            await connection.execute(sa.delete(checks).where(columns.day < day - RETENTION_DAYS * DAY))


async def fetch_counts(connection: AsyncConnection, since: int) -> dict[Row, int]:
    """Return the counts of the days that begin at the Unix second `since` or later."""
    columns = checks.c
    statement = sa.select(columns.region, columns.day, columns.result, columns.count).where(columns.day >= since)
    return {(region, day, result): count for region, day, result, count in await connection.execute(statement)}
