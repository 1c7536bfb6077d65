"""Customers' webhooks are told of their credits and of refunds, each once."""

from typing import Any

import orjson
import sqlalchemy as sa

from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.credits.purchases import APPLIERS
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.postings import CENT, ConsumptionPart, consumption_entries
from edgeproxy.collector.database.credit_tables import credit_grants
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.webhook_tables import webhook_endpoints, webhook_messages
from tests.support.credited import ALICE, run, write

ACME = "id-acme"
PAID = credits.Payment("cs_1", "pi_1", 1000 * CENT)
REFUND = {"object": "refund", "id": "re_1", "payment_intent": "pi_1", "currency": "usd", "amount": 300, "created": 1}


async def listen(opened: Database) -> None:
    endpoint = {"id": "we_1", "customer": ACME, "url": "https://shop.example/", "secret": b"x", "state": "enabled"}
    async with opened.writing() as connection:
        await connection.execute(sa.insert(webhook_endpoints).values(**endpoint, created_at=0, version=1))


async def fetch_messages(opened: Database) -> list[tuple[str, dict[str, Any]]]:
    columns = webhook_messages.c
    async with opened.reading() as connection:
        rows = await connection.execute(sa.select(columns.type, columns.body).order_by(columns.id))
        return [(row.type, orjson.loads(row.body)["data"]) for row in rows]


async def expire(connection: Any, at: int) -> None:
    async with journal.open_journal(connection) as books:
        await credits.expire_grants(books, at)


async def spend(connection: Any, hour: int, amount: int) -> None:
    async with journal.open_journal(connection) as books:
        await books.fetch_credit_balance(ACME)
        await credits.reverse_expiry(books, ACME, hour, amount, "u1")
        part = [ConsumptionPart("cost", "", amount)]
        entries = consumption_entries(await books.fetch_credit_balance(ACME), part)
        books.book(journal.Posting(ACME, "consumption", "u1", entries, slice=hour))


def test_each_change_of_credits_but_usage_is_a_message(database: str) -> None:
    async def work(opened: Database) -> None:
        await listen(opened)
        await write(opened, credits.book_gift, ALICE, ACME, "g", 5000, "sorry", 7_200_000)
        await write(opened, credits.book_gift, ALICE, ACME, "g", 5000, "sorry", 7_200_000)
        await write(opened, expire, 7_200_000)
        await write(opened, spend, 3600, 2000)
        await write(opened, credits.book_usage_refund, ALICE, "u1", "back", 500, "wrong")
        await write(opened, credits.book_purchase, ACME, PAID)
        await write(opened, credits.book_gift, ALICE, ACME, "h", 700, "sorry", None)
        await write(opened, credits.book_withdrawal, ALICE, ACME, "w", 700, "wrong")
        messages = await fetch_messages(opened)
        told = sorted((type_, data["millicredits"], data["grant"]) for type_, data in messages)
        assert told == [
            ("credits.expired", -5000, "g"),
            ("credits.granted", 700, "h"),
            ("credits.granted", 5000, "g"),
            ("credits.purchased", 1000 * CENT, "cs_1"),
            ("credits.restored", 2000, "g"),
            ("credits.returned", 500, None),
            ("credits.withdrawn", -700, None),
        ]
        given = next(data for type_, data in messages if data["grant"] == "g")
        assert (given["customer"], given["currency"], given["expires_at"]) == (
            "acme",
            "usd",
            "1970-01-01T02:00:00.000Z",
        )

    run(database, work, "acme")


def test_the_result_of_a_refund_is_one_message(sqlite_database: str) -> None:
    """A refund of ours and one by the dashboard, each reported twice; the last one fails."""

    async def work(opened: Database) -> None:
        await listen(opened)
        await write(opened, credits.book_purchase, ACME, PAID)
        by_hand = {**REFUND, "id": "re_2", "amount": 100}
        held = await write(opened, credits.hold_refund, ALICE, "cs_1", "r1", 300 * CENT, "asked")
        ours = {**REFUND, "metadata": {"edgeproxy_refund": held.id}}
        for refund in (ours, by_hand):
            for status in ("pending", "succeeded", "succeeded"):
                await write(opened, APPLIERS["refund"], {**refund, "status": status})
        failed = {**by_hand, "status": "failed", "failure_reason": "lost_or_stolen_card"}
        await write(opened, APPLIERS["refund"], failed)
        messages = [message for message in await fetch_messages(opened) if message[0].startswith("refund.")]
        told = sorted((type_, data["id"], data["amount"], data["purchase"]) for type_, data in messages)
        paid, bounced = "refund.paid", "refund.failed"
        assert told == [(bounced, "re_2", 100, "cs_1"), (paid, "re_1", 300, "cs_1"), (paid, "re_2", 100, "cs_1")]
        (why,) = [data["failure_reason"] for type_, data in messages if type_ == bounced]
        assert why == "lost_or_stolen_card"
        async with opened.reading() as connection:
            rest = sa.select(credit_grants.c.rest).where(credit_grants.c.id == "cs_1")
            assert (await connection.execute(rest)).scalar_one() == 700 * CENT

    run(sqlite_database, work, "acme")
