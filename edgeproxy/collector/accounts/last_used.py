"""The days of the last use of keys and of their customers' last call: reported with batches, and written in bulk."""

import time
from itertools import islice

import sqlalchemy as sa

from edgeproxy.collector.accounts.list_figures import record_last_calls
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, keys

WRITE_SECONDS = 10.0
"""Seconds between two writes."""
KEYS_AT_ONCE = 500
"""The most keys that one transaction writes."""
KEYS_MAX = 200_000
"""The most keys collected between writes. Edges report further keys again on another day."""


class LastUsedDays:
    """The days to write, by the SHA-256 of keys."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._days: dict[str, int] = {}

    def record(self, day: int, digests: list[str]) -> None:
        """Record that keys with these SHA-256 hashes were used on the day that begins at this Unix second."""
        if day > time.time() + DAY:
            return  # The day is in the future: the edge's clock is wrong.
        for digest in digests:
            if digest in self._days or len(self._days) < KEYS_MAX:
                self._days[digest] = max(day, self._days.get(digest, 0))

    async def write(self) -> None:
        """Write the collected days."""
        earlier = keys.c.last_used_on.is_(None) | (keys.c.last_used_on < sa.bindparam("day"))
        statement = sa.update(keys).where(keys.c.sha256 == sa.bindparam("digest"), earlier)
        while self._days:
            batch = dict(islice(self._days.items(), KEYS_AT_ONCE))
            rows = [{"digest": digest, "day": day} for digest, day in sorted(batch.items())]
            async with self._database.writing() as connection:
                await record_last_calls(connection, batch)  # Changes of keys lock the customer first, too.
                await connection.execute(statement.values(last_used_on=sa.bindparam("day")), rows)
            for digest, day in batch.items():
                if self._days.get(digest) == day:
                    del self._days[digest]
