"""The restore drill: the script restores a database to a moment, as the documentation says."""

import shutil
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from edgeproxy import cli
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, Collector, checked
from loadtest.testbed.http_client import ask
from loadtest.testbed.postgresql import Postgresql, programs
from loadtest.testbed.process import ROOT
from loadtest.testbed.waiting import until
from tests.support.spooled_edge import SpooledEdge

RESTORE = ROOT / "deploy/restore"


def restore(*arguments: str | Path, **how: Any) -> str:
    """Run the script and return its output."""
    done = subprocess.run([RESTORE, *arguments], capture_output=True, text=True, check=False, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout


def restored(server: Postgresql, moment: str) -> None:
    """Restore a server to a moment and start it."""
    arguments = (server.backups, moment, server.data, server.wal)
    with RESTORE.open() as script:  # The server's user may not have access to the script's folder.
        done = subprocess.run(
            ["sh", "-s", "--", *arguments],
            stdin=script,
            capture_output=True,
            text=True,
            check=False,
            **server.as_owner(),
        )
    assert done.returncode == 0, done.stderr
    server.start()
    until(lambda: server.ask("SELECT pg_is_in_recovery()") == "f", "the server has recovered", seconds=60)


def stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def next_second() -> str:
    """Wait for the next second and return it, because moments have a resolution of one second."""
    began = stamp()
    until(lambda: stamp() != began, "a second has passed")
    return stamp()


def make(collector: Collector, name: str) -> None:
    body = orjson.dumps({"name": name, "tier": "basic"})
    fields = {"Authorization": f"Bearer {ADMIN}"}
    answer = ask(collector.port, "/v1/customers", method="POST", fields=fields, body=body)
    assert answer.status == 201, answer


def customers(collector: Collector) -> set[str]:
    return {customer["name"] for customer in collector.get("/v1/customers", token=ADMIN).json()["customers"]}


def test_sqlite_is_restored_from_the_last_copy_before_a_moment(tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    backups.mkdir()
    with closing(Collector(tmp_path / "collector", f"sqlite:///{tmp_path}/ledger.db")) as collector:
        collector.start()
        for name in ("first", "second", "third"):
            make(collector, name)
            assert collector.post(Chain().next()).status == 200
            copied = CliRunner().invoke(
                cli.app, ["backup", "-c", str(collector.file), str(backups / f"ledger-{next_second()}.db")]
            )
            assert copied.exit_code == 0, copied.output
            if name == "second":
                moment = next_second()
        collector.end()
        assert str(sorted(backups.iterdir())[1]) in restore(backups, moment, collector.database)
        assert collector.database.stat().st_mode & 0o777 == 0o600
        collector.start()
        assert customers(collector) == {"first", "second"}
        assert checked(collector)[0] == 0
        assert Path(f"{collector.database}.before-restore").exists()


def test_postgresql_is_restored_to_a_moment_and_edges_reship_later_batches(tmp_path: Path) -> None:
    if programs() is None:
        pytest.skip("PostgreSQL is not on this machine")
    with (
        closing(Postgresql(archives=True, in_memory=True)) as server,
        closing(SpooledEdge(tmp_path)) as old,
        closing(SpooledEdge(tmp_path)) as new,
        closing(Collector(tmp_path / "collector", server.database())) as collector,
    ):
        collector.start()

        def happens(name: str, *edges: SpooledEdge) -> None:
            make(collector, name)
            for edge in edges:
                edge.seal(1)
                edge.ship(collector)

        happens("first", old)
        server.base_backup()
        happens("second", old)
        early = next_second()
        happens("third", old)
        segment = server.ask("SELECT pg_walfile_name(pg_switch_wal())")
        until((server.wal / segment).exists, "the WAL is archived")
        happens("fourth", old)
        late = next_second()
        happens("fifth", old, new)
        # The last changes are in no archive, because the server was killed.
        collector.end()
        server.kill()
        restored(server, late)
        assert (server.data.with_name("data.before-restore")).exists()
        collector.start()
        assert customers(collector) == {"first", "second", "third", "fourth"}
        assert collector.usage()["total"] == 4 * 7
        # Edges assume that all batches arrived. The answer to its next batch tells each edge the missing ones.
        for edge, lacked in ((old, 1), (new, 1)):
            edge.seal(1)
            results = edge.ship(collector)
            assert (results["expected"], results["acknowledged"]) == (1, lacked + 1)
        assert collector.usage()["total"] == old.chain.total + new.chain.total == 8 * 7
        code, output = checked(collector)
        assert (code, output.startswith("2 edges, 8 batches, 0 gaps, 0 quarantined")) == (0, True), output
        # The host is lost with its disk. Base backup and archive suffice for a restore.
        collector.end()
        server.kill()
        shutil.rmtree(server.data)
        server.data.with_name("data.before-restore").rename(server.data.with_name("gone"))
        restored(server, early)
        code, output = checked(collector)
        assert (code, output.startswith("1 edge, 2 batches"), output.endswith("2 audit records")) == (0, True, True), (
            output
        )


def test_failed_restore_reports_its_reason_and_changes_nothing(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.db"
    ledger.write_text("as it was")
    (tmp_path / "ledger-2027-01-02T00:00:00Z.db").write_text("later")
    for arguments, said in (
        ([tmp_path, "2027-01-01T00:00:00Z", ledger], "no copy in"),
        ([tmp_path, "yesterday", ledger], "is no time such as"),
        ([tmp_path], "deploy/restore BACKUPS MOMENT FILE"),
    ):
        done = subprocess.run([RESTORE, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode
        assert said in done.stderr
    assert ledger.read_text() == "as it was"
