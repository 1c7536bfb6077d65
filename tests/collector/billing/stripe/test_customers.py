"""Stripe customers: an attempt without an answer creates no duplicate, and each customer is read only once.

The result stays in memory until the database has the customer's id.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from edgeproxy.collector.accounts import contacts
from edgeproxy.collector.accounts import customers as accounts
from edgeproxy.collector.accounts.models import CreateCustomerRequest, UpdateCustomerRequest
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError, StripeObject
from edgeproxy.collector.billing.stripe.customers import (
    CLOCK_SECONDS,
    CUSTOMER,
    NAME,
    OVERLAP_SECONDS,
    StripeCustomers,
)
from edgeproxy.collector.database.billing_tables import billing_customers
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.collector.billing import Stripe as Settings
from edgeproxy.config.collector.settings import CollectorSettings
from tests.support.credited import ALICE, opened, run, write
from tests.support.stripe_sandbox import KEY, Sandbox

NOON = 1_800_000_000
SETTINGS = CollectorSettings.model_validate(
    {"tiers": {"basic": {}}, "tokens": [{"sha256": "0" * 64, "role": "read"}], "sha256": ""}
)


class Listing:
    """A stub of Stripe that only lists customers."""

    def __init__(self) -> None:
        self.customers: list[dict[str, Any]] = []
        self.queries: list[int] = []

    def make(self, ours: str | None, created: int) -> None:
        metadata = {} if ours is None else {CUSTOMER: ours}
        more = {"created": created, "livemode": False, "metadata": metadata}
        self.customers.insert(0, {"id": f"cus_{len(self.customers)}", **more})

    async def list_all(self, name: str, /, created: dict[str, int]) -> list[dict[str, Any]]:
        self.queries.append(created["gte"])
        return [customer for customer in self.customers if customer["created"] >= created["gte"]]


async def note(database: Database, customer: str) -> None:
    row = {"customer": customer, "stripe_id": f"cus_of_{customer}", "livemode": 0}
    async with database.writing() as connection:
        await connection.execute(sa.insert(billing_customers), [row])


def test_customer_search_resumes_at_the_last_position(sqlite_database: str) -> None:
    stripe = Listing()

    async def work(database: Database) -> None:
        stripe_customers = StripeCustomers(database, stripe)  # type: ignore[arg-type]

        async def find(name: str, since: int = NOON) -> str | None:
            customer = await stripe_customers.find_customer(f"id-{name}", since)
            return None if customer is None else str(customer["id"])

        stripe.make("id-early", NOON - 2 * CLOCK_SECONDS)
        stripe.make("id-first", NOON)
        stripe.make(None, NOON + 500)
        assert await find("first") == "cus_1"
        assert await find("second", NOON + 100) is None
        stripe.make("id-second", NOON + 500 - OVERLAP_SECONDS)
        assert await find("second", NOON + 100) == "cus_3", "a customer created later is listed earlier"
        assert await find("first") == "cus_1", "the customer is known from an earlier search"
        assert await find("early", NOON - 2 * CLOCK_SECONDS) == "cus_0", (
            "an earlier start reads the whole list from there"
        )
        later = NOON + 500 - OVERLAP_SECONDS
        assert stripe.queries == [NOON - CLOCK_SECONDS, later, later, later, NOON - 3 * CLOCK_SECONDS]
        for name in ("early", "second"):
            await note(database, f"id-{name}")
        assert [await find(name) for name in ("early", "first", "second")] == [None, "cus_1", None]
        assert len(stripe_customers._by_customer) == 1, "a stored customer is not searched for"

    run(sqlite_database, work, "early", "first", "second")


def test_customer_noted_during_the_lookup_is_not_created_again(sqlite_database: str) -> None:
    async def work(database: Database) -> None:
        class Slow(StripeCustomers):
            async def find_customer(self, customer: str, since: int) -> None:
                await note(database, customer)

        stripe: Any = Listing()
        customer = await Slow(database, stripe).get_or_create("id-acme", "acme", tries=1, since=NOON)
        assert customer == "cus_of_id-acme"

    run(sqlite_database, work, "acme")


def test_renamed_customer_is_not_created_again_after_a_lost_answer(sqlite_database: str) -> None:
    class Forgetful(Listing):
        async def call(self, _: str, /, *, key: str, name: str, metadata: dict[str, str]) -> dict[str, Any]:
            if not self.customers:
                self.make(metadata[CUSTOMER], int(time.time()))
                raise StripeCallError(CallOutcome.LOST, "no whole answer")
            raise StripeCallError(CallOutcome.REUSED, "the key was used with another name", status=400)

    stripe = Forgetful()

    async def work(database: Database) -> None:
        creator = StripeCustomers(database, stripe)  # type: ignore[arg-type]
        with pytest.raises(StripeCallError, match="no whole answer"):
            await creator.get_or_create_now("id-acme", "acme")
        assert await creator.get_or_create_now("id-acme", "acme") == "cus_0"

    run(sqlite_database, work, "acme")


def test_invoices_name_the_customer_as_a_person_wrote_it(sqlite_database: str) -> None:
    """Stripe refuses names of more than 256 characters."""

    class Creating(Listing):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        async def call(self, _: str, /, *, key: str, name: str, metadata: dict[str, str]) -> dict[str, Any]:
            self.names.append(name)
            return {"id": f"cus_{len(self.names)}", "livemode": False, "metadata": metadata}

    stripe = Creating()

    async def work(database: Database) -> None:
        for name, shown in (("zephyr", "Zephyr GmbH\n & Co"), ("arabic", "شركة المثال"), ("long", "W" * 400)):
            metadata = {"metadata": orjson.dumps({"name": shown}).decode()}
            async with database.writing() as connection:
                await connection.execute(sa.update(customers).where(customers.c.name == name).values(**metadata))
        creator = StripeCustomers(database, stripe)  # type: ignore[arg-type]
        for name in ("zephyr", "arabic", "long", "acme"):
            await creator.get_or_create(f"id-{name}", name)

    run(sqlite_database, work, "zephyr", "arabic", "long", "acme")
    assert stripe.names == ["Zephyr GmbH & Co", "شركة المثال", "W" * 200, "acme"]


@asynccontextmanager
async def shop(url: str, stripe: Any) -> AsyncIterator[tuple[Database, str]]:
    """A database with the customer acme, and its id."""
    try:
        async with opened(url) as database:
            request = CreateCustomerRequest(name="acme", tier="basic")
            created = await write(database, accounts.create_customer, ALICE, request, SETTINGS)
            yield database, created["id"]
    finally:
        await stripe.close()


async def rename(database: Database, name: str) -> None:
    """Change the name of the customer acme, as an operator does on its page."""
    change = UpdateCustomerRequest(metadata={"name": name})
    await write(database, accounts.update_customer, ALICE, "acme", change, SETTINGS)


@pytest.mark.both_databases
async def test_changed_name_reaches_stripe_once_also_after_a_lost_answer(
    database: str, stripe_sandbox: Sandbox
) -> None:
    class Losing(Stripe):
        updates = 0
        is_lost = False

        async def call(self, name: str, /, *ids: str, key: str | None = None, **params: Any) -> StripeObject:
            result = await super().call(name, *ids, key=key, **params)
            self.updates += name == "v1.customers.update"
            if self.is_lost and name == "v1.customers.update":
                raise StripeCallError(CallOutcome.LOST, "no whole answer")
            return result

    stripe = Losing(Settings(base=stripe_sandbox.url), {"STRIPE_SECRET_KEY": KEY})
    async with shop(database, stripe) as (of, acme):
        stripe_customers = StripeCustomers(of, stripe)
        stripe_id = await stripe_customers.get_or_create_now(acme, "acme")

        async def fetch_name() -> str:
            return str((await stripe.call("v1.customers.retrieve", stripe_id))["name"])

        assert (await fetch_name(), await stripe_customers.update_payers()) == ("acme", False)
        await rename(of, "Zephyr\n\u202eGmbH & Co" + "W" * 400)
        stripe.is_lost = True
        with pytest.raises(StripeCallError, match="no whole answer"):
            await stripe_customers.update_payers()
        stripe.is_lost = False
        assert [await stripe_customers.update_payers() for _ in range(2)] == [True, False]
        assert (await fetch_name(), stripe.updates) == (("Zephyr GmbH & Co" + "W" * 400)[:200], 1)
        await rename(of, "Boreas B.V.")  # The name of the lost answer was ours, too.
        await stripe_customers.update_payers()
        assert await fetch_name() == "Boreas B.V."
        await stripe.call("v1.customers.update", stripe_id, name="Entered at Stripe")
        await rename(of, "Notus")
        await stripe_customers.update_payers()
        assert await fetch_name() == "Entered at Stripe"

        # An erased customer's invoices keep the name that Stripe has.
        await stripe.call("v1.customers.update", stripe_id, name="Notus", metadata={NAME: "Notus"})
        async with of.writing() as connection:
            await connection.execute(sa.update(customers).values(erased_at=1, metadata="{}"))
        await stripe_customers.fetch_payer(acme, stripe_id)
        assert await fetch_name() == "Notus"


async def test_name_changed_during_the_creation_reaches_stripe(sqlite_database: str, stripe_sandbox: Sandbox) -> None:
    class Slow(Stripe):
        async def call(self, name: str, /, *ids: str, key: str | None = None, **params: Any) -> StripeObject:
            result = await super().call(name, *ids, key=key, **params)
            if name == "v1.customers.create":
                await rename(of, "Zephyr")
            return result

    stripe = Slow(Settings(base=stripe_sandbox.url), {"STRIPE_SECRET_KEY": KEY})
    async with shop(sqlite_database, stripe) as (of, acme):
        stripe_customers = StripeCustomers(of, stripe)
        stripe_id = await stripe_customers.get_or_create_now(acme, "acme")
        assert await stripe_customers.update_payers()
        assert (await stripe.call("v1.customers.retrieve", stripe_id))["name"] == "Zephyr"


async def test_name_that_stripe_refuses_hinders_neither_the_address_nor_an_invoice(sqlite_database: str) -> None:
    class Refusing(Listing):
        async def close(self) -> None:
            pass

        async def call(self, name: str, /, *ids: str, **params: Any) -> dict[str, Any]:
            if name == "v1.customers.retrieve":
                return {"id": "cus_acme", "name": None, "email": None, "metadata": {}}
            if "name" in params:
                raise StripeCallError(CallOutcome.REFUSED, "no name", status=400)
            return {"id": "cus_acme", "name": None, **params}

    stripe: Any = Refusing()
    async with shop(sqlite_database, stripe) as (of, acme):
        emails = contacts.Contacts(emails=("ann@acme.example",))
        await write(of, contacts.put_contacts, ALICE, "acme", emails)
        payer = await StripeCustomers(of, stripe).fetch_payer(acme, "cus_acme")
    assert (payer["name"], payer["email"]) == (None, "ann@acme.example")
