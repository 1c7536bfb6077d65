"""The driver of SQLite takes one step of its thread for a statement and its rows."""

from pathlib import Path
from unittest import mock

import aiosqlite
import pytest
import sqlalchemy as sa

from edgeproxy.collector.database.database import Database

NUMBERS = sa.table("numbers", sa.column("n", sa.Integer))


async def test_statement_with_its_rows_takes_one_step_of_the_connections_thread(tmp_path: Path) -> None:
    database = await Database.connect(f"sqlite:///{tmp_path}/n.db")
    steps = mock.patch.object(
        aiosqlite.Connection, "_execute", autospec=True, side_effect=aiosqlite.Connection._execute
    )
    try:
        async with database.writing() as connection:
            await connection.exec_driver_sql("CREATE TABLE numbers (n INTEGER PRIMARY KEY)")
            with steps as step:
                await connection.execute(sa.insert(NUMBERS), [{"n": 1}, {"n": 2}, {"n": 3}])
                updated = await connection.execute(sa.update(NUMBERS).where(NUMBERS.c.n > 1).values(n=-NUMBERS.c.n))
                returned = await connection.execute(sa.delete(NUMBERS).where(NUMBERS.c.n == 1).returning(NUMBERS.c.n))
                result = await connection.execute(sa.select(NUMBERS.c.n).order_by(NUMBERS.c.n))
                assert (updated.rowcount, returned.all()) == (2, [(1,)])
                assert (result.fetchone(), result.fetchmany(), result.all()) == ((-3,), [(-2,)], [])
            assert step.call_count == 4
            with pytest.raises(sa.exc.IntegrityError, match="UNIQUE"):
                await connection.execute(sa.insert(NUMBERS), [{"n": -3}])
            cursor = (await connection.execute(sa.select(NUMBERS))).context.cursor
            assert await cursor._cursor.fetchall() == [], "the result has the only list of the rows"
    finally:
        await database.close()
