"""Credits are booked once, repeated reports included, and the journal holds each customer's balance."""

import asyncio
import multiprocessing
import os
import signal
from typing import Any

import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing.credits import credits, purchase_list
from edgeproxy.collector.billing.credits.credits import Payment
from edgeproxy.collector.billing.journal import journal, postings
from edgeproxy.collector.billing.journal.journal import Posting
from edgeproxy.collector.billing.journal.postings import CENT, ConsumptionPart
from edgeproxy.collector.billing.journal.verification import JournalTamperedError, list_differences, verify_journal
from edgeproxy.collector.database.credit_tables import (
    credit_balances,
    credit_entries,
    credit_grants,
    credit_head,
    credit_transactions,
)
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.residency import credit_transfers, moves
from loadtest.testbed.waiting import until
from tests.support.credited import ALICE, read, run, write

ACME = "id-acme"
HOUR = 1_790_000_040 - 1_790_000_040 % 3600
PAID = Payment("cs_1", "pi_1", 1000 * CENT, 190 * CENT)


async def use(connection: Any, customer: str, amount: int, source: str) -> int:
    """Book usage in the way of consumption.py."""
    async with journal.open_journal(connection) as books:
        entries = postings.consumption_entries(
            await books.fetch_credit_balance(customer), [ConsumptionPart("cost", "", amount)]
        )
        return books.book(Posting(customer, "consumption", source, entries, slice=HOUR))


async def balances(database: Database, customer: str = ACME) -> tuple[int, list[tuple[str, int]]]:
    """Verify the journal. Return a customer's balance and the rest of each grant."""
    await read(database, verify_journal)
    assert await read(database, list_differences) == []
    async with database.reading() as connection:
        rows = await connection.execute(
            sa.select(credit_grants).where(credit_grants.c.customer == customer).order_by(credit_grants.c.number)
        )
        return await journal.fetch_balance(connection, customer), [(row.id, row.rest) for row in rows]


async def accounts(database: Database) -> dict[str, int]:
    """Return the balance of each account."""
    total = sa.cast(sa.func.sum(credit_entries.c.amount), sa.BigInteger)
    async with database.reading() as connection:
        rows = await connection.execute(sa.select(credit_entries.c.account, total).group_by(credit_entries.c.account))
        return {account: amount for account, amount in rows if amount}


def test_purchase_usage_and_refund_are_booked_once(database: str) -> None:
    async def work(opened: Database) -> None:
        for number in (1, None):
            assert await write(opened, credits.book_purchase, ACME, PAID) == number
        for number in (2, None):
            given = await write(opened, credits.book_gift, ALICE, ACME, "g", 5000, "sorry", None)
            assert given == number
        await write(opened, use, ACME, 5000 + 300 * CENT, "u1")
        assert await balances(opened) == (700 * CENT, [("cs_1", 700 * CENT), ("g", 0)])
        for number in (4, None):
            assert await write(opened, credits.book_usage_refund, ALICE, "u1", "back", 100 * CENT, "wrong") == number
        with pytest.raises(ChangeRejectedError, match="more usage would be taken back"):
            await write(opened, credits.book_usage_refund, ALICE, "u1", "more", 5001 + 200 * CENT, "wrong")
        with pytest.raises(ChangeRejectedError, match="no such consumption"):
            await write(opened, credits.book_usage_refund, ALICE, "u9", "more", 1, "wrong")

        with pytest.raises(ChangeRejectedError) as refused:
            await write(opened, credits.hold_refund, ALICE, "cs_1", "r0", 801 * CENT, "asked")
        assert list(map(str, refused.value.faults)) == [f"millicredits: {800 * CENT} at most"]
        with pytest.raises(ChangeRejectedError) as refused:
            await write(opened, credits.hold_refund, ALICE, "cs_1", "r0", 800 * CENT, "asked", pending=CENT + 1)
        used = [f"millicredits: {799 * CENT - 1} at most"]
        assert list(map(str, refused.value.faults)) == used, "some is used already"
        for _ in range(2):
            held = await write(opened, credits.hold_refund, ALICE, "cs_1", "r1", 400 * CENT, "asked")
            assert (held.cents, held.intent, held.customer) == (400 + 76, "pi_1", ACME)
        rest = await write(opened, credits.hold_refund, ALICE, "cs_1", "r2", None, "asked")
        assert rest.cents == 400 + 76
        with pytest.raises(ChangeRejectedError, match="nothing is unspent"):
            await write(opened, credits.hold_refund, ALICE, "cs_1", "r3", None, "asked")
        with pytest.raises(ChangeRejectedError, match="no such purchase"):
            await write(opened, credits.hold_refund, ALICE, "g", "r3", None, "asked")
        async with opened.reading() as connection:
            assert [
                unsettled_refund.id for unsettled_refund in await credits.list_unsettled_refunds(connection, 1 << 62)
            ] == ["r1", "r2"]
        assert (await balances(opened))[0] == 0
        assert await write(opened, credits.settle_refund, "r1", paid=True, refund="re_1") is not None
        assert await write(opened, credits.settle_refund, "r1", paid=True, refund="re_1") is None
        assert await write(opened, credits.settle_refund, "r2", paid=False, refund="re_2") is not None
        assert await write(opened, credits.settle_refund, "r9", paid=False, refund="re_9") is None
        with pytest.raises(ChangeRejectedError, match="failed before"):
            await write(opened, credits.settle_refund, "r2", paid=True, refund="re_2")
        assert (await balances(opened))[0] == 400 * CENT
        # The money of the first refund comes back days later, for example because a bank account was closed.
        assert await write(opened, credits.settle_refund, "r1", paid=False, refund="re_1") is not None
        assert (await balances(opened)) == (800 * CENT, [("cs_1", 800 * CENT), ("g", 0)])
        async with opened.reading() as connection:
            assert await credits.list_unsettled_refunds(connection, 1 << 62) == []
        assert await accounts(opened) == {
            "clearing": 1190 * CENT,
            "tax": -190 * CENT,
            "deferred": -800 * CENT,
            "revenue": -200 * CENT - 5000,
            "promotion": 5000,
        }

    run(database, work, "acme")


def test_credits_of_a_moved_customer_do_not_expire_at_the_old_residency(sqlite_database: str) -> None:
    async def work(opened: Database) -> None:
        await write(opened, credits.book_gift, ALICE, ACME, "g", 9000, "for a while", HOUR * 1000)
        async with opened.writing() as connection:
            move = await moves.insert_move(connection, ACME, "out", "us", peer="there")
            promised = f'[1, "usd", [["g", 9000, {HOUR * 1000}]], 0]'
            await moves.update_move(connection, move, state="gone", promised=promised)
        async with opened.writing() as connection, journal.open_journal(connection) as books:
            assert await credits.expire_grants(books, HOUR * 1000) == 0
        await write(opened, credit_transfers.book_promised, ALICE, "acme")
        assert await balances(opened) == (0, [("g", 0)])

    run(sqlite_database, work, "acme")


def test_origin_of_credits_that_arrived_is_a_move(sqlite_database: str) -> None:
    async def work(opened: Database) -> None:
        async with opened.writing() as connection, journal.open_journal(connection) as books:
            entries = postings.moved_in_entries(await books.fetch_credit_balance(ACME), [("m/1/0", 70)])
            books.create_grant(ACME, postings.Grant("m/1/0", 0, None))
            books.book(Posting(ACME, "moved_in", "m/1", entries, "m"))
        (origin,) = (await read(opened, purchase_list.fetch_origins, ACME)).values()
        assert (origin.kind, origin.granted) == ("moved", 70)

    run(sqlite_database, work, "acme")


def test_chargebacks_gifts_withdrawals_and_expiry_change_the_balance(sqlite_database: str) -> None:
    async def work(opened: Database) -> None:
        await write(opened, credits.book_purchase, ACME, PAID)
        await write(opened, use, ACME, 600 * CENT, "u1")
        for number in (3, None):
            assert await write(opened, credits.book_chargeback, "pi_1", "dp_1", 1190 * CENT) == number
        assert (await balances(opened))[0] == -600 * CENT
        with pytest.raises(ChangeRejectedError, match="nothing is unspent"):
            await write(opened, credits.hold_refund, ALICE, "cs_1", "r1", None, "asked")
        with pytest.raises(ChangeRejectedError, match="no purchase of credits was paid by pi_9"):
            await write(opened, credits.book_chargeback, "pi_9", "dp_9", 1)
        await write(opened, credits.book_gift, ALICE, ACME, "g1", 100 * CENT, "sorry", None)
        assert await balances(opened) == (-500 * CENT, [("cs_1", 0), ("g1", 0)])
        for number in (5, None):
            assert await write(opened, credits.book_chargeback_won, "pi_1", "dp_1", 1190 * CENT) == number
        assert await balances(opened) == (500 * CENT, [("cs_1", 500 * CENT), ("g1", 0)])
        assert await read(opened, credits.was_charged_back, "dp_1")

        await write(opened, credits.book_gift, ALICE, ACME, "g2", 7000, "more", None)
        with pytest.raises(ChangeRejectedError, match="more would be taken back"):
            await write(opened, credits.book_withdrawal, ALICE, ACME, "w", 7001, "too much")
        for number in (7, None):
            assert await write(opened, credits.book_withdrawal, ALICE, ACME, "w", 7000, "it was a mistake") == number
        at = (await read(opened, rows))[-1].at
        await write(opened, credits.book_gift, ALICE, ACME, "g3", 9000, "for a while", at + 1000)
        for until_, number in ((at + 999, 0), (at + 1000, 1), (at + 2000, 0)):
            async with opened.writing() as connection, journal.open_journal(connection) as books:
                assert await credits.expire_grants(books, until_) == number
        # A refund of the usage returns expired credits as a new gift.
        await write(opened, credits.book_gift, ALICE, ACME, "g4", 50, "for a while", at - 1000)
        await write(opened, use, ACME, 50, "u2")
        await write(opened, credits.book_usage_refund, ALICE, "u2", "back", 50, "wrong")
        assert await balances(opened) == (
            500 * CENT + 50,
            [("cs_1", 500 * CENT), ("g1", 0), ("g2", 0), ("g3", 0), ("g4", 0), ("back", 50)],
        )
        async with opened.reading() as connection:
            assert await journal.fetch_balance(connection, ACME, at) == 500 * CENT
            assert (
                await journal.fetch_balance(connection, "nobody")
                == await journal.fetch_balance(connection, "nobody", 9)
                == 0
            )

    run(sqlite_database, work, "acme")


def test_won_chargeback_returns_credits_to_the_grants_that_it_took_them_from(sqlite_database: str) -> None:
    """Four of ten bought credits were used, so the chargeback took the other six, and four of a gift."""

    async def fetch(opened: Database) -> list[tuple[str, int, int, int]]:
        origins, left = await read(opened, purchase_list.fetch_origins, ACME), dict((await balances(opened))[1])
        return [(of, left[of], one.returned, one.granted - one.returned - left[of]) for of, one in origins.items()]

    async def work(opened: Database) -> None:
        await write(opened, credits.book_purchase, ACME, Payment("cs_1", "pi_1", 10 * CENT))
        await write(opened, use, ACME, 4 * CENT, "u1")
        await write(opened, credits.book_gift, ALICE, ACME, "g1", 20 * CENT, "sorry", None)
        await write(opened, credits.book_chargeback, "pi_1", "dp_1", 10 * CENT)
        assert await fetch(opened) == [("g1", 16 * CENT, 4 * CENT, 0)]
        await write(opened, credits.book_chargeback_won, "pi_1", "dp_1", 10 * CENT)
        assert sorted(await fetch(opened)) == [("cs_1", 6 * CENT, 0, 4 * CENT), ("g1", 20 * CENT, 0, 0)]

    run(sqlite_database, work, "acme")


async def rows(connection: Any) -> Any:
    return (await connection.execute(sa.select(credit_transactions).order_by(credit_transactions.c.seq))).all()


ONE, SECOND = credit_transactions.c.seq == 1, credit_entries.c.seq == 2
TAMPERING = [
    (sa.update(credit_transactions).where(ONE).values(customer="id-bolt"), "transaction 1 was changed"),
    (sa.update(credit_transactions).where(ONE).values(amount=1), "transaction 1 was changed"),
    (sa.update(credit_entries).where(SECOND).values(amount=credit_entries.c.amount * 2), "transaction 2 was changed"),
    (sa.delete(credit_entries).where(SECOND), "transaction 2 was changed"),
    (sa.delete(credit_transactions).where(ONE), "transaction 1 was taken out"),
    (sa.delete(credit_transactions).where(~ONE), "transactions 2 to 3 were taken out"),
    (sa.update(credit_head).values(seq=2), "the head of the journal was changed: it says 2"),
    (sa.update(credit_grants).where(credit_grants.c.id == "cs_1").values(rest=9), "the grant cs_1 is 9, and its"),
    (sa.update(credit_balances).values(granted=1), f"the sum of all credits of {ACME} is 1, and its entries come to"),
    (sa.delete(credit_balances), f"the balance of {ACME} is None, and its entries come to"),
]


@pytest.mark.both_databases
def test_verification_names_changes_of_the_journal(database: str) -> None:
    async def work(opened: Database) -> None:
        await write(opened, credits.book_purchase, ACME, PAID)
        await write(opened, credits.book_gift, ALICE, ACME, "g", 5000, "sorry", None)
        await write(opened, use, ACME, 700, "u1")
        assert await read(opened, verify_journal) == 3
        for statement, message in TAMPERING:
            with pytest.raises(JournalTamperedError, match=message):
                await write(opened, after, statement)
        # A rewritten journal with correct hashes still fails if it does not balance.
        with pytest.raises(JournalTamperedError, match="transaction 4 does not balance"):
            await write(opened, recreate_table)
        async with opened.writing() as connection:
            await connection.execute(sa.update(credit_balances).values(balance=1))
            assert await list_differences(connection) == [ACME]
            await connection.execute(sa.update(credit_entries).where(SECOND).values(amount=1))
            assert await list_differences(connection) == ["journal", ACME]
            await connection.rollback()
        with pytest.raises(ValueError, match="does not balance"):
            await write(opened, half)
        assert await read(opened, verify_journal) == 3

    run(database, work, "acme", "bolt")


async def after(connection: Any, statement: Any) -> None:
    """Change the journal and verify it. The error rolls the change back."""
    await connection.execute(statement)
    await verify_journal(connection)


async def recreate_table(connection: Any) -> None:
    """Write a transaction that does not balance, with a correct hash."""
    before = (await connection.execute(sa.select(credit_head.c.hash))).scalar_one()
    async with journal.open_journal(connection) as books:
        entries = postings.plain_entries("cost", 5)
        await books.fetch_credit_balance(ACME)
        books.book(Posting(ACME, "cost", "t", entries))
        books._entries[-1]["amount"] -= 1
        wrong = [entries[0], entries[1]._replace(amount=-6)]
        books._hash = journal.compute_hash(before, books._transactions[-1], wrong)
        books._transactions[-1]["hash"] = books._hash
    await verify_journal(connection)


async def half(connection: Any) -> None:
    async with journal.open_journal(connection) as books:
        await books.fetch_credit_balance(ACME)
        books.book(Posting(ACME, "cost", "t", postings.plain_entries("cost", 5)[:1]))


@pytest.mark.usefixtures("sqlite_with_threads")
def test_two_collectors_book_once_and_never_refund_too_much(database: str) -> None:
    async def work(opened: Database) -> None:
        other = await Database.connect(database)
        refused = 0

        async def collector(own: Database, name: str) -> None:
            nonlocal refused
            for number in range(8):
                payment = Payment(f"cs_{number}", f"pi_{number}", 100 * CENT)
                await write(own, credits.book_purchase, ACME, payment)
                await write(own, use, ACME, 30 * CENT, f"{name}-{number}")
                try:
                    await write(own, credits.hold_refund, ALICE, f"cs_{number}", f"{name}-{number}", 60 * CENT, "asked")
                except ChangeRejectedError:
                    refused += 1

        try:
            await asyncio.gather(collector(opened, "one"), collector(other, "two"))
        finally:
            await other.close()
        kinds = [row.kind for row in await read(opened, rows)]
        assert (kinds.count("purchase"), kinds.count("consumption")) == (8, 16)
        assert kinds.count("refund") == 16 - refused <= 8, "of 100, 60 go back once"
        left = 8 * 100 * CENT - 16 * 30 * CENT - kinds.count("refund") * 60 * CENT
        assert (await balances(opened))[0] == left

    run(database, work, "acme")


MADE = 30


def book_all(url: str) -> None:
    """Book gifts and usage from the first one on, until the process is killed."""

    async def book() -> None:
        opened = await Database.connect(url)
        for number in range(MADE):
            await write(opened, credits.book_gift, ALICE, ACME, f"g{number}", 10, "again", None)
            async with opened.writing() as connection, journal.open_journal(connection) as books:
                if await books.find_transaction("consumption", f"u{number}") is None:
                    entries = postings.consumption_entries(
                        await books.fetch_credit_balance(ACME), [ConsumptionPart("cost", "", 7)]
                    )
                    books.book(Posting(ACME, "consumption", f"u{number}", entries, slice=HOUR))
        os._exit(0)

    asyncio.run(book())


def test_killed_bookings_are_completed_once(database: str) -> None:
    async def count() -> int:
        opened = await Database.connect(database)
        try:
            async with opened.reading() as connection:
                seq: int = (await connection.execute(sa.select(credit_head.c.seq))).scalar_one()
                return seq
        finally:
            await opened.close()

    async def begin(opened: Database) -> None:
        await read(opened, verify_journal)

    run(database, begin, "acme")
    fork = multiprocessing.get_context("fork")
    for share in (0.2, 0.6, None):
        process = fork.Process(target=book_all, args=(database,))
        process.start()
        if share is None:
            process.join(60)
            assert process.exitcode == 0
            break
        until(lambda share=share: asyncio.run(count()) > share * MADE * 2, "some are booked")
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)

    async def look(opened: Database) -> None:
        assert (await balances(opened))[0] == MADE * 3
        assert await read(opened, verify_journal) == MADE * 2

    run(database, look)
