"""Encryption of the books: rows that are still plain text, and kept rows whose key must be destroyed.

Each step is a transaction, and a later run continues. Rows that a killed process has encrypted stay encrypted.
"""

from collections.abc import Callable, Collection, Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.billing_tables import credit_notes, disputes, dunning, invoices
from edgeproxy.collector.database.book_text import SEALED, BookText, as_stored, find_book_cipher, list_book_columns
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.encryption_tables import book_keys
from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.encryption.book_keys import get_year

ROWS_MAX = 200
"""Rows per transaction."""
TIMES: Mapping[str, sa.ColumnElement[int]] = {
    invoices.name: invoices.c.created_at // 1000,
    credit_notes.name: credit_notes.c.created_at // 1000,
    disputes.name: disputes.c.created_at // 1000,
    dunning.name: dunning.c.declined_at,
}
"""The Unix second of a row. A plain-text row is encrypted with the key of that year."""
Condition = Callable[[sa.ColumnElement[str]], sa.ColumnElement[bool]]
"""Returns the condition that a stored column must be encrypted."""


async def seal_clear_books(database: Database) -> int:
    """Encrypt all plain-text rows of the books with the keys of their years. Return their number."""
    return await _seal_rows(database, _is_clear, by_own_year=True)


async def reseal_rows(database: Database, years: Collection[int]) -> int:
    """Encrypt values under the keys of these years with the current key instead. Return the number of rows."""
    return await _seal_rows(database, _build_sealed_by(years), by_own_year=False)


async def is_any_sealed_by(connection: AsyncConnection, years: Collection[int]) -> bool:
    """Return True if a value is encrypted with a key of these years. It may read all rows."""
    is_sealed_by = _build_sealed_by(years)
    for name, columns in list_book_columns(metadata).items():
        columns_sealed = sa.or_(*(is_sealed_by(as_stored(metadata.tables[name].c[column])) for column in columns))
        if (await connection.execute(sa.select(sa.literal(1)).where(columns_sealed).limit(1))).first() is not None:
            return True
    return False


def _build_sealed_by(years: Collection[int]) -> Condition:
    return lambda stored: sa.or_(*(stored.startswith(f"{SEALED}{year}:") for year in years))


async def fetch_book_columns(connection: AsyncConnection) -> list[tuple[str, int, int]]:
    """Return the columns of the books with their numbers of encrypted and of plain-text values. It reads all rows."""
    counts: list[tuple[str, int, int]] = []
    for name, columns in list_book_columns(metadata).items():
        table = metadata.tables[name]
        for column, type_ in columns.items():
            stored = as_stored(table.c[column])
            both = (stored.startswith(SEALED), _is_clear(stored))
            numbers = sa.select(*(sa.func.count(sa.case((one, 1))) for one in both)).select_from(table)
            row = (await connection.execute(numbers)).one()
            counts.append((type_.column, row[0], row[1]))
    return counts


def _is_clear(stored: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    return (stored != "") & sa.not_(stored.startswith(SEALED))


async def _seal_rows(database: Database, condition: Condition, *, by_own_year: bool) -> int:
    count = 0
    for name, columns in list_book_columns(metadata).items():
        table = metadata.tables[name]
        (key,) = table.primary_key
        is_due = sa.or_(*(condition(as_stored(table.c[column])) for column in columns))
        last = ""
        while True:
            async with database.reading() as connection:  # This read may scan many rows, but does not block writers.
                some = sa.select(key).where(is_due, key > last).order_by(key).limit(ROWS_MAX)
                ids = (await connection.scalars(some)).all()
            if not ids:
                break
            async with database.writing() as connection:
                count += await _seal_some(connection, table, columns, key.in_(ids) & is_due, by_own_year=by_own_year)
            last = ids[-1]
    return count


async def _seal_some(
    connection: AsyncConnection,
    table: sa.Table,
    columns: Mapping[str, BookText],
    condition: sa.ColumnElement[bool],
    *,
    by_own_year: bool,
) -> int:
    """Encrypt rows completely, including values already encrypted. Return their number."""
    cipher = find_book_cipher(connection)
    assert cipher is not None  # There are keys.
    # The lock delays a process that destroys a key. It waits for this transaction, and then finds the encrypted rows.
    living = sa.select(book_keys.c.year).order_by(book_keys.c.year).with_for_update(read=True)
    first = (await connection.scalars(living)).all()[0]
    (key,) = table.primary_key
    statement = sa.select(key, TIMES[table.name].label("time"), *(table.c[name] for name in columns))
    rows = (await connection.execute(statement.where(condition).order_by(key).with_for_update())).mappings().all()
    for row in rows:
        year = max(get_year(row["time"]), first) if by_own_year else None
        values = {
            name: sa.literal(
                cipher.seal(row[name], type_.column, is_looked_up=type_.is_looked_up, year=year), sa.Text()
            )
            for name, type_ in columns.items()
            if row[name]
        }
        await connection.execute(sa.update(table).where(key == row[key.name]).values(values))
    return len(rows)
