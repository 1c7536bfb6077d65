"""Changes of our customers' balances at Stripe that we did not cause.

A person bills a customer from Stripe's dashboard, finalizes a draft of ours and credits a part of it, or adjusts the
balance there. Our next invoice uses that balance. So the change must be in our books, against the account for other
activity at Stripe.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.journal.journal import Posting, open_journal
from edgeproxy.collector.billing.journal.postings import CENT, plain_entries
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.database.billing_tables import billing_customers
from edgeproxy.config.collector.currency_units import DECIMALS

KIND: Final = "foreign_balance"
UNDONE: Final = ":void"
"""The suffix of the source of a transaction that reverses another one."""
TRANSACTIONS: Final = "balance_transactions"
"""The key of a fetched customer with the newest transactions of its balance."""


class BalanceChange(NamedTuple):
    """A change of a customer's balance at Stripe."""

    source: str
    """The Stripe id of the invoice, credit note or balance transaction, with a suffix if it is a reversal."""
    credited: int
    """Smallest units; negative if the balance was used."""
    currency: str
    original: str = ""
    """The source of the reversed change."""


async def book_foreign_change(connection: AsyncConnection, stripe_object: StripeObject, credited: int) -> None:
    """Book once the amount that a foreign invoice or credit note has credited to the balance of our customer.

    `credited` is in smallest units, negative if the balance was used. A void object is reversed.
    """
    currency, id_ = str(stripe_object["currency"]), str(stripe_object["id"])
    changes = [BalanceChange(id_, credited, currency)]
    if stripe_object["status"] == "void":
        changes.append(BalanceChange(id_ + UNDONE, -credited, currency, id_))
    await book_changes(connection, str(stripe_object["customer"]), changes)


async def apply_stripe_customer(connection: AsyncConnection, stripe_customer: StripeObject) -> None:
    """Book the manual adjustments among the balance transactions of a fetched customer."""
    changes = [change for one in stripe_customer.get(TRANSACTIONS) or () if (change := parse_adjustment(one))]
    await book_changes(connection, str(stripe_customer["id"]), changes)


def parse_adjustment(transaction: StripeObject) -> BalanceChange | None:
    """Return a balance transaction that was caused by neither an invoice nor a credit note, else None."""
    if transaction.get("invoice") or transaction.get("credit_note"):
        return None
    return BalanceChange(str(transaction["id"]), -int(transaction["amount"]), str(transaction["currency"]))


async def book_changes(connection: AsyncConnection, stripe_id: str, changes: Sequence[BalanceChange]) -> None:
    """Book each of these balance changes once, if the Stripe customer is ours."""
    changes = [change for change in changes if change.credited and change.currency in DECIMALS]
    if not changes:
        return
    own = sa.select(billing_customers.c.customer).where(billing_customers.c.stripe_id == stripe_id)
    customer = await connection.scalar(own)
    if customer is None:
        return
    async with open_journal(connection) as books:
        for source, credited, currency, original in changes:
            if await books.find_transaction(KIND, source) is None:
                entries = plain_entries(KIND, CENT * credited)
                books.book(Posting(customer, KIND, source, entries, original, currency=currency))
