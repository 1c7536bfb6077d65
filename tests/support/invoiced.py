"""The invoices of customers in the collector and at the Stripe sandbox, and their months."""

from calendar import timegm
from collections.abc import Collection
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as sa

from edgeproxy.collector.billing.invoices import invoices, line_rows
from edgeproxy.collector.billing.invoices.invoices import Invoice
from edgeproxy.collector.billing.stripe.client import Stripe, StripeObject
from edgeproxy.collector.billing.stripe.customers import StripeCustomers
from edgeproxy.collector.billing.subscriptions import subscription_rows
from edgeproxy.collector.billing.webhooks import receiver
from edgeproxy.collector.billing.webhooks.processor import OVERLAP_SECONDS, StripeUnavailableError
from edgeproxy.collector.billing.webhooks.stripe_objects import StripeObjects
from edgeproxy.collector.database.delivery_tables import webhook_events
from edgeproxy.collector.database.schema import customers as customers_table
from edgeproxy.collector.jobs.billing import build_processor
from tests.support.sold import KEY, Sold
from tests.support.stripe_sandbox import Sandbox


def at(*moment: int) -> int:
    return timegm((*moment, *(0,) * (6 - len(moment))))


JANUARY, FEBRUARY, MARCH = at(2027, 1, 1), at(2027, 2, 1), at(2027, 3, 1)
FREEZE = 2 * 86400
ON_BOTH_IF_SOAKED = pytest.mark.parametrize(
    "database", ["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)], indirect=True
)


async def fetch_invoices(shop: Sold, name: str) -> dict[str, Invoice]:
    """Return the invoices of a customer, by period and kind."""
    async with shop.database.reading() as connection:
        rows = await invoices.fetch_invoices(connection, customers_table.c.name == name)
        invoices_by_period = {}
        for row in sorted(rows, key=lambda row: row.period_start):
            invoices_by_period[f"{row.period} {row.kind}"] = invoices.to_response(
                row, await line_rows.fetch_lines(connection, row.id)
            )
        return invoices_by_period


def amounts(invoice: Invoice) -> list[int]:
    return [line["amount"] for line in invoice["lines"]]


def find_payers(sandbox: Sandbox, name: str) -> list[dict[str, Any]]:
    """Return Stripe's customers with this name: one, or none."""
    path = f"/v1/customers/search?query=name:'{quote(name)}'"
    payers = [one for one in sandbox.call("GET", path).json()["data"] if one["name"] == name]
    assert len(payers) <= 1, "a customer is there once"
    return payers


def at_stripe(sandbox: Sandbox, name: str) -> list[dict[str, Any]]:
    """Return the invoices that Stripe has of a customer with this name."""
    paths = [f"/v1/invoices?customer={payer['id']}&limit=100" for payer in find_payers(sandbox, name)]
    return [invoice for path in paths for invoice in sandbox.call("GET", path).json()["data"]]


def count_sent(sandbox: Sandbox, name: str) -> int:
    """Return the number of mails with invoices that Stripe has sent to a customer."""
    theirs = {invoice["id"] for invoice in at_stripe(sandbox, name)}

    async def look(client: Any) -> int:
        sent = await client.v1.events.list_async({"type": "invoice.sent", "limit": 100})
        return sum([event.data.object.id in theirs async for event in sent.auto_paging_iter()])

    return sandbox.run(look)


class PartlyFetched(StripeObjects):
    """Stripe objects. Fetching some of them fails, but the lists of events work."""

    def __init__(self, stripe: Stripe, unfetched: Collection[str]) -> None:
        super().__init__(stripe)
        self._unfetched = unfetched

    async def fetch(self, object_type: str, id: str) -> StripeObject:
        if id in self._unfetched:
            raise StripeUnavailableError("too many requests (429)")
        return await super().fetch(object_type, id)


async def apply_stripe_events(shop: Sold, unfetched: Collection[str] = (), received: float | None = None) -> None:
    """Fetch and apply Stripe's events, as the collector does. The key is in the environment.

    Objects with an id in `unfetched` cannot be fetched. `received` replaces the time of receipt of all events, in Unix
    seconds. Events postponed by an earlier failure become due.

    Tests share the sandbox, so events from before this test are skipped.
    """
    assert shop.known.billing is not None
    async with shop.database.writing() as connection:
        for name in ("snapshots", "thin"):
            if await receiver.find_read_until(connection, name) is None:
                await receiver.record_read(connection, name, shop.began + OVERLAP_SECONDS)
    stripe = Stripe(shop.known.billing.stripe, KEY)
    try:
        processor = build_processor(shop.known, shop.database, stripe, lambda seconds: None)
        processor._stripe = PartlyFetched(stripe, unfetched)
        async with shop.database.writing() as connection:
            await connection.execute(sa.update(webhook_events).values(due=0))
        await processor.complete()
        if received is not None:
            async with shop.database.writing() as connection:
                await connection.execute(sa.update(webhook_events).values(received=int(received * 1000)))
    finally:
        await stripe.close()


async def enter_card(shop: Sold, name: str, card: str = "pm_card_visa") -> str:
    """Have a customer enter a card at Stripe, which is charged from now on; return its id there."""
    assert shop.known.billing is not None
    stripe = Stripe(shop.known.billing.stripe, KEY)
    try:
        async with shop.database.reading() as connection:
            customer = await subscription_rows.get_subscriber(connection, name)
        stripe_id = await StripeCustomers(shop.database, stripe).get_or_create(customer.id, name)
        await stripe.call("v1.customers.update", stripe_id, invoice_settings={"default_payment_method": card})
        return stripe_id
    finally:
        await stripe.close()


def set_card(sandbox: Sandbox, name: str, card: str = "pm_card_visa") -> None:
    """Set the card of a customer that Stripe knows, by the name that it knows."""
    (payer,) = find_payers(sandbox, name)
    body = f"invoice_settings[default_payment_method]={card}"
    assert sandbox.call("POST", f"/v1/customers/{payer['id']}", body).status == 200
