"""The restore drill: a database is brought back as it was at a moment, by the script, as the documentation says."""

import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
from typer.testing import CliRunner

from edgeproxy import cli
from tests.support.ask import ask
from tests.support.chains import Chain
from tests.support.collector import ADMIN, Collector, checked
from tests.support.process import ROOT
from tests.support.waiting import until

RESTORE = ROOT / "deploy/restore"


def restore(*arguments: str | Path, **how: Any) -> str:
    """Run the script; what it said."""
    done = subprocess.run([RESTORE, *arguments], capture_output=True, text=True, check=False, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stamp() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def next_second() -> str:
    """Wait for the next second, and return it: moments have no finer ones."""
    began = stamp()
    until(lambda: stamp() != began, "a second has passed")
    return stamp()


def make(collector: Collector, name: str) -> None:
    body = orjson.dumps({"name": name, "tier": "basic"})
    fields = {"Authorization": f"Bearer {ADMIN}"}
    answer = ask(collector.port, "/v1/customers", method="POST", fields=fields, body=body)
    assert answer.status == 201, answer


def customers(collector: Collector) -> set[str]:
    return {one["name"] for one in collector.get("/v1/customers", token=ADMIN).json()["customers"]}


def test_sqlite_is_as_it_was_when_it_was_last_copied_before_a_moment(tmp_path: Path) -> None:
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


def test_what_cannot_be_restored_is_said_and_changes_nothing(tmp_path: Path) -> None:
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
