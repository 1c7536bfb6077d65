"""On which day each key was used last, as edges tell it with their batches: gathered, and written now and then."""

import time

import sqlalchemy as sa

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, keys

WRITE_SECONDS = 10.0
"""Seconds between two times that days are written."""
KEYS_AT_ONCE = 500
"""Keys of a transaction."""
KEYS_MAX = 200_000
"""Keys that are remembered until then; of others the edges tell again on another day."""


class LastUsedDays:
    """The days that are to be written."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._days: dict[str, int] = {}

    def record(self, day: int, digests: list[str]) -> None:
        """Keys with these SHA-256 were used on the day that begins at this Unix second; nothing is written yet."""
        if day > time.time() + DAY:
            return  # No day that has been.
        for digest in digests:
            if digest in self._days or len(self._days) < KEYS_MAX:
                self._days[digest] = max(day, self._days.get(digest, 0))

    async def write(self) -> None:
        """Write what was gathered."""
        earlier = keys.c.last_used_on.is_(None) | (keys.c.last_used_on < sa.bindparam("day"))
        statement = sa.update(keys).where(keys.c.sha256 == sa.bindparam("digest"), earlier)
        while self._days:
            batch = [{"digest": digest, "day": day} for digest, day in list(self._days.items())[:KEYS_AT_ONCE]]
            async with self._database.writing() as connection:
                await connection.execute(statement.values(last_used_on=sa.bindparam("day")), batch)
            for one in batch:
                if self._days.get(str(one["digest"])) == one["day"]:
                    del self._days[str(one["digest"])]
