"""The jobs of billing besides requests: applying events, finding lost ones, and following the state of charging.

Only one collector at a time applies events: the holder of the lock.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.collector.accounts import list_figures
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.alerts.alert import raise_alerts
from edgeproxy.collector.billing.credits import purchases
from edgeproxy.collector.billing.invoices import (
    credit_notes,
    disputes,
    dunning,
    foreign_balance,
    receivables,
    stripe_reports,
)
from edgeproxy.collector.billing.jobs.meter_export import MeterExportJob
from edgeproxy.collector.billing.jobs.price_changes import PriceChangeJob
from edgeproxy.collector.billing.jobs.spend_breaker import SpendBreaker
from edgeproxy.collector.billing.meter_export import meter_reports
from edgeproxy.collector.billing.meter_export.exporter import MeterEventsUnavailableError
from edgeproxy.collector.billing.reconciliation import credits, stored_words
from edgeproxy.collector.billing.reconciliation import payments as reconcile_payments
from edgeproxy.collector.billing.reports import list_costs, revenue, spend_alerts
from edgeproxy.collector.billing.reports.response_counts import ResponseCounts
from edgeproxy.collector.billing.reports.revenue import RevenueFigures
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.rollout.charging import Charging
from edgeproxy.collector.billing.stripe import billing_details
from edgeproxy.collector.billing.stripe.client import (
    Stripe,
    StripeCallError,
    StripeObject,
    read_secret_key,
    read_webhook_secrets,
)
from edgeproxy.collector.billing.stripe.customers import record_deleted
from edgeproxy.collector.billing.stripe.webhook_event import REPORT
from edgeproxy.collector.billing.stripe_balance.sync import StripeBalance
from edgeproxy.collector.billing.stripe_sync.customer_deletion import delete_erased
from edgeproxy.collector.billing.subscriptions import (
    entitlements,
    resumed_fees,
    subscription_rows,
    trial_alerts,
    unpaid_plans,
)
from edgeproxy.collector.billing.webhooks.possible_payers import find_possible_payers
from edgeproxy.collector.billing.webhooks.processor import POLL_SECONDS, Apply, Processor, StripeUnavailableError
from edgeproxy.collector.billing.webhooks.stripe_objects import StripeObjects
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database
from edgeproxy.collector.database.encryption import ColumnCipher
from edgeproxy.collector.database.periodic import Job, Rest, repeat, run_exclusively
from edgeproxy.collector.pages.urls import build_url, select_listener
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.catalog import get_default_currency
from edgeproxy.config.collector.settings import CollectorSettings

LOOK_SECONDS = 2.0
"""Seconds between two reads of the charging state. A change applies everywhere within five seconds."""
EVENTS_SECONDS = 1.0
"""Seconds between two checks for events to apply."""
UNPAID_SECONDS = 60.0
"""Seconds between two checks for unpaid and paid invoices."""
PAUSE_RESTS_SECONDS = 600.0
"""Seconds until the next try to pause a customer who could not be paused."""
BALANCE_SECONDS = 300.0
"""Seconds between two reads of Stripe's balance transactions."""
BALANCES_SECONDS = 300.0
"""Seconds between two comparisons of credit entries with balances."""
CUT_SECONDS, SEND_SECONDS, DOUBTS_SECONDS, COMPARE_SECONDS = 10.0, 1.0, 600.0, 3600.0
"""Seconds between two runs that fix slices of usage, send them, look them up at Stripe, and compare them.

The comparison is with the ledger and Stripe's sums. Payments are compared with the journal at the last interval too.
"""
PASSES_SECONDS = 10.0
"""Seconds between two checks for ended grace periods."""
PLANS_SECONDS = 600.0
"""Seconds between two rounds over all customers with a plan."""
COSTS_SECONDS = 300.0
"""Seconds between two rounds that compute the costs of all customers with a plan for their list."""
BREAKER_SECONDS = 300.0
"""Seconds between two checks for unusually high spending."""
SPEND_SECONDS = 30.0
"""Seconds between two rounds over all customers with spend alerts."""
TRIALS_SECONDS = 60.0
"""Seconds between two checks for trials that end soon."""
REMINDERS_SECONDS = 600.0
"""Seconds between two checks for disputes whose answer is due soon."""
PLANS_MAX = 100
"""Customers followed before a pause."""
PLANS_RESTS = 3.0
"""The pause after these, as a multiple of their duration. With a million customers a round takes hours."""
SUBSCRIPTIONS_RESTS = 20.0
"""The pause after a check for subscriptions that differ at Stripe, as a multiple of its duration."""
PRICES_SECONDS = 30.0
"""Seconds between two checks for due price changes, and for prices that Stripe lacks."""
NOTICES_SECONDS = 600.0
"""Seconds between two checks for customers to notify of a price change."""
EVENT_JOBS = ("webhook-poll", "webhook-events")
"""The names of the jobs that apply Stripe's events."""
INCOMPLETE_SECONDS = 60.0
"""Seconds until payments are compared if their events are not applied yet."""
REVENUE_SECONDS = 300.0
"""Seconds between two computations of the revenue metrics."""
ANSWERS_SECONDS = 60.0
"""Seconds between two writes of the counted API answers."""
STAND_BY_SECONDS = 5.0
"""Seconds until a collector tries again to get a job that another one runs."""


ERASED_SECONDS = 600.0
"""Seconds between two checks for erased customers who still exist at Stripe."""
EXPECTED_ERRORS = (StripeUnavailableError, MeterEventsUnavailableError, StripeCallError)
"""Errors that mean that Stripe is unavailable, and are no fault of ours."""


def build_job(name: str, seconds: float, work: Callable[[], Awaitable[object]]) -> Job:
    """Build a job that may call Stripe."""
    return Job(name, seconds, f"{name} could not go on, and is tried again", work, EXPECTED_ERRORS)


def build_processor(
    settings: CollectorSettings,
    database: Database,
    stripe: Stripe,
    applied: Callable[[float], None],
    seen: Callable[[Sequence[str], Mapping[str, object]], None] = lambda types, object_: None,
) -> Processor:
    """Build the processor of Stripe's events, with a function for each type. Raises StripeConfigurationError."""
    assert settings.billing is not None
    way = settings.billing.stripe
    payloads = build_payload_cipher(read_webhook_secrets(way), read_secret_key(way, os.environ))
    table: Mapping[str, Apply] = {
        "invoice": _apply_stripe_invoice,
        "customer": _apply_stripe_customer,
        "credit_note": credit_notes.apply_stripe_note,
        **purchases.APPLIERS,
        REPORT: meter_reports.apply_report,
    }
    return Processor(database, StripeObjects(stripe), table, payloads, live=way.live, on_applied=applied, on_seen=seen)


def build_payload_cipher(webhook_secrets: Sequence[str], key: str) -> ColumnCipher:
    """Build the cipher of events that are fetched. The API key always exists; webhook secrets may be added later."""
    return ColumnCipher([*webhook_secrets, key])


async def _apply_stripe_invoice(connection: AsyncConnection, stripe_invoice: StripeObject) -> None:
    """Apply an invoice of Stripe's: its state and amounts, and the end of a pending payment."""
    # Dunning first, because payment attempts lock the rows in this order.
    await dunning.apply_stripe_invoice(connection, stripe_invoice, time.time())
    await stripe_reports.apply_stripe_invoice(connection, stripe_invoice)


async def _apply_stripe_customer(connection: AsyncConnection, stripe_customer: StripeObject) -> None:
    """Apply a customer of Stripe's: manual balance changes, payment method, invoice details, and deletion."""
    if stripe_customer.get("deleted"):
        await record_deleted(connection, stripe_customer["id"])
    await foreign_balance.apply_stripe_customer(connection, stripe_customer)
    await dunning.apply_stripe_customer(connection, stripe_customer, time.time())
    await billing_details.apply_stripe_customer(connection, stripe_customer)


def find_plan_page(settings: CollectorSettings) -> str | None:
    """Return the URL of the page with a customer's plan, or None without pages."""
    return (
        None if settings.pages is None else f"{build_url(settings, select_listener(settings, 'portal'))}/account/plan"
    )


class BillingJobs:
    """The billing jobs of one collector.

    `known` returns the current settings. `tell` is called at intervals with the state of charging. `answers` counts the
    answers of the billing API. `took` is called with the revenue.
    """

    def __init__(
        self,
        database: Database,
        known: Callable[[], CollectorSettings],
        tell: Callable[[Charging], None],
        answers: ResponseCounts,
        took: Callable[[RevenueFigures | None], None],
    ) -> None:
        self._database = database
        self._known = known
        self._tell = tell
        self._answers = answers
        self._took = took
        self._complete_events: Callable[[], Awaitable[object]] = reconcile_payments.complete_nothing
        """Applies all of Stripe's events, before a pause: the customer may have paid while no collector ran."""
        self._charged: tuple[str, int, bool] | None = None
        """The last logged mode, percentage and charging state."""
        self._rested: dict[str, float] = {}
        """The time of the next try to pause, by the name of a customer who could not be paused."""
        self._log = log.get_logger()
        self._limited_log = log.RateLimitedLog(60.0)

    def start(
        self, tasks: Tasks, stripe: Stripe | None, processor: Processor | None, exports: MeterExportJob | None
    ) -> None:
        """Start all jobs. Without a connection to Stripe, jobs for events, exports and payments are left out."""
        for job in (
            build_job("charging", LOOK_SECONDS, self._follow_charging),
            build_job("billing-answers", ANSWERS_SECONDS, lambda: self._answers.write(self._database)),
        ):
            tasks.start(job.name, repeat(job, self._limited_log))
        if processor is not None:
            self._complete_events = processor.complete
        tasks.start("billing books", self._run_exclusively("billing-books", self._build_book_jobs()))
        if processor is not None:
            jobs = (
                # Somebody who has paid waits for it.
                build_job("webhook-events", EVENTS_SECONDS, processor.step)._replace(gives_way=False),
                build_job("webhook-poll", POLL_SECONDS, processor.poll),
            )
            tasks.start("webhooks", self._run_exclusively("billing-webhooks", jobs))
        if exports is not None and stripe is not None:
            prices = PriceChangeJob(self._database, self._known)
            export_jobs = (
                *self._build_export_jobs(exports),
                build_job("price-changes-stripe", PRICES_SECONDS, lambda: prices.sync_prices(stripe, time.time())),
            )
            tasks.start("exports", self._run_exclusively("billing-exports", export_jobs, exports.take_over))
        revenue_job = build_job("revenue", REVENUE_SECONDS, self._fetch_revenue)
        tasks.start("revenue", self._run_exclusively("billing-takings", (revenue_job,)))
        if stripe is not None:
            balance = StripeBalance(self._database, stripe)
            payments = (
                build_job("stripe-balance", BALANCE_SECONDS, lambda: self._sync_balance(balance)),
                build_job("payments", COMPARE_SECONDS, lambda: self._reconcile_payments(stripe))._replace(
                    follows=("stripe-balance", *(() if processor is None else EVENT_JOBS))
                ),
                build_job("erased-customers", ERASED_SECONDS, lambda: delete_erased(self._database, stripe)),
            )
            tasks.start("payments", self._run_exclusively("billing-payments", payments))

    def _build_book_jobs(self) -> tuple[Job, ...]:
        breaker = SpendBreaker(self._database, self._known)
        prices = PriceChangeJob(self._database, self._known, lambda: find_plan_page(self._known()))
        return (
            build_job("unpaid-invoices", UNPAID_SECONDS, self._pause_unpaid),
            build_job("unpaid-plans", UNPAID_SECONDS, self._follow_unpaid_plans),
            build_job("credit-balances", BALANCES_SECONDS, self._reconcile_credits),
            build_job("plan-graces", PASSES_SECONDS, self._follow_passes),
            build_job("plans", PLANS_SECONDS, self._follow_plans),
            build_job("spend-alerts", SPEND_SECONDS, self._follow_spending),
            build_job("list-costs", COSTS_SECONDS, self._record_costs),
            build_job("list-overdue", UNPAID_SECONDS, self._record_overdue),
            build_job("trial-alerts", TRIALS_SECONDS, self._raise_trial_alerts),
            build_job("dispute-reminders", REMINDERS_SECONDS, self._raise_reminders),
            build_job("price-changes", PRICES_SECONDS, lambda: prices.finish_due(time.time())),
            build_job("price-change-notices", NOTICES_SECONDS, lambda: prices.notify_customers(time.time())),
            build_job("spend-breaker", BREAKER_SECONDS, lambda: breaker.step(time.time())),
        )

    def _build_export_jobs(self, exports: MeterExportJob) -> tuple[Job, ...]:
        return (
            build_job("stripe-subscriptions", LOOK_SECONDS, lambda: self._follow_subscriptions(exports)),
            build_job("usage-slices", CUT_SECONDS, exports.fix_slices),
            build_job("meter-events", SEND_SECONDS, exports.send_rows),
            build_job("meter-event-doubts", DOUBTS_SECONDS, exports.resolve_doubts),
            build_job("meter-event-revisions", COMPARE_SECONDS, exports.compare_outbox),
            build_job("stripe-sums", COMPARE_SECONDS, exports.reconcile_days)._replace(follows=("usage-slices",)),
        )

    async def _raise_reminders(self) -> None:
        """Page the operators about unanswered disputes, after an update about the answered ones."""
        async with self._database.reading() as connection:
            if not await disputes.is_reminder_due(connection, time.time()):
                return
        with suppress(StripeUnavailableError):  # A deadline counts while Stripe is away, too.
            await self._complete_events()
        async with self._database.writing() as connection:
            await disputes.raise_reminders(connection, time.time())

    async def _raise_trial_alerts(self) -> None:
        """Raise the alerts of trials that end soon."""
        async with self._database.writing() as connection:
            await raise_alerts(connection, await trial_alerts.list_trial_alerts(connection, time.time()))

    async def _follow_subscriptions(self, exports: MeterExportJob) -> None:
        """Align Stripe's subscriptions with ours. If none is due, the pause grows with their number."""
        began = time.monotonic()
        if not await exports.subscriptions.step():
            await asyncio.sleep(SUBSCRIPTIONS_RESTS * (time.monotonic() - began))

    async def _follow_charging(self) -> None:
        """Apply the charging settings of the file, and read the current state."""
        billing = self._known().billing
        if billing is None:
            return
        async with self._database.reading() as connection:
            now = await charging.fetch_charging(connection, billing)
        if charging.is_behind(now, billing):
            try:
                async with self._database.writing() as connection:
                    await charging.apply_configuration(connection, billing)
                    now = await charging.fetch_charging(connection, billing)
            except ChangeRejectedError:
                pass  # Another collector has done it.
        if now.mode != "off" and self._charged != (charged := (now.mode, now.percent, now.is_on)):
            self._charged = charged
            self._log.info("who is charged", mode=now.mode, percent=now.percent, charging=now.is_on)
        self._tell(now)

    async def _pause_unpaid(self) -> None:
        """Pause customers who have not paid, and resume customers who have."""
        settings = self._known()
        if settings.billing is None or settings.billing.mode == "off":
            return
        now = time.time()
        async with self._database.reading() as connection:
            if not (await charging.fetch_charging(connection, settings.billing)).is_on:
                return
            due = await dunning.list_due_customers(connection, settings, now)
        self._rested = {name: until for name, until in self._rested.items() if until > now}
        unpaid = [name for name in due.unpaid_since if name not in self._rested]
        await self._pause_all(due.paid, settings, settings.billing, now)
        if not unpaid:
            return
        await self._complete_events()
        payers = await find_possible_payers(self._database, unpaid, now)
        certain = [name for name in unpaid if name not in payers]
        paused = await self._pause_all(certain, settings, settings.billing, now)
        # Those who stay due would have all events read again every minute.
        self._rested |= dict.fromkeys(set(unpaid) - paused, now + PAUSE_RESTS_SECONDS)

    async def _pause_all(
        self, names: Sequence[str], settings: CollectorSettings, billing: Billing, now: float
    ) -> set[str]:
        """Pause or resume customers, some in each transaction, or one by one if that fails. Return the paused ones."""
        paused: set[str] = set()

        async def pause(connection: AsyncConnection, among: Sequence[str]) -> None:
            if (await charging.fetch_charging(connection, billing)).is_on:
                paused.update((await dunning.pause_and_release(connection, settings, now, among))[0])

        for first in range(0, len(names), dunning.TAKEN_MAX):
            await self._pause_some(names[first : first + dunning.TAKEN_MAX], pause)
        return paused

    async def _pause_some(
        self, names: Sequence[str], pause: Callable[[AsyncConnection, Sequence[str]], Awaitable[None]]
    ) -> None:

        try:
            async with self._database.writing() as connection:
                await pause(connection, names)
        except CONNECTION_ERRORS:
            raise
        except Exception:
            failed = "a customer could not be paused or released, and is looked at again"
            await self._each(names, lambda connection, name: pause(connection, [name]), failed)

    async def _follow_unpaid_plans(self) -> None:
        """Retry the fees of customers who have paid everything, and write off fees that ended plans left unpaid."""
        settings, now = self._known(), time.time()
        if settings.billing is None or settings.billing.mode == "off":
            return
        async with self._database.reading() as connection:
            paid = await resumed_fees.list_paid(connection, now, PLANS_MAX)
        await self._each(
            paid,
            lambda connection, customer: resumed_fees.resume_fees(connection, customer, now),
            "fees of a customer who has paid could not be charged again, and are looked at again",
        )
        if settings.billing.unpaid.after == "uncollectible":
            async with self._database.writing() as connection:
                if (await charging.fetch_charging(connection, settings.billing)).is_on:
                    await unpaid_plans.write_off_ended(connection, PLANS_MAX)

    async def _follow_passes(self) -> None:
        """Cap customers whose grace period has ended. Lift caps when their period ends."""
        if self._known().billing is None:
            return
        now = time.time()
        async with self._database.reading() as connection:
            names = await entitlements.list_breached_customers(connection, now, PLANS_MAX)
        await self._each(
            names, lambda connection, name: entitlements.apply_cap_breaches(connection, name, self._known(), now)
        )

    async def _follow_plans(self) -> None:
        """Apply the current plan caps to all subscribers."""
        after = ""
        while self._known().billing is not None:
            began = time.monotonic()
            async with self._database.reading() as connection:
                some = await subscription_rows.list_subscribed_customers(connection, after, PLANS_MAX)
            if not some:
                return
            await self._each(
                some,
                lambda connection, customer: entitlements.refresh_entitlements(connection, customer, self._known()),
            )
            after = some[-1]
            await asyncio.sleep(PLANS_RESTS * (time.monotonic() - began))

    async def _follow_spending(self) -> None:
        """Raise alerts for all customers whose spending has reached an amount that they chose."""
        after = ""
        while self._known().billing is not None:
            began, now = time.monotonic(), time.time()
            async with self._database.reading() as connection:
                some = await spend_alerts.list_customers(connection, after, PLANS_MAX)
            if not some:
                return
            await self._each(
                some,
                partial(spend_alerts.raise_reached, meters=self._known().meters, now=now),
                "what a customer has spent could not be looked at, and is looked at again",
            )
            after = some[-1]
            await asyncio.sleep(PLANS_RESTS * (time.monotonic() - began))

    async def _record_costs(self) -> None:
        """Record the cost of the period so far of all customers with a plan, for the list of customers."""
        after = ""
        while self._known().billing is not None:
            began = time.monotonic()
            after = await list_costs.record_costs(self._database, after, PLANS_MAX, self._known().meters, time.time())
            if not after:
                return
            await asyncio.sleep(PLANS_RESTS * (time.monotonic() - began))

    async def _record_overdue(self) -> None:
        """Record the overdue amounts of customers, and delete the use of ended caps, for the list of customers."""
        async with self._database.reading() as connection:
            overdue = await receivables.sum_overdue(connection, time.time())
        async with self._database.writing() as connection:
            await list_figures.record_overdue(connection, overdue)
        async with self._database.writing() as connection:  # A transaction locks customers once, in one order.
            await list_figures.end_caps(connection, time.time())

    async def _each(
        self,
        some: Sequence[str],
        follow: Callable[[AsyncConnection, str], Awaitable[object]],
        failed: str = "the caps of a plan could not be brought to hold a customer, and are looked at again",
    ) -> None:
        """Follow each customer in its own transaction, so that a failure does not delay others."""
        for customer in some:
            try:
                async with self._database.writing() as connection:
                    await follow(connection, customer)
            except CONNECTION_ERRORS:
                raise
            except Exception as error:
                self._limited_log.error(failed, repr(error), customer=customer, exc_info=error)

    async def _reconcile_credits(self) -> None:
        """Compare credit entries with balances, and look for terms that no sum includes."""
        if self._known().billing is not None:
            async with self._database.reading() as connection:
                await stored_words.set_aside_unknown_words(connection)
            await credits.reconcile_balances(self._database, time.time())

    async def _fetch_revenue(self) -> None:
        """Compute the revenue."""
        settings = self._known()
        if settings.billing is not None:
            default = get_default_currency(settings.plans)
            async with self._database.reading(whole=True) as connection:
                self._took(await revenue.fetch_revenue(connection, settings.billing, default, time.time()))

    async def _sync_balance(self, balance: StripeBalance) -> None:
        """Book Stripe's balance transactions."""
        billing = self._known().billing
        if billing is not None and billing.mode != "off":
            await balance.sync(time.time())

    async def _reconcile_payments(self, stripe: Stripe) -> Rest | None:
        """Compare Stripe's payments of completed days with the journal, once our side is complete."""
        billing = self._known().billing
        if billing is None or billing.mode == "off":
            return None
        try:
            await reconcile_payments.reconcile_days(self._database, stripe, time.time(), self._complete_events)
        except reconcile_payments.BooksIncompleteError as error:
            self._log.info("payments are compared later", why=str(error))
            return Rest(INCOMPLETE_SECONDS)
        return None

    async def _run_exclusively(
        self, lock: str, jobs: tuple[Job, ...], begin: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Run jobs while no other collector does, until cancelled. `begin` is called before them each time."""

        async def work() -> None:
            if begin is not None:
                await begin()
            await asyncio.gather(*(repeat(job._replace(lock=lock), self._limited_log) for job in jobs))

        async def try_lock() -> object:
            return await run_exclusively(self._database, lock, work)

        bearer = Job(lock, STAND_BY_SECONDS, "the lock of a job cannot be had", try_lock, lock=lock, holds_jobs=True)
        await repeat(bearer, self._limited_log)
