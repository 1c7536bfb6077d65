"""Reconciliation D: the balance at Stripe against the journal, a day at a time, to the cent.

First both sides are completed: Stripe's events are read and applied, the steps of invoices are booked, and all balance
transactions of the day, also those that an earlier look has missed. As long as events of the time wait, as after a
pause of the collector, nothing is compared. Then the balance of
both books has changed by the same amount, and each purchase and invoice of which something moved has nothing left in
clearing: negative invoices, amounts too small to charge and payments elsewhere never enter it. These are in the balance
of the customer, which is compared as it is now.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.credits import purchases
from edgeproxy.collector.billing.invoices import credit_notes, stripe_reports
from edgeproxy.collector.billing.invoices.bookings import book_invoices
from edgeproxy.collector.billing.invoices.disputes import PAID_INVOICE
from edgeproxy.collector.billing.invoices.unexpected_objects import UnexpectedObjectError
from edgeproxy.collector.billing.mismatch import Comparison, Drift, Level, name_by_currency
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.stripe.client import Stripe, StripeObject
from edgeproxy.collector.billing.stripe_balance import clearing
from edgeproxy.collector.billing.stripe_balance.customer_balances import CustomerBalances
from edgeproxy.collector.billing.stripe_balance.sync import StripeBalance
from edgeproxy.collector.billing.webhooks import receiver
from edgeproxy.collector.billing.webhooks.stripe_objects import PAYMENT_PARTS, find_paid_invoice
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR
from edgeproxy.config.collector.currency_units import USD

SETTLED_SECONDS = 2 * HOUR
"""Seconds after the end of a day at which it is compared: events that were lost have come by then."""
DAYS_MAX = 35
"""The most days that are made up for."""
BALANCE = "balance"
"""The name of the balance in the place of a meter."""
REPLAYED: Final[Sequence[tuple[str, Callable[[AsyncConnection, StripeObject], Awaitable[None]]]]] = (
    ("v1.checkout.sessions.list", purchases.apply_session),
    ("v1.invoices.list", stripe_reports.apply_stripe_invoice),
    ("v1.credit_notes.list", credit_notes.apply_stripe_note),
    ("v1.refunds.list", purchases.apply_refund),
    ("v1.disputes.list", purchases.apply_dispute),
)
"""The lists of Stripe's objects that move money, and the functions that apply them, in the order of what happens."""


class Repair(NamedTuple):
    """The result of a repair."""

    rows: list[Comparison]
    """The numbers of both books afterwards."""
    failures: list[str]
    """The reasons why objects of Stripe's could not be applied."""


class BooksIncompleteError(Exception):
    """The books cannot be compared yet, as our side is not complete: a sentence why."""


async def complete_nothing() -> None:
    """Leave Stripe's events as they are."""


async def reconcile_days(
    database: Database, stripe: Stripe, now: float, complete_events: Callable[[], Awaitable[object]] = complete_nothing
) -> int:
    """Compare each day that is over and was not compared yet; return how many. Raises StripeCallError; what was done
    until then is recorded. `complete_events` reads and applies the events of Stripe. Raises BooksIncompleteError where
    some of them wait all the same."""
    end = int(now - SETTLED_SECONDS) // DAY * DAY
    async with database.reading() as connection:
        reconciled_until = await discrepancies.find_reconciled_until(connection, "D")
    first = end - DAY if reconciled_until is None else max(reconciled_until, end - DAYS_MAX * DAY)
    if first < end:
        await complete_events()
        while await book_invoices(database):
            pass
        async with database.reading() as connection:
            waiting = await receiver.count_waiting(connection, int(now - SETTLED_SECONDS))
        if waiting:
            raise BooksIncompleteError(f"{waiting} events of Stripe are not applied yet")
    for start in range(first, end, DAY):
        # The balances of customers are those of now, whatever day is compared.
        await reconcile_span(database, stripe, Span(start, start + DAY), now, has_balances=start + DAY == end)
    return max(0, end - first) // DAY


async def reconcile_span(
    database: Database, stripe: Stripe, span: Span, now: float, *, has_balances: bool = True
) -> tuple[Drift, Level]:
    """Book a span of Stripe's balance transactions, compare it with the journal, with `has_balances` those of customers
    too, and record the result. Raises StripeCallError, and then nothing is recorded."""
    rows = await compare_span(database, stripe, span, now, is_booking=True, has_balances=has_balances)
    async with database.writing() as connection:
        return await discrepancies.record_reconciliation(connection, "D", span, rows, now)


async def compare_span(
    database: Database, stripe: Stripe, span: Span, now: float, *, is_booking: bool, has_balances: bool = True
) -> list[Comparison]:
    """Compare a span of Stripe's balance transactions, and with `has_balances` the balances of customers, with the
    journal, and book them first if `is_booking`. Raises StripeCallError."""
    balance = StripeBalance(database, stripe)
    listed = await balance.list_transactions(await balance.find_start(span.start, now), span.end)
    if is_booking:
        await balance.book(listed)
    balances = CustomerBalances(database, stripe)
    of_customers = await balances.compare(now, is_booking=is_booking) if has_balances else []
    async with database.reading(whole=True) as connection:
        cash = await clearing.sum_cash(connection, span)
        subjects = await clearing.fetch_subjects(connection, span)
    theirs = dict.fromkeys((USD, *sorted(cash)), 0)
    for moved in listed:
        theirs[moved["currency"]] = theirs.get(moved["currency"], 0) + int(moved["net"])
    rows = [
        Comparison("", name_by_currency(BALANCE, currency), cash.get(currency, 0), net)
        for currency, net in theirs.items()
    ]
    return (
        rows
        + [
            Comparison(one.customer or one.id, name_by_currency(one.kind, one.currency), one.ours, one.stripes)
            for one in subjects
        ]
        + of_customers
    )


async def repair_span(database: Database, stripe: Stripe, span: Span, now: float) -> Repair:
    """Apply all objects of Stripe's since the beginning of a span once more, as if none of their webhooks had come, and
    compare again. Raises StripeCallError; what was applied until then stays."""
    failures = await replay_objects(database, stripe, span.start)
    while await book_invoices(database):
        pass
    return Repair(await compare_span(database, stripe, span, now, is_booking=True), failures)


async def replay_objects(database: Database, stripe: Stripe, since: int) -> list[str]:
    """Apply all objects that Stripe has made since a Unix second; return why some could not be. Raises
    StripeCallError."""
    failures = []
    for name, apply in REPLAYED:
        for listed in reversed(await stripe.list_all(name, created={"gte": since})):
            is_part = listed["object"] in PAYMENT_PARTS
            paid = {PAID_INVOICE: await find_paid_invoice(stripe, listed)} if is_part else {}
            stripe_object = {**listed, **paid}
            try:
                async with database.writing() as connection:
                    await apply(connection, stripe_object)
            except (UnexpectedObjectError, ChangeRejectedError) as error:
                failures.append(f"{stripe_object['id']}: {error}")
    return failures
