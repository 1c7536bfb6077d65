"""Start and end of a collector, and requirements on its database."""

import asyncio
import signal
import socket
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from edgeproxy.collector.database.database import Database, UnusableDatabaseError
from edgeproxy.collector.database.schema import REVISION, metadata
from loadtest.testbed.batch_chains import ROWS, Chain
from loadtest.testbed.collector import COMMAND, Collector
from loadtest.testbed.ports import HOST
from loadtest.testbed.process import Process
from tests.support.collector_fixtures import StartCollector


def refused(collector: Collector) -> str:
    """Return the output of a collector that does not start."""
    process = collector.begin()
    assert process.wait(30) == 2
    assert "Traceback" not in process.output
    return process.output


def unusable(database: str) -> str:
    """Why a database cannot be used."""
    with pytest.raises(UnusableDatabaseError) as caught:
        asyncio.run(Database.connect(database))
    return str(caught.value)


def test_counted_usage_survives_a_restart(start_collector: StartCollector) -> None:
    collector = start_collector()
    chain = Chain()
    collector.post(chain.next(*ROWS, ("nobody-known", "requests", "v1", 5)))
    collector.end()  # SIGTERM, and code 0.
    collector.start()
    assert collector.metric("collector_unknown_names", kind="customer") == 1
    assert collector.post(chain.next()).json() == {"watermark": 2}
    assert collector.usage()["total"] == chain.total
    assert collector.post(chain.made[0]).json() == {"watermark": 2}
    assert collector.process is not None
    assert collector.process.wait_after(signal.SIGINT, 20.0) == 0


def test_collector_exits_with_the_faults_of_an_invalid_configuration(tmp_path: Path) -> None:
    file = tmp_path / "collector.yaml"
    file.write_text("database: mysql://x\n")
    process = Process([*COMMAND, file], tmp_path / "log")
    assert process.wait(30) == 2
    assert [line.split(": ")[1] for line in process.output.splitlines()] == ["database", "tokens"]


def test_address_in_use_is_reported(tmp_path: Path) -> None:
    with closing(socket.create_server((HOST, 0))) as taken, closing(Collector(tmp_path, "sqlite:///x")) as collector:
        port = taken.getsockname()[1]
        collector.settings["listen"] = f"{HOST}:{port}"
        assert refused(collector) == f"edgeproxy: cannot listen on {HOST}:{port}: Address already in use\n"


def test_collector_refuses_a_foreign_database_file_and_leaves_it_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    file.write_text("not a database, but somebody's file\n" * 50)
    before = file.read_bytes()
    with closing(Collector(tmp_path / "collector", f"sqlite:///{file}")) as collector:
        assert refused(collector) == f"edgeproxy: sqlite:///{file} cannot be used: file is not a database\n"
    assert file.read_bytes() == before


def test_uncreatable_database_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be used: " in unusable(f"sqlite:///{tmp_path}/file/ledger.db")


def test_unreachable_database_error_hides_the_password() -> None:
    with closing(socket.create_server((HOST, 0))) as server:
        port = server.getsockname()[1]
    said = unusable(f"postgresql://me:secret@{HOST}:{port}/ledger")
    assert said.startswith(f"postgresql://me:***@{HOST}:{port}/ledger cannot be used: ")
    assert "secret" not in said


async def change(database: str) -> None:
    """Make it look as if a later version had changed it."""
    opened = await Database.connect(database)
    async with opened.writing() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    await opened.close()


def test_database_of_a_later_version_is_refused(database: str) -> None:
    asyncio.run(change(database))
    assert "was made by a later version" in unusable(database)


COLLATED = (
    *("keys_start", "customers_shown_name", "customers_external_id_c", "customers_searched"),
    *("customers_tier", "customers_plan", "contacts_email_c", "contacts_domain_c"),
)
"""Indexes in the order of characters, which metadata cannot say for one database alone."""
OPTIONS = {"compare_type": True, "include_name": lambda name, kind, _: kind != "index" or name not in COLLATED}


async def differences(database: str) -> list[object]:
    """Return the differences between the migrated tables and schema.py."""
    for _ in range(2):  # The second time there is nothing to do.
        opened = await Database.connect(database)
        async with opened.writing() as connection:
            found: list[object] = await connection.run_sync(
                lambda sync: compare_metadata(MigrationContext.configure(sync, opts=OPTIONS), metadata)
            )
        await opened.close()
    return found


@pytest.mark.both_databases
def test_migrated_database_equals_the_schema(database: str) -> None:
    assert asyncio.run(differences(database)) == []


def test_schema_revision_is_the_head_of_the_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", "edgeproxy.collector.database:migrations")
    assert ScriptDirectory.from_config(config).get_heads() == [REVISION]


def test_sqlite_is_in_wal_and_waits_for_the_disk(sqlite_collector: Collector) -> None:
    database = sqlite_collector.database
    sqlite_collector.post(Chain().next())
    assert database.with_name("ledger.db-wal").stat().st_size > 0
    with closing(sqlite3.connect(database)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        (kind,) = other.execute("SELECT sql FROM sqlite_master WHERE name = 'ledger'").fetchone()
        assert "STRICT" in kind
    assert stat.S_ISREG(database.stat().st_mode)


def test_batch_waits_for_another_writer_of_the_sqlite_file(sqlite_collector: Collector) -> None:
    chain = Chain()
    with (
        closing(sqlite3.connect(sqlite_collector.database, isolation_level=None)) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        other.execute("BEGIN IMMEDIATE")
        waiting = pool.submit(sqlite_collector.post, chain.next())
        assert sqlite_collector.counted(chain) == 0
        assert not waiting.done()
        other.execute("ROLLBACK")
        assert waiting.result(30).json() == {"watermark": 1}
    assert sqlite_collector.counted(chain) == chain.total
