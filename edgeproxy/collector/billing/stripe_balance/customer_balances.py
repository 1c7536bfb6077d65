"""Customers' balances at Stripe against the journal, customer by customer.

Invoices and credit notes book their changes of a balance (invoices/), and so do events of customers that a person
adjusted at Stripe. This module finds the changes that both have missed, and balances from before a customer was ours.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.credits.purchases import parse_id
from edgeproxy.collector.billing.invoices import credit_notes, foreign_balance, stripe_reports
from edgeproxy.collector.billing.invoices.foreign_balance import UNDONE
from edgeproxy.collector.billing.invoices.invoices import IS_WRITTEN
from edgeproxy.collector.billing.journal.postings import CENT
from edgeproxy.collector.billing.mismatch import Comparison, name_by_currency
from edgeproxy.collector.billing.stripe.client import Stripe, StripeObject
from edgeproxy.collector.database.billing_tables import billing_customers, invoices
from edgeproxy.collector.database.billing_tables import credit_notes as notes_table
from edgeproxy.collector.database.book_text import match_book_text
from edgeproxy.collector.database.credit_tables import credit_entries, credit_transactions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import HOUR, customers
from edgeproxy.config.collector.currency_units import DECIMALS, USD

Apply = Callable[[AsyncConnection, StripeObject], Awaitable[None]]
BALANCE = "customer balance"
"""The name of a customer's balance in place of a meter."""
ACCOUNT = "customer_balance"
SETTLED_SECONDS = 2 * HOUR
"""A balance is compared this many seconds after its latest transaction. The cause is booked by then."""
PAGE = 100


class CustomerBalances:
    """Compares the balances of all customers at Stripe with the journal. All methods raise StripeCallError."""

    def __init__(self, database: Database, stripe: Stripe) -> None:
        self._database = database
        self._stripe = stripe

    async def compare(self, now: float, *, is_booking: bool) -> list[Comparison]:
        """Return both balances of each customer that has one. With `is_booking` differing ones are booked first.

        A differing balance that changed within SETTLED_SECONDS is left out.
        """
        rows: list[Comparison] = []
        after: StripeObject = {}
        while True:  # The list is read page by page, because an account may have many customers who are not ours.
            page = await self._stripe.call("v1.customers.list", limit=PAGE, **after)
            rows += await self._compare_page(page["data"], now, is_booking=is_booking)
            if not page.get("has_more"):
                return rows
            after = {"starting_after": page["data"][-1]["id"]}

    async def _compare_page(
        self, stripe_customers: Sequence[StripeObject], now: float, *, is_booking: bool
    ) -> list[Comparison]:
        """Return the rows of the customers on a page that are ours."""
        theirs = {
            str(stripe_customer["id"]): (str(stripe_customer.get("currency") or USD), int(stripe_customer["balance"]))
            for stripe_customer in stripe_customers
        }
        names, ours = await self._sum_booked(list(theirs))
        rows = []
        for stripe_id, name in names.items():
            currency, balance = theirs[stripe_id]
            # The journal has no books in this currency, so there is nothing to compare.
            if currency not in DECIMALS:
                continue
            booked = ours.get(stripe_id, {})
            if booked.get(currency, 0) != balance:
                transactions = await self._list_transactions(stripe_id)
                if is_booking:
                    await self._book(stripe_id, transactions)
                    # Read again: the bookings just made may have closed the gap.
                    booked = (await self._sum_booked([stripe_id]))[1].get(stripe_id, {})
                latest = max((int(transaction["created"]) for transaction in transactions), default=0)
                if booked.get(currency, 0) != balance and latest > now - SETTLED_SECONDS:
                    continue
            both = {currency: (booked.get(currency, 0), balance)}
            # Stripe has one balance for each customer. A balance of the journal in another currency is a difference.
            both |= {other: (amount, 0) for other, amount in booked.items() if other != currency}
            rows += [
                Comparison(name, name_by_currency(BALANCE, of), our, their)
                for of, (our, their) in both.items()
                if our or their
            ]
        return rows

    async def book_customer(self, stripe_id: str) -> None:
        """Book all changes ever made to a customer's balance at Stripe without us."""
        await self._book(stripe_id, await self._list_transactions(stripe_id))

    async def _list_transactions(self, stripe_id: str) -> list[StripeObject]:
        """Return all transactions of a customer's balance, oldest first."""
        # Stripe lists the newest first. The journal books them in the order of time.
        return (await self._stripe.list_all("v1.customers.balance_transactions.list", stripe_id))[::-1]

    async def _book(self, stripe_id: str, transactions: Sequence[StripeObject]) -> None:
        """Book transactions of a balance through the objects that caused them.

        Some may be invoices and credit notes of ours whose events never arrived.
        """
        sources = {
            _name_source(transaction): transaction
            for transaction in transactions
            if foreign_balance.parse_adjustment(transaction) is None
        }
        for transaction in await self._find_unknown(sources):
            if (note := parse_id(transaction.get("credit_note"))) is not None:
                stripe_object = await self._stripe.call("v1.credit_notes.retrieve", note)
                apply: Apply = credit_notes.apply_stripe_note
            else:
                invoice = parse_id(transaction["invoice"]) or ""
                stripe_object = await self._stripe.call("v1.invoices.retrieve", invoice)
                apply = stripe_reports.apply_stripe_invoice
            async with self._database.writing() as connection:
                await apply(connection, stripe_object)
        async with self._database.writing() as connection:
            fetched = {"id": stripe_id, foreign_balance.TRANSACTIONS: transactions}
            await foreign_balance.apply_stripe_customer(connection, fetched)

    async def _find_unknown(self, sources: Mapping[str, StripeObject]) -> list[StripeObject]:
        """Return the unknown ones of these transactions, given by source.

        They are not booked, and belong to no invoice or credit note of ours.
        """
        named = [source.removesuffix(UNDONE) for source in sources]
        columns = credit_transactions.c
        is_booked = columns.kind == foreign_balance.KIND, columns.source.in_(list(sources))
        async with self._database.reading() as connection:
            by_invoice = match_book_text(connection, invoices.c.stripe_id, *named)
            of_invoices = sa.select(invoices.c.stripe_id).where(by_invoice, IS_WRITTEN)
            by_note = match_book_text(connection, notes_table.c.stripe_id, *named)
            of_notes = sa.select(notes_table.c.stripe_id).where(by_note)
            ours = {*await connection.scalars(of_invoices), *await connection.scalars(of_notes)}
            booked = set(await connection.scalars(sa.select(columns.source).where(*is_booked)))
        return [
            one for source, one in sources.items() if source not in booked and source.removesuffix(UNDONE) not in ours
        ]

    async def _sum_booked(self, stripe_ids: Sequence[str]) -> tuple[dict[str, str], dict[str, dict[str, int]]]:
        """Return the names of the Stripe customers that are ours, and their balances in the journal.

        Balances are by currency, in smallest units.
        """
        own = sa.select(billing_customers.c.stripe_id, customers.c.name)
        own = own.join_from(billing_customers, customers, customers.c.id == billing_customers.c.customer)
        columns, entries = credit_transactions.c, credit_entries.c
        statement = (
            sa.select(billing_customers.c.stripe_id, columns.currency)
            .add_columns(sa.cast(sa.func.sum(entries.amount), sa.BigInteger))
            .join_from(billing_customers, credit_transactions, columns.customer == billing_customers.c.customer)
            .join(credit_entries, entries.seq == columns.seq)
            .where(billing_customers.c.stripe_id.in_(stripe_ids), columns.kind != "consumption")
            .where(entries.account == ACCOUNT)
            .group_by(billing_customers.c.stripe_id, columns.currency)
        )
        booked: dict[str, dict[str, int]] = {}
        async with self._database.reading() as connection:
            rows = await connection.execute(own.where(billing_customers.c.stripe_id.in_(stripe_ids)))
            names = {row.stripe_id: row.name for row in rows}
            for stripe_id, currency, amount in await connection.execute(statement):
                booked.setdefault(stripe_id, {})[currency] = amount // CENT
        return names, booked


def _name_source(transaction: StripeObject) -> str:
    """Return the journal's source for the change by an invoice or a credit note that is not ours."""
    note, invoice = parse_id(transaction.get("credit_note")), parse_id(transaction.get("invoice"))
    return f"{invoice}{UNDONE}" if transaction["type"] == "unapplied_from_invoice" else note or f"{invoice}"
