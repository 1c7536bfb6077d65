"""After the retention of a year's books, personal data is cleared from them, and the journal still verifies."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.jobs import ended_books
from edgeproxy.collector.billing.jobs.ended_books import EndedBooks, count_due, find_end
from edgeproxy.collector.billing.journal import cleared_details, journal
from edgeproxy.collector.billing.journal.postings import plain_entries
from edgeproxy.collector.billing.journal.verification import JournalTamperedError, verify_journal
from edgeproxy.collector.commands import privacy as commands
from edgeproxy.collector.database.billing_tables import credit_notes, disputes, invoices
from edgeproxy.collector.database.credit_tables import credit_entries, credit_head, credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.schema import customers, metadata
from edgeproxy.config.collector.load import load_collector
from edgeproxy.config.collector.settings import Retention
from loadtest.testbed.collector import Collector
from loadtest.testbed.postgresql import Postgresql
from tests.support.credited import ALICE, read, run, write
from tests.support.killed import die, run_and_die
from tests.support.planted import marker, plant
from tests.support.used_database import use_database

KEPT_SECONDS = Retention().invoices or 0.0
DAY = 86400
ACME = "id-acme"
CALLER = Caller("test")
ENDED = {(name, column) for name, entry in TABLES.items() for column in entry.ended}


def at(year: int, month: int = 1, day: int = 1) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp())


@given(st.integers(at(2020), at(2060)), st.integers(at(2020), at(2080)))
def test_journal_retention_is_ten_years_after_the_end_of_the_year(issued: int, now: int) -> None:
    ends = at(datetime.fromtimestamp(issued, UTC).year + 11)
    if now < ends:
        assert issued >= find_end(KEPT_SECONDS, now)
    if now >= ends + DAY:  # Ten years include two or three leap years.
        assert issued < find_end(KEPT_SECONDS, now)


async def clear(database: Database, now: float) -> None:
    """Clear ended books like a newly started collector."""
    books = EndedBooks(database, KEPT_SECONDS, CALLER)
    while await books.clear_next(now):
        pass


async def fetch_rows(database: Database) -> dict[str, list[dict[str, object]]]:
    """Return all rows of the tables with columns to clear, except the journal."""
    async with database.reading() as connection:
        return {
            name: [
                dict(row)
                for row in (await connection.execute(sa.select(table).order_by(*table.primary_key))).mappings()
            ]
            for name in sorted({name for name, _ in ENDED} - {"credit_transactions"})
            for table in [metadata.tables[name]]
        }


@pytest.mark.parametrize("left", ["", "is not erased", "is of the next year", "is open", "is not booked"])
def test_only_marked_columns_of_erased_customers_are_cleared(database: str, left: str) -> None:
    issued = at(2028 if left == "is of the next year" else 2027, 12, 31) + DAY - 1
    values = {
        "state": "open" if left == "is open" else "paid",
        "booked": "open" if left == "is not booked" else "paid",
        "issued_at": issued,
        "created_at": issued * 1000 - 5,
    }

    async def do(opened: Database) -> None:
        async with opened.writing() as connection:
            await plant(connection)
            await connection.execute(sa.update(invoices).values(values | {"booked": values["state"]} | values))
            await connection.execute(sa.update(credit_notes).values(state="made", created_at=issued * 1000))
            await connection.execute(sa.update(disputes).values(created_at=issued * 1000))
            which = sa.update(customers).where(customers.c.name == "acme")
            if left != "is not erased":
                await connection.execute(which.values(erased_at=5, deleting_since=4))
        before = await fetch_rows(opened)
        await clear(opened, at(2038) - 1)
        assert await fetch_rows(opened) == before, "the year before it ends"
        async with opened.reading() as connection:
            due = await count_due(connection, find_end(KEPT_SECONDS, at(2038) + DAY))
        await clear(opened, at(2038) + DAY)
        expected = before if left else {name: [empty(name, row) for row in rows] for name, rows in before.items()}
        assert await fetch_rows(opened) == expected
        assert due.invoices == (0 if left else 1)

    use_database(database, do)


def empty(table: str, row: dict[str, object]) -> dict[str, object]:
    """Return a row with its marked columns cleared, if it belongs to acme."""
    if marker(table, TABLES[table].ended[0], "acme") not in row.values():
        return row
    columns = metadata.tables[table].c
    return row | {name: None if columns[name].nullable else "" for name in TABLES[table].ended}


async def book(opened: Database, monkeypatch: pytest.MonkeyPatch, year: int, number: int) -> None:
    """Book a gift with a reason, and costs with fees in their details, in a year."""
    monkeypatch.setattr(journal, "now_ms", lambda: at(year, 6) * 1000 + number)
    await write(opened, credits.book_gift, ALICE, ACME, f"g{number}", 1000, f"because of Ada {number}", None)
    async with opened.writing() as connection, journal.open_journal(connection) as books:
        details = {"fees": [[5, 1, 2]]}
        await books.fetch_credit_balance(ACME)
        books.book(journal.Posting(ACME, "cost", f"c{number}", plain_entries("cost", 5), details=details))


async def fetch_details(connection: sa.ext.asyncio.AsyncConnection) -> list[str]:
    columns = credit_transactions.c
    return list((await connection.execute(sa.select(columns.details).order_by(columns.seq))).scalars())


TAMPERING = [
    sa.update(credit_transactions).where(credit_transactions.c.seq == 2).values(customer="id-bolt"),
    sa.update(credit_transactions).where(credit_transactions.c.seq == 3).values(source="another"),
    sa.update(credit_transactions).where(credit_transactions.c.seq == 1).values(details='{"why":"Ada"}'),
    sa.update(credit_entries).where(credit_entries.c.seq == 2).values(model="another"),
    sa.update(credit_head).values(cleared_seq=3),
]


def test_journal_without_details_reveals_each_change(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended_books, "TRANSACTIONS_PER_STEP", 3)

    async def work(opened: Database) -> None:
        for number, year in enumerate((2026, 2027, 2028)):
            await book(opened, monkeypatch, year, number)
        await clear(opened, at(2037) - 1)
        assert all("Ada" in one or "fees" in one for one in await read(opened, fetch_details))
        await clear(opened, at(2038) + DAY)
        fees = '{"fees":[[5,1,2]]}'
        details = await read(opened, fetch_details)
        assert details[:4] == ["{}", fees, "{}", fees]
        assert "because of Ada 2" in details[4]
        assert await read(opened, verify_journal) == 6
        for statement in TAMPERING:
            with pytest.raises(JournalTamperedError, match=r"without details, was changed"):
                await write(opened, change_and_verify, statement)
        await book(opened, monkeypatch, 2039, 9)
        assert await read(opened, verify_journal) == 8
        async with opened.reading(whole=True) as connection:
            entries = await audit.list_entries(connection, 0, 100)
            head = (await connection.execute(sa.select(credit_head))).one()
        of_books = [entry["after"] for entry in entries if entry["action"] == "credits.clear_details"]
        assert of_books == [{"seq": 4, "hash": head.cleared_hash}]

    run(database, work, "acme", "bolt")


async def change_and_verify(connection: sa.ext.asyncio.AsyncConnection, statement: sa.Update) -> None:
    """Execute a statement and verify the journal. The error rolls the change back."""
    await connection.execute(statement)
    await verify_journal(connection)


def test_changed_journal_keeps_its_details(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(opened: Database) -> None:
        await book(opened, monkeypatch, 2026, 0)
        await write(opened, change, sa.update(credit_transactions).where(FIRST).values(source="another"))
        await clear(opened, at(2038))
        assert "Ada" in (await read(opened, fetch_details))[0]

    run(database, work, "acme")


FIRST = credit_transactions.c.seq == 1


async def change(connection: sa.ext.asyncio.AsyncConnection, statement: sa.Update) -> None:
    await connection.execute(statement)


def test_killed_clearing_leaves_whole_steps_and_is_continued(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended_books, "TRANSACTIONS_PER_STEP", 2)

    async def fill(opened: Database) -> None:
        for number in range(3):
            await book(opened, monkeypatch, 2026, number)

    run(database, fill, "acme")

    def die_in_the_second_step() -> None:
        compute, calls = cleared_details.compute_hash, []

        def compute_or_die(*arguments: object) -> str:
            calls.append(1)
            return compute(*arguments) if len(calls) < 7 else die()  # type: ignore[arg-type, func-returns-value, return-value]

        cleared_details.compute_hash = compute_or_die

    run_and_die(die_in_the_second_step, lambda: use_database(database, lambda opened: clear(opened, at(2038))))

    async def go_on(opened: Database) -> list[str]:
        assert await read(opened, verify_journal) == 6
        assert ["Ada" in one for one in await read(opened, fetch_details)] == [False, False, True, False, True, False]
        await clear(opened, at(2038))
        assert await read(opened, verify_journal) == 6
        return await read(opened, fetch_details)

    assert not any("Ada" in one for one in use_database(database, go_on))


def test_command_shows_due_books_and_only_the_table_owner_clears_them(postgresql: Postgresql, tmp_path: Path) -> None:
    login = postgresql.database_of_owner()
    owner = login.replace("//edgeproxy_login@", "//edgeproxy_owner@")

    async def fill(opened: Database) -> None:
        async with opened.writing() as connection:
            await plant(connection)
            for name in ("data_keys", "encryption_keys"):  # The planted keys are not valid.
                await connection.execute(sa.delete(metadata.tables[name]))
            values = {"state": "void", "booked": "void", "issued_at": at(2020, 5), "created_at": at(2020, 5) * 1000}
            await connection.execute(sa.update(invoices).values(values))
            await connection.execute(sa.update(customers).values(erased_at=5, deleting_since=4))

    use_database(owner, fill)
    with closing(Collector(tmp_path / "collector", login, retention={"invoices": "365day"})) as collector:
        collector.write()
        settings = load_collector(collector.file, {})
        due = "2 invoices of erased customers to be cleared"
        code, text = commands.clear_books(settings)
        assert (code, text) == (1, "this user may not change books: run this as the owner of the tables")
        assert due in commands.show_books(settings)[1]
    with closing(Collector(tmp_path / "owner", owner, retention={"invoices": "365day"})) as collector:
        collector.write()
        code, text = commands.clear_books(load_collector(collector.file, {}))
        assert (code, "0 invoices of erased customers" in text) == (0, True), text
