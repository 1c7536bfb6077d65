"""Pages of rows in an order chosen by the caller. A page begins after the last row of the previous page (keyset)."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.statements import AnyColumn, AnySelect


async def order_page(
    connection: AsyncConnection,
    statement: AnySelect,
    ids: AnyColumn,
    by: AnyColumn,
    after: str | None,
    *,
    descending: bool = False,
) -> AnySelect:
    """Return the statement ordered by a non-null column and then by id, beginning after the row `after`.

    Texts are in character order on every database. If the row `after` does not exist, the page is empty.
    """
    order: tuple[AnyColumn, ...] = (ids,)
    if by is not ids:
        order = (by_character(connection, by), ids)
    if after is not None:
        last = (after,) if by is ids else await _find_row(connection, ids, by, after)
        if last is None:
            return statement.where(sa.false())
        if len(order) == 1:
            statement = statement.where(ids < after if descending else ids > after)
        else:
            values = sa.tuple_(*(sa.literal(value, column.type) for value, column in zip(last, (by, ids), strict=True)))
            place = sa.tuple_(*order)
            statement = statement.where(place < values if descending else place > values)
    return statement.order_by(*(column.desc() if descending else column for column in order))


def by_character(connection: AsyncConnection, column: AnyColumn) -> AnyColumn:
    """Return a column in the order of its index: a text in character order. A filter by the index needs it, too."""
    is_collated = isinstance(column.type, sa.Text) and connection.dialect.name != "sqlite"
    return sa.collate(column, "C") if is_collated else column


async def _find_row(
    connection: AsyncConnection, ids: AnyColumn, by: AnyColumn, after: str
) -> tuple[object, ...] | None:
    row = (await connection.execute(sa.select(by, ids).where(ids == after))).one_or_none()
    return None if row is None else tuple(row)


def parse_sort(written: str) -> tuple[str, bool]:
    """Return the column of a `sort` parameter, and True if it is descending (`-name`)."""
    return written.removeprefix("-"), written.startswith("-")
