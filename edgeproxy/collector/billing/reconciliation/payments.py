"""Reconciliation D: the balance at Stripe against the journal, one day at a time, to the cent.

First both sides are completed: Stripe's events are read and applied, and the steps of invoices and all balance
transactions of the day are booked, including any missed earlier. While events of the day still wait, as after a pause
of the collector, nothing is compared. Then both books must show the same change of the balance, and each purchase and
invoice with a movement must have nothing left in clearing. Negative invoices, amounts too small to charge and payments
elsewhere never enter clearing. They are in the customer's balance, which is compared as of now.
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
"""A day is compared this many seconds after its end. Lost events have been recovered by then."""
DAYS_MAX = 35
"""The most days that are caught up."""
BALANCE = "balance"
"""The name of the balance in place of a meter."""
REPLAYED: Final[Sequence[tuple[str, Callable[[AsyncConnection, StripeObject], Awaitable[None]]]]] = (
    ("v1.checkout.sessions.list", purchases.apply_session),
    ("v1.charges.list", purchases.apply_charge),
    ("v1.invoices.list", stripe_reports.apply_stripe_invoice),
    ("v1.credit_notes.list", credit_notes.apply_stripe_note),
    ("v1.refunds.list", purchases.apply_refund),
    ("v1.disputes.list", purchases.apply_dispute),
)
"""The lists of Stripe objects that move money, and the functions that apply them, in the order of events."""


class Repair(NamedTuple):
    """The result of a repair."""

    rows: list[Comparison]
    """The figures of both books afterwards."""
    failures: list[str]
    """The reasons why Stripe objects could not be applied."""


class BooksIncompleteError(Exception):
    """The books cannot be compared yet, because our side is incomplete. The message gives the reason."""


async def complete_nothing() -> None:
    """Change no event of Stripe."""


async def reconcile_days(
    database: Database, stripe: Stripe, now: float, complete_events: Callable[[], Awaitable[object]] = complete_nothing
) -> int:
    """Compare each past day that was not compared yet, and return the number of days.

    `complete_events` reads and applies Stripe's events. Raises StripeCallError; days compared until then stay recorded.
    Raises BooksIncompleteError if some events still wait.
    """
    end = int(now - SETTLED_SECONDS) // DAY * DAY
    async with database.reading() as connection:
        reconciled_until = await discrepancies.find_reconciled_until(connection, "D")
    first = end - DAY if reconciled_until is None else max(reconciled_until, end - DAYS_MAX * DAY)
    if first < end:
        # A payment whose event still waits would look like a difference.
        await complete_events()
        while await book_invoices(database):
            pass
        async with database.reading() as connection:
            waiting = await receiver.count_waiting(connection, int(now - SETTLED_SECONDS))
        if waiting:
            raise BooksIncompleteError(f"{waiting} events of Stripe are not applied yet")
    for start in range(first, end, DAY):
        # The balances of customers are current ones, so they are compared only with the last day.
        await reconcile_span(database, stripe, Span(start, start + DAY), now, has_balances=start + DAY == end)
    return max(0, end - first) // DAY


async def reconcile_span(
    database: Database, stripe: Stripe, span: Span, now: float, *, has_balances: bool = True
) -> tuple[Drift, Level]:
    """Book a span of Stripe's balance transactions, compare it with the journal, and record the result.

    With `has_balances` the balances of customers are compared, too. Raises StripeCallError, and then records nothing.
    """
    rows = await compare_span(database, stripe, span, now, is_booking=True, has_balances=has_balances)
    async with database.writing() as connection:
        return await discrepancies.record_reconciliation(connection, "D", span, rows, now)


async def compare_span(
    database: Database, stripe: Stripe, span: Span, now: float, *, is_booking: bool, has_balances: bool = True
) -> list[Comparison]:
    """Compare a span of Stripe's balance transactions with the journal, after booking them if `is_booking`.

    With `has_balances` the balances of customers are compared, too. Raises StripeCallError.
    """
    balance = StripeBalance(database, stripe)
    listed = await balance.list_transactions(await balance.find_start(span.start, now), span.end)
    if is_booking:
        await balance.book(listed)
    balances = CustomerBalances(database, stripe)
    of_customers = await balances.compare(now, is_booking=is_booking) if has_balances else []
    async with database.reading(whole=True) as connection:
        cash = await clearing.sum_cash(connection, span)
        subjects = await clearing.fetch_subjects(connection, span)
    # Also currencies that only our books have. Stripe's own follow below.
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
            Comparison(
                subject.customer or subject.id,
                name_by_currency(subject.kind, subject.currency),
                subject.ours,
                subject.stripes,
            )
            for subject in subjects
        ]
        + of_customers
    )


async def repair_span(database: Database, stripe: Stripe, span: Span, now: float) -> Repair:
    """Apply all Stripe objects since the start of a span again, as if no webhook had come, and compare again.

    Raises StripeCallError; objects applied until then stay applied.
    """
    failures = await replay_objects(database, stripe, span.start)
    while await book_invoices(database):
        pass
    return Repair(await compare_span(database, stripe, span, now, is_booking=True), failures)


async def replay_objects(database: Database, stripe: Stripe, since: int) -> list[str]:
    """Apply all objects created at Stripe since a Unix second. Return the reasons why some could not be applied.

    Raises StripeCallError.
    """
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
