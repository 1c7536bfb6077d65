"""The image of scheduled jobs that scripts/image --jobs built, as deploy/helm runs it: read-only, and as user 65532."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import yaml

from loadtest.testbed.batch_chains import NOON, Chain
from loadtest.testbed.collector import Collector
from loadtest.testbed.ports import Ports
from loadtest.testbed.postgresql import Postgresql, programs
from loadtest.testbed.waiting import until
from tests.support.containers import Compose, Image

NAME = os.environ.get("EDGEPROXY_JOBS")
"""The name of the image."""
pytestmark = pytest.mark.skipif(NAME is None, reason="of the image: scripts/image --jobs")
USER = 65532


@pytest.fixture
def server() -> Iterator[Postgresql]:
    if programs() is None:
        pytest.skip("PostgreSQL is not on this machine")
    with closing(Postgresql(archives=True)) as server:
        yield server


def test_jobs_back_up_export_and_restore_a_ledger_of_postgresql(server: Postgresql, tmp_path: Path) -> None:
    assert NAME is not None
    tmp_path.chmod(0o755)
    places = {place: tmp_path / place for place in ("backups", "objects", "config", "metrics")}
    for place in places.values():
        place.mkdir()
        shutil.chown(place, USER, USER)
    server.wal.chmod(0o777)  # The job removes files that no backup needs.
    url = server.database()
    with ExitStack() as ends:
        collector = ends.enter_context(closing(Collector(tmp_path / "collector", url)))
        ports = ends.enter_context(closing(Ports(1)))
        collector.start()
        assert collector.post(Chain().next()).status == 200
        settings = yaml.safe_load(collector.file.read_text())
        shutil.copy(settings["billing"]["plans"], places["config"] / "plans.yaml")
        settings["billing"]["plans"] = "/etc/edgeproxy/plans.yaml"
        (places["config"] / "collector.yaml").write_text(yaml.safe_dump(settings))
        service = {
            "image": NAME,
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "tmpfs": ["/tmp"],
            "environment": {
                "DATABASE_URL": url,
                "BACKUP_URL": re.sub(r"//[^@]*@", "//postgres@", url).rpartition("/")[0] + "/postgres",
                "BACKUPS": "/var/backups/edgeproxy",
                "WAL": "/wal",
                "PARQUET_URL": "file:///objects",
                "METRICS": "/metrics",
                "DRILL_PORT": str(ports.numbers[0]),
            },
            "volumes": [
                f"{places['config']}:/etc/edgeproxy:ro",
                f"{places['backups']}:/var/backups/edgeproxy",
                f"{places['objects']}:/objects",
                f"{places['metrics']}:/metrics",
                f"{server.wal}:/wal",
            ],
        }
        file = tmp_path / "compose.yaml"
        file.write_text(yaml.safe_dump({"services": {"job": service}}))
        compose = Compose(file, {NAME: Image(NAME, ends)}, tmp_path, ends, host=True)
        compose.run("job", "backup")
        assert collector.post(Chain("edge-2").next()).status == 200
        name = url.rpartition("/")[2]
        closed = f"SELECT count(*) FROM rollup WHERE hour > {NOON}"
        until(lambda: server.ask_in(name, closed) == "1", "the hour is closed", seconds=120)
        compose.run("job", "parquet")
        assert list(places["objects"].rglob("*.parquet"))
        server.ask("SELECT pg_switch_wal()")
        for segment in server.wal.iterdir():
            segment.chmod(0o644)
        assert "2 edges, 2 batches" in compose.run("job", "restore-drill"), (
            "batches after the base backup are recovered"
        )
    for job in ("backup", "parquet", "restore-drill"):
        assert (
            f'edgeproxy_job_success{{task="{job}"}} 1' in (places["metrics"] / f"edgeproxy-job-{job}.prom").read_text()
        )
