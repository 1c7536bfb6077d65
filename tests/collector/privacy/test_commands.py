"""`edgeproxy privacy` beside a running collector, and erasures after a backup was restored."""

import json
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.collector.warnings import list_collector_warnings
from loadtest.testbed.collector import ADMIN, Collector, verified
from tests.support.collector_fixtures import StartCollector, only_sqlite

EMAIL = "ada.lovelace@acme.example"


def run(*arguments: str | Path) -> tuple[int, str]:
    """Run a command of edgeproxy, and return its exit code and output."""
    done = CliRunner().invoke(cli.app, list(map(str, arguments)))
    return done.exit_code, done.output


def fill(collector: Collector) -> None:
    """Create a customer with a contact and a key."""
    body = {"name": "carol", "tier": "basic", "external_id": "crm-7", "metadata": {"note": EMAIL}}
    assert collector.send("POST", "/v1/customers", body).status == 201
    assert collector.send("PUT", "/v1/customers/carol/contacts", {"emails": [EMAIL]}).status == 200
    assert collector.send("POST", "/v1/customers/carol/keys", {"name": "server"}).status == 201


def find_tables(database: Path, text: str) -> set[str]:
    """Return the tables of a SQLite file that contain a text."""
    with closing(sqlite3.connect(database)) as opened:
        tables = [name for (name,) in opened.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name for name in tables if text in str(opened.execute(f'SELECT * FROM "{name}"').fetchall())}


@only_sqlite("database")
def test_erased_customer_stays_erased_after_a_backup_is_restored(
    start_collector: StartCollector, tmp_path: Path
) -> None:
    listed = tmp_path / "apart.jsonl"
    collector = start_collector(privacy={"erasures": str(listed)})
    fill(collector)
    erase = ("privacy", "erase", "-c", collector.file)
    assert run("backup", "-c", collector.file, tmp_path / "backup.db")[0] == 0
    exported = run("privacy", "export", "-c", collector.file, "carol", tmp_path / "carol.zip")
    assert exported[0] == 0, exported
    with zipfile.ZipFile(tmp_path / "carol.zip") as archive:
        assert EMAIL.encode() in archive.read("json/contacts.json")
    assert run("privacy", "export", "-c", collector.file, "carol", tmp_path / "carol.zip")[0] == 1, "the file exists"
    assert run("privacy", "export", "-c", collector.file, "dave", tmp_path / "dave.zip")[0] == 1
    assert not (tmp_path / "dave.zip").exists()

    assert run(*erase, "carol")[0] == 1, "the command asks for a confirmation"
    assert collector.get("/v1/customers/carol").json()["state"] == "active"
    code, text = run(*erase, "carol", "--yes")
    assert (code, text) == (0, "carol is erased: 1 alerts, 1 contacts, 1 keys\n")
    assert run(*erase, "carol", "--yes") == (0, "carol was erased before\n")
    assert run(*erase, "dave", "--yes")[0] == 1
    customer = collector.get("/v1/customers/carol").json()
    assert (customer["state"], customer["external_id"], customer["metadata"]) == ("deleted", None, {})
    assert [json.loads(line)["customer"] for line in listed.read_text().splitlines()] == [customer["id"]]
    collector.end()

    for left in collector.database.parent.glob("ledger.db*"):
        left.unlink()
    collector.database.write_bytes((tmp_path / "backup.db").read_bytes())
    assert EMAIL.encode() in collector.database.read_bytes()
    collector.start()
    assert collector.get("/v1/customers/carol").json()["state"] == "deleted", "before it serves"
    assert collector.get("/v1/customers/carol/contacts").json()["emails"] == []
    assert collector.get("/v1/customers/carol/keys").json()["keys"] == []
    assert verified(collector)[0] == 0
    collector.end()
    assert find_tables(collector.database, EMAIL) == {"audit"}, "where what was changed stays"

    listed.write_text("not an erasure\n")
    process = collector.begin()
    assert process.wait(30.0) == 2
    assert "apart.jsonl:1: is no erasure" in process.output


@pytest.mark.parametrize(("place", "warned"), [("data/list/erasures", True), ("erasures", False)])
def test_erasure_list_beside_the_database_causes_a_warning(tmp_path: Path, place: str, warned: bool) -> None:
    settings = {"privacy": {"erasures": str(tmp_path / place)}}
    with closing(Collector(tmp_path / "collector", f"sqlite:///{tmp_path}/data/ledger.db", **settings)) as collector:
        collector.write()
        warnings = list(list_collector_warnings(load_collector(collector.file, {})))
    assert any(warning.startswith("privacy.erasures: lies beside the database") for warning in warnings) == warned


@only_sqlite("database")
def test_audit_log_masks_addresses_and_limits_use_whole_ones(
    start_collector: StartCollector,
) -> None:
    collector = start_collector(privacy={"mask_addresses": True}, trusted_proxies=["127.0.0.1/32"])
    for address, kept in {"203.0.113.77": "203.0.113.0/24", "2001:db8:7:8::9": "2001:db8:7::/48"}.items():
        name = f"of-{len(address)}"
        body = {"name": name, "tier": "basic"}
        assert collector.send("POST", "/v1/customers", body, X_Forwarded_For=address).status == 201
        (entry,) = collector.get(f"/v1/audit?target={name}", token=ADMIN).json()["entries"]
        assert entry["origin"] == kept

    def report(address: str) -> int:
        return collector.send("POST", "/v1/keys/leaked", {"key": "none"}, X_Forwarded_For=address).status

    assert {report("198.51.100.1") for _ in range(10)} == {202}
    assert report("198.51.100.1") == 429
    assert report("198.51.100.2") == 202, "another address of the same network"


def test_command_prints_the_data_map() -> None:
    code, text = run("privacy", "map")
    assert code == 0
    assert "| `contacts.email` |" in text


def test_schema_module_defines_every_table_of_the_data_map() -> None:
    code = (
        "from edgeproxy.collector.database.personal_data import TABLES;"
        "from edgeproxy.collector.database.schema import metadata;"
        "print(sorted(TABLES.keys() - metadata.tables.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60.0, check=True)
    assert done.stdout == "[]\n"
