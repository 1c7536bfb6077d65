"""Every job, list, page, export and command continues beside an unreadable row of each table."""

import inspect
import os
import random
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from traceback import format_exception
from typing import Any, NamedTuple

import orjson
import pytest
import sqlalchemy as sa
from typer import Exit
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.cli import api
from edgeproxy.collector.api.app import UNREADABLE
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.pages.site import Audience
from loadtest.testbed.collector import ADMIN, SERVICE
from loadtest.testbed.ports import HOST
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.waiting import until
from tests.cli.test_every_command import FUNCTIONS, list_words
from tests.support.damaged_rows import (
    COLUMNS,
    DAMAGES,
    Columns,
    Damage,
    Damaged,
    change_ciphertext,
    change_shape,
    change_type,
    change_word,
    damage_columns,
    damage_rows,
    draw_damages,
    undecodable,
)
from tests.support.filled_site import fill, invoice_of, pages_of
from tests.support.read_paths import list_paths
from tests.support.site import AN_ID, PLACES, PagesStage
from tests.support.used_database import use_database
from tests.support.visitor import Visitor

pytestmark = pytest.mark.usefixtures("sqlite_without_threads")

COMMANDS = (
    *("verify", "export", "backup", "sign-in", "quarantine ls", "quarantine show", "database rights"),
    *("encryption status", "privacy books", "privacy export", "privacy stripe", "billing close", "billing invoices"),
    *("billing recover", "billing reconcile", "billing accounting", "directory back"),
    *("privacy erase", "quarantine replay", "encryption rotate", "encryption rows", "billing sync"),
)
"""Commands that open the database. The commands that call the API come from the table of all commands."""


def name_case(damage: Damage | Columns | int) -> str:
    if isinstance(damage, dict):
        return f"columns {COLUMNS.index(damage)}"
    return f"drawing {damage}" if isinstance(damage, int) else damage.__name__


def list_cases(damages: Sequence[Damage | Columns | int], soaked: Sequence[Damage | Columns | int]) -> list[Any]:
    """List the cases of a kind of database: damages of all texts of a row, values of columns, numbers of drawings."""
    cases = [(damage, ()) for damage in damages] + [(one, pytest.mark.soak) for one in soaked]
    return [pytest.param(one, marks=marks, id=name_case(one)) for one, marks in cases]


JSON = {"alerts", "audit", "customers", "dead_letters", "flags", "incidents", "webhook_endpoints"}
BOOKS = {"credit_entries", "credit_notes", "credit_transactions", "invoice_lines", "invoices", "subscriptions"}
ALERTED: dict[Damage, set[str]] = {
    change_type: JSON - {"dead_letters"},
    change_shape: {"customers", "flags"},
    change_word: JSON | BOOKS | {"reconciliations"},
    undecodable: JSON | BOOKS | {"reconciliations"},
    change_ciphertext: {
        *("alert_deliveries", "audit", "billing_details", "cancellations", "contacts", "credit_notes", "invoices"),
        *("limit_raises", "privacy_requests", "webhook_endpoints", "webhook_messages"),
    },
}
"""By damage: the tables with a row that is set aside."""
DESCRIPTIONS = ("/docs", "/v1/openapi.json")
"""Beginnings of paths that describe the API, from no row: each takes most of a second of CPU in a new collector."""
CUSTOMERS = ("acme", "bolt", "zebra")
SUMS = ("/billing/executive", "/console/business-metrics")
"""Sums of money. They are refused if a row of the books is unreadable, so that no sum leaves it out."""


class Filled(NamedTuple):
    """A stopped site with rows in most tables, and its answers without a damaged row."""

    stage: PagesStage
    customer: Visitor
    """A contact of zebra who has signed in."""
    places: dict[str, str]
    """Ids of existing things, by the names of path parameters."""
    answers: dict[str, bytes]
    """The answers of the API about bolt and zebra, by path."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    folder = tmp_path_factory.mktemp("poisoned")
    (folder / "master.key").write_bytes(os.urandom(32))
    (folder / "master.key").chmod(0o600)
    stage = PagesStage(folder, collector={"encryption": {"file": str(folder / "master.key")}})
    with closing(stage):
        fill(stage)
        fill_rest(stage)
        with stage.customer("zebra") as customer:
            customer.get("/account")
            until(lambda: not list_waiting(stage), "each job ran", seconds=60.0, step=0.25)
            places = find_places(stage)
            paths = [path for path in list_paths(CUSTOMERS, places) if is_of_others(path)]
            answers = {path: stage.collector.get(path, token=ADMIN) for path in paths}
            stage.collector.end()
            yield Filled(
                stage, customer, places, {path: answer.body for path, answer in answers.items() if answer.status == 200}
            )


@pytest.fixture
def on_sqlite(filled: Filled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Filled:
    """The site with a copy of its database."""
    collector = filled.stage.collector
    shutil.copy(collector.database, tmp_path / "copy.db")
    monkeypatch.setitem(collector.settings, "database", f"sqlite:///{tmp_path}/copy.db")
    return filled


@pytest.fixture
def on_postgresql(filled: Filled, postgresql: Postgresql, monkeypatch: pytest.MonkeyPatch) -> Filled:
    """The site with a copy of its database on PostgreSQL."""
    settings, target = filled.stage.collector.settings, postgresql.empty_database()
    result = CliRunner().invoke(cli.app, ["database", "copy", "--from", settings["database"], "--to", target])
    assert result.exit_code == 0, result.output
    monkeypatch.setitem(settings, "database", target)
    return filled


def find_places(stage: PagesStage) -> dict[str, str]:
    """Return ids of existing things, by the names of path parameters."""

    def first(path: str, list_: str) -> str:
        return str(stage.collector.get(path, token=ADMIN).json()[list_][0]["id"])

    return {
        **PLACES,
        "invoice": invoice_of(stage, "zebra"),
        "incident": first("/v1/incidents", "incidents"),
        "maintenance": first("/v1/maintenance", "maintenance"),
        "request": first("/v1/privacy/requests", "requests"),
        "alert": first("/v1/alerts", "alerts"),
        "letter": first("/v1/dead-letters", "dead_letters"),
        "flag": "beta",
        "edge": "edge-eu-1",
        "meter": "workflows",
    }


TIMES = re.compile(
    rb'"(as_of|at|now|last_[a-z_]+|[a-z]+_at|computed_at|seconds|age[a-z_]*|since|until|version|recent|used|peak)":'
    rb'("[^"]*"|[0-9.]+|null)'
)
"""Members of answers that differ a minute later."""
PASSING = ("/data", "/access", "/limits", "/v1/refusals", "/billing/statements")
"""Beginnings and ends of paths whose answers change: archives with their time, states of this moment, statements."""


def is_of_others(path: str) -> bool:
    """Return whether a path is about a customer without a damaged row, and has a stable answer."""
    return ("bolt" in path or "zebra" in path) and not path.endswith(PASSING) and not path.startswith(PASSING)


def fill_rest(stage: PagesStage) -> None:
    """Fill the tables that `fill` leaves empty."""
    collector, path = stage.collector, "/v1/customers/acme"

    def send(method: str, where: str, body: Any = None, token: str = ADMIN) -> None:
        answer = collector.send(method, where, body, token=token)
        assert answer.status < 300, (where, answer)

    send("PUT", "/v1/flags/beta", {"customers": ["acme"]})
    hold_against_stripe(stage)
    send("POST", "/v1/tokens", {"name": "acme-ci", "customer": "acme"})
    send("POST", f"{path}/limits/raise", {"factor": 2, "for": "8h", "why": "launch"})
    send("POST", "/v1/privacy/requests", {"customer": "acme", "kind": "access", "person": "Ada", "note": "mail"})
    for item in ("one", "two"):
        send("PUT", f"{path}/holdings/workflows/{item}", token=SERVICE)
    send("DELETE", f"{path}/holdings/workflows/two", token=SERVICE)
    send("PUT", "/billing/spend-alerts?customer=acme", {"amounts": [100]})
    send("POST", f"/billing/invoices/{invoice_of(stage, 'acme')}/credit", {"amount": 5, "why": "sorry"})
    (alert, *_) = collector.get("/v1/alerts", token=ADMIN).json()["alerts"]
    send("POST", f"/v1/alerts/{alert['id']}/acknowledge", {"why": "seen"})
    send("PUT", "/billing/subscription/coupon?customer=zebra", {"coupon": "LAUNCH20"})
    send("POST", "/billing/subscription/cancel?customer=acme", {"reason": "other", "comment": "bye"})
    plan = {"begins_at": "2030-01-01T00:00:00Z", "ends_at": "2030-01-01T01:00:00Z"}
    send("POST", "/v1/maintenance", {"title": "Move", "regions": ["us-east"], "message": "A move.", **plan})


def hold_against_stripe(stage: PagesStage) -> None:
    """Insert a comparison of our books and Stripe's, for the figures of the roll-out."""
    row = {"id": "c-1", "kind": "C", "since": 0, "until": 1, "at": 2_000_000_000_000, "compared": 3, "units": 3}
    row |= {"different": 0, "level": "none", "rows": "[]", "meters": '{"llm_tokens":[3,3,0]}'}

    async def insert(database: Database) -> None:
        async with database.writing() as connection:
            await connection.execute(sa.insert(metadata.tables["reconciliations"]), [row])

    use_database(stage.collector.settings["database"], insert)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("damage", list_cases([*DAMAGES[:2], COLUMNS[0], 0], [*DAMAGES[2:], COLUMNS[1], *range(1, 20)]))
def test_unreadable_row_affects_no_other_row(
    on_sqlite: Filled, damage: Damage | Columns | int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(on_sqlite, damage, seed, tmp_path, monkeypatch)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("damage", list_cases([], [*DAMAGES[:2], *range(20, 25)]))
def test_unreadable_row_affects_no_other_row_on_postgresql(
    on_postgresql: Filled, damage: Damage | Columns | int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each night only: neither database decides if JSON is damaged. PostgreSQL stores UTF-8 only."""
    poison(on_postgresql, damage, seed, tmp_path, monkeypatch)


def poison(
    filled: Filled, damage: Damage | Columns | int, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage rows of a filled site, then run all jobs, endpoints, pages and commands."""
    collector, url = filled.stage.collector, filled.stage.collector.settings["database"]
    if isinstance(damage, int):
        damaged = draw_damages(url, random.Random(seed + damage))
    elif isinstance(damage, dict):
        damaged = damage_columns(url, damage)
    else:
        damaged = damage_rows(url, damage)
    logged = len(collector.output)
    collector.start()
    try:
        failures = [*try_all(filled, damaged), *try_api_commands(filled, tmp_path, monkeypatch)]
    finally:
        collector.end()
    for words in COMMANDS:
        failures += try_command(filled, words, collector.file, tmp_path, {})
    output = collector.output[logged:]
    rows, keys = list_set_aside(output), {one.table: ",".join(map(str, one.key)) for one in damaged}
    if isinstance(damage, dict):  # An alert of another version may have an unknown kind.
        failures += sorted(damage.keys() - {"alerts", "customers", "reconciliations"} - set(rows))
    elif not isinstance(damage, int):
        failures += sorted(ALERTED[damage] - set(rows))
    # A value of the books is logged by its hash, and a customer also by name; alerts of values have the key.
    failures += [
        (table, aside)
        for table, aside in rows.items()
        if table in keys and keys[table] not in aside and " " not in aside and "acme" not in aside
    ]
    assert failures == [], damaged
    assert rows
    assert '"task died"' not in output


def try_all(filled: Filled, damaged: Sequence[Damaged]) -> Iterator[object]:
    """Wait for each job, and read all endpoints and pages; return what failed."""
    stage, collector = filled.stage, filled.stage.collector
    until(lambda: not list_waiting(stage), "each job ran", seconds=60.0, step=0.25)
    yield from (job["name"] for job in list_jobs(stage) if job["result"] == "failed")
    own = {str(part) for one in damaged for part in one.key if len(str(part)) > 3}
    for path in list_paths(CUSTOMERS, filled.places):
        if path.startswith(DESCRIPTIONS):
            continue
        answer = collector.get(path, token=ADMIN)
        may_fail = "acme" in path or path.startswith(SUMS) or not own.isdisjoint(path.split("/"))
        if answer.status >= 500 and not (may_fail and answer.json()["detail"] == UNREADABLE):
            yield path, answer.body
        before = filled.answers.get(path)
        if before is not None and answer.status == 200 and TIMES.sub(b"", before) != TIMES.sub(b"", answer.body):
            yield path, before, answer.body
    for path in ("/status", "/status.json", "/status.atom", "/status/history"):
        if collector.get(path).status >= 500:
            yield path
    audiences: tuple[tuple[Visitor, Audience], ...] = ((stage.operator, "operator"), (filled.customer, "customer"))
    for who, audience in audiences:
        for path in pages_of(audience, filled.places["invoice"], customer="zebra").values():
            who.get(path)
            if who.status >= 500 and not path.startswith(SUMS):
                yield path
    for path, body, token in (
        ("/v1/customers/bolt/keys", {"name": "new"}, ADMIN),
        ("/v1/events", {"id": "new", "source": "app", "customer": "bolt", "meter": "tokens", "value": 3}, SERVICE),
    ):
        answer = collector.send("POST", path, body, token=token)
        if answer.status >= 300:
            yield path, answer.body


def try_api_commands(filled: Filled, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Run each command that calls the API, without its changes; return what failed."""
    send = api.Api.call

    def call(self: api.Api, method: str, path: str, body: object = None, **options: Any) -> Any:
        if method != "GET":
            raise Exit(0)
        return send(self, method, path, body, **options)

    monkeypatch.setattr(api.Api, "call", call)
    (folder / "list").write_text("one\n")
    environ = {"EDGEPROXY_COLLECTOR": f"http://{HOST}:{filled.stage.collector.port}", "EDGEPROXY_TOKEN": ADMIN}
    for words, function in FUNCTIONS.items():
        if "collector" in inspect.signature(function).parameters and words != "probe":
            yield from try_command(filled, words, folder / "list", folder, environ)


def try_command(
    filled: Filled, words: str, file: Path, folder: Path, environ: Mapping[str, str]
) -> Iterator[tuple[str, object]]:
    """Run a command. Yield its failure unless it ended with a message."""
    values = {"customer": "zebra", "to": str(folder / f"{words}.zip"), "edge": "edge-eu-1", "seq": "1", "line": "0"}
    values |= {"period": "2026-10", "day": "2026-11-27", "since": "1h", "invoice": filled.places["invoice"]}
    values |= {"config": str(file), "subject": "zebra", "change": AN_ID}
    given = list_words(words, file, "1", **values)
    result = CliRunner().invoke(cli.app, [*words.split(), *given], env=environ)
    if not (result.exception is None or isinstance(result.exception, SystemExit)):
        yield words, "".join(format_exception(result.exception))
    elif "Traceback" in result.output or "answered 500" in result.output:
        yield words, result.output


def list_set_aside(output: str) -> dict[str, str]:
    """Return the tables with rows that were set aside, and the keys of these rows."""
    keys: dict[str, str] = defaultdict(str)
    for entry in (orjson.loads(line) for line in output.splitlines() if line.startswith("{")):
        if entry["event"] == "a row cannot be read, and is set aside":
            keys[entry["table"]] += f"{entry['key']}; "
    return keys


def list_waiting(stage: PagesStage) -> list[str]:
    """Return the jobs that have not run yet. Jobs under another job's lock are left out."""
    return [job["name"] for job in list_jobs(stage) if not job["result"] and job["lock"] != job["name"]]


def list_jobs(stage: PagesStage) -> list[dict[str, Any]]:
    """Return the collector's jobs with the last run of each."""
    jobs: list[dict[str, Any]] = stage.collector.get("/v1/jobs", token=ADMIN).json()["jobs"]
    return jobs
