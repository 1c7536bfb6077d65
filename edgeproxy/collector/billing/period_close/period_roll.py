"""The period roll: it begins the next period of subscriptions, and ends the ones of deleted customers.

A subscription is rolled when its period or trial is over, in its own transaction. One that fails raises an alert and is
retried after a pause, so that the others go on, however many fail.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.alerts.alert import Alert, fetch_times, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.period_close.trial_payments import TrialPayments
from edgeproxy.collector.billing.stripe.client import Stripe, StripeCallError
from edgeproxy.collector.billing.subscriptions import subscription_rows, subscriptions, unpaid_plans
from edgeproxy.collector.billing.webhooks.possible_payers import (
    ALERTED_SECONDS_MAX,
    UNREPORTED_SECONDS_MAX,
    find_possible_payers,
)
from edgeproxy.collector.billing.webhooks.processor import StripeUnavailableError
from edgeproxy.collector.database.billing_tables import subscriptions as table
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.settings import CollectorSettings

PAGE = 500
"""The most subscriptions, and deleted customers, in one step."""
PAUSE_SECONDS = 60.0
"""Seconds until the next try of one that failed."""
TITLE_CHARACTERS_MAX = 200


class PeriodRoll:
    """Rolls periods. `settings` returns the current configuration, `complete_events` applies all of Stripe's events."""

    def __init__(
        self,
        database: Database,
        stripe: Stripe,
        settings: Callable[[], CollectorSettings],
        complete_events: Callable[[], Awaitable[object]],
    ) -> None:
        self._database = database
        self._complete_events = complete_events
        self._trials = TrialPayments(database, stripe)
        self._settings = settings
        self._put_off: dict[str, float] = {}
        """The time of the next try, by the id of the subscription or of the deleted customer."""
        self._log = log.get_logger()
        self._limited_log = log.RateLimitedLog(60.0)

    async def step(self, now: float, billing: Billing) -> bool:
        """Roll the periods that are over at this Unix second. Return whether there were any."""
        settings = self._settings()
        # Subscriptions that just failed are not read again, or PAGE of them would block all others.
        self._put_off = {subject: at for subject, at in self._put_off.items() if at > now}
        failed = list(self._put_off)
        async with self._database.reading() as connection:
            due = await subscription_rows.list_due(connection, now, PAGE, without=failed)
            trials = await subscription_rows.list_due(connection, now, PAGE, without=failed, is_trial=True)
            deleted = await subscription_rows.list_deleted_customers(connection, PAGE, without=failed)
            refused = await unpaid_plans.list_refused(connection, due)

        async def roll(connection: AsyncConnection, number: str) -> None:
            await subscriptions.roll_period(connection, number, settings=settings, now=now)

        async def end(connection: AsyncConnection, customer: str) -> None:
            await subscriptions.cancel_subscription(
                connection, subscriptions.RUNNER, customer, "now", settings=settings, now=now
            )

        undecided = await self._list_undecided(refused, now)
        self._put_off |= dict.fromkeys(undecided, now + PAUSE_SECONDS)
        due = [number for number in due if number not in undecided]
        for number in due:
            await self._apply(roll, number, now)
        for number in trials:
            await self._end_trial(number, now, billing)
        for customer in deleted:
            await self._apply(end, customer, now)
        return bool(due or trials or deleted)

    async def _list_undecided(self, refused: Mapping[str, str], now: float) -> Collection[str]:
        """Return the subscriptions whose customer may have paid at Stripe, for example while no collector ran.

        `refused` has the names of customers by subscription.
        """
        if not refused:
            return ()
        try:
            # A customer who paid while no collector ran would lose the plan: events of such payments are still at
            # Stripe.
            await self._complete_events()
        except StripeUnavailableError as error:
            self._limited_log.error("periods of refused customers cannot end now, and are tried again", str(error))
            return refused
        payers = await find_possible_payers(self._database, refused.values(), now)
        return [number for number, name in refused.items() if name in payers]

    async def _end_trial(self, number: str, now: float, billing: Billing) -> None:
        """End a trial. While Stripe cannot report the payment method, the trial continues, but not for ever."""
        try:
            can_pay = await self._trials.can_pay(number, billing)
        except StripeCallError as error:
            if not await self._is_trial_overdue(number, now):
                self._limited_log.error("a trial cannot end, and is looked at again", str(error), subscription=number)
                self._put_off[number] = now + PAUSE_SECONDS
                return
            can_pay = True  # Its fee is invoiced, and dunning decides. A customer with a card does not lose the plan.
        settings = self._settings()

        async def roll(connection: AsyncConnection, number: str) -> None:
            await subscriptions.roll_period(connection, number, settings=settings, now=now, can_pay=can_pay)

        await self._apply(roll, number, now)

    async def _is_trial_overdue(self, number: str, now: float) -> bool:
        """Return whether operators have known for long that Stripe does not report a payment method. Raise the alert.

        The end of the trial is no measure for that: no collector may have asked Stripe since.
        """
        async with self._database.reading() as connection:
            (row,) = await subscription_rows.fetch_subscriptions(connection, table.c.id == number)
        if now - row.period_end < UNREPORTED_SECONDS_MAX:
            return False
        raised = await self._raise_stuck(number, "Stripe does not report the payment method after its trial", now)
        return now - raised >= ALERTED_SECONDS_MAX

    async def _apply(self, change: Callable[[AsyncConnection, str], Awaitable[None]], subject: str, now: float) -> None:
        """Make one change in its own transaction. A failure must not block the others."""
        try:
            async with self._database.writing() as connection:
                await change(connection, subject)
        # Without a database no other change would succeed, and no alert could be stored.
        except CONNECTION_ERRORS:
            raise
        except Exception as error:
            self._put_off[subject] = now + PAUSE_SECONDS
            await self._alert_stuck(subject, error, now)

    async def _alert_stuck(self, number: str, error: Exception, now: float) -> None:
        """Raise an alert about a subscription whose period cannot end, for example because a tier is gone."""
        why = repr(error)
        if isinstance(error, ChangeRejectedError):
            why = "; ".join([error.why, *map(str, error.faults)])
        else:
            self._log.error("a fault in the collector", exc_info=error)
        self._limited_log.error("the period of a subscription cannot end, and is tried again", why, subscription=number)
        await self._raise_stuck(number, why, now)

    async def _raise_stuck(self, number: str, why: str, now: float) -> float:
        """Raise an alert about a subscription, once for each reason. Return the Unix second of the first one."""
        alert = Alert(
            key=f"billing-stuck:{number}:{why}"[:TITLE_CHARACTERS_MAX],
            kind=AlertKind.SUBSCRIPTION_PERIOD_FAILED,
            title=f"The period of a subscription cannot end: {why}"[:TITLE_CHARACTERS_MAX],
            details={"subscription": number, "why": why},
            at=now,
        )
        async with self._database.writing() as connection:
            await raise_once(connection, alert)
            return (await fetch_times(connection, [alert.key]))[alert.key]
