"""The start of imported subscriptions: they begin when the time paid at Stripe ends and Stripe's own subscription has
ended.

`decide_start` is pure. It uses the current state of Stripe's subscription, so that no time is charged twice.
"""

import time
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from edgeproxy.base import log
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.rating.periods import MINUTE
from edgeproxy.collector.billing.stripe.client import Stripe, StripeCallError, StripeObject
from edgeproxy.collector.billing.subscriptions import imported_rows, imported_subscriptions, subscriptions
from edgeproxy.collector.billing.subscriptions.imported_rows import ImportedRow
from edgeproxy.collector.database.billing_tables import CANCELED
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database
from edgeproxy.config.collector.settings import CollectorSettings

PAGE = 100
LATE_SECONDS = 3600
"""Stripe may end a subscription up to this many seconds after its period."""
PAUSE_SECONDS = 30.0
"""Seconds until the next try if Stripe has not ended it, or if something fails."""


class StartStep(Enum):
    """The step for an imported subscription that is due."""

    BEGIN = "begin"
    WAIT = "wait"
    POSTPONE = "postpone"
    """The time paid at Stripe ends later."""
    DROP = "drop"
    """Stripe still charges it, or a person ended it."""


class StartDecision(NamedTuple):
    """A step and its reason. `at` is the new start of a postponed subscription."""

    step: StartStep
    why: str = ""
    at: int = 0


def compute_beginning(stripe_subscription: StripeObject) -> int:
    """Return the first whole minute after the paid period of a Stripe subscription, because edges count by minutes."""
    end = max(int(item["current_period_end"]) for item in stripe_subscription["items"]["data"])
    return -(-end // MINUTE) * MINUTE


def decide_start(begins_at: int, stripe_subscription: StripeObject) -> StartDecision:
    """Decide on a subscription that is due, from the current state of Stripe's subscription."""
    if stripe_subscription["status"] == CANCELED:
        ended_at = int(stripe_subscription["ended_at"])
        # It ended with its paid period, as planned. At any other time a person ended it.
        if begins_at - MINUTE <= ended_at <= begins_at + LATE_SECONDS:
            return StartDecision(StartStep.BEGIN)
        at = format_timestamp(ended_at * 1000)
        return StartDecision(StartStep.DROP, f"it ended at Stripe on {at}, and not with its period")
    # Two subscriptions would charge the customer twice.
    if not stripe_subscription["cancel_at_period_end"]:
        return StartDecision(StartStep.DROP, "it goes on at Stripe, which charges it")
    paid_until = compute_beginning(stripe_subscription)
    if paid_until > begins_at:
        return StartDecision(StartStep.POSTPONE, at=paid_until)
    return StartDecision(StartStep.WAIT)


class ImportedStarts:
    """Starts imported subscriptions. `settings` returns the current configuration."""

    def __init__(self, database: Database, stripe: Stripe, settings: Callable[[], CollectorSettings]) -> None:
        self._database = database
        self._stripe = stripe
        self._settings = settings
        self._put_off: dict[str, float] = {}
        """The time of the next try for subscriptions that cannot begin now."""
        self._limited_log = log.RateLimitedLog(60.0)

    async def step(self, now: float) -> bool:
        """Start the subscriptions that are due. Return whether there were any."""
        self._put_off = {number: at for number, at in self._put_off.items() if at > now}
        async with self._database.reading() as connection:
            due = await imported_rows.list_due(connection, now, PAGE, list(self._put_off))
        for row in due:
            try:
                is_done = await self._start(row)
            except CONNECTION_ERRORS:
                raise
            except Exception as error:  # A fault of this one must not stop the others.
                is_done = False
                await self._report_failure(row, error)
            if not is_done:
                self._put_off[row.stripe_id] = now + PAUSE_SECONDS
        return bool(due)

    async def _start(self, row: ImportedRow) -> bool:
        """Take the due step of a subscription. Return whether there was one.

        Raises StripeCallError and ChangeRejectedError.
        """
        try:
            decision = decide_start(row.begins_at, await self._stripe.call("v1.subscriptions.retrieve", row.stripe_id))
        except StripeCallError as error:
            if error.code != "resource_missing":
                raise
            decision = StartDecision(StartStep.DROP, "Stripe has no such subscription any more")
        if decision.step is StartStep.WAIT:
            return False
        async with self._database.writing() as connection:
            match decision.step:
                case StartStep.BEGIN:
                    await imported_subscriptions.begin_imported(connection, row, settings=self._settings())
                case StartStep.POSTPONE:
                    await imported_rows.update_waiting(connection, row.stripe_id, begins_at=decision.at)
                case _:
                    runner = subscriptions.RUNNER
                    if await imported_subscriptions.drop_imported(connection, runner, row, decision.why):
                        await raise_once(connection, _build_alert(row, decision.why, is_dropped=True))
        return True

    async def _report_failure(self, row: ImportedRow, error: Exception) -> None:
        """Log the failure to start a subscription, and raise an alert unless Stripe failed."""
        message = "an imported subscription cannot begin, and is tried again"
        self._limited_log.error(message, repr(error), subscription=row.stripe_id)
        if isinstance(error, StripeCallError):
            return
        why = error.why if isinstance(error, ChangeRejectedError) else repr(error)
        if isinstance(error, ChangeRejectedError):
            why = "; ".join([why, *map(str, error.faults)])
        else:
            log.get_logger().error("a fault in the collector", exc_info=error)
        async with self._database.writing() as connection:
            await raise_once(connection, _build_alert(row, why, is_dropped=False))


def _build_alert(row: ImportedRow, why: str, *, is_dropped: bool) -> Alert:
    """Return the alert about a subscription that does not begin."""
    fate = "does not begin here" if is_dropped else "cannot begin, and is tried again"
    return Alert(
        key=f"billing-import:{row.stripe_id}:{row.begins_at}:{why}"[:200],
        kind=AlertKind.IMPORTED_SUBSCRIPTION_FAILED,
        title=f"An imported subscription {fate}: {why}"[:200],
        details={"subscription": row.stripe_id, "why": why},
        at=time.time(),
    )
