"""Markers of an erased customer vanish from every byte of a running deployment: each copy expires by itself."""

import base64
import gzip
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa
from redis import Redis as Client

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import directory_log, directory_parts
from edgeproxy.collector.directory.version_log import READABLE_SECONDS
from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from loadtest.testbed.collector import ADMIN, EDGE, SERVICE, Collector, sha256
from loadtest.testbed.customers import key_of
from loadtest.testbed.edge import StartEdge
from loadtest.testbed.fork_server import PAUSES
from loadtest.testbed.redis import Redis
from loadtest.testbed.waiting import until
from tests.e2e.test_planted_customers import METERS, ask, run
from tests.support.byte_search import expand, find_marks, search_files, search_texts
from tests.support.collector_fixtures import StartCollector, only_sqlite
from tests.support.read_paths import list_paths
from tests.support.used_database import use_database

GONE, STAYS = "planted-000", "planted-001"
NAMES = {GONE: "cust-000", STAYS: "cust-001"}
"""Markers that occur in all texts of a customer except its name, which stays in the ledger."""
EXPORTED_SECONDS = 3 * 3600
"""The age in seconds of usage whose hour is closed, so that it is exported."""
KEY_SECONDS_MAX = 600
"""The hub may hold a part of a replaced version for this number of seconds."""

PUBLISHER_PAUSES = " ".join(
    f"edgeproxy.collector.directory.publisher:{name}=1" for name in ("WHOLE_REST_SECONDS", "CLEAN_SECONDS")
)


def live(collector: Collector, mark: str) -> None:
    """Create a customer with its marker in every field that accepts text."""
    name = NAMES[mark]
    path, email = f"/v1/customers/{name}", f"ada@{mark}.example"

    def send(method: str, where: str, body: Any = None, **options: Any) -> Any:
        answer = collector.send(method, where, body, **options)
        assert answer.status < 300, (where, answer)
        return orjson.loads(answer.body or b"{}")

    fields = {"external_id": f"crm-{mark}", "metadata": {"note": f"of {mark}"}, "message": f"Hello {mark}"}
    send("POST", "/v1/customers", {"name": name, "tier": "basic", **fields})
    send("POST", f"{path}/contacts", {"email": email, "role": "owner"})
    send("PUT", f"{path}/alert-address", {"email": email})
    send("POST", f"{path}/keys", {"name": f"key of {mark}", "sha256": sha256(key_of(name))})
    send("POST", f"{path}/limits/raise", {"factor": 2, "for": "8h", "why": f"launch of {mark}"})
    send("POST", "/v1/privacy/requests", {"customer": name, "kind": "access", "person": email, "note": mark})
    hook = {"url": f"http://127.0.0.1:1/{mark}", "description": f"hook of {mark}"}
    endpoint = send("POST", f"{path}/webhook-endpoints", hook)["id"]
    send("POST", f"{path}/webhook-endpoints/{endpoint}/test")
    send("PUT", f"{path}/holdings/desks/user-{mark}", token=SERVICE)
    inner = orjson.dumps({"customer": name, "mail": email})
    packed = base64.b64encode(gzip.compress(inner)).decode()
    bad = {"source": "app", "meter": "none", "value": 1, "customer": name}
    rejected = [
        bad | {"id": f"1-{mark}"},
        bad | {"id": f"2-{mark}", "customer": [name]},
        {"data": inner.decode(), "id": f"3-{mark}"},
        {"data_base64": base64.b64encode(inner).decode()},
        {"data_base64": packed},
        {"subject": f"customers%2F{name}", "mail": email},
        bad | {"id": mark, "more": "x" * 20_000},
    ]
    person = bad | {"meter": "people", "value": f"user-{mark}"}
    hours_ago = format_timestamp(round((time.time() - EXPORTED_SECONDS) * 1000))
    people = [person | {"id": name}, person | {"id": f"{name}-before", "time": hours_ago}]
    send("POST", "/v1/events", people, token=SERVICE)
    send("POST", "/v1/events", rejected, token=SERVICE)


def age_versions(collector: Collector) -> None:
    """Age the versions of the directory until replaced ones may be deleted."""

    async def do(database: Database) -> None:
        async with database.writing() as connection:
            age = READABLE_SECONDS + 1
            left = sa.update(directory_log).where(directory_log.c.left_at.is_not(None))
            await connection.execute(left.values(left_at=directory_log.c.left_at - age))
            await connection.execute(sa.update(directory_parts).values(created_at=directory_parts.c.created_at - age))

    use_database(collector.settings["database"], do)


def list_hub_keys(client: "Client[bytes]", mark: str) -> dict[bytes, int]:
    """Return the hub's keys with a marker, each with its remaining seconds; -1 for no expiry."""
    return {key: client.ttl(key) for key in client.scan_iter() if mark in find_marks(key + (client.dump(key) or b""))}


def read_all(collector: Collector, *customers: str) -> dict[str, set[str]]:
    """Return the markers in all API answers about these customers and in general, archives included, with their
    paths.
    """
    answers = {path: collector.get(path, token=ADMIN) for path in list_paths(customers) if "stream" not in path}
    assert all(answer.status < 500 for answer in answers.values())
    return search_texts({path: answer.body for path, answer in answers.items()})


@only_sqlite("database")
@pytest.mark.timeout(300)
def test_each_copy_forgets_an_erased_customer_by_itself(
    start_collector: StartCollector, start_edge: StartEdge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv(PAUSES, PUBLISHER_PAUSES)
    directory_signatures.create_key_file(tmp_path / "directory.key")
    (tmp_path / "master.key").write_bytes(bytes(range(32)))
    (tmp_path / "master.key").chmod(0o600)
    (tmp_path / "redis").mkdir()
    with Redis(tmp_path / "redis", "--rdbcompression", "no") as redis, Client.from_url(redis.url) as client:
        hub = {"hub": redis.url}
        collector = start_collector(
            meters=METERS,
            directory={"key": str(tmp_path / "directory.key"), **hub},
            encryption={"file": str(tmp_path / "master.key")},
            privacy={"hash_end_users": True, "erasures": str(tmp_path / "erased.jsonl")},
            webhooks={"encryption": base64.b64encode(bytes(32)).decode(), "networks": ["127.0.0.0/8"]},
        )
        edge = start_edge(
            **hub,
            usage={"collector": f"http://127.0.0.1:{collector.port}", "token": EDGE},
            directory={"from": "hub", "trust": Signer.load(tmp_path / "directory.key").public_key},
        )
        for mark in NAMES:
            live(collector, mark)
        until(lambda: {ask(edge, name) for name in NAMES.values()} == {200}, "an edge serves them")
        edge_folder, data, parquet = tmp_path / "edge", collector.database.parent, tmp_path / "parquet"
        parquet.mkdir()
        export = ("export", "-c", collector.file, "--parquet", f"file://{parquet}")
        run(*export)
        exported = b"".join(form for file in parquet.rglob("*.parquet") for form in expand(file.read_bytes()))
        assert all(name.encode() in exported for name in NAMES.values()), "names are those of the ledger"
        assert search_files(parquet) == {}, "people are hashed by secrets of their customers"
        read = read_all(collector, *NAMES.values())
        for mark, other in ((GONE, STAYS), (STAYS, GONE)):
            assert f"/v1/customers/{NAMES[mark]}/data" in read[mark] - read[other]
        assert {GONE, STAYS} <= search_files(edge_folder).keys() & search_files(data).keys()
        assert list_hub_keys(client, GONE)

        run("privacy", "erase", "-c", collector.file, NAMES[GONE], "--yes")
        until(lambda: ask(edge, NAMES[GONE]) == 401, "the edge refuses it")
        until(lambda: GONE not in search_files(edge_folder), "the edge's files have forgotten", seconds=90.0)

        def expires() -> bool:
            return all(-1 < seconds <= KEY_SECONDS_MAX for seconds in list_hub_keys(client, GONE).values())

        until(expires, "a version with everybody replaces those in the hub", seconds=150.0)
        age_versions(collector)
        until(lambda: GONE not in search_files(data), "the collector's files have forgotten", seconds=120.0)
        assert STAYS in search_files(edge_folder).keys() & search_files(data).keys()
        assert GONE not in read_all(collector, *NAMES.values())
        run(*export)
        assert search_files(parquet) == {}
        assert [*(tmp_path / "tmp").iterdir()] == [], "downloads are in files without a name"
        assert ask(edge, NAMES[STAYS]) == 200
