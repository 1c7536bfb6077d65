"""A database of an older collector becomes one of this, with all that was counted."""

import asyncio
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from click.testing import Result
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.database import migrate, postgresql
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR, MINUTE_VALUE_MAX
from edgeproxy.wire.batch import compute_digest, format_batch
from loadtest.testbed.batch_chains import NOON, Chain
from loadtest.testbed.process import ROOT
from tests.support.books import Books, Cell, Clock, clock

pytestmark = pytest.mark.both_databases

__all__ = ["clock"]

VERSIONS = ROOT / "edgeproxy/collector/database/migrations/versions"
VERSIONS_PACKAGE = "edgeproxy.collector.database.migrations.versions"
KINDS_OF_0028 = {
    "batches_lost",
    "batches_quarantined",
    "catalog_price_missing",
    "certificate_expiring",
    "charging_stopped",
    "customer_pause_failed",
    "customer_paused",
    "dimension_limit_exceeded",
    "events_rejected",
    "invoice_draft_missing",
    "invoice_failed",
    "invoice_held",
    "invoice_unpaid",
    "key_rotation_due",
    "meter_events_rejected",
    "quota_reached",
    "reconciliation_mismatch",
    "request_cap_exceeded",
    "requests_denied",
    "subscription_period_failed",
    "token_edge_limit_reached",
    "usage_anomaly",
    "usage_export_failed",
    "usage_export_stopped",
    "webhook_event_failed",
    "webhook_mode_mismatch",
}
"""The kinds of alerts when revision 0028 renamed them."""


async def older(url: str, chain: Chain | None = None) -> Counter[Cell]:
    """A database of revision 0001 that has this chain; what it counts."""
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True)
    database = Database(url)
    async with database.writing() as connection:
        await connection.run_sync(make, "0001")
        counted = Counter() if chain is None else await fill(connection, chain)
    await database.close()
    return counted


def make(connection: sa.Connection, revision: str) -> None:
    """Tables as they were of this revision."""
    config = Config()
    config.set_main_option("script_location", "edgeproxy.collector.database:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


async def fill(connection: AsyncConnection, chain: Chain) -> Counter[Cell]:
    """The rows that the collector of revision 0001 made of these batches; what they count."""
    counted: Counter[Cell] = Counter()

    async def insert(table: str, *values: object) -> None:
        marks = ", ".join(f":v{n}" for n in range(len(values)))
        bound = {f"v{n}": value for n, value in enumerate(values)}
        await connection.execute(sa.text(f"INSERT INTO {table} VALUES ({marks})"), bound)

    for batch in chain.made:
        whole = format_batch(batch)
        own = (
            batch.edge,
            batch.seq,
            batch.seq,
            compute_digest(whole),
            "counted",
            len(batch.rows),
            batch.since,
            batch.until,
        )
        await insert("batches", *own, None, batch.since * 1000, "identity", whole)
        for customer, meter, route, value in batch.rows:
            counted[batch.minute, batch.region, customer, meter, route] += value
    last = chain.made[-1]
    await insert("edges", chain.edge, last.region, last.seq, chain.prev, last.since, last.until, last.since * 1000)
    for number, what in enumerate(sorted({cell[1:] for cell in counted}), start=1):
        names = "series (edge, region, customer, meter, route)"
        await insert(names, chain.edge, *what)
        for cell, value in counted.items():
            if cell[1:] == what:
                await insert("ledger", number, cell[0], value)
    return counted


def test_each_migration_follows_the_one_before() -> None:
    """Two of one number come of two changes that each were right by themselves."""
    files = sorted(VERSIONS.glob("[0-9]*.py"))
    assert [file.name[:4] for file in files] == [f"{number:04}" for number in range(1, len(files) + 1)]


def test_what_revision_1_had_is_there_after_revision_2(empty_database: str, clock: Clock) -> None:
    async def run() -> None:
        chain = Chain()
        for day in (0, 1, 9, 10, 400):  # The tenth day after NOON is the first of a month.
            chain.since = NOON // DAY * DAY + day * DAY - 5
            chain.next()
            chain.next()
        counted = await older(empty_database, chain)

        books = await Books.open(empty_database, clock, counted=counted)
        assert (await books.check()).hour == 0
        clock.now = NOON + 401 * DAY
        await books.ship(chain.next())
        await books.check()
        if books.database.has_partitions:
            async with books.database.reading() as connection:
                names = "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE relkind = 'r' ORDER BY 1"
                found = list((await connection.exec_driver_sql(names)).scalars())
            assert found == ["ledger_2026_09", "ledger_2026_10", "ledger_2027_10"]
        # The limit of a minute is that of the tables that are made anew.
        chain.since = NOON
        most = ("acme", "requests", "v1", MINUTE_VALUE_MAX)
        await books.ship(chain.next(most))
        await books.ship(chain.next(most))
        await books.check()
        assert (await books.verify()).quarantined == 1
        await books.roll_up()
        assert (await books.check()).hour == clock.now // HOUR * HOUR - HOUR
        await books.close()

    asyncio.run(run())


def test_alerts_of_earlier_versions_get_the_kinds_of_today(empty_database: str) -> None:
    before = [(kind, None) for kind in import_module(f"{VERSIONS_PACKAGE}.0028_alert_kinds").RENAMED_KINDS]
    before += [("pause", None), ("pause", "acme"), ("invoice_failed", None)]

    async def run() -> None:
        if empty_database.startswith("sqlite"):
            Path(empty_database.removeprefix("sqlite:///")).parent.mkdir(parents=True)
        earlier = Database(empty_database)
        async with earlier.writing() as connection:
            await connection.run_sync(make, "0027")
            about = {"severity": "page", "title": "x", "details": "{}", "at": 0}
            rows = [{**about, "key": str(n), "kind": kind, "customer": name} for n, (kind, name) in enumerate(before)]
            await connection.execute(sa.insert(alerts), rows)
        await earlier.close()
        migrated = await Database.connect(empty_database)
        async with migrated.reading() as connection:
            after = (await connection.execute(sa.select(alerts.c.kind, alerts.c.customer).order_by(alerts.c.id))).all()
        await migrated.close()
        assert {kind for kind, _ in after} == KINDS_OF_0028
        ends = [("customer_pause_failed", None), ("customer_paused", "acme"), ("invoice_failed", None)]
        assert [tuple(row) for row in after[-3:]] == ends

    asyncio.run(run())


def describe(connection: sa.Connection) -> dict[str, set[str]]:
    """Return the names of the columns of all tables."""
    inspector = sa.inspect(connection)
    return {table: {column["name"] for column in inspector.get_columns(table)} for table in inspector.get_table_names()}


def test_each_migration_since_0029_is_taken_back_and_made_again_and_earlier_ones_are_not(
    tmp_path: Path, empty_database: str
) -> None:
    if empty_database.startswith("sqlite"):
        Path(empty_database.removeprefix("sqlite:///")).parent.mkdir(parents=True)
    file = tmp_path / "collector.yaml"
    file.write_text(f"database: '{empty_database}'\ntokens: [{{sha256: {'a' * 64}, role: edge}}]\n")

    def say(*words: str) -> Result:
        return CliRunner().invoke(cli.app, ["database", *words, "-c", str(file)])

    async def look() -> dict[str, set[str]]:
        database = Database(empty_database)
        async with database.reading() as connection:
            tables = await connection.run_sync(describe)
        await database.close()
        return tables

    async def make_tables() -> None:
        database = Database(empty_database)
        async with database.writing() as connection:
            await connection.run_sync(make, "0029")
        await database.close()

    asyncio.run(make_tables())
    before = asyncio.run(look())
    say("migrate")  # PostgreSQL's row-level security may lack its roles, which is no matter here.
    after = asyncio.run(look())
    assert before != after

    refused = say("downgrade", "0020")
    assert (refused.exit_code, "0029 cannot be taken back" in refused.stderr) == (1, True), refused.output
    assert asyncio.run(look()) == after, "nothing is half taken back"
    done = say("downgrade", "0029")
    assert done.exit_code == 0, done.output
    assert asyncio.run(look()) == before
    say("migrate")
    assert asyncio.run(look()) == after
    assert say("downgrade", "9999").exit_code == 1


def test_an_empty_database_of_revision_1(empty_database: str, clock: Clock) -> None:
    async def run() -> None:
        await older(empty_database)
        books = await Books.open(empty_database, clock)
        await books.ship(Chain().next())
        clock.now += DAY
        await books.roll_up()
        await books.check()
        await books.close()

    asyncio.run(run())


def test_a_credit_note_that_was_asked_is_requested(tmp_path: Path) -> None:
    async def run() -> None:
        database = Database(f"sqlite:///{tmp_path}/ledger.db")
        async with database.writing() as connection:
            await connection.run_sync(make, "0026")
            await connection.execute(sa.text("PRAGMA defer_foreign_keys = ON"))
            names = "credit_notes (id, invoice, amount, why, state, tries, created_at)"
            for id_, state in (("a", "asked"), ("b", "made"), ("c", "refused")):
                values = f"('{id_}', 'i', 1, '', '{state}', 0, 0)"
                await connection.exec_driver_sql(f"INSERT INTO {names} VALUES {values}")
            await connection.run_sync(make, "head")
            states = await connection.exec_driver_sql("SELECT state FROM credit_notes ORDER BY id")
            assert list(states.scalars()) == ["requested", "made", "refused"]
            await connection.exec_driver_sql("DELETE FROM credit_notes")
        await database.close()

    asyncio.run(run())


def test_a_migration_may_take_longer_than_a_statement(empty_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of a million customers takes longer than anything that a collector asks while it serves."""
    create, make = postgresql.Server.create_engine, migrate.upgrade

    def upgrade(connection: sa.Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SELECT pg_sleep(1.2)")
        make(connection)

    def impatient(server: postgresql.Server, connections: int, **options: Any) -> AsyncEngine:
        return create(server, connections, **{"patience": 1.0, **options})

    monkeypatch.setattr(postgresql.Server, "create_engine", impatient)
    monkeypatch.setattr(migrate, "upgrade", upgrade)

    async def do() -> None:
        await (await Database.connect(empty_database)).close()

    asyncio.run(do())
