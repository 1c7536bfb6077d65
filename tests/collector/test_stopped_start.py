"""SIGTERM ends a start that waits, for a lock, a database or a key service, and the exit code is 0."""

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from loadtest.testbed.collector import Collector
from loadtest.testbed.ports import HOST
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.waiting import until

WITHIN = 30.0
"""Seconds that docs/operations/collector.md has for the end."""


def ends(collector: Collector, number: int) -> None:
    """Send a signal to a collector that starts: it has to end with code 0, and say why."""
    assert collector.process is not None
    assert collector.process.wait_after(number, WITHIN) == 0, collector.output
    assert "collector stopped before it served" in collector.output
    assert "Traceback" not in collector.output


@contextmanager
def silent_server() -> Iterator[tuple[int, socket.socket]]:
    """A server that takes connections and answers nothing; its port, and the socket."""
    with socket.create_server((HOST, 0)) as listening:
        yield listening.getsockname()[1], listening


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_start_that_waits_for_a_lock(postgresql: Postgresql, tmp_path: Path, number: int) -> None:
    """Somebody restores a backup, or changes a table by hand."""
    url = postgresql.database()
    name = url.rpartition("/")[2]
    psql = [postgresql._programs / "psql", "-qXh", HOST, "-p", str(postgresql.port), "-U", "postgres", name]
    with (
        closing(Collector(tmp_path / "collector", url)) as collector,
        subprocess.Popen(psql, stdin=subprocess.PIPE, text=True) as holder,
    ):
        assert holder.stdin is not None
        holder.stdin.write("BEGIN; LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE;\n")
        holder.stdin.flush()
        held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted"
        until(lambda: postgresql.ask_in(name, held) != "0", "the table is locked", seconds=60)
        waiting = f"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '{name}'"
        collector.begin()
        until(lambda: postgresql.ask(waiting) == "1", "the collector waits", seconds=60)
        ends(collector, number)
        holder.stdin.close()


def test_start_that_waits_for_a_database(tmp_path: Path) -> None:
    """The server takes the connection and is busy with its recovery, or with nothing."""
    with silent_server() as (port, listening):
        collector = Collector(tmp_path / "collector", f"postgresql://me@{HOST}:{port}/ledger")
        with closing(collector):
            collector.begin()
            connection, _ = listening.accept()
            with connection:
                ends(collector, signal.SIGTERM)


def test_start_that_waits_for_a_key_service(tmp_path: Path) -> None:
    """The command of a key service hangs."""
    asked = tmp_path / "asked"
    script = tmp_path / "unwrap"
    script.write_text(f"#!/bin/sh\n: >{asked}\nexec sleep 3600\n")
    script.chmod(0o755)
    database = f"sqlite:///{tmp_path}/ledger.db"
    collector = Collector(tmp_path / "collector", database, encryption={"command": [str(script)]})
    with closing(collector):
        collector.begin()
        until(asked.exists, "the key service is asked", seconds=60)
        ends(collector, signal.SIGTERM)
