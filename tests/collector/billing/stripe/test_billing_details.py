"""Stripe's details of a customer are stored from events and from changes on our page, in any order."""

import sqlalchemy as sa

from edgeproxy.collector.billing.stripe import billing_details
from edgeproxy.collector.billing.stripe.billing_details import REQUESTED_AT, StaleCustomerError, write_newest
from edgeproxy.collector.billing.stripe.client import Stripe, StripeObject
from edgeproxy.collector.billing.stripe.customers import CUSTOMER
from edgeproxy.collector.billing.webhooks.stripe_objects import StripeObjects
from edgeproxy.collector.database.billing_tables import billing_customers
from edgeproxy.collector.database.billing_tables import billing_details as table
from edgeproxy.collector.database.database import Database
from edgeproxy.config.collector.billing import Stripe as Settings
from tests.support.credited import read, run, write
from tests.support.stripe_sandbox import KEY, Sandbox

DAY_MS = 86_400_000


def test_an_answer_from_before_a_change_is_not_written_down_over_it(database: str, stripe_sandbox: Sandbox) -> None:
    async def work(of: Database) -> None:
        stripe = Stripe(Settings(base=stripe_sandbox.url), {"STRIPE_SECRET_KEY": KEY})

        async def apply(stripe_customer: StripeObject) -> bool:
            try:
                await write(of, billing_details.apply_stripe_customer, stripe_customer)
            except StaleCustomerError:
                return False
            return True

        async def find_name() -> str | None:
            details = await read(of, billing_details.find_details, "id-acme")
            return None if details is None else details.name

        try:
            customer = await stripe.call("v1.customers.create", name="Old", metadata={CUSTOMER: "id-acme"})
            row = {"customer": "id-acme", "stripe_id": customer["id"], "livemode": 0}
            async with of.writing() as connection:
                await connection.execute(sa.insert(billing_customers), [row])

            event_answer = await StripeObjects(stripe).fetch("customer", customer["id"])
            changed = await billing_details.update_stripe_customer(stripe, customer["id"], {"name": "New"})
            await write_newest(of, stripe, changed)
            assert (await apply(event_answer), await find_name()) == (False, "New")
            assert await apply(await StripeObjects(stripe).fetch("customer", customer["id"]))

            # The collector asks Stripe again if a person changed the details there and that event came first.
            changed = await billing_details.update_stripe_customer(stripe, customer["id"], {"name": "Ours"})
            await stripe.call("v1.customers.update", customer["id"], name="Theirs")
            assert await apply(await StripeObjects(stripe).fetch("customer", customer["id"]))
            await write_newest(of, stripe, changed)
            assert await find_name() == "Theirs"

            # A time that is not there yet keeps nothing from being written down.
            future = await billing_details.fetch_stripe_customer(stripe, customer["id"])
            async with of.writing() as connection:
                await connection.execute(sa.update(table).values(read_at=future[REQUESTED_AT] + DAY_MS))
            assert await apply(future)
        finally:
            await stripe.close()

    run(database, work, "acme")
