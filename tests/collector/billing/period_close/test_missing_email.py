"""A customer without an e-mail and without a card: Stripe refuses its invoice, which waits for a contact."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from edgeproxy.collector.accounts import colleagues, contacts
from edgeproxy.collector.billing.invoices import invoices
from tests.support.invoiced import JANUARY, at_stripe, fetch_invoices
from tests.support.sold import CALLER, sold
from tests.support.stripe_sandbox import Sandbox


def test_an_invoice_that_stripe_cannot_mail_is_held_until_the_customer_has_a_contact(
    request: pytest.FixtureRequest, tmp_path: Path, database: str
) -> None:
    sandbox = Sandbox(tmp_path / "stripe", "--mail", "required")
    request.addfinalizer(sandbox.close)
    sandbox.start()

    async def work() -> None:
        async with sold(tmp_path, database, sandbox.url) as (shop, closing):
            await shop.customer("unreachable", "standard", now=JANUARY)
            await closing.step(JANUARY + 5)
            held = (await fetch_invoices(shop, "unreachable"))["2027-01-01 start"]
            assert held["state"] == "held"
            assert "Stripe refuses: Missing email." in str(held["held_why"])
            assert at_stripe(sandbox, "unreachable") == []
            # The operator follows the documentation.
            emails = contacts.Contacts.model_validate({"emails": ["a@example.org"]})
            async with shop.database.writing() as connection:
                await contacts.put_contacts(connection, CALLER, "unreachable", emails)
                accepted = {"tries": 1, "try_at": 0, "accepted_why": "it has a contact now"}
                await invoices.transition(connection, held["id"], invoices.HELD, invoices.CLOSING, **accepted)
            await closing.step(JANUARY + 10)
            assert (await fetch_invoices(shop, "unreachable"))["2027-01-01 start"]["state"] == "open"
            (sent,) = at_stripe(sandbox, "unreachable")
            assert (sent["customer_email"], sent["total"]) == ("a@example.org", 9900)
            # Reminders of open invoices go to the current contacts at once, not only from the next invoice on.
            both = contacts.Contacts.model_validate({"emails": ["a@example.org", "b@example.org"]})
            async with shop.database.writing() as connection:
                await contacts.put_contacts(connection, CALLER, "unreachable", both)
                await colleagues.remove_contact(connection, CALLER, "unreachable", "a@example.org")
            assert await closing.step(JANUARY + 20)
            assert not await closing.step(JANUARY + 30), "the alert is raised once"

    asyncio.run(work())
    assert sandbox.run(fetch_emails) == ["b@example.org"]


async def fetch_emails(client: Any) -> list[str]:
    everybody = await client.v1.customers.list_async({"limit": 100})
    return [one.email for one in everybody.data]
