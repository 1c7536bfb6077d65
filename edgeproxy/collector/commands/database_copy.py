"""Copying a collector's database into an empty one, for example from SQLite to PostgreSQL.

Rows are copied in stored form, so chains, pseudonyms, directory versions and ciphertexts are unchanged. A killed copy
is resumed: the target has its progress in a separate table. Until everything is copied and compared, the target has a
revision that no collector starts on.
"""

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

import sqlalchemy as sa
from pydantic_core import PydanticCustomError
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import event_loop
from edgeproxy.base.plural import format_count
from edgeproxy.collector.database.book_text import BookText
from edgeproxy.collector.database.database import (
    CONNECTION_ERRORS,
    VERSION,
    Database,
    UnusableDatabaseError,
    format_reason,
)
from edgeproxy.collector.database.schema import REVISION, metadata
from edgeproxy.collector.main import BREAKS, verify_database
from edgeproxy.config.collector.database_url import read_database

BATCH_ROWS: Final = 2000
"""Rows per transaction."""
COPYING: Final = "copying"
"""The revision of an incomplete database."""
PROGRESS: Final = sa.Table(
    "database_copy",
    sa.MetaData(),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("last_key", sa.Text),
    sa.Column("is_whole", sa.Integer, nullable=False),
)
"""The progress of each table: the key of its last row, in JSON."""
NOT_COPIED: Final = frozenset({"minutes_floor"})
"""Tables that belong to a database server. `database migrate` fills them."""

Row = Sequence[object]


class CopyError(Exception):
    """The databases cannot be copied. The message says why and what to do."""


def copy(source_url: str, target_url: str, *, dry: bool) -> tuple[int, str]:
    """Copy all rows of one database into another. Return an exit code and a text."""

    async def do() -> str:
        urls = []
        for option, url in (("--from", source_url), ("--to", target_url)):
            try:
                urls.append(read_database(url))
            except PydanticCustomError as error:
                raise UnusableDatabaseError(f"{option} {error}") from None
        source = await Database.connect(urls[0], as_it_is=True)
        try:
            if dry:
                target = Database(urls[1])
            elif await is_begun(target := Database(urls[1])):
                await target.enforce_row_security()
            else:
                await target.close()
                target = await Database.connect(urls[1])
            try:
                return await copy_database(source, target, dry=dry)
            finally:
                await target.close()
        finally:
            await source.close()

    try:
        return 0, event_loop.run(do())
    except (CopyError, *BREAKS) as error:
        return 1, str(error)
    except UnusableDatabaseError as error:
        return 2, str(error)
    except CONNECTION_ERRORS as error:
        return 2, f"a database cannot be used: {format_reason(error)}"


class TableDigest(NamedTuple):
    """The number of rows of a table, and the sum of their hashes, which is independent of their order."""

    rows: int
    hashes: int


async def copy_database(source: Database, target: Database, *, dry: bool) -> str:
    """Copy all rows. Return a summary. Raises CopyError."""
    copied = [table for table in metadata.sorted_tables if table.name not in NOT_COPIED]
    if source.name == target.name:
        raise CopyError("--from and --to are the same database")
    is_resumed = await is_begun(target)
    if dry:
        return await _describe(source, copied, is_resumed=is_resumed)
    if not is_resumed:
        await _begin(target, copied)
    async with source.reading(whole=True) as reading:
        for table in copied:
            await _copy_table(reading, source, target, table)
    await _compare(source, target, copied)
    texts = [await verify_database(database) for database in (source, target)]
    if texts[0] != texts[1]:
        raise CopyError(f"the source has {texts[0]}, and the target {texts[1]}")
    await _finish(target, copied)
    return f"{target.name} has all of {source.name}: {texts[1]}"


async def _describe(source: Database, copied: Sequence[sa.Table], *, is_resumed: bool) -> str:
    """Describe what would be copied."""
    async with source.reading(whole=True) as reading:
        counts = [(table.name, await _count(reading, table)) for table in copied]
    lines = [f"{name}  {rows}" for name, rows in counts if rows]
    rows = sum(count for _, count in counts)
    how = "would go on" if is_resumed else "would begin"
    return "\n".join([*lines, f"a copy of {format_count(rows, 'row')} {how}; nothing is changed"])


async def is_begun(target: Database) -> bool:
    """Return True if a copy into the target has begun. Raises CopyError if it contains other data."""
    if target.file is not None and not target.file.exists():
        return False
    async with target.reading() as connection:
        names = set(await connection.run_sync(lambda sync: sa.inspect(sync).get_table_names()))
    if PROGRESS.name in names:
        async with target.reading() as connection:
            statement = sa.select(PROGRESS.c.last_key).where(PROGRESS.c.name == VERSION.name)
            revision = await connection.scalar(statement)
        if revision != REVISION:
            raise CopyError(f"another version of edgeproxy began to copy into {target.name}: take an empty database")
        return True
    if VERSION.name in names:
        async with target.reading() as connection:
            for table in metadata.sorted_tables:
                if list(table.primary_key) and table.name in names and await _count(connection, table):
                    raise CopyError(f"{target.name} holds rows of {table.name}: copy into an empty database")
    elif names & {table.name for table in metadata.sorted_tables}:
        raise CopyError(f"{target.name} has tables of something else: copy into an empty database")
    return False


async def _begin(target: Database, copied: Sequence[sa.Table]) -> None:
    """Empty the tables of the target, and mark it as incomplete."""
    async with target.writing() as connection:
        for table in reversed(copied):
            await connection.execute(sa.delete(table))
        await connection.run_sync(PROGRESS.create)
        await _record(connection, VERSION.name, REVISION, is_whole=False)
        await connection.execute(sa.update(VERSION).values(version_num=COPYING))


async def _copy_table(reading: AsyncConnection, source: Database, target: Database, table: sa.Table) -> None:
    """Copy the missing rows of a table. Each batch is in one transaction with its progress."""
    async with target.reading() as connection:
        statement = sa.select(PROGRESS.c.last_key, PROGRESS.c.is_whole).where(PROGRESS.c.name == table.name)
        progress = (await connection.execute(statement)).one_or_none()
    if progress is not None and progress.is_whole:
        return
    last = None if progress is None else _load_key(progress.last_key)
    names = [column.name for column in table.columns]
    insert = sa.insert(_build_plain(table))
    async for rows in _read_batches(reading, table, last):
        async with target.writing() as connection:
            if table.name == "ledger" and target.ledger.has_partitions:
                at = names.index("minute")
                minutes = {minute for row in rows if isinstance(minute := row[at], int)}
                await target.ledger.create_partitions(connection, minutes)
            await connection.execute(insert, [dict(zip(names, row, strict=True)) for row in rows])
            await _record(connection, table.name, _dump_key(_get_key(table, rows[-1])), is_whole=False)
    async with target.writing() as connection:
        await _record(connection, table.name, None, is_whole=True)


async def _record(connection: AsyncConnection, name: str, last_key: str | None, *, is_whole: bool) -> None:
    """Record the progress of a table."""
    await connection.execute(sa.delete(PROGRESS).where(PROGRESS.c.name == name))
    row = {"name": name, "last_key": last_key, "is_whole": int(is_whole)}
    await connection.execute(sa.insert(PROGRESS), [row])


async def _read_batches(reading: AsyncConnection, table: sa.Table, last: Row | None = None) -> AsyncIterator[list[Row]]:
    """Yield the rows of a table in batches, in stored form and in the order of their key, beginning after `last`."""
    plain = _build_plain(table)
    keys = [plain.c[column.name] for column in table.primary_key]
    while True:
        statement = sa.select(plain).order_by(*keys)
        if keys:
            statement = statement.limit(BATCH_ROWS)
        if last is not None:
            bounds = [sa.bindparam(None, value, key.type) for key, value in zip(keys, last, strict=True)]
            statement = statement.where(sa.tuple_(*keys) > sa.tuple_(*bounds) if len(keys) > 1 else keys[0] > bounds[0])
        rows: list[Row] = [tuple(row) for row in (await reading.execute(statement)).all()]
        if rows:
            yield rows
        if not keys or len(rows) < BATCH_ROWS:  # A table without a key has one row.
            return
        last = _get_key(table, rows[-1])


def _build_plain(table: sa.Table) -> sa.TableClause:
    """Build a table that reads and writes stored values, without encryption."""
    types = {
        column.name: column.type.impl if isinstance(column.type, BookText) else column.type for column in table.columns
    }
    return sa.table(table.name, *(sa.column(name, type_) for name, type_ in types.items()))


def _get_key(table: sa.Table, row: Row) -> Row:
    names = [column.name for column in table.columns]
    return [row[names.index(column.name)] for column in table.primary_key]


def _dump_key(key: Row) -> str:
    return json.dumps([{"hex": value.hex()} if isinstance(value, bytes) else value for value in key])


def _load_key(text: str) -> Row:
    return [bytes.fromhex(value["hex"]) if isinstance(value, dict) else value for value in json.loads(text)]


async def _count(connection: AsyncConnection, table: sa.Table) -> int:
    rows: int = (await connection.execute(sa.select(sa.func.count()).select_from(table))).scalar_one()
    return rows


async def compute_digest(reading: AsyncConnection, table: sa.Table) -> TableDigest:
    """Compute the digest of a table. It is equal in both kinds of database."""
    count = hashes = 0
    async for rows in _read_batches(reading, table):
        count += len(rows)
        for row in rows:
            digest = blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=16).digest()
            hashes = (hashes + int.from_bytes(digest)) % (1 << 128)
    return TableDigest(count, hashes)


async def _compare(source: Database, target: Database, copied: Iterable[sa.Table]) -> None:
    """Compare the current tables. If one differs, the next run copies from the beginning. Raises CopyError."""
    for table in copied:
        digests = []
        for database in (source, target):
            async with database.reading(whole=True) as reading:
                digests.append(await compute_digest(reading, table))
        if digests[0] != digests[1]:
            await _discard(target)
            rows = " and ".join(str(digest.rows) for digest in digests)
            raise CopyError(
                f"{table.name} differs, with {rows} rows: the source has changed meanwhile. End its collector, and "
                "run the command again, which begins anew"
            )


async def _discard(target: Database) -> None:
    """Reset the target to the state before a copy."""
    async with target.writing() as connection:
        for table in reversed(metadata.sorted_tables):
            if table.name not in NOT_COPIED:
                await connection.execute(sa.delete(table))
        await connection.execute(sa.delete(PROGRESS).where(PROGRESS.c.name != VERSION.name))


async def _finish(target: Database, copied: Iterable[sa.Table]) -> None:
    """Make ids of new rows continue after the copied ones, and mark the target as complete."""
    async with target.writing() as connection:
        if not target.is_sqlite:
            for table in copied:
                for column in table.primary_key:
                    if column.autoincrement is True:
                        await _move_sequence(connection, table.name, column.name)
        await connection.run_sync(PROGRESS.drop)
        await connection.execute(sa.update(VERSION).values(version_num=REVISION))


async def _move_sequence(connection: AsyncConnection, table: str, column: str) -> None:
    latest = sa.select(sa.func.max(sa.column(column))).select_from(sa.table(table)).scalar_subquery()
    sequence = sa.func.pg_get_serial_sequence(table, column)
    await connection.execute(sa.select(sa.func.setval(sequence, sa.func.coalesce(latest, 1), latest.is_not(None))))
