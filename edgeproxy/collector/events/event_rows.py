"""The rows of events, inserted once each."""

from collections.abc import Iterable, Sequence

import orjson
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.schema import events
from edgeproxy.collector.database.statements import AnySelect, unnest


async def insert_events(connection: AsyncConnection, rows: Sequence[Sequence[object]]) -> set[tuple[str, str]]:
    """Insert events, with columns in the table's order. Return source and id of the events that existed before."""
    if connection.dialect.name != "sqlite":
        columns = zip(events.columns.keys(), zip(*rows, strict=True), strict=True)
        texts = {name: _format_json_array(values) for name, values in columns}
        return {(source, number) for source, number in await connection.execute(INSERT_EVENTS, texts)}
    # SQLite has one writer, so no other insert can happen between these statements.
    identities = orjson.dumps([row[:2] for row in rows]).decode()
    there = {(source, number) for source, number in await connection.execute(SELECT_EVENTS, {"sent": identities})}
    if new := [row for row in rows if tuple(row[:2]) not in there] if there else rows:
        # Without SQLAlchemy, for speed (see `LedgerSql.add`).
        places = ", ".join("?" * len(events.columns))
        await connection.exec_driver_sql(f"INSERT INTO {events.name} VALUES ({places})", list(new))
    return there


def _format_json_array(values: Iterable[str | int | bool | None]) -> str:
    """Format an array of NULLs and printable ASCII texts. PostgreSQL and JSON write such texts alike."""
    return (
        "{"
        + orjson.dumps([int(value) if value is True or value is False else value for value in values])[1:-1].decode()
        + "}"
    )


def _build_insert_events() -> AnySelect:
    """Build the statement that inserts events and returns those that existed before, on PostgreSQL."""
    texts = {
        column.name: sa.cast(sa.bindparam(column.name, type_=sa.Text()), ARRAY(column.type))
        for column in events.columns
    }
    sent = unnest(texts).cte("sent")
    insert = postgresql.insert(events).from_select(list(texts), sa.select(sent)).on_conflict_do_nothing()
    made = insert.returning(events.c.source, events.c.id).cte("made")
    is_made = sa.exists().where(made.c.source == sent.c.source, made.c.id == sent.c.id)
    return sa.select(sent.c.source, sent.c.id).where(~is_made)


def _build_select_events() -> AnySelect:
    """Build the statement that selects which of some events exist, on SQLite."""
    sent = sa.func.json_each(sa.bindparam("sent", type_=sa.Text())).table_valued("value", name="sent")
    same = [
        column == sa.func.json_extract(sent.c.value, f"$[{place}]")
        for place, column in enumerate((events.c.source, events.c.id))
    ]
    return sa.select(events.c.source, events.c.id).select_from(sent).join(events, sa.and_(*same))


INSERT_EVENTS = _build_insert_events()
SELECT_EVENTS = _build_select_events()
