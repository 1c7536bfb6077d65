"""After a restore from a backup, edges ship every batch again that came after the backup."""

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgeproxy import cli
from edgeproxy.config.collector.load import load_collector
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import Collector, checked
from loadtest.testbed.postgresql import Postgresql
from tests.support.collector_fixtures import StartCollector, only_sqlite
from tests.support.spooled_edge import SpooledEdge

pytestmark = pytest.mark.both_databases

Restore = Callable[[], None]


def backup(collector: Collector, request: pytest.FixtureRequest, tmp_path: Path) -> Restore:
    """Back up as docs/operations/backup.md says, while the collector runs; how to restore it once it has ended."""
    if collector.settings["database"].startswith("postgresql"):
        server: Postgresql = request.getfixturevalue("postgresql")
        dumped = server.dump(collector.settings["database"], "--enable-row-security")

        def restore() -> None:
            collector.settings["database"] = fresh = server.empty_database()
            server.restore(dumped, fresh)

        return restore
    copy = tmp_path / "backup.db"
    done = CliRunner().invoke(cli.app, ["backup", "-c", str(collector.file), str(copy)])
    assert done.exit_code == 0, done.output

    def put_back() -> None:
        for left in collector.database.parent.glob("ledger.db*"):
            left.unlink()
        collector.database.write_bytes(copy.read_bytes())

    return put_back


def test_edges_resend_missing_batches_to_a_restored_collector(
    start_collector: StartCollector, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    collector = start_collector()
    with closing(SpooledEdge(tmp_path)) as old, closing(SpooledEdge(tmp_path)) as new:
        old.seal(3)
        old.ship(collector)
        restore = backup(collector, request, tmp_path)
        old.seal(3)
        new.seal(2)
        assert old.ship(collector)["acknowledged"] == 3
        assert new.ship(collector)["acknowledged"] == 2
        collector.kill()
        restore()
        collector.start()
        assert collector.usage()["total"] == 21
        # Each hears of it with the next batch that it has.
        for edge, lacked in ((old, 3), (new, 2)):
            edge.seal(1)
            results = edge.ship(collector)
            assert (results["expected"], results["acknowledged"]) == (1, lacked + 1)
        assert collector.usage()["total"] == old.chain.total + new.chain.total == 70
        code, output = checked(collector)
        assert (code, output.startswith("2 edges, 10 batches, 0 gaps, 0 quarantined")) == (0, True), output


def test_backup_is_consistent_while_batches_arrive(sqlite_collector: Collector, tmp_path: Path) -> None:
    ledger = Path(load_collector(sqlite_collector.file, os.environ).database.removeprefix("sqlite:///"))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in ledger.parent.glob(f"{ledger.name}*")}
    assert set(modes.values()) == {0o600}, modes
    chain = Chain()
    ended = threading.Event()

    def ship() -> None:
        while not ended.is_set():
            assert sqlite_collector.post(chain.next()).status == 200

    shipping = threading.Thread(target=ship)
    shipping.start()
    try:
        for number in range(3):
            copy = tmp_path / f"{number}.db"
            done = CliRunner().invoke(cli.app, ["backup", "-c", str(sqlite_collector.file), str(copy)])
            assert (done.exit_code, done.stdout) == (0, f"{copy} has {copy.stat().st_size} bytes\n")
            assert stat.S_IMODE(copy.stat().st_mode) == 0o600
            with closing(sqlite3.connect(copy)) as copied:
                assert copied.execute("PRAGMA integrity_check").fetchone() == ("ok",)
                (sum_of_batches,) = copied.execute(
                    "SELECT count(*) FROM batches WHERE edge = ?", (chain.edge,)
                ).fetchone()
                (counted,) = copied.execute(
                    "SELECT coalesce(sum(value), 0) FROM ledger JOIN series ON series = id WHERE edge = ?",
                    (chain.edge,),
                ).fetchone()
            assert counted == 7 * sum_of_batches
    finally:
        ended.set()
        shipping.join()
    again = CliRunner().invoke(cli.app, ["backup", "-c", str(sqlite_collector.file), str(tmp_path / "0.db")])
    assert (again.exit_code, again.stderr) == (1, f"{tmp_path / '0.db'} is there already\n")
    nowhere = CliRunner().invoke(cli.app, ["backup", "-c", str(sqlite_collector.file), str(tmp_path / "no" / "0.db")])
    assert nowhere.exit_code == 1
    assert "cannot be written" in nowhere.stderr
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["0.db", "1.db", "2.db"]


@only_sqlite("database")
def test_encrypted_backup_is_restored_by_its_identity_without_leftovers(database: str, tmp_path: Path) -> None:
    if shutil.which("age") is None:
        pytest.skip("there is no age on this machine")
    collector = Collector(tmp_path / "collector", database)
    collector.write()
    keygen = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    (tmp_path / "identity.txt").write_text(keygen)
    (recipient,) = re.findall(r"public key: (\S+)", keygen)
    folder = tmp_path / "backups"
    folder.mkdir()

    def run(key: str, to: str) -> Result:
        return CliRunner().invoke(cli.app, ["backup", "-c", str(collector.file), "--recipient", key, str(folder / to)])

    done = run(recipient, "ledger.db.age")
    copy = folder / "ledger.db.age"
    assert (done.exit_code, done.stdout) == (0, f"{copy} has {copy.stat().st_size} bytes\n"), done.output
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert b"SQLite format" not in copy.read_bytes()
    failed = run("age1nobody", "other.age")
    assert (failed.exit_code, "cannot be written: age: error" in failed.stderr) == (1, True), failed.output
    assert [path.name for path in folder.iterdir()] == ["ledger.db.age"]

    collector.database.unlink()
    identity, restored = str(tmp_path / "identity.txt"), str(collector.database)
    subprocess.run(["age", "--decrypt", "-i", identity, "-o", restored, str(copy)], check=True)
    assert checked(collector)[0] == 0
    collector.close()


def test_a_backup_of_postgresql_is_postgresqls_own(postgresql_collector: Collector, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli.app, ["backup", "-c", str(postgresql_collector.file), str(tmp_path / "x")])
    assert done.exit_code == 1
    assert "pg_dump" in done.stderr
