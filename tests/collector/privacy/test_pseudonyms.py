"""People and programs use customer names. Stored data and edges have pseudonyms instead."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.accounts.pseudonyms import Readers, find_pseudonyms, show_names
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, SERVICE, Collector, verified
from loadtest.testbed.ports import HOST
from tests.support.collector_fixtures import StartCollector, only_sqlite
from tests.support.site import PagesStage
from tests.support.visitor import Visitor

ONE, OTHER = "c-0193e4a0-7c6b-7d2e-8f3a-1b2c3d4e5f60", "c-0193e4a0-7c6b-7d2e-8f3a-1b2c3d4e5f61"
PSEUDONYMS = {"pseudonyms": True}
EMAIL = "ada@acme.example"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f'{{"customer":"{ONE}"}}', '{"customer":"acme"}'),
        (f'{{"target":"{ONE}/k1"}}', '{"target":"acme/k1"}'),
        (f"quota:{ONE}:90,standard@2+{ONE} {ONE}.", "quota:acme:90,standard@2+acme acme."),
        (f'<a href="/console/customers/{ONE}?customer={ONE}&amp;x=%2F{ONE}">{ONE}</a>', None),
        (f"x{ONE} {ONE}0 -{ONE} {ONE}-", f"x{ONE} {ONE}0 -{ONE} {ONE}-"),
    ],
    ids=["JSON", "key", "texts", "URLs", "parts of words"],
)
def test_pseudonyms_are_replaced_in_texts_but_not_in_urls(text: str, shown: str | None) -> None:
    expected = text.replace(f">{ONE}<", ">acme<") if shown is None else shown
    assert show_names(text.encode(), {ONE: "acme"}).decode() == expected


def test_customer_sees_only_its_own_name() -> None:
    text = f"{ONE} {OTHER}".encode()
    assert find_pseudonyms(text, Readers()) == set()
    assert find_pseudonyms(text, Readers(pseudonyms=frozenset({ONE}))) == {ONE}
    assert find_pseudonyms(text, Readers(is_staff=True)) == {ONE, OTHER}
    assert show_names(text, {ONE: "acme"}).decode() == f"acme {OTHER}"


def create(collector: Collector, name: str, **fields: Any) -> str:
    """Create a customer, and return its pseudonym."""
    created = collector.send("POST", "/v1/customers", {"name": name, "tier": "basic", **fields})
    assert (created.status, created.json()["name"]) == (201, name)
    return f"c-{created.json()['id']}"


def find_tables(database: Path, text: str) -> dict[str, int]:
    """Return the number of rows that contain a text, by table of a SQLite file."""
    with closing(sqlite3.connect(database)) as opened:
        tables = [name for (name,) in opened.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        counts = {
            name: sum(text in str(row) for row in opened.execute(f'SELECT * FROM "{name}"').fetchall())
            for name in tables
        }
    return {name: count for name, count in counts.items() if count}


@only_sqlite("database")
def test_name_is_stored_in_one_row_until_its_erasure(start_collector: StartCollector, tmp_path: Path) -> None:
    collector = start_collector(privacy=PSEUDONYMS, meters={"llm_tokens": {"count": "events"}})
    tried = collector.send("POST", "/v1/customers?dry_run=true", {"name": "planted", "tier": "basic"})
    assert (tried.status, tried.json()["name"]) == (200, "planted"), "though nobody finds it afterwards"
    pseudonym, other = create(collector, "planted"), create(collector, "aaa")
    assert collector.send("POST", "/v1/customers", {"name": "planted", "tier": "basic"}).status == 409
    assert collector.send("POST", "/v1/customers", {"name": ONE, "tier": "basic"}).status == 422
    assert collector.send("POST", "/v1/customers", {"name": EMAIL, "tier": "basic"}).status == 422, "no name, nor kept"
    key = collector.send("POST", "/v1/customers/planted/keys", {"name": "k"}).json()
    assert key["customer"] == "planted"
    chain = Chain("edge-eu-1", "eu-west", int(time.time()) - 120)
    assert collector.post(chain.next((pseudonym, "requests", "api", 7))).status == 200
    event = {"id": "1", "source": "app", "customer": "planted", "meter": "llm_tokens", "value": 5}
    sent = [event, event | {"id": "2", "customer": pseudonym}, event | {"id": "3", "meter": "none"}]
    sent.append(event | {"id": "4", "customer": "nobody"})
    taken = collector.send("POST", "/v1/events", sent, token=SERVICE).json()
    assert (taken["accepted"], [one["index"] for one in taken["rejected"]]) == (2, [2, 3])
    again = collector.send("POST", "/v1/events", [event, sent[1] | {"customer": "planted"}], token=SERVICE).json()
    assert (again["accepted"], again["duplicates"]) == (0, 2), "by either name it is the same event"
    (letter,) = collector.get("/v1/dead-letters", token=ADMIN).json()["dead_letters"]
    assert letter["event"]["customer"] == "planted"

    for named in ("planted", pseudonym, pseudonym.removeprefix("c-")):
        assert collector.get(f"/v1/customers/{named}").json()["name"] == "planted"
    other_id, own_id = other.removeprefix("c-"), pseudonym.removeprefix("c-")
    assert collector.send("PATCH", "/v1/customers/planted", {"external_id": "crm/7"}).status == 200
    for named in ("planted", pseudonym, own_id, "crm/7"):
        by_api = {"EDGEPROXY_COLLECTOR": f"http://{HOST}:{collector.port}", "EDGEPROXY_TOKEN": ADMIN}
        shown = CliRunner().invoke(cli.app, ["customers", "show", named, "--json"], env=by_api)
        assert (shown.exit_code, orjson.loads(shown.stdout)["id"]) == (0, own_id)
        archive = tmp_path / f"{named.replace('/', '-')}.zip"
        exported = CliRunner().invoke(cli.app, ["privacy", "export", "-c", str(collector.file), named, str(archive)])
        assert exported.exit_code == 0, exported.output
    assert collector.send("PATCH", "/v1/customers/planted", {"external_id": "aaa"}).status == 200
    for words in (
        ["customers", "show", "aaa"],
        ["privacy", "erase", "-c", str(collector.file), "aaa", "--yes"],
    ):
        both = CliRunner().invoke(cli.app, words, env=by_api)
        assert both.exit_code == 1
        assert both.stderr.startswith("aaa is the name of one customer and the external id of another: use an id, ")
        assert own_id in both.stderr
        assert other_id in both.stderr
    unknown = CliRunner().invoke(cli.app, ["privacy", "erase", "-c", str(collector.file), "nobody", "--yes"])
    assert (unknown.exit_code, unknown.stderr) == (1, "there is no customer nobody\n")
    for named in ("planted", pseudonym):
        usage = collector.usage(customer=named, by="customer,meter")
        assert [(row["customer"], row["meter"], row["value"]) for row in usage["rows"]] == [
            ("planted", "llm_tokens", 10),
            ("planted", "requests", 7),
        ]
    names = [customer["name"] for customer in collector.get("/v1/customers", sort="name").json()["customers"]]
    assert names == sorted(names)
    assert [customer["name"] for customer in collector.get("/v1/customers", name="planted").json()["customers"]] == [
        "planted"
    ]
    assert [customer["name"] for customer in collector.get("/v1/customers", search="LANT").json()["customers"]] == [
        "planted"
    ]
    assert {
        entry["target"] for entry in collector.get("/v1/audit", token=ADMIN, target="planted").json()["entries"]
    } == {"planted"}
    made = {"name": "script", "customer": "planted"}
    token = collector.send("POST", "/v1/tokens", made, token=ADMIN).json()["secret"]
    assert collector.get("/v1/customers/planted/keys", token=token).status == 200
    assert collector.get("/v1/customers/aaa/keys", token=token).status == 403
    own = collector.send("POST", f"/v1/customers/{pseudonym}/keys", {"name": other}, token=token).json()
    assert (own["name"], own["customer"]) == (other, "planted"), "a pseudonym does not reveal the name"
    flag = {"customers": ["planted"]}
    assert collector.send("PUT", "/v1/flags/new", flag, token=ADMIN).json()["customers"] == ["planted"]

    collector.end()
    assert find_tables(collector.database, "planted") == {"customers": 1}
    done = CliRunner().invoke(cli.app, ["privacy", "erase", "-c", str(collector.file), "planted", "--yes"])
    assert done.exit_code == 0, done.output
    assert find_tables(collector.database, "planted") == {}
    for text in (b"planted", EMAIL.encode()):
        left = [file for file in collector.database.parent.iterdir() if text in file.read_bytes()]
        assert left == [], "in no byte of any file"
    collector.start()
    assert collector.get(f"/v1/customers/{pseudonym}").json()["name"] == pseudonym
    assert collector.get("/v1/customers/planted").status == 404
    assert sum(row["value"] for row in collector.usage(customer=pseudonym, by="meter")["rows"]) == 17
    assert verified(collector)[0] == 0
    assert create(collector, "planted") != pseudonym, "nothing is left that would be its usage"
    assert collector.usage(customer="planted")["rows"] == []


@only_sqlite("database")
def test_collector_with_pseudonyms_does_not_start_without_them(start_collector: StartCollector) -> None:
    collector = start_collector()
    assert collector.send("POST", "/v1/customers", {"name": "old", "tier": "basic"}).status == 201
    collector.end()
    collector.settings["privacy"] = PSEUDONYMS
    collector.write()
    collector.start()
    create(collector, "new")
    assert [customer["name"] for customer in collector.get("/v1/customers", sort="name").json()["customers"]][-2:] == [
        "new",
        "old",
    ]
    collector.end()
    del collector.settings["privacy"]
    collector.write()
    process = collector.begin()
    assert process.wait(30.0) == 2
    assert "customers have pseudonyms" in process.output


def test_pages_and_mails_show_names_and_urls_contain_pseudonyms(tmp_path: Path) -> None:
    with closing(PagesStage(tmp_path, collector={"privacy": PSEUDONYMS})) as stage:
        pseudonym = create(stage.collector, "planted")
        owner = {"email": "ada@example.com", "role": "owner"}
        assert stage.collector.send("POST", "/v1/customers/planted/contacts", owner).status == 201
        page = stage.operator.get("/console/customers")
        assert "planted" in page.text
        assert f"/console/customers/{pseudonym}" in page.links
        page = stage.operator.get(f"/console/customers/{pseudonym}")
        assert ("planted" in page.text, pseudonym in page.text) == (True, False)
        with Visitor(stage.site) as visitor:
            visitor.get("/sign-in")
            visitor.send("/sign-in", email="ada@example.com")
            mail = stage.mailbox.wait_for(1)
            assert "planted" in str(mail)
            visitor.get(stage.link_in(mail))
            visitor.send("/sign-in/link")
            page = visitor.get("/account/data")
            assert ("planted" in page.text, pseudonym in page.text) == (True, False)
            visitor.send("/account/data/delete", name=pseudonym)
            assert visitor.status == 422
            visitor.send("/account/data/delete", name="planted")
        assert stage.collector.get("/v1/customers/planted").json()["state"] == "deleting"
