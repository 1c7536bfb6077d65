"""Concurrent changes on PostgreSQL: one may wait for another, and none deadlock."""

import base64
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts import contacts, customers, keys
from edgeproxy.collector.accounts.audit import verify_chain
from edgeproxy.collector.accounts.last_used import LastUsedDays
from edgeproxy.collector.accounts.models import CreateKeyRequest, UpdateCustomerRequest, UpdateKeyRequest
from edgeproxy.collector.billing.invoices import dunning
from edgeproxy.collector.billing.subscriptions import coupons, subscriptions
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import keys as key_table
from edgeproxy.collector.database.schema import metadata
from edgeproxy.collector.encryption.keyring import open_keyring
from edgeproxy.collector.privacy import erasure
from edgeproxy.collector.webhook_endpoints import endpoints
from edgeproxy.collector.webhook_endpoints.models import CreateWebhookEndpointRequest
from edgeproxy.config.collector.encryption import Encryption
from edgeproxy.config.collector.webhooks import Webhooks
from loadtest.testbed.postgresql import Postgresql
from tests.support.credited import read, write
from tests.support.interleaved import Act, interleave
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, amounts, apply_stripe_events, fetch_invoices
from tests.support.sold import CALLER, Sold, sold
from tests.support.stripe_sandbox import Sandbox

PLANS = 'plans: {team@1: {fee: "31", tier: standard}}'
COUPONS = {"TEN": {"amount_off": "10", "duration": "forever", "max_redemptions": 9}}
NOW = JANUARY + 86400
WEBHOOKS = Webhooks.model_validate({"encryption": base64.b64encode(b"k" * 32).decode()})

Case = tuple[Act, str, Act]
"""The first change, the statement that it stops after, and the change made meanwhile."""


def transact(change: Callable[..., Awaitable[object]], *arguments: object, **options: object) -> Act:
    """A change in a transaction of its own."""
    return lambda database: write(database, change, CALLER, *arguments, **options)


def add_coupon(shop: Sold, name: str) -> Act:
    return transact(coupons.add_coupon, name, "TEN", shop.known, NOW)


def update(shop: Sold, name: str) -> Act:
    change = UpdateCustomerRequest.model_validate({"metadata": {"a": "b"}})
    return transact(customers.update_customer, name, change, shop.known)


async def create_key(shop: Sold, name: str) -> str:
    created = await write(shop.database, keys.create_key, CALLER, name, CreateKeyRequest())
    return str(created["id"])


async def a_coupon_and_the_end(shop: Sold) -> Case:
    end = transact(subscriptions.cancel_subscription, "acme", "now", settings=shop.known, now=NOW)
    return add_coupon(shop, "acme"), "FOR ", end


async def two_who_redeem_a_coupon(shop: Sold) -> Case:
    terms = {"is_yearly": False, "settings": shop.known, "now": NOW, "coupon": "TEN"}
    return (
        add_coupon(shop, "acme"),
        "UPDATE coupons",
        transact(subscriptions.create_subscription, "bolt", "team", **terms),
    )


async def two_pauses_and_a_change_of_one(shop: Sold) -> Case:
    async with shop.database.writing() as connection:
        await connection.execute(sa.update(invoices).values(state="open"))

    async def pause(database: Database) -> None:
        overdue = NOW + 90 * 86400
        paused, _ = await write(database, dunning.pause_and_release, shop.known, overdue, {"acme", "cord"})
        assert sorted(paused) == ["acme", "cord"]

    return pause, "UPDATE audit_head", update(shop, "cord")


async def a_key_with_webhooks_and_its_customer(shop: Sold) -> Case:
    new = CreateWebhookEndpointRequest.model_validate({"url": "https://example.com/hook"})
    await write(shop.database, endpoints.create_endpoint, CALLER, "acme", new, WEBHOOKS)
    change = UpdateKeyRequest.model_validate({"name": "b"})
    return transact(keys.update_key, await create_key(shop, "acme"), change), "UPDATE audit_head", update(shop, "acme")


async def the_last_use_of_a_key_and_its_rotation(shop: Sold) -> Case:
    key = await create_key(shop, "acme")
    async with shop.database.reading() as connection:
        digest = str((await connection.execute(sa.select(key_table.c.sha256))).scalar_one())

    async def record(database: Database) -> None:
        days = LastUsedDays(database)
        days.record(86400, [digest])
        await days.write()

    return record, "UPDATE keys", transact(keys.rotate_key, key, 60)


def erase(name: str) -> Act:
    async def do(database: Database) -> None:
        async with database.writing() as connection:
            row = await customers.find_stored_row(connection, name)
            assert row is not None
            await erasure.erase_customers(connection, CALLER, [row])

    return do


async def a_rotation_and_the_erasure(shop: Sold) -> Case:
    return transact(keys.rotate_key, await create_key(shop, "bolt"), 60), "FOR ", erase("bolt")


CASES = [
    a_coupon_and_the_end,
    two_who_redeem_a_coupon,
    two_pauses_and_a_change_of_one,
    a_key_with_webhooks_and_its_customer,
    a_rotation_and_the_erasure,
    the_last_use_of_a_key_and_its_rotation,
]


@pytest.mark.parametrize("prepare", CASES)
async def test_no_two_changes_wait_for_each_other(
    postgresql: Postgresql, tmp_path: Path, prepare: Callable[[Sold], Awaitable[Case]]
) -> None:
    url, plans = postgresql.database(), tmp_path / "plans.yaml"
    plans.write_text(PLANS)

    async with sold(tmp_path, url, "http://127.0.0.1:9", plans=str(plans), coupons=COUPONS) as (shop, _):
        for name, plan in (("acme", "team"), ("bolt", None), ("cord", "team")):
            await shop.customer(name, plan, now=JANUARY)
        await interleave(shop.database, url, *await prepare(shop))
        await read(shop.database, verify_chain)


@pytest.mark.parametrize("is_erased_amidst", [True, False], ids=["erased amidst it", "amidst the erasure"])
@pytest.mark.parametrize("is_of_stripe", [True, False], ids=["webhook", "closing"])
@pytest.mark.usefixtures("secret_key")
async def test_an_erasure_and_an_invoice_of_the_customer_do_not_wait_for_each_other(
    postgresql: Postgresql,
    stripe_sandbox: Sandbox,
    tmp_path: Path,
    is_of_stripe: bool,
    is_erased_amidst: bool,
) -> None:
    """Erasing a customer while its invoice closes or a Stripe report arrives does not change the invoice's total."""
    url, name, closes_at = postgresql.database(), f"erased-{is_of_stripe}-{is_erased_amidst}", FEBRUARY + FREEZE
    email, master_key = f"ada@{name.lower()}.example", tmp_path / "master.key"
    master_key.write_bytes(os.urandom(32))
    master_key.chmod(0o600)

    one, another = (sold(tmp_path, url, stripe_sandbox.url) for _ in range(2))
    async with one as (of, closing), another as (beside, closing_beside):
        for database in (of.database, beside.database):
            assert await open_keyring(database, Encryption.model_validate({"file": str(master_key)}))
        await of.customer(name, "standard", now=JANUARY)
        emails = contacts.Contacts.model_validate({"emails": [email]})
        await write(of.database, contacts.put_contacts, CALLER, name, emails)
        await closing.step(JANUARY + 5)
        await of.use(name, {"api_calls": 100_500}, at=JANUARY + 86400)
        await closing.step(FEBRUARY)
        stop = "INSERT INTO invoice_lines"
        if is_of_stripe:
            await closing.step(closes_at)
            stop = "UPDATE invoices"

        async def erase_beside(_: Database) -> None:
            await erase(name)(beside.database)

        async def bill(_: Database) -> None:
            if is_of_stripe:
                await apply_stripe_events(of if is_erased_amidst else beside)
            else:
                await (closing if is_erased_amidst else closing_beside).step(closes_at)

        if is_erased_amidst:
            await interleave(of.database, url, bill, stop, erase_beside)
        else:
            await interleave(of.database, url, erase(name), "UPDATE customers", bill)
        await closing.step(closes_at + 60)
        await apply_stripe_events(of)
        invoice = (await fetch_invoices(of, name))["2027-01-01 period"]
        assert (invoice["state"], invoice["total"], amounts(invoice)) == ("open", 9950, [9900, 0, 50])
        await read(of.database, verify_chain)
        async with of.database.reading(whole=True) as connection:
            for table in metadata.sorted_tables:
                assert email not in str((await connection.execute(sa.select(table))).all()), table.name
