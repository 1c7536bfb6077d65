"""`edgeproxy encryption` and its setting: a real collector, and processes that are killed in the midst of the work."""

import asyncio
import os
import sqlite3
import sys
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.accounts.ids import generate_id
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.encryption_tables import data_keys
from edgeproxy.collector.encryption.data_keys import wrap_data_key
from edgeproxy.collector.encryption.keyring import open_keyring
from edgeproxy.config.collector.encryption import Encryption
from loadtest.testbed.collector import Collector, verified
from loadtest.testbed.process import Process, kill
from loadtest.testbed.waiting import until
from tests.support.collector_fixtures import StartCollector, only_sqlite

EMAIL = "ada.lovelace@acme.example"
ROWS = 4000


def run(*arguments: str | Path) -> tuple[int, str]:
    """Run a command of edgeproxy. Return its exit code and output."""
    done = CliRunner().invoke(cli.app, list(map(str, arguments)))
    return done.exit_code, done.output


def make_key(path: Path) -> str:
    path.write_bytes(os.urandom(32))
    path.chmod(0o600)
    return str(path)


def begin(collector: Collector, verb: str, log: Path) -> Process:
    """Start a command about encryption as a process of its own."""
    return Process([sys.executable, "-m", "edgeproxy", "encryption", verb, "-c", collector.file], log)


def kill_in_the_midst(process: Process, count: Callable[[], int], most: int) -> int:
    """kill -9 once some is done and not all; the number that is done then."""
    until(lambda: not process.running or 0 < count() < most, "some is done", seconds=30.0, step=0.001)
    kill(process.pid)
    process.wait(10.0)
    return count()


@only_sqlite("database")
def test_collector_encrypts_existing_and_new_rows(start_collector: StartCollector, tmp_path: Path) -> None:
    collector = start_collector()
    for name in ("carol", "dave"):
        body = {"name": name, "tier": "basic", "external_id": f"crm-{name}", "metadata": {"note": EMAIL}}
        assert collector.send("POST", "/v1/customers", body).status == 201
        assert collector.send("PUT", f"/v1/customers/{name}/contacts", {"emails": [EMAIL]}).status == 200
    collector.end()
    assert run("encryption", "status", "-c", collector.file)[0] == 1, "nothing is encrypted"

    key = make_key(tmp_path / "key")
    collector.settings["encryption"] = {"file": key}
    collector.start()
    status = ("encryption", "status", "-c", collector.file)
    sealed = "contacts.email: 2 encrypted, 0 in the clear"
    lines = (sealed, "customers.metadata: 2 encrypted, 0 in the clear", "customers.external_id: 2 encrypted, 0 in")
    until(lambda: all(line in run(*status)[1] for line in lines), "rows of before are encrypted", seconds=30.0)
    assert collector.get("/v1/customers/carol").json()["metadata"] == {"note": EMAIL}
    assert collector.get("/v1/customers?external_id=crm-dave").json()["customers"][0]["name"] == "dave"
    code, text = run("encryption", "rotate", "-c", collector.file)
    assert (code, text) == (0, "key 2 wraps 2 data keys more; those before it are gone\n")
    assert collector.get("/v1/customers/carol/contacts").json()["emails"] == [EMAIL], "the collector meets the new key"
    assert run("privacy", "export", "-c", collector.file, "carol", tmp_path / "carol.zip")[0] == 0
    with zipfile.ZipFile(tmp_path / "carol.zip") as archive:
        assert EMAIL.encode() in archive.read("json/contacts.json")
        assert b"crm-carol" in archive.read("csv/customers.csv")
    assert run("privacy", "erase", "-c", collector.file, "carol", "--yes")[0] == 0
    assert "key 2: wraps 1 data key" in run(*status)[1]
    assert verified(collector)[0] == 0
    collector.end()

    make_key(tmp_path / "key")  # Another one in its place.
    process = collector.begin()
    until(lambda: not process.running, "the collector does not start with a wrong key")
    assert "another master key" in process.output
    assert run(*status)[0] == 2
    del collector.settings["encryption"]
    process = collector.begin()
    until(lambda: not process.running, "the collector does not start without a key")
    assert "has encrypted columns: set `encryption`" in process.output


def fill(url: str, encryption: Encryption | None) -> None:
    """Many customers: in the clear, or with data keys."""

    async def do() -> None:
        database = await Database.connect(url)
        try:
            keyring = await open_keyring(database, encryption)
            async with database.writing() as connection:
                if keyring is None:
                    texts = [(generate_id(), f"c{number}") for number in range(ROWS)]
                    insert = sa.text(
                        "INSERT INTO customers (id, name, tier, settings, metadata, created_at, version)"
                        ' VALUES (:id, :name, \'basic\', \'{"tier":"basic"}\', \'{"note":"her"}\', 1, 1)'
                    )
                    await connection.execute(insert, [{"id": id_, "name": name} for id_, name in texts])
                else:
                    rows = [(one, os.urandom(32)) for one in (generate_id() for _ in range(5 * ROWS))]
                    wrapped = [(one, wrap_data_key(keyring, one, 1, key)) for one, key in rows]
                    values = [{"customer": one, "encryption_key": 1, "wrapped": key} for one, key in wrapped]
                    await connection.execute(sa.insert(data_keys), values)
        finally:
            await database.close()

    asyncio.run(do())


def counter(url: str, sql: str) -> Callable[[], int]:
    def count() -> int:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as opened:
            number: int = opened.execute(sql).fetchone()[0]
            return number

    return count


@only_sqlite("database")
@pytest.mark.parametrize("verb", ["rows", "rotate"])
def test_encryption_command_resumes_after_a_kill(database: str, tmp_path: Path, verb: str) -> None:
    key = make_key(tmp_path / "key")
    collector = Collector(tmp_path / "collector", database, encryption={"file": key})
    collector.write()
    most = ROWS if verb == "rows" else 5 * ROWS
    fill(database, None if verb == "rows" else Encryption.model_validate({"file": key}))
    sql = {
        "rows": "SELECT count(*) FROM customers WHERE metadata LIKE 'enc1:%'",
        "rotate": "SELECT count(*) FROM data_keys WHERE encryption_key = 2",
    }[verb]
    count = counter(database, sql)
    done = kill_in_the_midst(begin(collector, verb, tmp_path / "log"), count, most)
    assert 0 < done < most, "the command was killed midway"
    code, text = run("encryption", verb, "-c", collector.file)
    assert code == 0, text
    assert str(most - done) in text, "the rest alone"
    assert count() == most
    # All is readable: by one key, the only one that is left.
    assert run("encryption", verb, "-c", collector.file)[0] == 0
    assert ("0 in the clear" if verb == "rows" else f"key 3: wraps {most} data keys") in run(
        "encryption", "status", "-c", collector.file
    )[1]
