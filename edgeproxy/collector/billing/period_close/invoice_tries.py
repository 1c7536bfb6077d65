"""The tries of invoices at Stripe: those due now, several customers at a time; failures postpone or hold an invoice."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.invoices import invoices
from edgeproxy.collector.billing.invoices.credit_notes import CreditNote
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.period_close.collection.meters import InvoiceNotReadyError
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.stripe.client import CallOutcome, StripeCallError
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database
from edgeproxy.config.collector.settings import CollectorSettings

AT_ONCE = 16
"""The most invoices delivered at once."""
PAGE = 500
"""The most rows that one step processes."""
RETRY_SECONDS = (5, 30, 120, 600, 3600)
"""Seconds until the next try, by the number of failures."""
WAIT_SECONDS = RETRY_SECONDS[:-1]
"""Seconds until the next try if another step must come first."""
DENIED_SECONDS = 60
"""No calls are made for this many seconds after Stripe has denied the API key."""
TITLE_CHARACTERS_MAX = 200
NEW_KEY = frozenset({CallOutcome.FAILED, CallOutcome.REUSED, CallOutcome.REFUSED})
"""Outcomes that Stripe repeats for a repeated Idempotency-Key."""


class InvoiceTries:
    """Applies steps to due invoices. A failure postpones or holds one invoice, and the others go on."""

    def __init__(self, database: Database, settings: Callable[[], CollectorSettings]) -> None:
        self._database = database
        self._settings = settings
        self._denied_until = 0.0
        self._log = log.get_logger()
        self._limited_log = log.RateLimitedLog(60.0)

    def may_call(self, now: float) -> bool:
        """Return whether Stripe may be called: it has not denied the key just now."""
        return now >= self._denied_until

    async def fetch_due(self, state: str, now: float, *conditions: sa.ColumnElement[bool]) -> list[InvoiceRow]:
        """Return the invoices in a state whose next try is due, oldest first."""
        is_due = (invoices_table.c.state == state, invoices_table.c.try_at <= now)
        async with self._database.reading() as connection:
            return await invoices.fetch_invoices(connection, *is_due, *conditions, limit=PAGE)

    async def run_each(
        self,
        rows: list[InvoiceRow],
        apply: Callable[[InvoiceRow], Awaitable[object]],
        now: float,
        *,
        is_charging: bool = True,
    ) -> None:
        """Apply a step to each invoice, several customers at a time, but one invoice of a customer at a time.

        A failure postpones that invoice. Charging steps stop when charging does.
        """
        slots = asyncio.Semaphore(AT_ONCE)
        by_customer: dict[str, list[InvoiceRow]] = {}
        for row in rows:
            by_customer.setdefault(row.customer, []).append(row)

        async def one_by_one(customer_rows: list[InvoiceRow]) -> None:
            for row in customer_rows:
                async with slots:
                    if not self.may_call(now) or (is_charging and not await self._is_charging()):
                        return
                    try:
                        await apply(row)
                    except StripeCallError as error:
                        await self.put_off(row, error, now)
                    except CONNECTION_ERRORS:
                        raise
                    except Exception as error:
                        await self.put_off_unexpected(row, error, now)

        try:
            async with asyncio.TaskGroup() as group:
                # Invoices of one customer come in turn, because the first one may create the customer at Stripe.
                for customer_rows in by_customer.values():
                    group.create_task(one_by_one(customer_rows))
        except BaseExceptionGroup as error:  # The database is unavailable; all steps under way have ended.
            raise error.exceptions[0] from error

    async def _is_charging(self) -> bool:
        """Return whether charging is on. It may be stopped while many invoices are delivered."""
        billing = self._settings().billing
        if billing is None:
            return False
        async with self._database.reading() as connection:
            return (await charging.fetch_charging(connection, billing)).is_on

    async def put_off(self, row: InvoiceRow, error: StripeCallError, now: float) -> None:
        """Postpone an invoice after a failed call, or hold it if another try would be refused, too."""
        if self.is_denied(error, now):
            return
        async with self._database.writing() as connection:
            if not await is_unchanged(connection, row):
                return  # A person has decided otherwise meanwhile.
            if error.outcome is CallOutcome.REFUSED and invoices.HELD in invoices.TRANSITIONS[row.state]:
                await self.hold_invoice(connection, row, f"{invoices.STRIPE_REFUSES} {error}", now)
                return
            if error.outcome is CallOutcome.REFUSED and (decided := invoices.DECIDED.get(row.state)) is not None:
                await raise_once(connection, invoices.build_decision_alert(row, decided, f"Stripe refuses: {error}"))
            # Stripe repeats its failure for an Idempotency-Key, and `tries` is part of the key.
            retry_values = {"tries": row.tries + 1} if error.outcome in NEW_KEY else {}
            pauses = WAIT_SECONDS if isinstance(error, InvoiceNotReadyError) else RETRY_SECONDS
            await invoices.update_invoice(
                connection, row.id, **compute_retry(row, now, pauses), error=str(error), **retry_values
            )
        if not isinstance(error, InvoiceNotReadyError):
            self._limited_log.error("a call of Stripe failed, and is tried again", str(error), invoice=row.id)

    def is_denied(self, error: StripeCallError, now: float) -> bool:
        """Return whether Stripe denied the API key. If so, no calls are made for a while."""
        if error.outcome is not CallOutcome.DENIED:
            return False
        self._denied_until = now + DENIED_SECONDS
        self._limited_log.error("Stripe takes no calls with this key", str(error))
        return True

    async def put_off_unexpected(self, row: InvoiceRow, error: Exception, now: float) -> None:
        """Postpone an invoice after an unexpected error, and raise an alert. The other invoices go on."""
        self._log.error("a fault in the collector", invoice=row.id, exc_info=error)
        async with self._database.writing() as connection:
            if not await is_unchanged(connection, row):
                return
            await invoices.update_invoice(connection, row.id, **compute_retry(row, now), error=repr(error))
            alert = Alert(
                key=f"invoice-failed:{row.id}",
                kind=AlertKind.INVOICE_FAILED,
                title=f"The invoice of {row.name} for {row.period} fails, and is tried again: {error!r}",
                details={"invoice": row.id, "of": row.name, "period": row.period, "why": repr(error)},
                at=now,
            )
            await raise_once(connection, alert)

    async def hold_invoice(self, connection: AsyncConnection, row: InvoiceRow, why: str, now: float) -> None:
        """Hold an invoice for a person's decision, and raise an alert."""
        await invoices.transition(connection, row.id, row.state, invoices.HELD, held_why=why)
        await raise_once(
            connection,
            Alert(
                key=f"invoice-held:{row.id}:{why}"[:TITLE_CHARACTERS_MAX],
                kind=AlertKind.INVOICE_HELD,
                title=f"The invoice of {row.name} for {row.period} is held: {why}",
                details={"invoice": row.id, "of": row.name, "period": row.period, "why": why},
                at=now,
            ),
        )
        self._log.error("an invoice is held", invoice=row.id, customer=row.name, why=why)

    async def settle_invoice(self, row: InvoiceRow, state: str, **values: object) -> None:
        """Set an invoice to a state, unless a person has decided otherwise meanwhile."""
        async with self._database.writing() as connection:
            if await is_unchanged(connection, row):
                await invoices.transition(connection, row.id, row.state, state, **values)


async def is_unchanged(connection: AsyncConnection, row: InvoiceRow) -> bool:
    """Return whether an invoice is unchanged since this row was read. It is locked until the transaction ends."""
    current = await invoices.get_invoice(connection, row.id, lock=True)
    # Each decision of a person changes the state or adds a try.
    return (current.state, current.tries) == (row.state, row.tries)


def compute_retry(row: InvoiceRow | CreditNote, now: float, pauses: Sequence[int] = RETRY_SECONDS) -> dict[str, int]:
    """Return the columns for the next try of an invoice or a credit note after another failure."""
    failures = row.failures + 1
    return {"failures": failures, "try_at": int(now) + pauses[min(failures, len(pauses)) - 1]}
