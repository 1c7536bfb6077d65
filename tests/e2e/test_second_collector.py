"""A second collector on the database, which has served a customer until just now, when the first one erases it."""

from contextlib import closing
from pathlib import Path

from edgeproxy.collector.commands import privacy as commands
from edgeproxy.config.collector.load import load_collector
from edgeproxy.wire import directory_signatures
from edgeproxy.wire.directory_signatures import Signer
from loadtest.testbed.collector import ADMIN, EDGE, Collector, sha256
from loadtest.testbed.customers import key_of
from loadtest.testbed.edge import StartEdge
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.waiting import until

MARK = "planted-erased"
OTHER = "planted-other"


def live(collector: Collector, name: str) -> str:
    """Have a customer with a text about a person in whatever takes one; return its pseudonym."""
    told = {"external_id": f"crm-{name}", "metadata": {"note": f"of {name}"}}
    created = collector.send("POST", "/v1/customers", {"name": name, "tier": "basic", **told})
    assert created.status == 201, created
    path = f"/v1/customers/{name}"
    assert collector.send("POST", f"{path}/contacts", {"email": f"ada@{name}.example", "role": "owner"}).status == 201
    assert collector.send("POST", f"{path}/keys", {"name": "one", "sha256": sha256(key_of(name))}).status == 201
    assert collector.send("PATCH", path, {"metadata": {"note": f"moved: {name}"}}).status == 200
    return f"c-{created.json()['id']}"


def look(collector: Collector, pseudonym: str) -> str:
    """All that a collector shows of a customer, in lists and by itself."""
    own = f"/v1/customers/{pseudonym}"
    answers = [
        collector.get("/v1/customers", token=ADMIN, limit="100"),
        collector.get("/v1/customers", token=ADMIN, search=MARK),
        collector.get("/v1/customers", token=ADMIN, search=f"ada@{MARK}.example"),
        collector.get(own, token=ADMIN),
        collector.get(f"{own}/contacts", token=ADMIN),
        collector.get(f"{own}/keys", token=ADMIN),
        collector.get("/v1/audit", token=ADMIN, limit="1000"),
    ]
    assert {answer.status for answer in answers} == {200}, answers
    return "\n".join(answer.body.decode() for answer in answers)


def test_collector_with_cached_keys_serves_no_data_of_an_erased_customer(
    postgresql: Postgresql, tmp_path: Path, start_edge: StartEdge
) -> None:
    key, master = tmp_path / "directory.key", tmp_path / "master.key"
    directory_signatures.create_key_file(key)
    master.write_bytes(bytes(range(32)))
    master.chmod(0o600)
    settings = {
        "directory": {"key": str(key)},
        "encryption": {"file": str(master)},
        "privacy": {"pseudonyms": True, "erasures": str(tmp_path / "erased.jsonl")},
        "customers": {},
    }
    database = postgresql.database()
    with (
        closing(Collector(tmp_path / "first", database, **settings)) as first,
        closing(Collector(tmp_path / "second", database, **settings)) as second,
    ):
        first.start()
        second.start()
        pseudonym = live(first, MARK)
        live(first, OTHER)
        url = f"http://127.0.0.1:{second.port}"
        trust = Signer.load(key).public_key
        edge = start_edge(usage={"collector": url, "token": EDGE}, directory={"from": "collector", "trust": trust})

        def ask() -> int:
            return edge.ask(fields={"Authorization": f"Bearer {key_of(MARK)}"}).status

        until(lambda: ask() == 200, "an edge of the second collector serves the customer")
        assert MARK in look(second, pseudonym), "its memory is warm"
        code, output = commands.erase(load_collector(first.file, {}), pseudonym)
        assert code == 0, output
        shown = look(second, pseudonym)
        assert MARK not in shown
        assert OTHER in shown
        assert '"erased":true' in shown, "entries of the audit log are there without details"
        until(lambda: ask() == 401, "its edge refuses the customer", seconds=10.0)
        late = second.send("PATCH", f"/v1/customers/{pseudonym}", {"metadata": {"note": MARK}})
        assert late.status >= 400
        assert MARK not in look(second, pseudonym)
