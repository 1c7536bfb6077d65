"""The log of the directory in the collector's database: what is published, line by line."""

import time
from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import directory_log, directory_parts
from edgeproxy.wire.directory_versions import Line, parse_line

READABLE_SECONDS = 600
"""Seconds for which parts that are not needed any more can still be read by who has begun to."""

THERE = directory_log.c.left_at.is_(None)


class DirectoryLog:
    """The log of one database, which several collectors may share."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: list[Line] = []
        """Those that were there at the last look: to read thousands of them for each change would take all the time."""

    async def lines(self, connection: AsyncConnection | None = None) -> list[Line]:
        """All lines that are still needed to know what is so, as a transaction sees them."""
        if connection is None:
            async with self._database.reading() as reading:
                return await self.lines(reading)
        known = self._known
        new = await _lines(connection, known[-1].version.number if known else 0)
        if known and new and new[0].raw == known[-1].raw:  # Those before it leave together with it.
            found = [*known, *new[1:]]
        else:
            found = await _lines(connection) if known else new
        self._known = found
        return list(found)

    async def after(self, token: str | None) -> tuple[bool, list[bytes]]:
        """Whether the version of this token is in the log, and the lines after it; else all."""
        async with self._database.reading(whole=True) as connection:
            known = sa.select(directory_log.c.number).where(THERE, directory_log.c.token == token)
            number = (await connection.execute(known)).scalar_one_or_none()
            wanted = sa.select(directory_log.c.line).where(THERE).order_by(directory_log.c.number)
            if number is not None:
                wanted = wanted.where(directory_log.c.number > number)
            return number is not None, list((await connection.execute(wanted)).scalars())

    async def part(self, token: str, place: int) -> bytes | None:
        """A part of a version; None where there is none."""
        own = (directory_parts.c.token == token) & (directory_parts.c.place == place)
        async with self._database.reading() as connection:
            found: bytes | None = (
                await connection.execute(sa.select(directory_parts.c.body).where(own))
            ).scalar_one_or_none()
        return found

    async def clean(self, now: float) -> None:
        """Drop what nobody reads any more, or what was begun and never finished."""
        before = int(now) - READABLE_SECONDS
        async with self._database.writing() as connection:
            await connection.execute(sa.delete(directory_log).where(directory_log.c.left_at < before))
            needed = sa.select(directory_log.c.token)
            gone = directory_parts.c.token.not_in(needed) & (directory_parts.c.created_at < before)
            await connection.execute(sa.delete(directory_parts).where(gone))


async def _lines(connection: AsyncConnection, since: int = 0) -> list[Line]:
    """The lines that are still needed, from this number on."""
    wanted = sa.select(directory_log.c.line).where(THERE, directory_log.c.number >= since)
    wanted = wanted.order_by(directory_log.c.number)
    return [parse_line(line) for line in (await connection.execute(wanted)).scalars()]


async def stage(connection: AsyncConnection, token: str, parts: Iterable[bytes], place: int = 0) -> None:
    """Write parts of a version, which nobody sees before its line is there."""
    now = int(time.time())
    rows = [
        {"token": token, "place": at, "body": body, "created_at": now} for at, body in enumerate(parts, start=place)
    ]
    if rows:
        await connection.execute(sa.insert(directory_parts), rows)


async def append(connection: AsyncConnection, line: Line, leaving: Sequence[Line]) -> None:
    """Make a version the newest; those that leave are needed no more. Raises IntegrityError where there is another."""
    version = line.version
    for one in leaving:
        gone = sa.update(directory_log).where(directory_log.c.token == one.version.token)
        await connection.execute(gone.values(left_at=int(time.time())))
    row = {"number": version.number, "token": version.token, "line": line.raw, "left_at": None}
    await connection.execute(sa.insert(directory_log), [row])
