"""What invoices at Stripe that are not ours change of our customers' balances there.

Somebody bills a customer from Stripe's dashboard, or finalizes a draft of ours by hand, and credits a part of it. The
customer's balance takes that over, and the next invoice of ours is paid by it. So it has to be in our books, against
what is nothing of ours.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.journal.journal import Posting, open_journal
from edgeproxy.collector.billing.journal.postings import CENT, plain_entries
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.database.billing_tables import billing_customers
from edgeproxy.config.collector.currency_units import DECIMALS

KIND: Final = "foreign_balance"
UNDONE: Final = ":void"
"""The end of the source of a transaction that takes another one back."""


async def book_foreign_change(connection: AsyncConnection, stripe_object: StripeObject, credited: int) -> None:
    """Book once what an invoice or a credit note that is not ours has credited to the balance of a customer of ours.

    `credited` is in smallest units, below zero where the balance was used up. What is void is taken back.
    """
    currency, id_ = str(stripe_object["currency"]), str(stripe_object["id"])
    if not credited or currency not in DECIMALS:
        return
    own = sa.select(billing_customers.c.customer).where(billing_customers.c.stripe_id == stripe_object["customer"])
    customer = (await connection.execute(own)).scalar_one_or_none()
    if customer is None:
        return
    steps = [(id_, "", credited)]
    if stripe_object["status"] == "void":
        steps.append((id_ + UNDONE, id_, -credited))
    async with open_journal(connection) as books:
        for source, original, amount in steps:
            if await books.find_transaction(KIND, source) is None:
                books.book(
                    Posting(customer, KIND, source, plain_entries(KIND, CENT * amount), original, currency=currency)
                )
