"""Pages of rows in an order that callers choose: each begins after the last row of the page before (keyset)."""

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
    """Return the statement in the order of a column that is never null, then of the ids; after the row `after`.

    Texts are in the order of their characters on every database. There is nothing after a row that is not there.
    """
    order: tuple[AnyColumn, ...] = (ids,)
    if by is not ids:
        is_text = isinstance(by.type, sa.Text) and connection.dialect.name != "sqlite"
        order = (sa.collate(by, "C") if is_text else by, ids)
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


async def _find_row(
    connection: AsyncConnection, ids: AnyColumn, by: AnyColumn, after: str
) -> tuple[object, ...] | None:
    row = (await connection.execute(sa.select(by, ids).where(ids == after))).one_or_none()
    return None if row is None else tuple(row)


def parse_sort(written: str) -> tuple[str, bool]:
    """Return the column that a `sort` names, and whether it is descending: `-name` is."""
    return written.removeprefix("-"), written.startswith("-")
