"""The erasure of customers covers each place on the data map, and is repeated after restores and crashes."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.customer_rows import insert_rows
from edgeproxy.collector.accounts.ids import generate_id, now_ms
from edgeproxy.collector.accounts.states import AccountStateError
from edgeproxy.collector.database.book_text import BookText
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.marks import Erasure
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.database.schema import directory_outbox, events, metadata
from edgeproxy.collector.database.sealed_columns import SEALED
from edgeproxy.collector.jobs import maintenance
from edgeproxy.collector.jobs.maintenance import MaintenanceJobs
from edgeproxy.collector.metrics import Metrics
from edgeproxy.collector.privacy import erasure
from edgeproxy.collector.privacy.erasure import (
    LATE_KEPT,
    LATE_MS,
    erase_customers,
    erase_due_customers,
    erase_late_rows,
    list_late,
)
from edgeproxy.collector.privacy.erasure_list import (
    ErasureList,
    InvalidErasureListError,
    record_erasures,
    replay_erasures,
)
from edgeproxy.config.collector.settings import Retention
from edgeproxy.config.customers import Customer
from loadtest.testbed.postgresql import Postgresql
from loadtest.testbed.tables_ready import put_tables
from tests.support.collector_fixtures import KINDS, only_sqlite
from tests.support.planted import NUMBERS, find_value, list_planted, marker, plant
from tests.support.used_database import use_database

CALLER = Caller("test")
LITERAL = {"literal_binds": True}


async def erase(connection: AsyncConnection, name: str) -> None:
    await erase_customers(connection, CALLER, [await customers.get_row(connection, name, lock=True)])


async def fetch_texts(connection: AsyncConnection) -> dict[tuple[str, str], str]:
    """Return the contents of all text and binary columns, by table and column."""
    texts = {}
    for table in [*list_planted(), metadata.tables["dead_letters"]]:
        for column in table.columns:
            if isinstance(column.type, sa.Text | sa.LargeBinary | BookText):
                values = (await connection.execute(sa.select(column).where(column.is_not(None)))).scalars()
                texts[table.name, column.name] = "\n".join(map(str, values))
    return texts


def test_erasure_clears_each_marked_column_of_one_customer(database: str) -> None:
    async def do(opened: Database) -> dict[tuple[str, str], str]:
        async with opened.writing() as connection:
            await plant(connection)
            await erase(connection, "acme")
        async with opened.reading(whole=True) as connection:
            outbox = set((await connection.execute(sa.select(directory_outbox.c.name))).scalars())
            assert "acme" in outbox, "edges hear of it"
            assert await audit.verify_chain(connection) == 1
            return await fetch_texts(connection)

    texts = use_database(database, do)
    for (table, column), text in texts.items():
        entry = TABLES[table]
        gone = entry.erasure is Erasure.DELETES or column in entry.cleared or table == "dead_letters"
        planted = marker(table, column, "acme")
        if table == "dead_letters":
            assert ".acme" not in text
        elif column in entry.personal and gone:
            assert planted not in text, (table, column)
        if f"planted.{table}.{column}." in text:
            assert marker(table, column, "bolt") in text, (table, column)
    assert "cloud.bolt" in texts["dead_letters", "event"]
    assert "acme" in texts["series", "customer"].split(), "usage keeps its name"


@only_sqlite("database")
def test_database_file_contains_no_byte_of_erased_data(database: str) -> None:
    file = Path(database.removeprefix("sqlite:///"))

    def read() -> bytes:
        return b"".join(path.read_bytes() for path in file.parent.glob(f"{file.name}*"))

    async def do(opened: Database) -> None:
        other = await Database.connect(database)
        async with opened.writing() as connection:
            await plant(connection)
        async with other.reading(whole=True) as reader:
            await fetch_texts(reader)
            async with opened.writing() as connection:
                await erase(connection, "acme")
            assert not await opened.purge_deleted(), "a reader still uses the earlier snapshot"
        assert marker("contacts", "email", "acme").encode() in read()
        jobs = MaintenanceJobs(opened, Retention(), Metrics())
        while await jobs.step(1.0):
            pass
        content = read()
        for name, entry in TABLES.items():
            for column in entry.personal if entry.owner is not None else ():
                planted = marker(name, column, "acme").encode()
                if entry.erasure is Erasure.DELETES or column in entry.cleared:
                    assert planted not in content, (name, column)
        assert marker("webhook_messages", "body", "bolt").encode() in content
        async with other.writing() as connection:
            assert await customers.find_row(connection, "bolt"), "whoever has it open goes on"
        await other.close()

    use_database(database, do)


def test_erasure_is_atomic_and_final(database: str) -> None:
    async def do(opened: Database) -> None:
        async with opened.writing() as connection:
            await plant(connection)
            before = await fetch_texts(connection)
        with suppress(RuntimeError):
            async with opened.writing() as connection:
                await erase(connection, "acme")
                raise RuntimeError
        async with opened.writing() as connection:
            assert await fetch_texts(connection) == before
            await erase(connection, "acme")
        async with opened.writing() as connection:
            with pytest.raises(AccountStateError):
                await erase(connection, "acme")
        assert await erase_due_customers(opened, 1 << 50) == []

    use_database(database, do)


@pytest.mark.both_databases
def test_late_rows_of_an_erased_customer_are_erased_except_operator_records(database: str) -> None:
    """Insert every row again, as open transactions, disconnected edges, webhooks and sign-in pages may do."""

    async def insert_again(connection: AsyncConnection) -> None:
        for table in list_planted():
            entry = TABLES[table.name]
            if entry.erasure is Erasure.DELETES:
                row = {column.name: find_value(table.name, column.name, "acme") for column in table.columns}
                if table.name in SEALED:
                    row |= dict.fromkeys(SEALED[table.name].looked_up.values())
                await connection.execute(sa.insert(table), [row])
            elif entry.erasure is Erasure.CLEARS and table is not customers_table:
                cleared = {name: find_value(table.name, name, "acme") for name in entry.cleared}
                own = table.c[entry.owner.column] == find_value(table.name, entry.owner.column, "acme")  # type: ignore[union-attr]
                await connection.execute(sa.update(table).where(own).values(cleared))

    async def do(opened: Database) -> dict[tuple[str, str], str]:
        async with opened.writing() as connection:
            await plant(connection)
            await erase(connection, "acme")
        async with opened.writing() as connection:
            (late,) = await list_late(connection, now_ms())
            assert await erase_late_rows(connection, late) == {}
            assert await list_late(connection, now_ms() + LATE_MS + 1000) == [], "some day it is enough"
            await insert_again(connection)
            counts = await erase_late_rows(connection, late)
            gone = {name for name, entry in TABLES.items() if entry.erasure in (Erasure.DELETES, Erasure.CLEARS)}
            assert set(counts) == (gone & {table.name for table in list_planted()}) - LATE_KEPT - {"customers"}
            assert await erase_late_rows(connection, late) == {}
            return await fetch_texts(connection)

    texts = use_database(database, do)
    for (name, column), text in texts.items():
        entry = TABLES[name]
        goes = entry.erasure is Erasure.DELETES or column in entry.cleared
        if goes and column in entry.personal and name not in LATE_KEPT:
            assert marker(name, column, "acme") not in text, (name, column)
        if f"planted.{name}.{column}." in text:
            assert marker(name, column, "bolt") in text, (name, column)
    assert marker("alerts", "title", "acme") in texts["alerts", "title"]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_rows_committed_after_an_erasure_are_erased_later(database: str) -> None:
    async def do(opened: Database) -> None:
        async with opened.writing() as connection:
            await plant(connection)
        sessions = metadata.tables["sessions"]
        row = {column.name: find_value("sessions", column.name, "acme") for column in sessions.columns}
        async with opened.writing() as unseen:
            await unseen.execute(sa.delete(sessions).where(sessions.c.customer == "bolt"))
            row |= {key.name: find_value("sessions", key.name, "bolt") for key in sessions.primary_key}
            await unseen.execute(sa.insert(sessions), [row])
            other = await Database.connect(database)
            async with other.writing() as connection:
                await erase(connection, "acme")
            await other.close()
        async with opened.writing() as connection:
            own = sa.select(sessions.c.customer).where(sessions.c.customer == "acme")
            assert (await connection.execute(own)).all(), "the row was committed after the erasure"
            (late,) = await list_late(connection, now_ms())
            assert await erase_late_rows(connection, late) == {"sessions": 1}
            assert not (await connection.execute(own)).all()

    use_database(database, do)


@pytest.mark.both_databases
def test_events_are_cleared_in_parts_by_an_index(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An erasure that reads the events of all customers would time out on a large table and never end."""
    monkeypatch.setattr(erasure, "EVENTS_MAX", 2)
    columns = {"meter": "m", "value": 1, "time": 1, "is_dated": 1}
    sent = [{**columns, "source": "s", "id": str(number), "customer": name} for number in range(5) for name in "ab"]
    for number, row in enumerate(sent):
        row |= {"id": str(number), "request_id": "r" if number % 4 else None, "item": None if number % 4 else "i"}

    async def do(opened: Database) -> None:
        async with opened.writing() as connection:
            await connection.execute(sa.insert(events), sent)
        assert await erasure.clear_events(opened, ["a"], now_ms()) == 0, (
            "no customer is being deleted, or the deletion was canceled"
        )
        assert await erasure.clear_events(opened, ["a"]) == 5
        async with opened.writing() as connection:
            left = sa.select(events.c.customer).where(events.c.request_id.is_not(None) | events.c.item.is_not(None))
            assert set((await connection.execute(left)).scalars()) == {"b"}
            explain = "EXPLAIN" if opened.is_sqlite is False else "EXPLAIN QUERY PLAN"
            if not opened.is_sqlite:
                await connection.execute(
                    sa.text("SET LOCAL enable_seqscan = off")
                )  # PostgreSQL scans tables with so few rows.
            statement = erasure.build_clearing(["a"]).compile(connection.sync_engine, compile_kwargs=LITERAL)
            plan = (await connection.exec_driver_sql(f"{explain} {statement}")).all()
            assert "events_personal" in str(plan), plan

    use_database(database, do)


# ---- the list of erasures


@contextmanager
def restored(tmp_path: Path, server: Postgresql | None = None) -> Iterator[tuple[str, ErasureList]]:
    """Yield a copy of a database from before the erasure of one of two customers, and the list from after it."""
    url = put_tables(f"sqlite:///{tmp_path}/a.db") if server is None else server.database()
    ids = {name: generate_id() for name in NUMBERS}
    listed = ErasureList(tmp_path / "apart" / "erasures.jsonl")
    listed.path.parent.mkdir()

    async def do(opened: Database) -> str:
        async with opened.writing() as connection:
            for name, id_ in ids.items():
                row = {"id": id_, "name": name, "tier": "basic", "settings": '{"tier":"basic"}', "metadata": "{}"}
                row |= {"created_at": 1, "version": 1, "external_id": f"crm-{name}"}
                await connection.execute(sa.insert(customers_table), [row])
        if server is None:
            opened.copy(tmp_path / "b.db")
            copy = f"sqlite:///{tmp_path}/b.db"
        else:
            copy = server.empty_database()
            server.restore(server.dump(url, "--enable-row-security"), copy)
        async with opened.writing() as connection:
            await erase(connection, "acme")
        await record_erasures(opened, listed)
        return copy

    yield use_database(url, do), listed


def test_erasures_are_listed_at_once_and_compared_once_a_round(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, compared = ErasureList(tmp_path / "apart.jsonl"), []

    async def compare(*_: object) -> None:
        compared.append(len(listed.read()))

    monkeypatch.setattr(maintenance, "record_erasures", compare)
    monkeypatch.setattr(erasure, "ERASE_MAX", 1)

    async def do(opened: Database) -> None:
        async with opened.writing() as connection:
            await insert_rows(connection, [customers.build_row(name, Customer(tier="basic")) for name in NUMBERS])
            for name in NUMBERS:
                await customers.start_deletion(connection, CALLER, name)
        jobs = MaintenanceJobs(opened, Retention(), Metrics(), listed)
        numbers = []
        while await jobs.step(now_ms() / 1000 + 31 * 86400):
            numbers.append(len(listed.read()))
        assert set(range(1, len(NUMBERS) + 1)) <= set(numbers)
        assert compared == [0]

    use_database(database, do)


async def list_external_ids(opened: Database) -> set[str | None]:
    async with opened.reading() as connection:
        return set((await connection.execute(sa.select(customers_table.c.external_id))).scalars())


@pytest.mark.parametrize("kind", KINDS)
def test_restored_database_repeats_listed_erasures(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    server = None if kind == "sqlite" else request.getfixturevalue("postgresql")
    with restored(tmp_path, server) as (url, listed):

        async def do(opened: Database) -> None:
            assert await list_external_ids(opened) == {"crm-acme", "crm-bolt"}
            assert await replay_erasures(opened, listed) == 1
            assert await list_external_ids(opened) == {None, "crm-bolt"}
            assert await replay_erasures(opened, listed) == 0
            async with opened.reading(whole=True) as connection:
                assert await audit.verify_chain(connection) == 1

        use_database(url, do)
        assert b"acme" not in listed.path.read_bytes(), "no name is on the list"
        assert listed.path.stat().st_mode & 0o777 == 0o600


def test_replay_completes_an_erasure_list_after_a_crash(tmp_path: Path) -> None:
    with restored(tmp_path) as (_, listed):
        whole = listed.path.read_bytes()
        for left in (b"", whole[:-1], whole[:20]):
            listed.path.write_bytes(left)
            assert listed.read() == set()
            use_database(f"sqlite:///{tmp_path}/a.db", lambda opened: replay_erasures(opened, listed))
            assert listed.path.read_bytes() == whole, left


def test_error_of_an_invalid_erasure_list_names_the_line(tmp_path: Path) -> None:
    with restored(tmp_path) as (url, listed):
        whole = listed.path.read_bytes()
        for wrong in (b"{}\n", b"acme\n", b'{"customer": "acme"}\n'):
            listed.path.write_bytes(whole + wrong)
            with pytest.raises(InvalidErasureListError, match=r"erasures\.jsonl:2: is no erasure"):
                use_database(url, lambda opened: replay_erasures(opened, listed))
        assert use_database(url, list_external_ids) == {"crm-acme", "crm-bolt"}, "nothing was done by half a list"
