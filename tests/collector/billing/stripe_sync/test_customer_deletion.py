"""Erased customers are deleted at Stripe after invoices and disputes are settled, and despite failed calls."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import pytest
import sqlalchemy as sa

from edgeproxy.base import log
from edgeproxy.collector.accounts.audit import list_entries
from edgeproxy.collector.billing.stripe.client import Stripe, StripeCallError
from edgeproxy.collector.billing.stripe.customers import StripeCustomers, find_stripe_id, record_deleted
from edgeproxy.collector.billing.stripe_sync.customer_deletion import (
    CALL_FAILED,
    DISPUTE,
    INVOICE,
    INVOICE_AT_STRIPE,
    NOT_THERE,
    delete_erased,
    list_waiting,
)
from edgeproxy.collector.database.billing_tables import billing_customers, invoices
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import audit, customers
from edgeproxy.config.collector.billing import Stripe as Settings
from tests.support.credited import opened
from tests.support.stripe_sandbox import KEY, Sandbox

FORK = multiprocessing.get_context("fork")


def connect(base: str) -> Stripe:
    """Return a client of a sandbox without rate limits."""
    client = Stripe(Settings(base=base), {"STRIPE_SECRET_KEY": KEY})
    client.pace.whole = client.pace.endpoint = 1e6
    return client


def play(url: str, sandbox: Sandbox, work: Callable[[Database, Stripe], Awaitable[None]]) -> None:
    """Run `work` with a database of two customers and a Stripe client."""

    async def do() -> None:
        client = connect(sandbox.url)
        try:
            async with opened(url, "acme", "bolt") as database:
                await work(database, client)
        finally:
            await client.close()

    asyncio.run(do())


async def create(database: Database, stripe: Stripe, name: str, *, erased_at: int | None = 1) -> str:
    """Create a customer at Stripe, set its erasure here, and return its Stripe id."""
    stripe_id = str((await stripe.call("v1.customers.create", name=name, email=f"ada@{name}.example"))["id"])
    async with database.writing() as connection:
        await connection.execute(
            sa.insert(billing_customers), [{"customer": f"id-{name}", "stripe_id": stripe_id, "livemode": 0}]
        )
        own = customers.c.name == name
        await connection.execute(sa.update(customers).where(own).values(erased_at=erased_at, deleting_since=erased_at))
    return stripe_id


async def is_deleted(stripe: Stripe, stripe_id: str) -> bool:
    return bool((await stripe.call("v1.customers.retrieve", stripe_id)).get("deleted"))


async def find_reason(database: Database) -> str | None:
    """Return why the first waiting customer is not deleted yet, or an empty text if none waits."""
    async with database.reading() as connection:
        waiting = await list_waiting(connection)
    return waiting[0].waits_for if waiting else ""


async def set_invoice(database: Database, state: str) -> None:
    """Insert an invoice of acme with the given state, in place of all others."""
    zero = ("period_start", "period_end", "closes_at", "tries", "failures", "try_at", "created_at")
    row = {"id": "i1", "customer": "id-acme", "period": "p", "kind": "period", "state": state, **dict.fromkeys(zero, 0)}
    async with database.writing() as connection:
        await connection.execute(sa.delete(invoices))
        await connection.execute(sa.insert(invoices), [{**row, "subtotal": 1, "total": 1, "currency": "usd"}])


@pytest.mark.both_databases
def test_only_erased_customers_are_deleted_after_invoices_and_disputes(database: str, own_sandbox: Sandbox) -> None:
    async def work(opened_database: Database, stripe: Stripe) -> None:
        acme = await create(opened_database, stripe, "acme")
        bolt = await create(opened_database, stripe, "bolt", erased_at=None)
        await set_invoice(opened_database, "open")
        await delete_erased(opened_database, stripe)
        assert await find_reason(opened_database) == INVOICE
        await set_invoice(opened_database, "paid")

        draft = await stripe.call("v1.invoices.create", customer=acme, currency="usd", auto_advance=False)
        item = {"customer": acme, "invoice": draft["id"], "currency": "usd", "amount": 500}
        await stripe.call("v1.invoice_items.create", **item)
        for step in ("draft", "open"):
            if step == "open":
                await stripe.call("v1.invoices.finalize_invoice", draft["id"], auto_advance=False)
            await delete_erased(opened_database, stripe)
            assert await find_reason(opened_database) == INVOICE_AT_STRIPE, step
        await stripe.call("v1.invoices.void_invoice", draft["id"])

        pay = {"currency": "usd", "confirm": True, "return_url": "https://shop.example", "customer": acme}
        await stripe.call("v1.payment_intents.create", amount=500, payment_method="pm_card_createDispute", **pay)
        await delete_erased(opened_database, stripe)
        assert await find_reason(opened_database) == DISPUTE
        (charge,) = await stripe.list_all("v1.charges.list", customer=acme)
        (dispute,) = await stripe.list_all("v1.disputes.list", charge=charge["id"])
        await stripe.call("v1.disputes.close", dispute["id"])
        assert not await is_deleted(stripe, acme)

        for _ in range(2):  # The second run does nothing for a deleted customer.
            await delete_erased(opened_database, stripe)
            assert await find_reason(opened_database) == ""
        assert await is_deleted(stripe, acme)
        assert not await is_deleted(stripe, bolt)
        async with opened_database.reading() as connection:
            actions = list((await connection.execute(sa.select(audit.c.action, audit.c.target))).all())
        assert actions == [("customer.erase_at_stripe", "acme")]

    play(database, own_sandbox, work)


@pytest.mark.parametrize("kind", ["error_after", "answer_lost"])
def test_next_run_finds_a_deletion_with_a_lost_answer(sqlite_database: str, own_sandbox: Sandbox, kind: str) -> None:
    async def work(opened_database: Database, stripe: Stripe) -> None:
        acme = await create(opened_database, stripe, "acme")
        own_sandbox.control("faults", {"faults": [{"kind": kind, "method": "DELETE", "count": 1}]})
        with pytest.raises(StripeCallError):
            await delete_erased(opened_database, stripe)
        assert await find_reason(opened_database) == CALL_FAILED
        assert await is_deleted(stripe, acme)
        await delete_erased(opened_database, stripe)
        assert await find_reason(opened_database) == ""

    play(sqlite_database, own_sandbox, work)


def test_failing_deletion_does_not_block_other_customers(sqlite_database: str, own_sandbox: Sandbox) -> None:
    async def work(opened_database: Database, stripe: Stripe) -> None:
        acme, bolt = [await create(opened_database, stripe, name) for name in ("acme", "bolt")]
        fault = {"kind": "refused", "method": "DELETE", "path": f"/v1/customers/{acme}"}
        own_sandbox.control("faults", {"faults": [fault]})
        with pytest.raises(StripeCallError):
            await delete_erased(opened_database, stripe)
        with pytest.raises(StripeCallError):  # The other customer comes first, and then the failing one again.
            await delete_erased(opened_database, stripe)
        assert await is_deleted(stripe, bolt)
        assert await find_reason(opened_database) == CALL_FAILED
        own_sandbox.control("faults", {"faults": []})
        await delete_erased(opened_database, stripe)
        assert await is_deleted(stripe, acme)

    play(sqlite_database, own_sandbox, work)


CALLS = ("v1.customers.retrieve", "v1.invoices.list", "v1.charges.list", "v1.customers.delete")
COMMIT, COMMITTED = "the commit of the record", "after the commit"


def kill(*_: Any) -> None:
    """Kill this process (kill -9)."""
    os.kill(os.getpid(), signal.SIGKILL)


def delete_until(step: str, url: str, base: str) -> None:
    """Delete erased customers at Stripe, and kill the process after the answer of a call, or at the commit."""

    async def do() -> None:
        client, database = connect(base), await Database.connect(url)
        send = client._send_paced

        async def send_and_die(name: str, *arguments: Any) -> Any:
            answer = await send(name, *arguments)
            if name == step:
                kill()
            return answer

        if step == COMMIT:
            sa.event.listen(database._writer.sync_engine, "commit", kill)
        with patch.object(client, "_send_paced", send_and_die), ExitStack() as patched:
            if step == COMMITTED:  # The log line follows the commit.
                patched.enter_context(patch.object(log, "get_logger", kill))
            await delete_erased(database, client)

    asyncio.run(do())


@pytest.mark.parametrize("step", [*CALLS, COMMIT, COMMITTED])
def test_killed_collector_deletes_once_and_records_one_audit_entry(
    sqlite_database: str, own_sandbox: Sandbox, step: str
) -> None:
    async def begin(opened_database: Database, stripe: Stripe) -> None:
        stripe_ids.append(await create(opened_database, stripe, "acme"))

    stripe_ids: list[str] = []
    play(sqlite_database, own_sandbox, begin)
    process = FORK.Process(target=delete_until, args=(step, sqlite_database, own_sandbox.url))
    process.start()
    process.join(60.0)
    assert process.exitcode == -signal.SIGKILL

    async def go_on() -> None:
        client, database = connect(own_sandbox.url), await Database.connect(sqlite_database)
        assert await is_deleted(client, stripe_ids[0]) == (step in (CALLS[-1], COMMIT, COMMITTED))
        await delete_erased(database, client)
        assert await find_reason(database) == ""
        assert await is_deleted(client, stripe_ids[0])
        async with database.reading() as connection:
            entries = (await connection.execute(sa.select(audit.c.action))).scalars().all()
        assert entries == ["customer.erase_at_stripe"]
        await client.close()
        await database.close()

    asyncio.run(go_on())


def test_customer_of_another_account_is_not_deleted(sqlite_database: str, own_sandbox: Sandbox) -> None:
    async def work(opened_database: Database, stripe: Stripe) -> None:
        await create(opened_database, stripe, "acme")
        async with opened_database.writing() as connection:
            await connection.execute(sa.update(billing_customers).values(stripe_id="cus_of_another_account"))
        await delete_erased(opened_database, stripe)
        assert await find_reason(opened_database) == NOT_THERE

    play(sqlite_database, own_sandbox, work)


def test_customer_deleted_by_hand_at_stripe_is_created_again(database: str, new_sandbox: Sandbox) -> None:
    async def work(opened: Database, stripe: Stripe) -> None:
        stripe_customers = StripeCustomers(opened, stripe)
        first = await stripe_customers.get_or_create("id-acme", "acme")
        await stripe.call("v1.customers.delete", first)
        for _ in range(2):
            async with opened.writing() as connection:
                await record_deleted(connection, first)
                assert await find_stripe_id(connection, "id-acme") is None
        async with opened.reading() as connection:
            entries = await list_entries(connection, 0, 10, action="customer.deleted_at_stripe")
            assert [entry["target"] for entry in entries] == ["acme"], "once"
        second = await stripe_customers.get_or_create("id-acme", "acme")
        assert not await is_deleted(stripe, second)
        async with opened.writing() as connection:
            await record_deleted(connection, first)  # Stripe repeats the event.
            assert await find_stripe_id(connection, "id-acme") == second
        assert await stripe_customers.get_or_create("id-acme", "acme") == second

    play(database, new_sandbox, work)
