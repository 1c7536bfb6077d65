"""A copy of a database in another kind has every row. A killed copy continues, and foreign rows are never replaced."""

import asyncio
import itertools
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from edgeproxy import cli
from edgeproxy.collector.commands import database_copy
from edgeproxy.collector.commands.database_copy import NOT_COPIED, compute_digest
from edgeproxy.collector.database.database import Database, UnusableDatabaseError
from edgeproxy.collector.database.schema import DAY, metadata, series
from loadtest.testbed.postgresql import Postgresql
from tests.support.collector_fixtures import put_tables
from tests.support.used_database import use_database

pytestmark = pytest.mark.usefixtures("sqlite_without_threads")

COPIED = [table for table in metadata.sorted_tables if table.name not in NOT_COPIED]
HEADS = [table for table in COPIED if not list(table.primary_key)]
ROWS = 7
KILLED_EVERY = 81
"""Records of progress between two kills. A table has four, so that kills meet each of them."""


def copy(source: str, target: str, *more: str) -> Result:
    return CliRunner().invoke(cli.app, ["database", "copy", "--from", source, "--to", target, *more])


def make_value(column: sa.Column[Any], number: int) -> object:
    """Return the value of a column in the row of this number. A foreign key has the value of its target in that row."""
    for key in column.foreign_keys:
        return make_value(key.column, number)
    if isinstance(column.type, sa.LargeBinary):
        return bytes([0, 255, number])
    if isinstance(column.type, sa.BigInteger):
        return number * DAY if column.name == "minute" else number
    return f"{column.table.name}.{column.name} é {number}"


def fill(url: str) -> None:
    """Insert rows into every table of a SQLite database, without the checks of their values."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for table in COPIED:
            names = ", ".join(f'"{column.name}"' for column in table.columns)
            places = ", ".join("?" * len(table.columns))
            if table in HEADS:
                connection.execute(f'DELETE FROM "{table.name}"')
            for number in range(1, 2 if table in HEADS else ROWS + 1):
                row = [make_value(column, number) for column in table.columns]
                connection.execute(f'INSERT INTO "{table.name}" ({names}) VALUES ({places})', row)


@pytest.fixture
def source(tmp_path: Path) -> str:
    url = put_tables(f"sqlite:///{tmp_path}/source/ledger.db")
    fill(url)
    return url


@pytest.fixture
def unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace verification, because the rows form no chain."""

    async def verify(database: Database) -> str:
        return "rows that nobody verifies"

    monkeypatch.setattr(database_copy, "verify_database", verify)
    monkeypatch.setattr(database_copy, "BATCH_ROWS", 3)


def compute_digests(url: str) -> dict[str, tuple[int, int]]:
    async def compute(database: Database) -> dict[str, tuple[int, int]]:
        async with database.reading() as connection:
            return {table.name: await compute_digest(connection, table) for table in COPIED}

    return use_database(url, compute)


@pytest.mark.both_databases
def test_every_row_arrives_and_new_rows_get_ids_behind_them(source: str, empty_database: str, unverified: None) -> None:
    result = copy(source, empty_database)
    assert result.exit_code == 0, result.output
    before, after = compute_digests(source), compute_digests(empty_database)
    assert before == after
    assert {name: digest.rows for name, digest in after.items()} == {
        table.name: 1 if table in HEADS else ROWS for table in COPIED
    }

    async def add(database: Database) -> int:
        async with database.writing() as connection:
            await database.ledger.insert_series(connection, [["e", "r", "c", "m", "r", ""]])
            return (await connection.execute(sa.select(sa.func.max(series.c.id)))).scalar_one()

    assert use_database(empty_database, add) == ROWS + 1


@pytest.mark.both_databases
def test_killed_database_copy_resumes_and_blocks_collectors_until_done(
    source: str, database: str, unverified: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, records = database_copy._record, itertools.count(1)
    killed = 0

    async def die(*arguments: Any, **options: Any) -> None:
        nonlocal killed
        await record(*arguments, **options)
        if next(records) % KILLED_EVERY == 3:
            killed += 1
            raise KeyboardInterrupt

    monkeypatch.setattr(database_copy, "_record", die)
    ends = 0
    while copy(source, database).exit_code != 0:
        ends += 1
        assert ends == killed, "the copy ends only if killed"
        with pytest.raises(UnusableDatabaseError):
            asyncio.run(Database.connect(database))
        assert "would go on" in copy(source, database, "--dry-run").output
    assert killed >= 4
    assert compute_digests(source) == compute_digests(database)


def test_database_copy_reports_a_changed_source_and_restarts(
    source: str, database: str, unverified: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = database_copy._compare

    async def change(*arguments: Any) -> None:
        with closing(sqlite3.connect(source.removeprefix("sqlite:///"))) as connection, connection:
            connection.execute("UPDATE customers SET name = 'changed' WHERE id = (SELECT min(id) FROM customers)")
        await compare(*arguments)

    monkeypatch.setattr(database_copy, "_compare", change)
    result = copy(source, database)
    assert result.exit_code == 1
    assert "customers differs, with 7 and 7 rows: the source has changed meanwhile. End its collector" in result.output
    monkeypatch.setattr(database_copy, "_compare", compare)
    assert copy(source, database).exit_code == 0
    assert compute_digests(source) == compute_digests(database)


def test_a_database_with_rows_is_not_copied_into(source: str, database: str) -> None:
    async def add(opened: Database) -> None:
        async with opened.writing() as connection:
            await opened.ledger.insert_edges(connection, [{"edge": "e", "seq": 0, "received": 1}])

    use_database(database, add)
    result = copy(source, database)
    assert (result.exit_code, "holds rows of edges: copy into an empty database" in result.output) == (1, True)


def test_a_dry_run_changes_nothing(source: str, empty_database: str) -> None:
    result = copy(source, empty_database, "--dry-run")
    assert (result.exit_code, "would begin; nothing is changed" in result.output) == (0, True)
    assert "customers  7" in result.output
    if empty_database.startswith("sqlite"):
        assert not Path(empty_database.removeprefix("sqlite:///")).exists()


@pytest.mark.parametrize(
    ("urls", "why"),
    [
        (("nothing", "sqlite:////tmp/x.db"), "--from 'nothing' is not a database"),
        (("sqlite:////nowhere/x.db", "sqlite:////nowhere/y.db"), "is not there"),
    ],
)
def test_unusable_databases_are_reported(urls: tuple[str, str], why: str) -> None:
    result = copy(*urls)
    assert (result.exit_code, why in result.output) == (2, True), result.output


def test_a_database_is_not_copied_into_itself(source: str) -> None:
    assert copy(source, source).exit_code == 1


def test_another_versions_copy_is_not_continued(source: str, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def die(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(database_copy, "_copy_table", die)
    copy(source, database)
    monkeypatch.setattr(database_copy, "REVISION", "9999")
    result = copy(source, database)
    assert (result.exit_code, "another version of edgeproxy began" in result.output) == (1, True)


def test_digests_do_not_depend_on_the_order(source: str, postgresql: Postgresql) -> None:
    """PostgreSQL orders texts by language, SQLite by their bytes."""
    chance = random.Random(3)
    names = [f"{chance.choice('aAbBéÉ_-1')}{number}" for number in range(300)]
    rows = [{"name": name, "series": 1, "value": name} for name in names]

    async def add(database: Database) -> object:
        async with database.writing() as connection:
            await connection.execute(sa.delete(metadata.tables["series_dimensions"]))
            await database.ledger.insert_series_dimensions(connection, chance.sample(rows, len(rows)))
            return await compute_digest(connection, metadata.tables["series_dimensions"])

    assert use_database(source, add) == use_database(postgresql.database(), add)
