"""The books of several currencies: each has its own, and nothing adds up amounts of two."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.invoices.bookings import invoice_entries, payment_entries
from edgeproxy.collector.billing.journal import journal, postings, verification
from edgeproxy.collector.billing.journal.journal import Posting
from edgeproxy.collector.billing.journal.postings import CENT, CreditBalance, Grant, JournalEntry
from edgeproxy.collector.billing.journal.verification import JournalTamperedError, verify_journal
from edgeproxy.collector.billing.rating.rater import RatedLine, Span
from edgeproxy.collector.billing.reconciliation import credits as reconciled_credits
from edgeproxy.collector.billing.reports import accounting
from edgeproxy.collector.billing.stripe_balance import clearing
from edgeproxy.collector.database.credit_tables import credit_entries, credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, customers
from tests.support.collector_fixtures import only_sqlite
from tests.support.credited import read, run, write

ACME = "id-acme"
FIRST = date(2027, 1, 1)
BEGIN = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp())
LATER = BEGIN + 100 * DAY
AMOUNTS = {"usd": 9900, "eur": 8900, "jpy": 14800, "kwd": 30500}
"""A fee of 31 days in each currency."""


async def invoice(connection: Any, currency: str, amount: int) -> None:
    """Book an invoice with a fee and some usage, and its payment."""
    of = ("x@1", Span(BEGIN, BEGIN + 31 * DAY))
    month = Span(BEGIN, BEGIN + 31 * DAY)
    lines = [
        RatedLine("fee", *of, "", "", 0, 1, None, amount, month),
        RatedLine("usage", *of, "calls", "", 1, 7, 0, 70, month),
    ]
    details = {"fees": [[amount, month.start, month.end]]}
    async with journal.open_journal(connection) as books:
        entries = invoice_entries(amount + 70, lines)
        source = f"invoice-{currency}"
        books.book(Posting(ACME, "invoice", source, entries, slice=month.end, details=details, currency=currency))
        paid = payment_entries(amount + 70, 0, 0, was_written_off=False)
        books.book(Posting(ACME, "invoice_paid", source, paid, source, currency=currency))
        moved = (JournalEntry("cash", CENT * (amount + 70)), JournalEntry("clearing", -CENT * (amount + 70)))
        books.book(Posting(ACME, "balance_transaction", f"txn-{currency}", moved, source, BEGIN, currency=currency))


@pytest.fixture(autouse=True)
def at_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "now_ms", lambda: (BEGIN + 60) * 1000)


@only_sqlite("database")
def test_each_currency_has_books_of_its_own(database: str) -> None:
    async def work(opened: Database) -> None:
        for currency, amount in AMOUNTS.items():
            await write(opened, invoice, currency, amount)
        assert await read(opened, verify_journal) == 3 * len(AMOUNTS)
        for currency, amount in AMOUNTS.items():
            async with opened.writing() as connection:
                month = [
                    await accounting.fetch_day_journal(connection, FIRST + timedelta(days=number), LATER, currency)
                    for number in range(31)
                ]
            sums: dict[str, int] = {}
            for day in month:
                assert sum(movement.amount for movement in day.movements) == 0
                for account, moved in day.cents:
                    sums[account] = sums.get(account, 0) + moved
            expected = {"cash": amount + 70, "revenue": -70, "revenue_fees": -amount}
            assert {account: moved for account, moved in sums.items() if moved} == expected, currency
            balances = await read(opened, lambda connection: accounting.fetch_balances_before(connection, LATER * 1000))
            assert balances["cash"] == CENT * (AMOUNTS["usd"] + 70), "of US dollars alone"
        cash = await read(opened, clearing.sum_cash, Span(BEGIN, LATER))
        assert cash == {currency: amount + 70 for currency, amount in AMOUNTS.items()}
        subjects = await read(opened, clearing.fetch_subjects, Span(BEGIN, LATER))
        assert {(subject.currency, subject.ours, subject.stripes) for subject in subjects} == {
            (currency, amount + 70, amount + 70) for currency, amount in AMOUNTS.items()
        }

    run(database, work, "acme")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (sa.update(credit_transactions).where(credit_transactions.c.seq == 1).values(currency="usd"), "was changed"),
        (sa.update(credit_entries).where(credit_entries.c.seq == 1).values(amount=1), "was changed"),
    ],
)
def test_a_currency_that_is_changed_later_is_noticed(database: str, change: sa.Update, why: str) -> None:
    async def work(opened: Database) -> None:
        await write(opened, invoice, "eur", 8900)
        await write(opened, lambda connection: connection.execute(change))
        with pytest.raises(JournalTamperedError, match=why):
            await read(opened, verify_journal)

    run(database, work, "acme")


def test_journal_check_finds_a_mismatch_offset_by_another_currency(database: str) -> None:
    async def work(opened: Database) -> None:
        await write(opened, invoice, "usd", 9900)
        await write(opened, invoice, "eur", 8900)
        receivable = credit_entries.c.account == "receivable"
        for seq, more in ((1, 5), (4, -5)):
            changed = sa.update(credit_entries).where(credit_entries.c.seq == seq, receivable)
            statement = changed.values(amount=credit_entries.c.amount + more)
            await write(opened, lambda connection, of=statement: connection.execute(of))
        assert await read(opened, verification.sum_journal) == {"usd": 5, "eur": -5}
        assert await read(opened, verification.list_differences) == ["journal"]
        _, level = await reconciled_credits.reconcile_balances(opened, LATER)
        assert level == "page"

    run(database, work, "acme")


@pytest.mark.parametrize(("currency", "why"), [("eur", "cannot change credits"), ("xxx", "cannot be in xxx")])
def test_invoices_that_change_credits_and_unknown_currencies_cannot_be_booked(
    database: str, currency: str, why: str
) -> None:
    entries = (
        postings.gift_entries(CreditBalance(), "grant", CENT)
        if currency == "eur"
        else payment_entries(1, 0, 0, was_written_off=False)
    )

    async def book(connection: Any) -> None:
        async with journal.open_journal(connection) as books:
            books.book(Posting(ACME, "invoice_paid", "one", entries, currency=currency))

    async def work(opened: Database) -> None:
        with pytest.raises(ValueError, match=why):
            await write(opened, book)

    run(database, work, "acme")


def test_credits_are_in_the_currency_of_their_customer(database: str) -> None:
    async def book(connection: Any) -> int:
        async with journal.open_journal(connection) as books:
            entries = postings.gift_entries(await books.fetch_credit_balance(ACME), "grant", CENT)
            books.create_grant(ACME, Grant("grant", 0))
            return books.book(Posting(ACME, "gift", "one", entries))

    async def work(opened: Database) -> None:
        await write(opened, lambda connection: connection.execute(sa.update(customers).values(currency="eur")))
        await write(opened, book)
        rows = await read(opened, lambda connection: connection.execute(sa.select(credit_transactions.c.currency)))
        assert list(rows.scalars()) == ["eur"]
        await read(opened, verify_journal)

    run(database, work, "acme")


def test_exact_amounts_have_all_of_their_places() -> None:
    amounts = [accounting.format_exactly(*one) for one in ((1234, "usd"), (CENT * 1230, "usd"), (CENT, "jpy"))]
    assert amounts == ["0.001234", "12.30", "1"]
    assert [accounting.format_exactly(*one) for one in ((5, "jpy"), (CENT * 1250, "kwd"))] == ["0.0005", "1.250"]
