"""The books are sealed by one key per year: storage, reading, search, and the destruction of a key."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.customers import get_row
from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.jobs import ended_books
from edgeproxy.collector.billing.jobs.ended_books import EndedBooks, destroy_ended_keys
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import plain_entries
from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import credit_notes, disputes, dunning, invoices
from edgeproxy.collector.database.book_text import (
    SEALED,
    as_stored,
    list_book_columns,
    match_book_text,
)
from edgeproxy.collector.database.credit_tables import credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.encryption_tables import book_keys, data_keys, encryption_keys
from edgeproxy.collector.database.schema import customers, metadata
from edgeproxy.collector.database.unreadable_rows import UnreadableRowError, UnreadableValue
from edgeproxy.collector.encryption import book_keys as book_keys_module
from edgeproxy.collector.encryption import migration
from edgeproxy.collector.encryption.keyring import (
    Keyring,
    KeysUnavailableError,
    find_keyring,
    open_keyring,
    refresh_keyring,
)
from edgeproxy.collector.jobs.operator_alerts import OperatorAlerts
from edgeproxy.collector.privacy.erasure import erase_customers
from edgeproxy.config.collector.alerts import Alerts
from edgeproxy.config.collector.encryption import Encryption
from loadtest.testbed.tables_ready import put_tables
from tests.collector.encryption.test_rows import make_key
from tests.support import one_thread
from tests.support.credited import ALICE, write
from tests.support.killed import die, run_and_die
from tests.support.planted import NUMBERS, find_value, marker, plant

Result = TypeVar("Result")
CALLER = Caller("test")
YEAR = datetime.now(UTC).year
KEPT_SECONDS = 3653 * 86400.0
COLUMNS = [(table, column) for table, columns in list_book_columns(metadata).items() for column in columns]
ALICE_ID, REASON, FEES = "id-alice", "because of Ada", '{"fees":[[5,1,2]]}'
LOOKED_UP = [
    metadata.tables[table].c[column]
    for table, columns in list_book_columns(metadata).items()
    for column, type_ in columns.items()
    if type_.is_looked_up
]


def at(year: int, month: int = 1, day: int = 1) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp())


def run(url: str, settings: Encryption | None, work: Callable[[Database], Awaitable[Result]]) -> Result:
    """Run `work` with the database at `url`, opened as a collector opens it."""

    async def do() -> Result:
        database = await Database.connect(url)
        try:
            await open_keyring(database, settings)
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(do())


async def fill(opened: Database) -> None:
    """Plant rows with a marker in each column. The invoices are paid and dated 2020."""
    async with opened.writing() as connection:
        await plant(connection)
        for table, column in ((data_keys, data_keys.c.encryption_key), (encryption_keys, encryption_keys.c.id)):
            await connection.execute(sa.delete(table).where(column.in_(NUMBERS.values())))  # These are no real keys.
        second = at(2020, 5)
        paid = {"state": "paid", "booked": "paid", "issued_at": second, "created_at": second * 1000}
        await connection.execute(sa.update(invoices).values(paid))
        await connection.execute(sa.update(credit_notes).values(state="made", created_at=second * 1000))
        await connection.execute(sa.update(disputes).values(created_at=second * 1000))
        await connection.execute(sa.update(dunning).values(declined_at=second))


async def fetch_stored(opened: Database) -> dict[tuple[str, str], list[str]]:
    """Return the stored values of each column of the books."""
    async with opened.reading() as connection:
        return {
            (table, column): list(
                (await connection.execute(sa.select(as_stored(metadata.tables[table].c[column])))).scalars()
            )
            for table, column in COLUMNS
        }


async def check_read(opened: Database, *names: str) -> None:
    """Assert that the planted rows of these customers are readable, and are found by their looked-up columns."""
    async with opened.reading() as connection:
        for table, column in COLUMNS:
            read = set((await connection.execute(sa.select(metadata.tables[table].c[column]))).scalars())
            assert {marker(table, column, name) for name in names} <= read, (table, column)
        for looked_up in LOOKED_UP:
            for name in names:
                value = str(find_value(looked_up.table.name, looked_up.name, name))
                statement = sa.select(looked_up).where(match_book_text(connection, looked_up, value))
                assert list((await connection.execute(statement)).scalars()) == [value]


def test_each_column_of_the_books_is_sealed_readable_and_searchable(database: str, tmp_path: Path) -> None:
    assert len(COLUMNS) == 15
    assert {"invoices.stripe_id", "invoices.number"} <= {str(column) for column in LOOKED_UP}

    async def do(opened: Database) -> None:
        await fill(opened)
        for column, values in (await fetch_stored(opened)).items():
            assert all(value.startswith(f"{SEALED}{YEAR}:") for value in values), column
        await check_read(opened, "acme", "bolt")
        if file := opened.file:
            content = b"".join(path.read_bytes() for path in file.parent.glob(f"{file.name}*"))
            assert [column for column in COLUMNS if ".".join(("planted", *column, "")).encode() in content] == []
            assert b"planted.invoices.period." in content, "the search finds plain text"

    run(database, make_key(tmp_path / "key"), do)


def test_databases_that_share_compiled_statements_share_no_cipher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeproxy.collector.database.database.create_async_engine", one_thread.create_engine)

    async def do(opened: Database) -> str:
        async with opened.reading() as connection:
            number = sa.bindparam("number", "A-1", type_=invoices.c.number.type)
            return str(await connection.scalar(sa.select(sa.func.trim(number, type_=sa.Text()))))

    bound = [
        run(put_tables(f"sqlite:///{tmp_path}/{name}.db"), settings, do)
        for name, settings in (
            ("clear", None),
            ("sealed", make_key(tmp_path / "key")),
            ("other", make_key(tmp_path / "k")),
        )
    ]
    assert [value.startswith(SEALED) for value in bound] == [False, True, True]
    assert len(set(bound)) == 3, "each has its own keys"


@pytest.mark.both_databases
def test_clear_rows_are_readable_and_then_sealed_by_their_years_keys(database: str, tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")

    async def check(opened: Database) -> None:
        assert all("planted." in value for values in (await fetch_stored(opened)).values() for value in values)
        await check_read(opened, "acme", "bolt")

    async def seal(opened: Database) -> None:
        await check(opened)
        assert await migration.seal_clear_rows(opened) >= 6
        for column, values in (await fetch_stored(opened)).items():
            assert all(value.startswith(f"{SEALED}2020:") for value in values), column
        await check_read(opened, "acme", "bolt")
        assert await migration.seal_clear_rows(opened) == 0
        async with opened.reading() as connection:
            status = {one.name: one[1:] for one in await migration.fetch_status(connection)}
        assert status["invoices.stripe_id"] == (2, 0)

    run(database, None, fill)
    run(database, None, check)
    run(database, key, seal)


@pytest.mark.both_databases
def test_only_the_damaged_value_is_unreadable_and_an_alert_names_its_row(database: str, tmp_path: Path) -> None:
    async def do(opened: Database) -> None:
        await fill(opened)
        acme = str(find_value("invoices", "id", "acme"))
        for target, source in ((invoices.c.pdf, invoices.c.url), (invoices.c.url, invoices.c.held_why)):
            async with opened.writing() as connection:
                moved = sa.update(invoices).where(invoices.c.id == acme)
                await connection.execute(moved.values({target: as_stored(source)}))
            async with opened.reading() as connection:
                rows = (await connection.execute(sa.select(invoices.c.id, target))).all()
            values = {row[0]: row[1] for row in rows}
            damaged = values.pop(acme)
            assert list(values.values()) == [find_value("invoices", target.name, "bolt")]
            assert damaged is not None
            for use in (str, bool, hash, len, "{}".format, lambda value: value == "x", lambda value: value.startswith):
                with pytest.raises(UnreadableRowError, match=f"invoices.{target.name} of a row cannot be decrypted"):
                    use(damaged)
            with pytest.raises(
                UnreadableRowError
            ):  # Else the placeholder would overwrite a value that can be repaired.
                async with opened.writing() as connection:
                    await connection.execute(sa.update(invoices).values({target: damaged}))
        await OperatorAlerts(opened, Alerts(), dict).step(1.0)
        async with opened.reading() as connection:
            keys = set((await connection.execute(sa.select(alerts.c.key))).scalars())
        assert f"row_unreadable:invoices:{acme}" in keys

    run(database, make_key(tmp_path / "key"), do)


def test_comparing_a_sealed_column_directly_is_an_error() -> None:
    for compare in (lambda: invoices.c.stripe_id == "in_1", lambda: invoices.c.held_why.startswith("Stripe")):
        with pytest.raises(TypeError, match="compare it by match_book_text"):
            compare()
    assert str(invoices.c.error.is_(None) | (credit_notes.c.why != ""))


def test_erasure_keeps_the_books_and_their_keys(database: str, tmp_path: Path) -> None:
    async def do(opened: Database) -> None:
        await fill(opened)
        stored = await fetch_stored(opened)
        async with opened.writing() as connection:
            await erase_customers(connection, CALLER, [await get_row(connection, "acme", lock=True)])
        assert await fetch_stored(opened) == stored
        await check_read(opened, "acme", "bolt")

    run(database, make_key(tmp_path / "key"), do)


def test_without_keys_books_are_not_written_and_the_error_says_why(database: str, tmp_path: Path) -> None:
    async def do(opened: Database) -> None:
        await fill(opened)
        stored = await fetch_stored(opened)
        async with opened.reading() as connection:
            keyring = await _get_keyring(connection)
        keyring.seconds = 0
        for statement in (sa.update(invoices).values(url="in the clear"), sa.select(invoices.c.url)):
            with pytest.raises(KeysUnavailableError, match="could not be unwrapped anew in time"):
                async with opened.writing() as connection:
                    (await connection.execute(statement)).scalars().all()
        async with opened.reading() as connection:
            with pytest.raises(KeysUnavailableError):
                match_book_text(connection, invoices.c.stripe_id, "in_1")
        keyring.seconds = 3600
        await refresh_keyring(opened, keyring)
        assert await fetch_stored(opened) == stored

    run(database, make_key(tmp_path / "key"), do)


async def _get_keyring(connection: AsyncConnection) -> Keyring:
    keyring = find_keyring(connection)
    assert keyring is not None
    return keyring


def test_books_stay_readable_after_a_rotation_of_the_master_key(database: str, tmp_path: Path) -> None:
    first, second = make_key(tmp_path / "first"), make_key(tmp_path / "second")
    both = Encryption.model_validate({"file": str(tmp_path / "second"), "old": [{"file": str(tmp_path / "first")}]})

    async def rotate(opened: Database) -> None:
        async with opened.reading() as connection:
            keyring = await _get_keyring(connection)
        await migration.rotate_keys(opened, keyring)
        await check_read(opened, "acme", "bolt")

    run(database, first, fill)
    run(database, both, rotate)
    run(database, second, lambda opened: check_read(opened, "acme", "bolt"))


def test_key_of_the_next_year_is_created_in_advance(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def do(opened: Database) -> None:
        async with opened.reading() as connection:
            keyring = await _get_keyring(connection)
        assert keyring.books.years == [YEAR, YEAR + 1]
        monkeypatch.setattr(book_keys_module.time, "gmtime", lambda *_: time.struct_time((YEAR + 1, *[0] * 8)))
        sealed = keyring.books.seal("a text", "invoices.url", is_looked_up=False)
        assert sealed.startswith(f"{SEALED}{YEAR + 1}:")
        await refresh_keyring(opened, keyring)
        assert keyring.books.years == [YEAR, YEAR + 1, YEAR + 2]
        assert keyring.books.open(sealed, "invoices.url", is_looked_up=False) == "a text"

    run(database, make_key(tmp_path / "key"), do)


async def book_gift(opened: Database) -> None:
    """Book credits that an operator gives to alice, with a reason, and an invoice with its fees."""
    await write(opened, credits.book_gift, ALICE, ALICE_ID, "g1", 1000, REASON, None)
    async with opened.writing() as connection, journal.open_journal(connection) as books:
        await books.fetch_credit_balance(ALICE_ID)
        details = {"fees": [[5, 1, 2]]}
        books.book(journal.Posting(ALICE_ID, "cost", "c1", plain_entries("cost", 5), details=details))


async def fetch_details(opened: Database) -> tuple[list[str], list[str]]:
    """Return the details of all transactions, decrypted and as stored."""
    column = credit_transactions.c.details
    async with opened.reading() as connection:
        rows = await connection.execute(sa.select(column, as_stored(column).label("stored")).order_by("seq"))
        read, stored = zip(*rows, strict=True)
    return list(read), list(stored)


@pytest.mark.both_databases
def test_journal_hashes_sealed_details_so_verify_needs_no_key(database: str, tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")

    async def in_the_clear(opened: Database) -> None:
        async with opened.writing() as connection:
            row = {
                "id": ALICE_ID,
                "name": "alice",
                "tier": "basic",
                "settings": "{}",
                "metadata": "{}",
                "created_at": 1,
                "version": 1,
            }
            await connection.execute(sa.insert(customers), [row])
        await write(opened, credits.book_gift, ALICE, ALICE_ID, "g0", 1000, REASON, None)

    async def sealed(opened: Database) -> None:
        await book_gift(opened)
        read, stored = await fetch_details(opened)
        assert [REASON in one for one in read] == [True, True, False]
        assert REASON in stored[0], "what is booked is never rewritten"
        assert stored[1].startswith(f"{SEALED}{YEAR}:")
        assert stored[2] == read[2] == FEES
        async with opened.writing() as connection:
            assert await verify_journal(connection) == 3
            (await _get_keyring(connection)).books.replace({})
            assert await verify_journal(connection) == 3, "without a key"

    async def ended(opened: Database) -> None:
        assert await destroy_ended_keys(opened, KEPT_SECONDS, at(YEAR + 11) + 86400, CALLER) == [YEAR]
        read, stored = await fetch_details(opened)
        assert (REASON in read[0], read[1], stored[1][: len(SEALED)]) == (True, "{}", SEALED), (
            "the rest is erased later"
        )
        books = EndedBooks(opened, KEPT_SECONDS, CALLER)
        while await books.clear_next(at(YEAR + 11) + 86400):
            pass
        read, stored = await fetch_details(opened)
        assert read == stored == ["{}", "{}", FEES]
        async with opened.reading(whole=True) as connection:
            assert await verify_journal(connection) == 3

    run(database, None, in_the_clear)
    run(database, key, sealed)
    run(database, key, ended)


# ---- the end of a key


async def begin_end(opened: Database) -> None:
    """Seal the books of 2020 of two customers by the key of that year. acme is erased; bolt remains."""
    await migration.seal_clear_rows(opened)
    async with opened.writing() as connection:
        await connection.execute(sa.update(customers).where(customers.c.name == "acme").values(erased_at=5))


async def end(opened: Database) -> None:
    await destroy_ended_keys(opened, KEPT_SECONDS, at(2031) + 86400, CALLER)


async def check_end(opened: Database) -> None:
    """Assert that the key of 2020 and its sealed values are gone, and that kept values have another key."""
    async with opened.reading(whole=True) as connection:
        keyring = await _get_keyring(connection)
        years = list((await connection.execute(sa.select(book_keys.c.year))).scalars())
        entries = await audit.list_entries(connection, 0, 100)
    assert min(years) == 2021
    assert keyring.books.years == sorted(years)
    assert [entry["before"] for entry in entries if entry["action"] == "encryption.destroy_book_keys"] == [
        {"years": [2020]}
    ]
    for column, values in (await fetch_stored(opened)).items():
        assert len([value for value in values if value]) == 1, column
        assert [value for value in values if value and not value.startswith(f"{SEALED}{YEAR}:")] == [], column
    await check_read(opened, "bolt")


def prepare(database: str, key: Encryption) -> None:
    run(database, None, fill)
    run(database, key, begin_end)


@pytest.mark.both_databases
def test_destroyed_key_of_an_ended_year_opens_no_copied_rows(database: str, tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")
    prepare(database, key)

    async def do(opened: Database) -> None:
        before = await fetch_stored(opened)
        assert await destroy_ended_keys(opened, KEPT_SECONDS, at(2031) - 86400, CALLER) == [], "a day too early"
        assert await destroy_ended_keys(opened, None, at(2031) + 86400, CALLER) == [], "kept for ever"
        assert await fetch_stored(opened) == before
        books = EndedBooks(opened, KEPT_SECONDS, CALLER)
        while await books.clear_next(at(2031) + 86400):
            pass
        await check_end(opened)
        assert await destroy_ended_keys(opened, KEPT_SECONDS, at(2031) + 86400, CALLER) == []
        async with opened.writing() as connection:  # Restore a copy made before the destruction.
            copied = before["invoices", "stripe_id"][0]
            await connection.execute(sa.update(invoices).values(stripe_id=None, url=sa.literal(copied, sa.Text())))
            values = (await connection.execute(sa.select(invoices.c.url))).scalars().all()
            assert {type(value) for value in values} == {UnreadableValue}

    run(database, key, do)


def before_rows_are_cleared() -> None:
    ended_books.clear_invoices = die  # type: ignore[assignment]


def before_what_is_kept_is_sealed_again() -> None:
    ended_books.reseal_rows = die  # type: ignore[assignment]


def before_the_key_is_committed_as_gone() -> None:
    ended_books.append_entry = die  # type: ignore[assignment, attr-defined]


def after_it() -> None:
    ended_books.refresh_keyring = die  # type: ignore[assignment]


@pytest.mark.parametrize(
    "step",
    [
        before_rows_are_cleared,
        before_what_is_kept_is_sealed_again,
        before_the_key_is_committed_as_gone,
        after_it,
    ],
)
def test_killed_key_destruction_loses_no_kept_row_and_can_be_finished(
    database: str, tmp_path: Path, step: Callable[[], None]
) -> None:
    key = make_key(tmp_path / "key")
    prepare(database, key)
    run_and_die(step, lambda: run(database, key, end))
    run(database, key, lambda opened: check_read(opened, "bolt"))
    run(database, key, end)
    run(database, key, check_end)
