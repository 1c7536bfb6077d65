"""A collector stops at steps of a month and starts days later. No comparison reports a false difference.

No alert is false, and the invoices are equal to those without a stop.
"""

import itertools
from collections.abc import Awaitable, Callable, Container
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import sqlalchemy as sa
import yaml

from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.invoices.bookings import book_invoices
from edgeproxy.collector.billing.journal import journal
from edgeproxy.collector.billing.journal.verification import list_differences, verify_journal
from edgeproxy.collector.billing.reconciliation import credits, payments
from edgeproxy.collector.billing.reports.response_counts import ResponseCounts
from edgeproxy.collector.billing.stripe.client import Stripe
from edgeproxy.collector.billing.stripe.customers import StripeCustomers
from edgeproxy.collector.billing.stripe_balance.sync import FIRST
from edgeproxy.collector.billing.subscriptions import subscription_rows
from edgeproxy.collector.billing.webhooks import receiver
from edgeproxy.collector.database.alert_tables import alerts
from edgeproxy.collector.database.delivery_tables import reconciliations
from edgeproxy.collector.jobs import billing as billing_jobs
from edgeproxy.collector.jobs.billing import BillingJobs, build_processor
from tests.support.era import Era, era
from tests.support.invoiced import FEBRUARY, FREEZE, JANUARY, ON_BOTH_IF_SOAKED, at, fetch_invoices
from tests.support.stripe_sandbox import Sandbox

DAY = 86400
STOPPED_SECONDS = 5 * DAY
ROUNDS = 2
"""Rounds of the jobs, a minute apart."""
PLANS = {
    "small@1": {"fee": "100", "tier": "standard", "meters": {"calls": {"included": 10, "price": "1"}}},
    "large@1": {"fee": "500", "tier": "enterprise", "meters": {"calls": {"included": 10, "price": "1"}}},
}
EXPECTED_ALERTS = {"payment_failed", "payment_disputed", "dispute_closed", "invoice_issued", "invoice_unpaid"}
"""The kinds of alerts that are true in this month."""


class Month:
    """A month of three customers: they pay by card, by the page of an invoice, and by a card that disputes."""

    def __init__(self, of: Era, stripe: Stripe) -> None:
        self.of, self.stripe = of, stripe
        self.names = [f"{of.collection}-{card}" for card in ("visa", "page", "disputes")]
        known = of.of.known
        self.processor = build_processor(known, of.of.database, stripe, lambda seconds: None)
        self.processor._clock = of.now
        self.jobs = BillingJobs(
            of.of.database, lambda: known, lambda state: None, ResponseCounts(), lambda figures: None
        )
        self.jobs._complete_events = self.processor.complete
        of.closing._roll._complete_events = self.processor.complete

    @property
    def acts(self) -> list[tuple[int, Callable[[], Awaitable[None]]]]:
        """The acts of the month with their times. A collector that stops at one of them is back before the next."""
        return [
            (JANUARY + 60, self.subscribe),
            (JANUARY + 8 * DAY, lambda: self.use(30)),
            (at(2027, 1, 16, 12), self.upgrade),
            (JANUARY + 24 * DAY, lambda: self.use(5)),
            (FEBRUARY + 5, self.nothing),
            (FEBRUARY + FREEZE + 5 * DAY, self.pay_by_page),
            (FEBRUARY + 14 * DAY, self.refund),
            (FEBRUARY + 21 * DAY, self.nothing),
        ]

    async def nothing(self) -> None:
        """Time passes."""

    async def subscribe(self) -> None:
        for name in self.names:
            await self.of.of.customer(name, now=self.of.now())
            async with self.of.of.database.reading() as connection:
                customer = await subscription_rows.get_subscriber(connection, name)
            stripe_id = await StripeCustomers(self.of.of.database, self.stripe).get_or_create(customer.id, name)
            card = {"visa": "pm_card_visa", "page": None, "disputes": "pm_card_createDispute"}[name.rpartition("-")[2]]
            values = {"invoice_settings": {"default_payment_method": card}} if card else {"email": "a@example.com"}
            await self.stripe.call("v1.customers.update", stripe_id, **values)
            await self.of.of.subscribe(name, "small", now=self.of.now())

    async def use(self, calls: int) -> None:
        for name in self.names:
            await self.of.of.use(name, {"calls": calls}, at=self.of.now())

    async def upgrade(self) -> None:
        await self.of.of.change(self.names[0], "large", now=self.of.now())

    async def pay_by_page(self) -> None:
        for invoice in (await fetch_invoices(self.of.of, self.names[1])).values():
            if invoice["state"] == "open" and invoice["total"]:
                await self.stripe.call("v1.invoices.pay", str(invoice["stripe_id"]), payment_method="pm_card_visa")

    async def refund(self) -> None:
        """Refund a part of a payment at Stripe's dashboard."""
        paid = [
            invoice for invoice in (await fetch_invoices(self.of.of, self.names[0])).values() if invoice["amount_paid"]
        ]
        (payment,) = await self.stripe.list_all("v1.invoice_payments.list", invoice=str(paid[0]["stripe_id"]))
        await self.stripe.call("v1.refunds.create", payment_intent=payment["payment"]["payment_intent"], amount=700)

    async def start(self) -> None:
        """Run the jobs of a collector that has just started, in the worst order: comparisons and refusals first."""
        database, now = self.of.of.database, self.of.now
        await self.jobs._pause_unpaid()
        try:
            await payments.reconcile_days(database, self.stripe, now(), self.processor.complete)
        except payments.BooksIncompleteError:
            pass
        await self.of.exports.compare_outbox()
        await credits.reconcile_balances(database, now())
        await self.of.exports.fix_slices()
        await self.of.exports.reconcile_days()
        await self.turn()

    async def turn(self) -> None:
        """Run the jobs, until nothing is due."""
        for _ in range(ROUNDS):
            await self.of.closing.step(self.of.now())
            await self.of.export()
            await self.processor.complete()
            while await book_invoices(self.of.of.database):
                pass
            await self.of.to(self.of.now() + 61)

    async def live(self, stops: Container[int]) -> None:
        """Live through the month. The collector stops at each of these acts, and starts days later."""
        await self.processor.poll()
        for number, (when, act) in enumerate(self.acts):
            await self.of.to(when)
            await act()
            if number in stops:
                await self.of.to(self.of.now() + STOPPED_SECONDS)
            else:
                await self.turn()
            await self.start()
        await self.of.to(FEBRUARY + 27 * DAY)
        await self.start()

    async def check(self) -> dict[str, dict[str, int]]:
        """Check that no difference was reported; return the total of each invoice, by customer."""
        async with self.of.of.database.reading(whole=True) as connection:
            await verify_journal(connection)
            assert await list_differences(connection) == []
            kinds = set((await connection.execute(sa.select(alerts.c.kind))).scalars())
            levels = set((await connection.execute(sa.select(reconciliations.c.level))).scalars())
            compared = await discrepancies.list_reconciliations(connection, "D", 100)
        assert kinds <= EXPECTED_ALERTS
        assert levels == {"none"}
        assert compared
        invoices = {name: await fetch_invoices(self.of.of, name) for name in self.names}
        return {
            name.rpartition("-")[2]: {period: one["total"] for period, one in all_of.items()}
            for name, all_of in invoices.items()
        }


ACTS = range(8)
STOPS: dict[str, Container[int]] = {"every even act": ACTS[::2], "every odd act": ACTS[1::2], "no act": ()}
STOPS |= {f"act {act}": (act,) for act in ACTS}
SHORT = {("invoice_items", "every even act"), ("meters", "every odd act")}
"""The collections and stops of a run that is not long."""
EXPECTED = {
    "visa": {"2027-01-01 start": 10000, "2027-01-01 change": 20000, "2027-01-01 period": 52000},
    "page": {"2027-01-01 start": 10000, "2027-01-01 period": 12500},
    "disputes": {"2027-01-01 start": 10000, "2027-01-01 period": 12500},
}


@pytest.mark.timeout(600)
@ON_BOTH_IF_SOAKED
@pytest.mark.parametrize(
    ("collection", "stops"),
    [
        pytest.param(*case, marks=() if case in SHORT else pytest.mark.soak)
        for case in itertools.product(("invoice_items", "meters"), STOPS)
    ],
)
@pytest.mark.usefixtures("secret_key")
async def test_a_collector_that_stopped_in_a_month_catches_up_without_a_false_alert(
    new_sandbox: Sandbox,
    tmp_path: Path,
    database: str,
    collection: str,
    stops: str,
) -> None:
    file = tmp_path / "plans.yaml"
    file.write_text(yaml.safe_dump({"plans": PLANS}))
    terms: dict[str, Any] = {"plans": str(file), "meters": {"calls": {"count": "events"}}, "collection": collection}

    async with era(tmp_path, database, new_sandbox, JANUARY, **terms) as of:
        of.collection = collection
        async with of.of.database.writing() as connection:
            await receiver.record_read(connection, FIRST, JANUARY)
        with ExitStack() as clocks:
            clocks.enter_context(mock.patch.object(billing_jobs, "time", SimpleNamespace(time=of.now)))
            clocks.enter_context(mock.patch.object(journal, "now_ms", side_effect=lambda: int(of.now() * 1000)))
            month = Month(of, of.closing._retries._stripe)
            await month.live(STOPS[stops])
            assert await month.check() == EXPECTED
