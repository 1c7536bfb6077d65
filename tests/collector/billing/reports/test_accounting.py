"""A day of the books balances and always has identical bytes. The days of a span add up to its bookings."""

import csv
import io
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.credits.credits import Payment
from edgeproxy.collector.billing.journal import journal, postings
from edgeproxy.collector.billing.journal.journal import Posting
from edgeproxy.collector.billing.journal.postings import CENT, ConsumptionPart, JournalEntry
from edgeproxy.collector.billing.reports import accounting
from edgeproxy.collector.billing.reports.accounting import (
    ACCOUNTS,
    DayNotOverError,
    Fee,
    compute_cents,
    compute_earned,
    fetch_day_journal,
    render_journal,
)
from edgeproxy.collector.database.credit_tables import credit_entries, credit_head
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.database.unreadable_rows import UnreadableRowError, list_untold
from tests.support.credited import ALICE, run, write

ACME = "id-acme"
FIRST = date(2027, 1, 30)
LATER = datetime(2027, 6, 1, tzinfo=UTC).timestamp()


def second(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


async def use(connection: Any, source: str, amount: int) -> None:
    async with journal.open_journal(connection) as books:
        entries = postings.consumption_entries(
            await books.fetch_credit_balance(ACME), [ConsumptionPart("cost", "", amount)]
        )
        books.book(Posting(ACME, "consumption", source, entries, slice=0))


async def pay_out(connection: Any, number: int) -> None:
    """Book a payout, which is about no customer."""
    async with journal.open_journal(connection) as books:
        entries = postings.plain_entries("balance_transaction", -59 * CENT)
        books.book(Posting("", "balance_transaction", f"txn_{number}", entries))


async def invoice(connection: Any, source: str, cents: int, start: int, end: int) -> None:
    async with journal.open_journal(connection) as books:
        entries = (JournalEntry("receivable", cents * CENT), JournalEntry("deferred_fees", -cents * CENT))
        details = {"fees": [[cents, start, end]]}
        books.book(Posting(ACME, "invoice", source, entries, slice=end, details=details))


def sums(file: bytes, debit: str, credit: str) -> tuple[int, int]:
    """Both sides of a file, in millionths."""
    rows = list(csv.DictReader(io.StringIO(file.decode())))
    sides = []
    for side in (debit, credit):
        sides.append(sum(round(float(row[side]) * 1_000_000) for row in rows if row[side]))
    return sides[0], sides[1]


def test_each_day_of_the_journal_is_balanced(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0
    monkeypatch.setattr(journal, "now_ms", lambda: now)

    async def work(opened: Database) -> None:
        nonlocal now
        for number in range(20):
            now = (second(FIRST) + number * 15838) * 1000  # Four days.
            if number % 9 == 0:
                payment = Payment(f"cs_{number}", f"pi_{number}", 1000 * CENT, 77 * CENT)
                await write(opened, credits.book_purchase, ACME, payment)
                await write(opened, pay_out, number)
            await write(opened, use, f"u{number}", 12345 + number)
            if number == 10:
                await write(opened, credits.book_gift, ALICE, ACME, "g", 777, "sorry", None)
                start = second(FIRST)
                await write(opened, invoice, "in_1", 9901, start, start + 6 * DAY)
        totals: dict[str, int] = {}
        days = [FIRST + timedelta(number) for number in range(8)]
        files = []
        for day in days:
            async with opened.writing() as connection:
                created = await fetch_day_journal(connection, day, LATER)
            assert sum(movement.amount for movement in created.movements) == 0
            assert sum(cents for _, cents in created.cents) == 0
            files.append([render_journal(created, form) for form in accounting.FORMATS])
            for form, *sides in (("csv", "debit", "credit"), ("quickbooks", "Debits", "Credits")):
                debits, credits_ = sums(files[-1][accounting.FORMATS.index(form)], *sides)  # type: ignore[arg-type]
                assert debits == credits_
            for account, cents in created.cents:
                totals[account] = totals.get(account, 0) + cents
            if day == FIRST:
                assert "revenue_fees" not in totals, "the fee is booked on the second day"
        assert totals["revenue_fees"] == -9901
        assert totals["deferred_fees"] == 0
        async with opened.reading() as connection:
            total = sa.cast(sa.func.sum(credit_entries.c.amount), sa.BigInteger)
            rows = await connection.execute(
                sa.select(credit_entries.c.account, total).group_by(credit_entries.c.account)
            )
            for account, amount in rows:
                if account != "deferred_fees":
                    assert abs(totals.get(account, 0) * CENT - amount) <= CENT // 2, account
        assert abs(totals.get("rounding", 0)) <= len(ACCOUNTS)
        # A collector with a slow clock books nothing in an exported day.
        await write(opened, use, "late", 5)
        for day, file in zip(days, files, strict=True):
            async with opened.writing() as connection:
                created = await fetch_day_journal(connection, day, LATER)
            assert [render_journal(created, form) for form in accounting.FORMATS] == file
        async with opened.reading() as connection:
            head = (await connection.execute(sa.select(credit_head.c.at))).scalar_one()
        assert head == second(days[-1] + timedelta(1)) * 1000
        with pytest.raises(DayNotOverError, match="2027-05-31 is not over yet"):
            async with opened.writing() as connection:
                await fetch_day_journal(connection, date(2027, 5, 31), LATER - 1)

    run(database, work, "acme")


def test_journal_files_have_the_documented_format() -> None:
    movements = [
        accounting.Movement("cash", "purchase", "acme", 10 * CENT + 1),
        accounting.Movement("deferred", "purchase", "acme", -10 * CENT - 1),
    ]
    cents = [("cash", 10), ("deferred", -11), ("rounding", 1)]
    created = accounting.DayJournal(date(2027, 2, 3), movements, cents)
    assert render_journal(created, "csv").decode().splitlines() == [
        "date,account,name,kind,customer,debit,credit",
        "2027-02-03,cash,Stripe Balance,purchase,acme,0.100001,",
        "2027-02-03,deferred,Deferred Revenue - Credits,purchase,acme,,0.100001",
    ]
    assert render_journal(created, "quickbooks", {"cash": "Bank"}).decode().splitlines() == [
        "JournalNo,JournalDate,AccountName,Debits,Credits,Description",
        "EP20270203,02/03/2027,Bank,0.10,,edgeproxy 2027-02-03",
        "EP20270203,02/03/2027,Deferred Revenue - Credits,,0.11,edgeproxy 2027-02-03",
        "EP20270203,02/03/2027,Rounding,0.01,,edgeproxy 2027-02-03",
    ]
    assert render_journal(created, "xero", {"cash": "090"}).decode().splitlines()[:3] == [
        "*Narration,*Date,Description,*AccountCode,*TaxRate,*Amount",
        "edgeproxy 2027-02-03,03/02/2027,Stripe Balance,090,Tax Exempt,0.10",
        "edgeproxy 2027-02-03,03/02/2027,Deferred Revenue - Credits,Deferred Revenue - Credits,Tax Exempt,-0.11",
    ]


BALANCES = st.dictionaries(st.sampled_from(["cash", "deferred", "revenue", "cogs"]), st.integers(-(10**15), 10**15))


@given(BALANCES, st.lists(BALANCES, max_size=5))
def test_rounding_never_adds_up(begin: dict[str, int], days: list[dict[str, int]]) -> None:
    before, totals = begin, dict.fromkeys(ACCOUNTS, 0)
    for after in days:
        lines = compute_cents(before, after)
        assert sum(cents for _, cents in lines) == 0
        for account, cents in lines:
            totals[account] += cents
        before = after
    for account in ("cash", "deferred", "revenue", "cogs"):
        exact = before.get(account, 0) - begin.get(account, 0)
        assert abs(totals[account] * CENT - exact) <= CENT


@given(st.integers(-(10**7), 10**7), st.integers(0, 400 * DAY), st.integers(0, 400 * DAY), st.integers(0, 400))
def test_a_fee_is_earned_once_whenever_it_is_booked(amount: int, start: int, length: int, booked: int) -> None:
    fee = Fee(amount, start, start + length, booked * DAY + 7, "acme")
    days = range(0, 900 * DAY, DAY)
    moved = [one for day in days for one in compute_earned([fee], day, day + DAY)]
    assert sum(day.amount for day in moved if day.account == "revenue_fees") == -amount * CENT
    assert sum(day.amount for day in moved) == 0
    assert not any(one for day in range(0, booked * DAY, DAY) for one in compute_earned([fee], day, day + DAY))


@pytest.mark.parametrize("details", ["poison", "7", '{"fees":[["x",1,2]]}', '{"fees":[[1]]}', '{"fees":[null]}'])
def test_unreadable_fees_are_an_error_and_never_missing_in_a_sum(details: str) -> None:
    with pytest.raises(UnreadableRowError):
        list(accounting.parse_fees(details, 0, ""))
    assert details in [row.stored for row in list_untold()], "operators get an alert"
