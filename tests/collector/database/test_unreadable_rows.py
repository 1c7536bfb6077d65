"""A row of each table that cannot be read: every job, list, page, export and command goes on with the others."""

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from edgeproxy import cli
from edgeproxy.collector.api.app import UNREADABLE
from edgeproxy.collector.api.groups import GROUPS
from edgeproxy.collector.database.billing_tables import plan_versions
from edgeproxy.collector.database.book_text import SEALED
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.encryption.data_keys import CIPHERTEXT
from edgeproxy.collector.privacy.own_rows import select_own
from loadtest.testbed.collector import ADMIN, SERVICE
from loadtest.testbed.waiting import until
from tests.support.filled_site import fill, invoice_of, pages_of
from tests.support.site import AN_ID, PLACES, PagesStage
from tests.support.used_database import use_database

HEADS = frozenset({"encryption_keys", "book_keys", "rollup", "audit_head", "credit_head", "minutes_floor"})
"""Tables with one row on which everything depends; a collector without it does not start."""
COMMANDS = (
    ("export",),
    ("quarantine", "ls"),
    ("encryption", "status"),
    ("privacy", "books"),
    ("privacy", "stripe"),
    ("privacy", "export", "bolt", "OUTPUT"),
    ("billing", "invoices"),
    ("verify",),
)


EXPECTED_CODES = {("verify",): 1}
"""Exit codes of commands that say that rows were changed."""
Damage = Callable[[str], str | bytes | None]


def change_type(value: str) -> str | None:
    """JSON of another type."""
    return "7" if value[:1] in ("{", "[") else None


def change_shape(value: str) -> str | None:
    """JSON of the right type with other members."""
    return {"{": '{"x":["y"]}', "[": '[[null],{"x":7}]'}.get(value[:1])


def change_word(value: str) -> str | None:
    """A text that is no enum, date, decimal or JSON."""
    return None if value.startswith((CIPHERTEXT, SEALED)) else "poison"


def change_ciphertext(value: str) -> str | None:
    """A ciphertext of which one character is another one."""
    if not value.startswith((CIPHERTEXT, SEALED)):
        return None
    return f"{value[:-6]}{'A' if value[-6] != 'A' else 'B'}{value[-5:]}"


def undecodable(value: str) -> bytes | None:
    """Bytes that are no UTF-8, which SQLite alone stores."""
    return None if value.startswith((CIPHERTEXT, SEALED)) else b"\xff\xfe"


DAMAGES: tuple[Damage, ...] = (change_word, change_ciphertext, change_type, change_shape, undecodable)
CASES = [("sqlite", damage) for damage in DAMAGES] + [("postgresql", damage) for damage in DAMAGES[:2]]
"""What a database returns for damaged JSON is decided by neither; PostgreSQL stores no text that is no UTF-8."""


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
"""The tables of which a row is set aside, by the damage."""
SUMS = ("/billing/executive", "/console/business-metrics")
"""Sums of money, which are refused beside an unreadable row of the books instead of leaving it out."""


class Damaged(NamedTuple):
    """A damaged row: its key, and its columns as they were."""

    table: str
    key: tuple[object, ...]
    columns: dict[str, str]


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagesStage]:
    """A site with rows in most tables, on each kind of database."""
    folder = tmp_path_factory.mktemp("poisoned")
    (folder / "master.key").write_bytes(os.urandom(32))
    (folder / "master.key").chmod(0o600)
    url = request.getfixturevalue("postgresql").database() if request.param == "postgresql" else None
    stage = PagesStage(folder, url, collector={"encryption": {"file": str(folder / "master.key")}})
    with closing(stage):
        fill(stage)
        fill_rest(stage)
        stage.collector.end()
        yield stage


def fill_rest(stage: PagesStage) -> None:
    """Have rows in tables that `fill` leaves empty."""
    collector, path = stage.collector, "/v1/customers/acme"

    def send(method: str, where: str, body: Any = None, token: str = ADMIN) -> None:
        answer = collector.send(method, where, body, token=token)
        assert answer.status < 300, (where, answer)

    send("PUT", "/v1/flags/beta", {"customers": ["acme"]})
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


def damage_rows(url: str, damage: Damage) -> list[Damaged]:
    """Damage the texts of one row of each table, of acme or its plan where rows are; return them as they were."""

    async def work(database: Database) -> list[Damaged]:
        damaged = []
        async with database.reading() as connection:
            (id_,) = (await connection.execute(sa.text("SELECT id FROM customers WHERE name = 'acme'"))).one()
        for table in metadata.tables.values():
            if table.name not in HEADS and (row := await _damage_one(database, table, id_, damage)) is not None:
                damaged.append(row)
        return damaged

    return use_database(url, work)


async def _damage_one(database: Database, table: sa.Table, customer: str, damage: Damage) -> Damaged | None:
    keys, texts = list(table.primary_key), list_texts(table)
    if not texts or not keys:
        return None
    statement = sa.select(*keys, *(sa.type_coerce(column, sa.Text()).label(f"text {column.name}") for column in texts))
    if (entry := TABLES.get(table.name)) is not None and entry.owner is not None:
        statement = statement.where(select_own(table.name, [customer], ["acme"]))
    if table is plan_versions:
        statement = statement.where(plan_versions.c.version == "standard@1")
    async with database.reading() as connection:
        rows = (await connection.execute(statement.order_by(*keys).limit(50))).all()
    for row in rows:
        key, values = row[: len(keys)], dict(zip((one.name for one in texts), row[len(keys) :], strict=True))
        if changed := {name: new for name, value in values.items() if value and (new := damage(value)) is not None}:
            await _write(database, table, key, changed)
            return Damaged(table.name, tuple(key), {name: values[name] for name in changed})
    return None


async def _write(database: Database, table: sa.Table, key: tuple[object, ...], columns: dict[str, Any]) -> None:
    async with database.writing() as connection:
        of_row = sa.and_(*(column == value for column, value in zip(table.primary_key, key, strict=True)))
        values = {
            name: sa.cast(sa.literal(value, sa.LargeBinary()), sa.Text())
            if isinstance(value, bytes)
            else sa.literal(value, sa.Text())
            for name, value in columns.items()
        }
        await connection.execute(sa.update(table).where(of_row).values(values))


def list_texts(table: sa.Table) -> list[sa.Column[Any]]:
    """The columns with a text that identifies nothing."""
    unique = {
        column.name
        for constraint in table.constraints
        if isinstance(constraint, sa.UniqueConstraint)
        for column in constraint.columns
    } | {column.name for index in table.indexes if index.unique for column in index.columns}
    owner = TABLES[table.name].owner if table.name in TABLES else None
    return [
        column
        for column in table.columns
        if not column.primary_key and not column.foreign_keys and column.name not in unique
        if not isinstance(column.type, sa.Integer | sa.BigInteger | sa.LargeBinary | sa.Float)
        if owner is None or column.name != owner.column
    ]


def repair(url: str, damaged: list[Damaged]) -> None:
    """Write damaged values back."""

    async def work(database: Database) -> None:
        for row in damaged:
            await _write(database, metadata.tables[row.table], row.key, row.columns)

    use_database(url, work)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("stage", "damage"), CASES, indirect=["stage"], ids=lambda one: getattr(one, "__name__", one))
def test_others_go_on_beside_an_unreadable_row(stage: PagesStage, damage: Damage, tmp_path: Path) -> None:
    collector, url = stage.collector, stage.collector.settings["database"]
    damaged = damage_rows(url, damage)
    keys = {one.table: ",".join(map(str, one.key)) for one in damaged}
    logged = len(collector.output)
    collector.start()
    failures: list[object] = []
    try:
        until(partial(has_run_jobs, stage), "each job ran", seconds=60.0)
        failures += [one["name"] for one in list_jobs(stage) if one["result"] == "failed"]
        for path in list_paths():
            answer = collector.get(path, token=ADMIN)
            may_fail = "acme" in path or path.startswith(SUMS)
            if answer.status >= 500 and not (may_fail and answer.json()["detail"] == UNREADABLE):
                failures.append((path, answer.body))
        for path in list_pages(stage):
            stage.operator.get(path)
            if stage.operator.status >= 500 and not path.startswith(SUMS):
                failures.append(path)
        for words in COMMANDS:
            output = str(tmp_path / "bolt.zip")
            done = CliRunner().invoke(
                cli.app, [*(output if word == "OUTPUT" else word for word in words), "-c", str(collector.file)]
            )
            if done.exit_code not in (0, EXPECTED_CODES.get(words, 0)):
                failures.append((words, done.output))
        rows = list_set_aside(collector.output[logged:])
        failures += sorted(ALERTED[damage] - set(rows))
        # A value of the books is logged by its hash, and a customer also by name; alerts of values have the key.
        is_named = (keys[table] in aside or " " in aside or "acme" in aside for table, aside in rows.items())
        assert all(is_named), rows
    finally:
        repair(url, damaged)
        collector.end()
    assert failures == []
    assert '"task died"' not in collector.output


def list_set_aside(output: str) -> dict[str, str]:
    """The tables with rows that were set aside, each with the keys of these."""
    keys: dict[str, str] = defaultdict(str)
    for entry in (orjson.loads(line) for line in output.splitlines() if line.startswith("{")):
        if entry["event"] == "a row cannot be read, and is set aside":
            keys[entry["table"]] += f"{entry['key']}; "
    return keys


def list_pages(stage: PagesStage) -> list[str]:
    """The paths of all pages of operators."""
    return [*pages_of("operator", invoice_of(stage, "zebra"), customer="zebra").values()]


def list_paths() -> list[str]:
    """The paths of what can be read, of each customer and without one."""
    paths = []
    for endpoint in (one for group in GROUPS for one in group.endpoints if one.method == "GET"):
        for customer in ("acme", "bolt", "zebra"):
            path = endpoint.path.format_map(Places({**PLACES, "customer": customer}))
            paths += [path] if "{customer}" in endpoint.path else [path, f"{path}?customer={customer}"]
    return list(dict.fromkeys(paths))


def has_run_jobs(stage: PagesStage) -> bool:
    """Whether each job ran once; those that hold the lock of others end with the collector."""
    return all(one["result"] or one["lock"] in (one["name"],) for one in list_jobs(stage))


def list_jobs(stage: PagesStage) -> list[dict[str, Any]]:
    """The jobs of the collector, with the last run of each."""
    jobs: list[dict[str, Any]] = stage.collector.get("/v1/jobs", token=ADMIN).json()["jobs"]
    return jobs


class Places(dict[str, str]):
    """The values of parameters; those of other parameters are an id of nothing."""

    def __missing__(self, key: str) -> str:
        return AN_ID
