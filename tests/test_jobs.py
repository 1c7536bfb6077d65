"""Scheduled jobs: each works with a host's usual tools, and reports its success to Prometheus."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import Collector
from loadtest.testbed.ports import Ports
from loadtest.testbed.postgresql import Postgresql, programs
from loadtest.testbed.process import ROOT

JOB = ROOT / "deploy/job"
SAMPLE = re.compile(r'^edgeproxy_job_(\w+)\{task="([\w-]+)"\} (\d+)$', re.MULTILINE)


class Host:
    """A host with the jobs of a collector; `run` does one."""

    def __init__(self, folder: Path, collector: Collector, **settings: str) -> None:
        self.backups, self.full, self.objects, self.accounting, self.metrics = (
            folder / name for name in ("backups", "full", "objects", "accounting", "metrics")
        )
        for place in (self.backups, self.full, self.objects, self.accounting, self.metrics):
            place.mkdir()
        self.environ = {
            **os.environ,
            "CONFIG": str(collector.file),
            "EDGEPROXY": f"{sys.prefix}/bin/edgeproxy",
            "BACKUPS": str(self.backups),
            "METRICS": str(self.metrics),
            "FULL_TO": str(self.full),
            "ACCOUNTING_TO": str(self.accounting),
            "PARQUET_URL": f"file://{self.objects}",
            **settings,
        }

    def run(self, job: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """Do a job."""
        command = [JOB, job]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=self.environ, **how)

    def samples(self, job: str) -> dict[str, int]:
        """Return what Prometheus learns of a job, by the metric's name."""
        text = (self.metrics / f"edgeproxy-job-{job}.prom").read_text()
        return {name: int(value) for name, task, value in SAMPLE.findall(text) if task == job}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    """A host whose collector has taken a batch, with credits for sale."""
    plans = tmp_path / "plans.yaml"
    plans.write_text("plans: {team@1: {fee: '10', tier: basic}}\n")
    billing = {"plans": str(plans), "mode": "off", "credits": {}}
    with closing(Collector(tmp_path / "collector", f"sqlite:///{tmp_path}/ledger.db", billing=billing)) as collector:
        collector.start()
        assert collector.post(Chain().next()).status == 200
        yield Host(tmp_path, collector)


def test_backup_jobs_restore_and_verify_and_fail_on_an_altered_copy(host: Host) -> None:
    began = int(time.time())
    for job in ("backup", "restore-drill"):
        done = host.run(job)
        assert done.returncode == 0, done.stderr
        samples = host.samples(job)
        assert samples["success"] == 1
        assert samples["last_success_timestamp_seconds"] >= began
    (copy,) = host.backups.iterdir()
    assert "1 edges, 1 batches" in done.stdout or "1 edge, 1 batch" in done.stdout, done.stdout

    before = host.samples("restore-drill")
    copy.write_bytes(copy.read_bytes()[:20_000])
    assert host.run("restore-drill").returncode != 0
    after = host.samples("restore-drill")
    assert (after["success"], after["last_success_timestamp_seconds"]) == (0, before["last_success_timestamp_seconds"])
    assert after["period_seconds"] > 0


def test_full_copies_are_encrypted_for_a_recipient_and_restored_by_its_identity(host: Host, tmp_path: Path) -> None:
    host.environ["FULL_COPY_TO"] = "/proc/nowhere"
    failed = host.run("full")
    assert failed.returncode != 0
    assert "/proc/nowhere" in failed.stderr
    assert host.samples("full") == {"last_success_timestamp_seconds": 0, "success": 0, "period_seconds": 604800}
    (full,) = host.full.iterdir()  # It is there although the second copy failed.
    assert {"ledger.db", "configuration.tar", "objects", "SHA256SUMS"} <= {file.name for file in full.iterdir()}
    verify = ["sha256sum", "-c", "--quiet", "SHA256SUMS"]
    assert subprocess.run(verify, cwd=full, check=False).returncode == 0
    shutil.rmtree(full)

    if shutil.which("age") is None:
        pytest.skip("there is no age on this machine")
    keygen = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    identity, second = tmp_path / "identity.txt", tmp_path / "second"
    identity.write_text(keygen)
    host.environ["FULL_RECIPIENT"] = re.findall(r"public key: (\S+)", keygen)[0]
    host.environ["FULL_COPY_TO"] = str(second)
    done = host.run("full")
    assert done.returncode == 0, done.stderr
    samples = host.samples("full")
    assert samples["success"] == 1
    assert samples["last_success_timestamp_seconds"] > 0
    (one,), (other,) = host.full.iterdir(), second.iterdir()
    assert one.name.endswith(".tar.age")
    assert one.read_bytes() == other.read_bytes()
    assert b"SQLite format" not in one.read_bytes()
    decrypt = ["age", "--decrypt", "-i", str(identity), str(other)]
    archive = subprocess.run(decrypt, capture_output=True, check=True).stdout
    (tmp_path / "restored").mkdir()
    subprocess.run(["tar", "-x", "-C", tmp_path / "restored"], input=archive, check=True)
    restored = tmp_path / "restored/full"
    assert subprocess.run(verify, cwd=restored, check=False).returncode == 0
    with closing(sqlite3.connect(restored / "ledger.db")) as database:
        assert database.execute("SELECT count(*) FROM batches").fetchone() == (1,)


def test_accounting_writes_each_missing_day_once_and_usage_becomes_parquet(host: Host) -> None:
    today = datetime.now(UTC).date()
    days = [f"{today - timedelta(days=ago)}.csv" for ago in range(1, 8)]
    for name in days[1:-1]:
        (host.accounting / name).write_text("as it was")
    written = []
    for _ in range(2):
        done = host.run("accounting")
        assert done.returncode == 0, done.stderr
        written.append({file.name: (file.read_text(), file.stat().st_mtime_ns) for file in host.accounting.iterdir()})
    assert written[0] == written[1]
    assert sorted(written[0]) == sorted(days)
    assert [name for name in days if written[0][name][0] != "as it was"] == [days[0], days[-1]]
    pytest.importorskip("pyarrow", reason="pyarrow is not in this environment")
    done = host.run("parquet")
    assert done.returncode == 0, done.stderr


def test_failed_backup_job_states_its_reason_and_records_no_success(host: Host) -> None:
    host.environ.pop("FULL_TO")
    done = host.run("full")
    assert (done.returncode, "set FULL_TO" in done.stderr) == (1, True)
    assert host.samples("full")["last_success_timestamp_seconds"] == 0
    assert host.run("../restore").returncode == 2


def test_password_of_the_database_is_in_no_argument(tmp_path: Path) -> None:
    """Everybody on the host can read arguments of processes."""
    programs, record = tmp_path / "programs", tmp_path / "record"
    programs.mkdir()
    for name in ("psql", "pg_dump", "pg_basebackup"):
        script = f'#!/bin/sh\nprintf \'%s\\n\' "{name} $PGPASSWORD" "$*" >>{record}\necho f\n'
        (programs / name).write_text(script + ('mkdir "$3"; : >"$3/backup_label"\n' if name == "pg_basebackup" else ""))
        (programs / name).chmod(0o755)
    settings = tmp_path / "settings"
    settings.mkdir()
    environ = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "CONFIG": str(settings / "collector.yaml"),
        "DATABASE_URL": "postgresql://me:%40hush%5C@db.example/ledger?sslmode=require",
        **{name: str(tmp_path) for name in ("BACKUPS", "METRICS", "FULL_TO", "TMPDIR")},
    }
    for job in ("backup", "full"):
        done = subprocess.run([JOB, job], capture_output=True, text=True, check=False, env=environ)
        assert done.returncode == 0, done.stderr
        assert "hush" not in done.stdout + done.stderr
    lines = record.read_text().splitlines()
    assert [line for line in lines if "hush" in line] == [
        f"{name} @hush\\" for name in ("psql", "pg_basebackup", "pg_dump")
    ]
    assert len([line for line in lines if "--dbname=postgresql://me@db.example/ledger?sslmode=require" in line]) == 3


def test_postgresql_base_backup_and_wal_are_recovered_and_verified(tmp_path: Path) -> None:
    if programs() is None:
        pytest.skip("PostgreSQL is not on this machine")
    with closing(Postgresql(archives=True, in_memory=True)) as server, closing(Ports(1)) as ports:
        url = server.database()
        with closing(Collector(tmp_path / "collector", url)) as collector:
            collector.start()
            assert collector.post(Chain().next()).status == 200
            place = server.backups.parent / "jobs"
            place.mkdir()
            shutil.copy(collector.file, place / "collector.yaml")
            settings = {
                "CONFIG": str(place / "collector.yaml"),
                "DATABASE_URL": url,
                "BACKUP_URL": re.sub(r"//[^@]*@", "//postgres@", url).rpartition("/")[0] + "/postgres",
                "WAL": str(server.wal),
                "TMPDIR": str(place),
                "HOME": str(place),
                "DRILL_PORT": str(ports.numbers[0]),
            }
            host = Host(place, collector, **settings)
            for file in (place, *place.rglob("*")):
                shutil.chown(file, *server.as_owner().values() or (os.getuid(), os.getgid()))
            done = host.run("backup", **server.as_owner())
            assert done.returncode == 0, done.stderr
            assert collector.post(Chain("edge-2").next()).status == 200
            server.ask("SELECT pg_switch_wal()")
            done = host.run("restore-drill", **server.as_owner())
            assert done.returncode == 0, done.stdout + done.stderr
            assert "2 edges, 2 batches" in done.stdout, "batches after the base backup are recovered"


def test_each_timer_runs_an_existing_job_at_the_period_of_its_alert() -> None:
    jobs = dict(re.findall(r"^    ([\w| -]+)\) period=(\d+)", JOB.read_text(), re.MULTILINE))
    known = {name.strip(): int(period) for names, period in jobs.items() for name in names.split("|")}
    timers = {file.stem.removeprefix("edgeproxy-"): file.read_text() for file in (ROOT / "deploy").glob("*.timer")}
    timers.pop("probe")
    assert set(timers) == set(known)
    for name, text in timers.items():
        assert f"Unit=edgeproxy-job@{name}.service" in text
        (calendar,) = re.findall(r"^OnCalendar=(.*)$", text, re.MULTILINE)
        analyze = shutil.which("systemd-analyze")
        if analyze is not None:
            command = [analyze, "calendar", "--iterations=12", "--base-time=2026-12-01 00:00:00 UTC", calendar]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "TZ": "UTC"})
            times = re.findall(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC$", done.stdout, re.MULTILINE)
            moments = [time.mktime(time.strptime(time_, "%Y-%m-%d %H:%M:%S")) for time_ in dict.fromkeys(times)]
            gaps = [later - earlier for earlier, later in pairwise(moments)]
            assert gaps, done.stdout
            assert max(gaps) <= known[name] + 3600, name
