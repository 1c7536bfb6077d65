"""Names, e-mail addresses and end users of erased customers are nowhere in any byte, even after a restored backup."""

import base64
import gzip
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard
from redis import Redis as Client
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from loadtest.testbed.collector import EDGE, SERVICE, Collector, sha256, verified
from loadtest.testbed.customers import key_of
from loadtest.testbed.edge import Edge, StartEdge
from loadtest.testbed.redis import Redis
from loadtest.testbed.waiting import until
from tests.support.byte_search import expand, find_marks
from tests.support.collector_fixtures import StartCollector, only_sqlite

METERS = {
    "requests": {"count": "requests"},
    "people": {"count": "events", "aggregate": "unique"},
    "desks": {"count": "holdings"},
}
YEAR = 200
"""Customers of the long test."""
SECRET = b"mail=ada@planted-eu-017.example&more"


def name_of(number: int) -> str:
    """Return the name of a customer. No other name begins with it."""
    return f"planted-{number:03}"


def live(collector: Collector, edge: Edge, number: int) -> None:
    """Create a customer with its people in every field that accepts text, served by an edge."""
    name = name_of(number)
    path, email, person = f"/v1/customers/{name}", f"ada@{name}.example", f"user-{name}"

    def send(method: str, where: str, body: Any = None, **options: Any) -> None:
        answer = collector.send(method, where, body, **options)
        assert answer.status < 300, (where, answer)

    fields = {"external_id": f"crm-{name}", "metadata": {"note": f"of {name}"}}
    send("POST", "/v1/customers", {"name": name, "tier": "basic", **fields})
    send("POST", f"{path}/contacts", {"email": email, "role": "owner"})
    send("PUT", f"{path}/alert-address", {"email": email})
    send("POST", f"{path}/keys", {"name": f"key of {name}", "sha256": sha256(key_of(name))})
    send("POST", f"{path}/limits/raise", {"factor": 2, "for": "8h", "why": f"launch of {name}"})
    asked = {"customer": name, "kind": "access", "person": email, "note": f"letter of {name}"}
    send("POST", "/v1/privacy/requests", asked)
    event = {"id": f"{number}", "source": "app", "customer": name, "meter": "people", "value": person}
    send("POST", "/v1/events", [event, event | {"id": f"{number}-bad", "meter": "none"}], token=SERVICE)
    send("PUT", f"{path}/holdings/desks/{person}", token=SERVICE)
    until(lambda: ask(edge, name) == 200, "an edge serves it")


def ask(edge: Edge, name: str) -> int:
    """Return the status that a customer gets."""
    return edge.ask(fields={"Authorization": f"Bearer {key_of(name)}"}).status


def read_files(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder by path, with their compressed and encoded parts expanded."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): b"\n".join(expand(file.read_bytes())) for file in files}


def find_text(files: Mapping[str, bytes], text: str) -> list[str]:
    """Return the files that contain a text."""
    return [path for path, content in files.items() if text.encode() in content]


def run(*words: object) -> str:
    """Return the output of a command of edgeproxy."""
    done = CliRunner().invoke(cli.app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    return done.output


def erase_twice_at_once(collector: Collector, name: str) -> set[str]:
    """Erase a customer by two processes at once, and return their outputs."""
    command = (sys.executable, "-m", "edgeproxy", "privacy", "erase", "-c", str(collector.file), name, "--yes")
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    return {process.communicate(timeout=60.0)[0].partition(":")[0].strip() for process in both}


@only_sqlite("database")
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("count", "erased"), [(2, 1), pytest.param(YEAR, 50, marks=pytest.mark.soak)])
def test_no_byte_of_an_erased_customer_remains(
    start_collector: StartCollector,
    start_edge: StartEdge,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    erased: int,
) -> None:
    apart = tmp_path_factory.mktemp("apart")
    directory_signatures.create_key_file(tmp_path / "directory.key")
    (tmp_path / "master.key").write_bytes(bytes(range(32)))
    (tmp_path / "master.key").chmod(0o600)
    (tmp_path / "redis").mkdir()
    with Redis(tmp_path / "redis", "--rdbcompression", "no") as redis:
        collector = start_collector(
            meters=METERS,
            directory={"key": str(tmp_path / "directory.key"), "hub": redis.url},
            encryption={"file": str(tmp_path / "master.key")},
            privacy={"pseudonyms": True, "hash_end_users": True, "erasures": str(apart / "erased.jsonl")},
        )
        edge = start_edge(
            hub=redis.url,
            usage={"collector": f"http://127.0.0.1:{collector.port}", "token": EDGE},
            directory={"from": "hub", "trust": Signer.load(tmp_path / "directory.key").public_key},
            access_log=str(tmp_path / "edge" / "access.log"),
        )
        names = [name_of(number) for number in range(count)]
        for number in range(count):
            live(collector, edge, number)
        until(
            lambda: {row["customer"] for row in collector.usage(by="customer", meter="requests")["rows"]} >= {*names},
            "served requests are in the ledger",
        )
        pseudonym = f"c-{collector.get(f'/v1/customers/{names[0]}').json()['id']}"
        run("backup", "-c", collector.file, apart / "backup.db")
        gone = names[:erased]
        if count == YEAR:
            said = erase_twice_at_once(collector, gone[0])
            assert said == {f"{pseudonym} is erased", ""}, "one of them finds no such name any more"
        for name in gone[count == YEAR :]:
            run("privacy", "erase", "-c", collector.file, name, "--yes")
        until(lambda: {ask(edge, name) for name in gone} == {401}, "no edge serves them any more")
        assert {ask(edge, name) for name in names[erased:]} == {200}
        edge.end()
        collector.end()
        Client.from_url(redis.url).save()

    files, data = read_files(tmp_path), collector.database.parent.name
    with_pseudonym = find_text(files, pseudonym)
    assert {Path(path).parts[0] for path in with_pseudonym} >= {data, "edge", "redis"}
    assert any("spool" in path for path in with_pseudonym), "what is compressed is read"
    assert {Path(path).parts[0] for path in find_text(files, names[-1])} == {data}, "the name of who stays"
    assert {name: paths for name in gone if (paths := find_text(files, name))} == {}
    assert find_text(read_files(apart), gone[0]) == ["backup.db"]
    assert verified(collector)[0] == 0

    for file in collector.database.parent.glob("ledger.db*"):
        file.unlink()
    shutil.copy(apart / "backup.db", collector.database)
    collector.start()
    collector.end()
    files = read_files(tmp_path)
    assert {name: paths for name in gone if (paths := find_text(files, name))} == {}, "erased before it serves"
    assert verified(collector)[0] == 0


@pytest.mark.parametrize(
    "write",
    [
        bytes.upper,
        lambda text: text.decode().encode("utf-16-le"),
        lambda text: text.decode().encode("utf-16-be"),
        lambda text: text.hex().encode(),
        *(lambda text, at=at: b'"' + base64.b64encode(b"a" * at + text) + b'"' for at in range(3)),
        *(lambda text, at=at: b"x" * at + base64.urlsafe_b64encode(b"\xff" * at + text) for at in range(3)),
        lambda text: b"head" + gzip.compress(text) + b"tail",
        lambda text: b"head" + zstandard.compress(base64.b64encode(text)),
    ],
)
def test_a_mark_is_found_in_each_form_that_a_program_may_have_written(write: Callable[[bytes], bytes]) -> None:
    assert set(find_marks(write(SECRET))) == {"planted-eu-017"}
    assert set(find_marks(write(b"of a network: 2001:db8:77::/48, planted-eu-"))) == set()
