"""The tables of a collector's database: created at once in an empty database, and changed by revisions later."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import Result
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.database import migrate, postgresql
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import REVISION
from loadtest.testbed.batch_chains import NOON, Chain
from loadtest.testbed.process import ROOT
from tests.support.books import Books, Clock, clock
from tests.support.made_up_versions import COLUMN, TABLE, VERSIONS, add_revisions

pytestmark = pytest.mark.both_databases

__all__ = ["clock"]


def describe(connection: sa.Connection) -> dict[str, set[str]]:
    """Return the names of the columns of all tables."""
    inspector = sa.inspect(connection)
    return {table: {column["name"] for column in inspector.get_columns(table)} for table in inspector.get_table_names()}


def describe_database(url: str) -> dict[str, set[str]]:
    """Return the names of the columns of all tables in a database."""

    async def read() -> dict[str, set[str]]:
        database = Database(url)
        async with database.reading() as connection:
            tables = await connection.run_sync(describe)
        await database.close()
        return tables

    return asyncio.run(read())


def test_each_migration_follows_the_one_before() -> None:
    """Two changes on parallel branches may both use the next number."""
    files = sorted((ROOT / VERSIONS).glob("[0-9]*.py"))
    assert [file.name[:4] for file in files] == [f"{number:04}" for number in range(1, len(files) + 1)]


async def test_an_upgrade_keeps_the_rows_of_an_older_database(
    tmp_path: Path, empty_database: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = Chain(since=NOON)
    books = await Books.open(empty_database, clock)
    await books.ship(chain.next())
    before = await books.check()
    await books.close()
    (later,) = add_revisions(monkeypatch, tmp_path / "later", [True])
    books = await Books.open(empty_database, clock, counted=books.counted)
    assert await books.check() == before
    await books.ship(chain.next())
    await books.check()
    await books.close()
    assert COLUMN.format(later) in (await asyncio.to_thread(describe_database, empty_database))[TABLE]


def test_an_empty_database_needs_no_revision_after_the_baseline(
    tmp_path: Path, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The baseline creates today's tables, including columns that later revisions add to older databases."""
    add_revisions(monkeypatch, tmp_path / "later", [True])

    async def start() -> None:
        for _ in range(2):
            await (await Database.connect(empty_database)).close()

    asyncio.run(start())
    assert not [name for name in describe_database(empty_database)[TABLE] if name.startswith("made_up")]


def test_an_upgraded_baseline_has_the_indexes_of_an_empty_database(empty_database: str) -> None:
    """A revision defines its indexes again, in addition to `schema.py`."""

    def list_indexes(connection: sa.Connection) -> dict[str, str]:
        is_sqlite = connection.dialect.name == "sqlite"
        of_sqlite = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
        of_postgresql = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()"
        rows = connection.exec_driver_sql(of_sqlite if is_sqlite else of_postgresql)
        return {name: " ".join(definition.split()) for name, definition in rows}

    async def run() -> None:
        database = await Database.connect(empty_database)
        async with database.reading() as connection:
            expected = await connection.run_sync(list_indexes)
        async with database.writing() as connection:
            await connection.run_sync(migrate.downgrade, migrate.BASELINE)
        await database.close()
        database = await Database.connect(empty_database)
        async with database.reading() as connection:
            assert await connection.run_sync(list_indexes) == expected
        await database.close()

    asyncio.run(run())


def test_migrations_downgrade_and_upgrade_to_the_irreversible_one(
    tmp_path: Path, empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "collector.yaml"
    file.write_text(f"database: '{empty_database}'\ntokens: [{{sha256: {'a' * 64}, role: edge}}]\n")

    def run(*words: str) -> Result:
        return CliRunner().invoke(cli.app, ["database", *words, "-c", str(file)])

    run("migrate")  # The server may lack the roles of row-level security, so the exit code proves nothing here.
    baseline = describe_database(empty_database)
    refused = run("downgrade", "base")
    assert (refused.exit_code, f"revision {migrate.BASELINE} cannot be taken back" in refused.stderr) == (1, True), (
        refused.output
    )

    final, first, second = add_revisions(monkeypatch, tmp_path / "later", [False, True, True])
    run("migrate")
    newest = describe_database(empty_database)
    columns = {COLUMN.format(revision) for revision in (final, first, second)}
    assert newest == baseline | {TABLE: baseline[TABLE] | columns}
    refused = run("downgrade", REVISION)
    assert (refused.exit_code, f"revision {final} cannot be taken back" in refused.stderr) == (1, True), refused.output
    assert describe_database(empty_database) == newest, "nothing is half taken back"
    done = run("downgrade", final)
    assert done.exit_code == 0, done.output
    assert describe_database(empty_database) == baseline | {TABLE: baseline[TABLE] | {COLUMN.format(final)}}
    run("migrate")
    assert describe_database(empty_database) == newest
    assert run("downgrade", "9999").exit_code == 1


async def test_a_migration_may_take_longer_than_a_statement(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index of a million customers takes longer than any query of a serving collector."""
    create, make = postgresql.Server.create_engine, migrate.upgrade

    def upgrade(connection: sa.Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_sleep(1.2)")
        make(connection)

    def impatient(server: postgresql.Server, connections: int, **options: Any) -> AsyncEngine:
        return create(server, connections, **{"patience": 1.0, **options})

    monkeypatch.setattr(postgresql.Server, "create_engine", impatient)
    monkeypatch.setattr(migrate, "upgrade", upgrade)

    await (await Database.connect(empty_database)).close()


async def test_customers_are_read_while_their_index_is_made(empty_database: str) -> None:
    """The index of names takes half a minute for a million customers."""
    database = await Database.connect(empty_database)
    if database.is_sqlite:  # It reads a snapshot while it writes.
        await database.close()
        return
    async with database.writing() as connection:
        await connection.run_sync(migrate.downgrade, "0005")
    waiting = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'customers'::regclass"

    async def read() -> None:
        async with database.writing() as writer:
            await writer.exec_driver_sql("LOCK TABLE customers IN ROW EXCLUSIVE MODE")
            is_locked.set()
            async with asyncio.timeout(30), database.reading() as reader:
                while not (await reader.exec_driver_sql(waiting)).first():
                    await reader.exec_driver_sql("SELECT pg_sleep(0.01)")
                assert not (await reader.exec_driver_sql("SELECT id FROM customers")).all()

    async def upgrade() -> None:
        await is_locked.wait()
        await (await Database.connect(empty_database)).close()

    is_locked = asyncio.Event()
    await asyncio.gather(read(), upgrade())
    await database.close()
