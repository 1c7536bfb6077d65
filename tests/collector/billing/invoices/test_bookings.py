"""The journal books each plan invoice once: receivable, daily revenue, payment, void and credit notes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.invoices import bookings, invoices, line_rows, receivables, stripe_reports
from edgeproxy.collector.billing.invoices.bookings import invoice_entries
from edgeproxy.collector.billing.invoices.credit_notes import CreditNoteStateError, list_due, transition
from edgeproxy.collector.billing.invoices.invoices import InvoiceStateError
from edgeproxy.collector.billing.invoices.reductions import ReducedInvoice, compute_reduction
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.journal.verification import verify_journal
from edgeproxy.collector.billing.rating.rater import RatedLine, Span
from edgeproxy.collector.billing.reports.accounting import fetch_fees_between, parse_fees
from edgeproxy.collector.database import unreadable_rows
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.billing_tables import credit_notes, disputes, invoice_lines
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.credit_tables import credit_balances, credit_entries, credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY
from loadtest.testbed.tables_ready import put_tables
from tests.support.collector_fixtures import only_sqlite
from tests.support.credited import opened, read, write
from tests.support.site import AN_ID

MONTH = Span(1_800_000_000, 1_800_000_000 + 30 * DAY)
ACME = "id-acme"


def line(cents: int, meter: str = "", value: str = "") -> RatedLine:
    kind: Any = "usage" if meter else "fee"
    return RatedLine(kind, "standard@1", MONTH, meter, value, 1, 1, None, cents, MONTH)


LINES = [line(9900), line(-4950), line(235, "llm_tokens", "small"), line(0, "seats")]


def test_invoice_books_receivable_fees_revenue_and_tax() -> None:
    booked = [
        (invoice_entry.account, invoice_entry.amount // CENT, invoice_entry.meter, invoice_entry.model)
        for invoice_entry in invoice_entries(6171, LINES)
    ]
    assert booked == [
        ("receivable", 6171, "", ""),
        ("deferred_fees", -4950, "", ""),
        ("revenue", -235, "llm_tokens", "small"),
        ("tax", -986, "", ""),
    ]
    assert sum(invoice_entry.amount for invoice_entry in invoice_entries(6171, LINES)) == 0


async def invoice(database: Database, number: str, state: str, total: int = 6171) -> None:
    row = {
        "id": number,
        "customer": ACME,
        "period": number,
        "kind": "period",
        "state": state,
        "subtotal": 5185 if total else 0,
        "total": total,
        "amount_paid": total if state == "paid" else 0,
        "currency": "usd",
        "period_start": MONTH.start,
        "period_end": MONTH.end,
        "closes_at": MONTH.end,
        "tries": 0,
        "failures": 0,
        "try_at": 0,
        "created_at": 0,
    }
    rows = [{"invoice": number, "position": at, **line_rows.line_to_row(line, "usd")} for at, line in enumerate(LINES)]
    async with database.writing() as connection:
        await connection.execute(sa.insert(invoices_table), [row])
        if total:
            await connection.execute(sa.insert(invoice_lines), rows)


async def sums(connection: Any) -> dict[str, int]:
    """Return the balance of each account in cents."""
    total = sa.cast(sa.func.sum(credit_entries.c.amount), sa.BigInteger)
    rows = await connection.execute(sa.select(credit_entries.c.account, total).group_by(credit_entries.c.account))
    return {account: amount // CENT for account, amount in rows if amount}


async def transactions(connection: Any) -> list[Any]:
    statement = sa.select(credit_transactions).order_by(credit_transactions.c.seq)
    return list(await connection.execute(statement))


@pytest.mark.usefixtures("sqlite_with_threads")
async def test_each_change_of_an_invoice_is_booked_once(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookings, "PAGE", 2)

    async def book(there: Database) -> None:
        other = await Database.connect(database)
        try:
            for _ in range(4):
                await asyncio.gather(bookings.book_invoices(there), bookings.book_invoices(other))
        finally:
            await other.close()

    async with opened(database, "acme") as there:
        states = {"a": "open", "b": "paid", "c": "open", "d": "void", "e": "draft", "f": "held", "g": "open"}
        for number, state in states.items():
            await invoice(there, number, state, 0 if number == "g" else 6171)
        await book(there)
        steps = [(row.kind, row.source) for row in await read(there, transactions)]
        assert sorted(steps) == [("invoice", "a"), ("invoice", "b"), ("invoice", "c"), ("invoice_paid", "b")]
        assert steps.index(("invoice", "b")) < steps.index(("invoice_paid", "b"))
        assert await read(there, sums) == {
            "receivable": 2 * 6171,
            "clearing": 6171,
            "deferred_fees": -3 * 4950,
            "revenue": -3 * 235,
            "tax": -3 * 986,
        }
        await write(there, invoices.transition, "c", "open", "void")
        notes = [
            {"id": f"n{of}", "invoice": of, "amount": 100, "why": "sorry", "state": state, "refunded": refunded}
            for of, state, refunded in (("a", "made", 0), ("b", "made", 100), ("f", "requested", 0))
        ]
        async with there.writing() as connection:
            rows = [{**note, "tries": 0, "created_at": 0} for note in notes]
            await connection.execute(sa.insert(credit_notes), rows)
        await book(there)
        assert await read(there, sums) == {
            "receivable": 6171 - 100,
            "clearing": 6171 - 100,
            "deferred_fees": -2 * 4950 + 2 * 80,
            "revenue": -2 * 235 + 2 * 4,
            "tax": -2 * 986 + 2 * 16,
        }
        booked = await read(there, transactions)
        fees = {
            row.source: [fee.amount for fee in parse_fees(row.details, 0, row.customer)]
            for row in booked
            if row.kind == "invoice_void"
        }
        assert fees == {"c": [-9900, 4950]}
        assert await read(there, verify_journal) == len(booked) == 7
        async with there.reading() as connection:
            balances = (await connection.execute(sa.select(credit_balances))).all()
        assert balances == [], "a plan is no credit"
        assert await read(there, journal.fetch_balance, ACME) == 0


async def test_unreadable_invoices_do_not_stop_the_booking_of_others(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bookings, "PAGE", 2)

    async with opened(database, "acme", "bolt") as there:
        for number in ("a", "b", "c", "d", "e"):
            await invoice(there, number, "open")
        async with there.writing() as connection:
            damaged = sa.update(invoices_table).where(invoices_table.c.id.in_(("a", "b", "d")))
            await connection.execute(damaged.values(currency="poison"))
            await connection.execute(sa.update(invoices_table).values(amount_due=5))
        while await bookings.book_invoices(there):
            pass
        assert [row.source for row in await read(there, transactions)] == ["c", "e"]
        assert {row.key for row in unreadable_rows.list_untold() if row.table == "invoices"} >= {"a", "b", "d"}
        (owed,) = await read(there, receivables.sum_receivables, 0.0)
        assert (owed["currency"], owed["invoices"]) == ("usd", 2)
        async with there.writing() as connection:
            await connection.execute(sa.update(invoices_table).values(currency="usd"))
        while await bookings.book_invoices(there):
            pass
        assert sorted(row.source for row in await read(there, transactions)) == ["a", "b", "c", "d", "e"]


def test_unreadable_object_costs_one_transaction_in_an_hour(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable invoice, credit note and dispute; all others are booked in one transaction each time."""
    now, journals = 0.0, 0

    @asynccontextmanager
    async def counting(connection: AsyncConnection) -> AsyncIterator[journal.Journal]:
        nonlocal journals
        journals += 1
        async with journal.open_journal(connection) as books:
            yield books

    monkeypatch.setattr(bookings, "open_journal", counting)

    async def work() -> None:
        nonlocal now, journals
        unreadable = bookings.UnreadableObjects(lambda: now)
        async with opened(database, "acme") as there:

            async def count_journals() -> int:
                nonlocal journals
                journals = 0
                while await bookings.book_invoices(there, unreadable):
                    pass
                return journals

            for number in ("a", "b", "c"):
                await invoice(there, number, "open")
            poison = sa.update(invoices_table).where(invoices_table.c.id == "b")
            async with there.writing() as connection:
                await connection.execute(poison.values(currency="poison"))
            assert [await count_journals() for _ in range(3)] == [2, 0, 0]
            for number in ("d", "e"):
                await invoice(there, number, "open")
            assert await count_journals() == 1, "the others only"
            note = {"amount": 100, "why": "sorry", "state": "made", "tries": 0, "created_at": 0}
            lost = {"state": "lost", "customer": ACME, "amount": 50, "currency": "usd", "reason": "fraudulent"}
            first = sa.update(invoices_table).where(invoices_table.c.id == "a")
            async with there.writing() as connection:
                rows = [{"id": f"n{of}", "invoice": of, **note} for of in ("a", "c", "d")]
                await connection.execute(sa.insert(credit_notes), rows)
                rows = [{"id": f"l{of}", "invoice": of, "taken_off": 50, "created_at": 0, **lost} for of in ("a", "c")]
                await connection.execute(sa.insert(disputes), rows)
                await connection.execute(first.values(currency="poison"))
            assert [await count_journals() for _ in range(2)] == [4, 0], "two for the notes, two for the disputes"
            async with there.writing() as connection:
                await connection.execute(sa.update(invoices_table).values(currency="usd"))
            assert await count_journals() == 0
            now += bookings.RETRY_SECONDS
            assert await count_journals() == 3, "an invoice, a credit note and a dispute"
            booked = sorted(row.source for row in await read(there, transactions))
            assert booked == ["a", "b", "c", "d", "e", "la/0", "lc/0", "na", "nc", "nd"]

    asyncio.run(work())


@only_sqlite("database")
async def test_payment_after_a_full_credit_note_books_no_money(database: str) -> None:
    """The payment has no entries, and no other transaction is booked with it."""

    async with opened(database, "acme") as there:
        await invoice(there, "a", "open")
        await bookings.book_invoices(there)
        note = {"id": "n", "invoice": "a", "amount": 6171, "why": "sorry", "state": "made", "tries": 0}
        async with there.writing() as connection:
            await connection.execute(sa.insert(credit_notes), [{**note, "created_at": 0}])
        await bookings.book_invoices(there)
        await write(there, invoices.transition, "a", "open", "paid")
        await bookings.book_invoices(there)
        kinds = [row.kind for row in await read(there, transactions)]
        assert kinds == ["invoice", "credit_note", "invoice_paid"]
        assert "receivable" not in await read(there, sums)
        assert await read(there, verify_journal) == 3


async def test_credit_notes_of_open_invoices_reduce_receivables_and_revenue(database: str) -> None:
    async with opened(database, "acme") as there:
        for number in ("part", "void", "whole"):
            await invoice(there, number, "open")
        await bookings.book_invoices(there)
        notes = [
            {"id": f"n{of}", "invoice": of, "amount": amount, "why": "sorry", "state": "made"}
            for of, amount in (("part", 100), ("void", 100), ("whole", 6171))
        ]
        async with there.writing() as connection:
            rows = [{**note, "tries": 0, "created_at": 0} for note in notes]
            await connection.execute(sa.insert(credit_notes), rows)
        await bookings.book_invoices(there)
        for number, state, paid in (("part", "paid", 6171 - 100), ("void", "void", 0), ("whole", "paid", 0)):
            async with there.writing() as connection:
                await invoices.transition(connection, number, "open", state, amount_paid=paid)
        for _ in range(2):
            await bookings.book_invoices(there)
        assert await read(there, sums) == {
            "clearing": 6171 - 100,
            "deferred_fees": -(4950 - 80),
            "revenue": -(235 - 4),
            "tax": -(986 - 16),
        }
        assert await read(there, verify_journal) == 9
        async with there.reading() as connection:
            fees = await fetch_fees_between(connection, MONTH.start, MONTH.end)
        for part in (0, 1, 2):  # On each day, fee revenue equals the earned part of the remaining lines.
            second = MONTH.start + part * (MONTH.end - MONTH.start) // 2
            earned = sum(fee.compute_earned(second) for fee in fees)
            assert earned == pytest.approx((4950 - 80) * part / 2, abs=2)


@pytest.mark.parametrize("has_tax", [True, False])
def test_reductions_of_a_whole_invoice_can_be_reverted(has_tax: bool) -> None:
    """Reduce an invoice by a third, then by the rest, and revert both: each account returns to zero."""
    lines = [*LINES, RatedLine("discount", "standard@1", MONTH, "", "OFF", 0, 1, None, -333, MONTH)]
    invoice = ReducedInvoice(lines, 4852, 5838, 0)
    accounts: Counter[str] = Counter()
    for reduced, amount in ((0, 1946), (1946, 3892), (5838, -1946), (3892, -3892)):
        reduction = compute_reduction(invoice._replace(reduced=reduced), amount, has_tax=has_tax)
        assert sum(entry.amount for entry in reduction.entries) == CENT * amount
        for entry in reduction.entries:
            accounts[entry.account] += entry.amount
        if reduced + amount == 5838:
            taxed = {"tax": 986, "revenue": 235} if has_tax else {"revenue": 235 + 986}
            assert {name: n // CENT for name, n in accounts.items()} == {
                "deferred_fees": 4950,
                "discounts": -333,
                **taxed,
            }
    assert not any(accounts.values())


STORIES: dict[str, tuple[list[tuple[str, dict[str, int]]], dict[str, int]]] = {
    "a credit note of one that is void": ([("note", {"amount": 100}), ("void", {})], {}),
    "a credit note that is void, of one that is void": ([("note", {"amount": 100}), ("unnote", {}), ("void", {})], {}),
    "one that was written off, with a credit note, and void": (
        [("uncollectible", {}), ("note", {"amount": 1}), ("void", {})],
        {},
    ),
    "credit notes before and after the payment": (
        [("note", {"amount": 100}), ("paid", {"amount_paid": 6071}), ("note", {"amount": 50, "refunded": 50})],
        {"clearing": 6021},
    ),
    "a payment elsewhere, of which some is for the balance": (
        [("paid", {"amount_paid": 6171, "paid_off_stripe": 6171}), ("note", {"amount": 70, "to_balance": 70})],
        {"bank": 6171, "customer_balance": -70},
    ),
    "one that was written off, credited and paid": (
        [("uncollectible", {}), ("note", {"amount": 71}), ("paid", {"amount_paid": 6100})],
        {"clearing": 6100},
    ),
}
"""Steps of an open invoice, and the resulting balances of the money accounts in cents."""


@pytest.mark.parametrize(("steps", "expected"), STORIES.values(), ids=STORIES.keys())
async def test_books_are_equal_whenever_the_steps_of_an_invoice_are_booked(
    sqlite_database: str, steps: list[tuple[str, dict[str, int]]], expected: dict[str, int]
) -> None:
    async def live(there: Database, number: str, looks: int) -> None:
        """Apply the steps. Book invoices after each step that has its bit set in `looks`."""
        await invoice(there, number, "open")
        for at, (step, values) in enumerate(steps):
            async with there.writing() as connection:
                if step == "note":
                    row = {"id": f"{number}-{9 - at}", "invoice": number, "why": "sorry", "state": "made", **values}
                    await connection.execute(sa.insert(credit_notes), [{**row, "tries": 0, "created_at": 0}])
                elif step == "unnote":
                    await connection.execute(sa.update(credit_notes).values(state="void"))
                else:
                    await connection.execute(
                        sa.update(invoices_table).where(invoices_table.c.id == number).values(state=step, **values)
                    )
            if looks >> at & 1:
                await bookings.book_invoices(there)

    async with opened(sqlite_database, "acme") as there:
        for looks in range(1 << len(steps)):
            before = await read(there, sums)
            await live(there, f"one-{looks}", looks)
            while await bookings.book_invoices(there):
                pass
            after = await read(there, sums)
            change = {name: after.get(name, 0) - before.get(name, 0) for name in after | before}
            money = ("clearing", "receivable", "bad_debt", "bank", "customer_balance")
            assert {name: change[name] for name in money if change.get(name)} == expected, f"{looks:b}"
        await read(there, verify_journal)


@pytest.mark.parametrize(
    ("state", "reported", "then"),
    [("paid", "open", "paid"), ("uncollectible", "paid", "paid"), ("open", "void", "void")],
)
async def test_late_report_does_not_reopen_a_settled_invoice(
    tmp_path: Path, state: str, reported: str, then: str
) -> None:
    async with opened(put_tables(f"sqlite:///{tmp_path}/ledger.db"), "acme") as there:
        await invoice(there, AN_ID, state)
        seen = {"id": "in_1", "metadata": {"edgeproxy_invoice": AN_ID}, "status": reported, "total": 6171}
        await write(there, stripe_reports.apply_stripe_invoice, seen)
        async with there.reading() as connection:
            assert (await connection.execute(sa.select(invoices_table.c.state))).scalar_one() == then


@pytest.mark.parametrize(
    ("state", "attempts", "raised"),
    [("open", 0, []), ("open", 1, ["acme: the payment of $61.71 failed"]), ("paid", 1, [])],
)
async def test_failed_payment_raises_one_alert(database: str, state: str, attempts: int, raised: list[str]) -> None:
    async with opened(database, "acme") as there:
        await invoice(there, "one", state)
        for attempt in range(attempts, attempts + 2 if attempts else 1):
            own = {"id": "in_1", "metadata": {"edgeproxy_invoice": "one"}, "total": 6171, "attempt_count": attempt}
            await write(there, stripe_reports.apply_stripe_invoice, {**own, "status": "open"})
        async with there.reading() as connection:
            assert (await connection.execute(sa.select(alerts.c.title))).scalars().all() == raised


async def test_invoice_changes_state_only_by_the_transition_table(sqlite_database: str) -> None:
    async with opened(sqlite_database, "acme") as there:
        await invoice(there, "one", "open")
        with pytest.raises(InvoiceStateError, match="from paid to open"):
            await write(there, invoices.transition, "one", "paid", "open")
        with pytest.raises(InvoiceStateError, match="is not held any more"):
            await write(there, invoices.transition, "one", "held", "closing")
        async with there.reading() as connection:
            assert (await connection.execute(sa.select(invoices_table.c.state))).scalar_one() == "open"


async def test_created_credit_note_is_not_due_and_cannot_be_refused(sqlite_database: str) -> None:
    async with opened(sqlite_database, "acme") as there:
        await invoice(there, "one", "paid")
        row = {"id": "note", "invoice": "one", "amount": 1, "why": "sorry", "tries": 0, "created_at": 0}
        async with there.writing() as connection:
            await connection.execute(sa.insert(credit_notes), [{**row, "state": "requested"}])
        (note,) = await read(there, list_due, 1.0, 10)
        await write(there, transition, note, "made", stripe_id="cn_1")
        assert await read(there, list_due, 1.0, 10) == []
        with pytest.raises(CreditNoteStateError, match="from made to refused"):
            await write(there, transition, note._replace(state="made"), "refused")
