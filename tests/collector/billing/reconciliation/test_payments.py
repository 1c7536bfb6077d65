"""What Stripe has moved against the journal: whatever one of the two lacks is found, to the cent."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa

from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.credits import credits
from edgeproxy.collector.billing.credits.credits import Payment
from edgeproxy.collector.billing.credits.purchases import CUSTOMER
from edgeproxy.collector.billing.credits.refunds import RefundSender
from edgeproxy.collector.billing.journal import journal, postings
from edgeproxy.collector.billing.journal.journal import Posting
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.period_close.collection.invoice_items import INVOICE_METADATA
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.reconciliation import payments
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.database import Database
from edgeproxy.config.collector.billing import Stripe as Settings
from tests.support.credited import ALICE, opened, write
from tests.support.stripe_sandbox import KEY, Sandbox

ACME = "id-acme"


async def pay(client: Stripe, cents: int, metadata: dict[str, str]) -> str:
    """Have somebody pay; the payment intent."""
    made = await client.call(
        "v1.payment_intents.create",
        key=f"{time.time_ns()}",
        amount=cents,
        currency="usd",
        payment_method="pm_card_visa",
        confirm=True,
        metadata=metadata,
    )
    return str(made["id"])


async def invoiced(database: Database, client: Stripe, cents: int) -> tuple[str, str]:
    """Have an invoice of ours paid at Stripe; our id of it, and Stripe's."""
    card = {"payment_method": "pm_card_visa", "invoice_settings": {"default_payment_method": "pm_card_visa"}}
    person = await client.call("v1.customers.create", key=f"c{time.time_ns()}", name="acme", **card)
    number = f"invoice-{cents}"
    made = await client.call(
        "v1.invoices.create",
        key=f"i{time.time_ns()}",
        customer=person["id"],
        currency="usd",
        auto_advance=False,
        metadata={INVOICE_METADATA: number},
    )
    item = {"customer": person["id"], "invoice": made["id"], "currency": "usd", "amount": cents}
    await client.call("v1.invoice_items.create", key=f"t{time.time_ns()}", **item)
    await client.call("v1.invoices.finalize_invoice", made["id"], key=f"f{time.time_ns()}", auto_advance=False)
    await client.call("v1.invoices.pay", made["id"], key=f"p{time.time_ns()}")
    row: dict[str, Any] = {"id": number, "customer": ACME, "period": number, "kind": "period", "state": "paid"}
    amounts = {"subtotal": cents, "total": cents, "currency": "usd", "stripe_id": made["id"]}
    times = dict.fromkeys(("period_start", "period_end", "closes_at", "tries", "failures", "try_at", "created_at"), 0)
    async with database.writing() as connection:
        await connection.execute(sa.insert(invoices), [{**row, **amounts, **times}])
    return number, made["id"]


async def book(connection: Any, kind: Any, source: str, entries: Any, original: str) -> None:
    async with journal.open_journal(connection) as books:
        books.book(Posting(ACME, kind, source, entries, original))


def play(url: str, sandbox: Sandbox, work: Callable[[Database, Stripe], Awaitable[None]]) -> None:
    async def do() -> None:
        client = Stripe(Settings(base=sandbox.url), {"STRIPE_SECRET_KEY": KEY})
        client.pace.whole = client.pace.endpoint = 1e6
        try:
            async with opened(url, "acme") as database:
                await work(database, client)
        finally:
            await client.close()

    asyncio.run(do())


Compare = Callable[[Database, Stripe], Awaitable[list[tuple[str, str, int, int]]]]


def comparing() -> Compare:
    """What compares an hour, and tells of rows that differ and did not the first time: others use this sandbox, too."""
    elsewhere: list[tuple[str, str, int, int]] | None = None

    async def compare(of: Database, client: Stripe) -> list[tuple[str, str, int, int]]:
        nonlocal elsewhere
        now = time.time()
        await payments.reconcile_span(of, client, Span(int(now) - 3600, int(now) + 3600), now)
        async with of.reading() as connection:
            one = (await discrepancies.list_reconciliations(connection, "D", 1))[0]
        rows = [(row["customer"], row["meter"], row["ours"], row["theirs"]) for row in one["rows"]]
        elsewhere = rows if elsewhere is None else elsewhere
        return [row for row in rows if row not in elsewhere]

    return compare


def test_whatever_either_book_lacks_is_a_difference(database: str, own_sandbox: Sandbox) -> None:
    async def work(of: Database, client: Stripe) -> None:
        compare, mine = comparing(), {CUSTOMER: ACME}
        assert await compare(of, client) == []
        first, second = await pay(client, 1000, mine), await pay(client, 2000, mine)
        await pay(client, 777, {})  # Of somebody else, by the same account.
        await write(of, credits.book_purchase, ACME, Payment("cs_1", first, 900 * CENT, 100 * CENT))
        assert await compare(of, client) == [(second, "purchase", 0, 2000)]
        await write(of, credits.book_purchase, ACME, Payment("cs_2", second, 1999 * CENT))
        assert await compare(of, client) == [("acme", "purchase", 1999, 2000)]

    play(database, own_sandbox, work)


def test_refunds_and_invoices_agree_by_what_they_are_of(database: str, own_sandbox: Sandbox) -> None:
    async def work(of: Database, client: Stripe) -> None:
        compare = comparing()
        assert await compare(of, client) == []
        intent = await pay(client, 3000, {CUSTOMER: ACME})
        await write(of, credits.book_purchase, ACME, Payment("cs_3", intent, 3000 * CENT))
        held = await write(of, credits.hold_refund, ALICE, "cs_3", f"held-{intent}", 500 * CENT, "asked")
        await RefundSender(of, client).send_refund(held)
        assert await compare(of, client) == []
        made = await client.call("v1.refunds.create", key=f"r{intent}", payment_intent=intent, amount=250)
        assert await compare(of, client) == [(made["id"], "refund", 0, -250)], "it was made in Stripe's dashboard"
        await write(of, credits.book_chargeback, intent, made["id"], 250 * CENT)
        number, there = await invoiced(of, client, 4321)
        assert await compare(of, client) == [(there, "invoice", 0, 4321)]
        await write(of, book, "invoice_paid", number, postings.plain_entries("invoice_paid", 4321 * CENT), number)
        assert await compare(of, client) == []
        await write(of, book, "invoice_paid", "never", postings.plain_entries("invoice_paid", 55 * CENT), "never")
        assert await compare(of, client) == [("acme", "invoice", 55, 0)]

    play(database, own_sandbox, work)


def test_a_charge_that_stripe_tells_nothing_of_is_named_and_keeps_no_other_from_being_compared(
    sqlite_database: str, own_sandbox: Sandbox
) -> None:
    async def work(of: Database, client: Stripe) -> None:
        compare, call, calls = comparing(), client.call, []
        assert await compare(of, client) == []
        bad, good = await pay(client, 111, {}), await pay(client, 222, {CUSTOMER: ACME})
        (charge,) = await client.list_all("v1.charges.list", payment_intent=bad)
        await invoiced(of, client, 333)

        async def refuses(name: str, /, *ids: str, **more: Any) -> dict[str, Any]:
            calls.append((name, *ids))
            if ids == (bad,):
                raise StripeCallError(CallOutcome.REFUSED, "there is a fault in it")
            return await call(name, *ids, **more)

        client.call = refuses  # type: ignore[method-assign]
        rows = await compare(of, client)
        expected = {(charge["id"], "unclear", 0, 111), (good, "purchase", 0, 222)}
        assert {row for row in rows if row[1] != "invoice"} == expected
        (there,) = [row[0] for row in rows if row[1] == "invoice"]
        assert calls.count(("v1.invoices.retrieve", there)) == 1, (
            "what it pays is known, and is asked for as it differs"
        )

    play(sqlite_database, own_sandbox, work)


def test_each_day_is_compared_once(sqlite_database: str, own_sandbox: Sandbox) -> None:
    async def work(of: Database, client: Stripe) -> None:
        now = time.time() // 86400 * 86400 - 10 * 86400 + 7200
        assert await payments.reconcile_days(of, client, now - 1) == 1
        assert await payments.reconcile_days(of, client, now) == 1
        assert await payments.reconcile_days(of, client, now) == 0
        assert await payments.reconcile_days(of, client, now + 3 * 86400) == 3
        async with of.reading() as connection:
            listed = await discrepancies.list_reconciliations(connection, "D", 100)
        assert len({one["since"] for one in listed}) == 5

    play(sqlite_database, own_sandbox, work)
