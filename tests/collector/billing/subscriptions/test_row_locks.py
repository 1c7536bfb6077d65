"""Changes at the same time, on PostgreSQL: one may wait for the other, and no two for each other."""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts import customers, keys, webhook_endpoints
from edgeproxy.collector.accounts.audit import verify_chain
from edgeproxy.collector.accounts.models import CreateKeyRequest, UpdateCustomerRequest, UpdateKeyRequest
from edgeproxy.collector.accounts.webhook_models import CreateWebhookEndpointRequest
from edgeproxy.collector.billing.invoices import dunning
from edgeproxy.collector.billing.subscriptions import coupons, subscriptions
from edgeproxy.collector.database.billing_tables import invoices
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.privacy import erasure
from edgeproxy.config.collector.webhooks import Webhooks
from loadtest.testbed.postgresql import Postgresql
from tests.support.credited import read, write
from tests.support.interleaved import Act, interleave
from tests.support.invoiced import JANUARY
from tests.support.sold import CALLER, Sold, sold

PLANS = 'plans: {team@1: {fee: "31", tier: standard}}'
COUPONS = {"TEN": {"amount_off": "10", "duration": "forever", "max_redemptions": 9}}
NOW = JANUARY + 86400
WEBHOOKS = Webhooks.model_validate({"encryption": base64.b64encode(b"k" * 32).decode()})

Case = tuple[Act, str, Act]
"""What is done, the statement behind which it stops, and what is done meanwhile."""


def transact(change: Callable[..., Awaitable[object]], *arguments: object, **options: object) -> Act:
    """A change in a transaction of its own."""
    return lambda database: write(database, change, CALLER, *arguments, **options)


def add_coupon(of: Sold, name: str) -> Act:
    return transact(coupons.add_coupon, name, "TEN", of.known, NOW)


def update(of: Sold, name: str) -> Act:
    change = UpdateCustomerRequest.model_validate({"metadata": {"a": "b"}})
    return transact(customers.update_customer, name, change, of.known)


async def create_key(of: Sold, name: str) -> str:
    created = await write(of.database, keys.create_key, CALLER, name, CreateKeyRequest())
    return str(created["id"])


async def a_coupon_and_the_end(of: Sold) -> Case:
    end = transact(subscriptions.cancel_subscription, "acme", "now", settings=of.known, now=NOW)
    return add_coupon(of, "acme"), "FOR ", end


async def two_who_redeem_a_coupon(of: Sold) -> Case:
    terms = {"is_yearly": False, "settings": of.known, "now": NOW, "coupon": "TEN"}
    return (
        add_coupon(of, "acme"),
        "UPDATE coupons",
        transact(subscriptions.create_subscription, "bolt", "team", **terms),
    )


async def two_pauses_and_a_change_of_one(of: Sold) -> Case:
    async with of.database.writing() as connection:
        await connection.execute(sa.update(invoices).values(state="open"))

    async def pause(database: Database) -> None:
        overdue = NOW + 90 * 86400
        paused, _ = await write(database, dunning.pause_and_release, of.known, overdue, {"acme", "cord"})
        assert sorted(paused) == ["acme", "cord"]

    return pause, "UPDATE audit_head", update(of, "cord")


async def a_key_with_webhooks_and_its_customer(of: Sold) -> Case:
    new = CreateWebhookEndpointRequest.model_validate({"url": "https://example.com/hook"})
    await write(of.database, webhook_endpoints.create_endpoint, CALLER, "acme", new, WEBHOOKS)
    change = UpdateKeyRequest.model_validate({"name": "b"})
    return transact(keys.update_key, await create_key(of, "acme"), change), "UPDATE audit_head", update(of, "acme")


async def a_rotation_and_the_erasure(of: Sold) -> Case:
    async def erase(database: Database) -> None:
        async with database.writing() as connection:
            row = await customers.find_stored_row(connection, "bolt")
            assert row is not None
            await erasure.erase_customers(connection, CALLER, [row])

    return transact(keys.rotate_key, await create_key(of, "bolt"), 60), "FOR ", erase


CASES = [
    a_coupon_and_the_end,
    two_who_redeem_a_coupon,
    two_pauses_and_a_change_of_one,
    a_key_with_webhooks_and_its_customer,
    a_rotation_and_the_erasure,
]


@pytest.mark.parametrize("prepare", CASES)
def test_no_two_changes_wait_for_each_other(
    postgresql: Postgresql, tmp_path: Path, prepare: Callable[[Sold], Awaitable[Case]]
) -> None:
    url, plans = postgresql.database(), tmp_path / "plans.yaml"
    plans.write_text(PLANS)

    async def work() -> None:
        async with sold(tmp_path, url, "http://127.0.0.1:9", plans=str(plans), coupons=COUPONS) as (of, _):
            for name, plan in (("acme", "team"), ("bolt", None), ("cord", "team")):
                await of.customer(name, plan, now=JANUARY)
            await interleave(of.database, url, *await prepare(of))
            await read(of.database, verify_chain)

    asyncio.run(work())
