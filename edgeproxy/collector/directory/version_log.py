"""The log of published directory versions in the collector's database."""

import time
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import directory_log, directory_parts
from edgeproxy.wire.directory_versions import Line, parse_line

READABLE_SECONDS = 600
"""Seconds before unneeded parts are deleted, for edges that are reading them."""

IS_CURRENT = directory_log.c.left_at.is_(None)


class DirectoryLog:
    """The log of a database. Several collectors may share it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cached: list[Line] = []
        """Lines of the last read. Reading thousands of lines at each change would take too long."""

    async def list_lines(self, connection: AsyncConnection | None = None) -> list[Line]:
        """List all lines that are needed for the current directory, in the view of a transaction."""
        if connection is None:
            async with self._database.reading() as reading:
                return await self.list_lines(reading)
        cached = self._cached
        new = await _fetch_lines(connection, cached[-1].version.number if cached else 0)
        if cached and new and new[0].raw == cached[-1].raw:  # Earlier lines are removed together with this one.
            lines = [*cached, *new[1:]]
        else:
            lines = await _fetch_lines(connection) if cached else new
        self._cached = lines
        return list(lines)

    async def list_lines_after(self, token: str | None) -> tuple[bool, list[bytes]]:
        """Return True and the lines after the version of this token, or False and all lines if it is not in the log."""
        async with self._database.reading(whole=True) as connection:
            statement = sa.select(directory_log.c.number).where(IS_CURRENT, directory_log.c.token == token)
            number = await connection.scalar(statement)
            lines = sa.select(directory_log.c.line).where(IS_CURRENT).order_by(directory_log.c.number)
            if number is not None:
                lines = lines.where(directory_log.c.number > number)
            return number is not None, list(await connection.scalars(lines))

    async def find_part(self, token: str, place: int) -> bytes | None:
        """Return a part of a version, or None."""
        own = (directory_parts.c.token == token) & (directory_parts.c.place == place)
        async with self._database.reading() as connection:
            part: bytes | None = await connection.scalar(sa.select(directory_parts.c.body).where(own))
        return part

    async def delete_unneeded(self, now: float) -> bool:
        """Delete parts that are no longer read, or were never completed. Return True if there were any."""
        before = int(now) - READABLE_SECONDS
        async with self._database.writing() as connection:
            await connection.execute(sa.delete(directory_log).where(directory_log.c.left_at < before))
            needed = sa.select(directory_log.c.token)
            gone = directory_parts.c.token.not_in(needed) & (directory_parts.c.created_at < before)
            return (await connection.execute(sa.delete(directory_parts).where(gone))).rowcount > 0


async def _fetch_lines(connection: AsyncConnection, since: int = 0) -> list[Line]:
    """Return the needed lines from this number on."""
    statement = sa.select(directory_log.c.line).where(IS_CURRENT, directory_log.c.number >= since)
    statement = statement.order_by(directory_log.c.number)
    return [parse_line(line) for line in await connection.scalars(statement)]


async def stage_parts(connection: AsyncConnection, token: str, parts: Iterable[bytes], place: int = 0) -> None:
    """Write parts of a version. They are invisible until the version has its line."""
    now = int(time.time())
    rows = [
        {"token": token, "place": at, "body": body, "created_at": now} for at, body in enumerate(parts, start=place)
    ]
    if rows:
        await connection.execute(sa.insert(directory_parts), rows)


async def append_version(connection: AsyncConnection, line: Line, leaving: Sequence[Line]) -> None:
    """Make a version the newest one, and mark the lines `leaving`. Raises IntegrityError if its number exists."""
    version = line.version
    for one in leaving:
        gone = sa.update(directory_log).where(directory_log.c.token == one.version.token)
        await connection.execute(gone.values(left_at=int(time.time())))
    row = {"number": version.number, "token": version.token, "line": line.raw, "left_at": None}
    await connection.execute(sa.insert(directory_log), [row])
