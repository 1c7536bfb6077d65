"""Stripe customers: an attempt without an answer creates no duplicate, and each customer is read only once.

The result stays in memory until the database has the customer's id.
"""

import time
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.stripe.client import CallOutcome, StripeCallError
from edgeproxy.collector.billing.stripe.customers import (
    CLOCK_SECONDS,
    CUSTOMER,
    OVERLAP_SECONDS,
    StripeCustomers,
)
from edgeproxy.collector.database.billing_tables import billing_customers
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import customers
from tests.support.credited import run

NOON = 1_800_000_000


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
