"""The delivery of invoices to Stripe: drafts, lines, delivery, decisions by people, and credit notes.

Each effect begins with a row, so that the next run continues after a crash. An invoice or a credit note that fails is
postponed or held, and the others go on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.invoices import credit_notes, dunning, invoices, line_rows, shadow_log, stripe_reports
from edgeproxy.collector.billing.invoices.acceptance import has_total_of_stripe
from edgeproxy.collector.billing.invoices.credit_decision import NoteRefusedError
from edgeproxy.collector.billing.invoices.credit_notes import CreditNote
from edgeproxy.collector.billing.invoices.invoice_row import InvoiceRow
from edgeproxy.collector.billing.meter_export import metered_segments
from edgeproxy.collector.billing.mismatch import Comparison
from edgeproxy.collector.billing.period_close import invoice_lines, quantities
from edgeproxy.collector.billing.period_close.collection.collection import Collection
from edgeproxy.collector.billing.period_close.collection.invoice_items import InvoiceMismatchError, check_chargeable
from edgeproxy.collector.billing.period_close.collection.meters import InvoiceNotReadyError, MeteredInvoices
from edgeproxy.collector.billing.rating.rater import Span, sum_amounts
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.rollout.charging import Charging
from edgeproxy.collector.billing.stripe.client import CallOutcome, Stripe, StripeCallError
from edgeproxy.collector.billing.subscriptions.changes import PERIOD
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database
from edgeproxy.collector.database.schema import DAY
from edgeproxy.config.collector.billing import Billing
from edgeproxy.config.collector.settings import CollectorSettings

AT_ONCE = 16
"""The most invoices delivered at the same time."""
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
"""Outcomes that Stripe repeats for the same Idempotency-Key."""


class InvoiceDelivery:
    """Delivers invoices and credit notes. `settings` returns the current configuration."""

    def __init__(self, database: Database, stripe: Stripe, settings: Callable[[], CollectorSettings]) -> None:
        self._database = database
        self._settings = settings
        self._collection: Collection = MeteredInvoices(database, stripe, settings)
        self._denied_until = 0.0
        self._log = log.get_logger()
        self._limited_log = log.RateLimitedLog(60.0)

    async def step(self, now: float, billing: Billing) -> bool:
        """Do the work due at this Unix second. Return whether there was any."""
        async with self._database.reading() as connection:
            charging_state = await charging.fetch_charging(connection, billing)
        if now < self._denied_until:
            return False
        busy = await self._prepare_drafts(now, billing, charging_state)
        if not charging_state.is_on:
            return busy
        busy |= await self._write_due_lines(now)
        busy |= await self._deliver(now, billing, charging_state)
        await self._deliver_credit_notes(now)
        return busy

    # ---- lines

    async def _prepare_drafts(self, now: float, billing: Billing, charging_state: Charging) -> bool:
        """Prepare drafts at Stripe for periods that are over and not closed yet.

        Stripe finalizes its own drafts after a while, so these are adopted even if the customer is not charged.
        """
        columns = invoices_table.c
        waiting = columns.stripe_id.is_(None)
        early = columns.closes_at > now
        drafted = (columns.kind == PERIOD) & metered_segments.DRAFTED
        theirs = await self._fetch_due(
            invoices.DRAFT, now, waiting, drafted, *([early] if charging_state.is_on else [])
        )
        await self._run_each(theirs, lambda row: self._collection.prepare_draft(row, billing), now, is_charging=False)
        if not charging_state.is_on:
            return bool(theirs)
        rows = await self._fetch_due(invoices.DRAFT, now, waiting, ~drafted, early)
        charged = [row for row in rows if charging_state.bills(row.name)]
        others = [row for row in rows if not charging_state.bills(row.name)]
        if others:  # They are checked again when they close.
            async with self._database.writing() as connection:
                for row in others:
                    await invoices.update_invoice(connection, row.id, try_at=row.closes_at)
        await self._run_each(charged, lambda row: self._collection.prepare_draft(row, billing), now)
        return bool(theirs or rows)

    async def _write_due_lines(self, now: float) -> bool:
        """Write the lines of drafts whose freeze is over, earlier periods first."""
        rows = await self._fetch_due(invoices.DRAFT, now, invoices_table.c.closes_at <= now)
        for row in sorted(rows, key=lambda row: row.period_start):
            try:
                await self._write_lines(row, now)
            except InvoiceNotReadyError as error:
                await self._put_off(row, error, now)
            except CONNECTION_ERRORS:
                raise
            except Exception as error:
                await self._put_off_unexpected(row, error, now)
        return bool(rows)

    async def _write_lines(self, row: InvoiceRow, now: float) -> None:
        async with self._database.writing() as connection:
            draft = await invoices.get_invoice(connection, row.id, lock=True)
            if draft.state != invoices.DRAFT:
                return
            try:
                rated = await self._compute_lines(connection, draft)
            except (quantities.QuantityTooLargeError, quantities.UsageNotStoredError) as error:
                await self._hold_invoice(connection, draft, f"{invoices.NOT_RATED} {error}", now)
                return
            await self._collection.fix_usage(connection, draft, now)
            await invoices.write_lines(connection, draft.id, rated.lines, draft.currency)
            if not has_total_of_stripe(draft):  # The acceptance covered the unbillable usage, not an amount.
                await invoices.update_invoice(connection, draft.id, accepted_why=None)
            await shadow_log.record_shadow(connection, draft.id, rated.shadow, now)

    async def _compute_lines(self, connection: AsyncConnection, row: InvoiceRow) -> invoice_lines.RatedInvoice:
        """Return the lines of a period's invoice from all usage known now.

        Raises QuantityTooLargeError and UsageNotStoredError.
        """
        # Otherwise usage that is rolled up meanwhile would count twice.
        await self._database.ledger.lock_rollup(connection)
        return await invoice_lines.compute_period_lines(connection, row, self._settings().meters)

    # ---- Stripe

    async def _deliver(self, now: float, billing: Billing, charging_state: Charging) -> bool:
        """Deliver invoices with lines to Stripe, and carry out people's decisions about others."""
        closing = await self._fetch_due(invoices.CLOSING, now)
        charged = []
        for row in closing:
            if not charging_state.bills(row.name):
                await self._settle_invoice(row, invoices.WAIVED, held_why=f"not charged: mode {billing.mode}")
            elif row.stripe_id is None and not row.total and not await self._collection.is_drafted_by_stripe(row):
                await self._settle_invoice(row, invoices.PAID)  # Nothing is due.
            else:
                charged.append(row)
        await self._run_each(charged, lambda row: self._close_invoice(row, billing, now), now)
        voiding = await self._fetch_due(invoices.VOIDING, now)
        await self._run_each(voiding, self._void_invoice, now)
        marking = [row for state in invoices.MARKING for row in await self._fetch_due(state, now)]
        await self._run_each(marking, lambda row: self._mark_invoice(row, now), now)
        return bool(closing or voiding or marking)

    async def _close_invoice(self, row: InvoiceRow, billing: Billing, now: float) -> None:
        try:
            check_chargeable(row)
            stripe_invoice = await self._collection.close_invoice(row, billing)
        except InvoiceMismatchError as error:
            async with self._database.writing() as connection:
                if await _is_unchanged(connection, row):
                    await self._hold_invoice(connection, row, str(error), now)
                if error.rows:
                    period = Span(row.period_start, row.period_end)
                    await discrepancies.record_reconciliation(connection, "C", period, error.rows, now)
            return
        async with self._database.writing() as connection:
            await shadow_log.record_charged(connection, row.id, stripe_invoice["subtotal"], now)
            if row.accepted_why is None:
                today = int(now) // DAY * DAY
                comparison = Comparison(row.name, "invoice", row.subtotal, stripe_invoice["subtotal"])
                await discrepancies.add_to_reconciliation(connection, "C", Span(today, today + DAY), [comparison], now)
            if "edgeproxy_refused" in stripe_invoice:
                await dunning.record_try(connection, row, stripe_invoice, now, billing.payment_retries)
            await stripe_reports.apply_stripe_invoice(connection, stripe_invoice, is_delivered=True)

    async def _void_invoice(self, row: InvoiceRow) -> None:
        async with self._database.reading() as connection:
            is_written = row.kind != PERIOD or await invoices.is_written(connection, row.id)
        if not is_written:
            await self._void_unwritten(row)
            return
        stripe_invoice = await self._collection.void_invoice(row)
        if stripe_invoice is not None and stripe_invoice["status"] != "void":
            await self._settle_invoice(
                row, invoices.STATES_BY_STRIPE[stripe_invoice["status"]], error="it was settled before"
            )
        else:
            await self._settle_invoice(row, invoices.VOID, error=None)

    async def _void_unwritten(self, row: InvoiceRow) -> None:
        """Void an invoice that was held before it had lines.

        The lines are written now, so that the next invoice does not charge them. An invoice that a person finalized at
        Stripe instead stays there and is not ours.
        """
        values: dict[str, object] = {"error": None, "total": 0}
        stripe_invoice = None if row.stripe_id is None else await self._collection.fetch_invoice(row)
        if stripe_invoice is not None and stripe_reports.is_finalized_by_hand(stripe_invoice):
            values |= {"stripe_id": None, "url": None, "replaced_ids": stripe_reports.add_replaced_id(row)}
        else:
            await self._collection.void_invoice(row)
        async with self._database.writing() as connection:
            if not await _is_unchanged(connection, row):
                return
            # Usage that cannot be rated is left out, as no one is charged for it.
            rated = await self._compute_lines(connection, row._replace(accepted_why=row.voided_why))
            await line_rows.insert_lines(connection, row.id, rated.lines, row.currency)
            subtotal = sum_amounts(rated.lines)
            await invoices.transition(connection, row.id, row.state, invoices.VOID, subtotal=subtotal, **values)

    async def _mark_invoice(self, row: InvoiceRow, now: float) -> None:
        stripe_invoice = await self._collection.mark_invoice(row)
        async with self._database.writing() as connection:
            if row.state == invoices.SETTLING and not stripe_invoice.get("amount_paid_off_stripe"):
                await raise_once(connection, stripe_reports.build_paid_twice_alert(row, now))
            await stripe_reports.apply_stripe_invoice(connection, stripe_invoice)

    async def _deliver_credit_notes(self, now: float) -> None:
        """Create the requested credit notes at Stripe, oldest first."""
        async with self._database.reading() as connection:
            notes = await credit_notes.list_due(connection, now, PAGE)
        for note in notes:
            if now < self._denied_until:
                return
            try:
                await self._deliver_credit_note(note, now)
            except CONNECTION_ERRORS:
                raise
            except Exception as error:  # A fault of this note must not block the notes after it.
                await self._put_off_credit_note(note, error, now)

    async def _deliver_credit_note(self, note: CreditNote, now: float) -> None:
        async with self._database.reading() as connection:
            row = await invoices.get_invoice(connection, note.invoice)
        state, values, stripe_invoice = credit_notes.MADE, dict[str, object](), None
        try:
            stripe_note = await self._collection.create_credit_note(note, row)
            stripe_invoice = await self._collection.fetch_invoice(row)
            parts = credit_notes.parse_parts(stripe_note)._asdict()
            values = {"stripe_id": stripe_note["id"], "error": None, **parts}
        except NoteRefusedError as error:  # It was paid, disputed or credited after the request.
            state, values = credit_notes.REFUSED, {"error": f"the invoice {error}"}
        except StripeCallError as error:
            if self._is_denied(error, now):
                return
            state, values = credit_notes.REQUESTED, {"error": str(error), **_compute_retry(note, now)}
            if error.outcome is CallOutcome.REFUSED:
                state = credit_notes.REFUSED
            elif error.outcome in (CallOutcome.FAILED, CallOutcome.REUSED):
                values["tries"] = note.tries + 1
        async with self._database.writing() as connection:
            await credit_notes.transition(connection, note, state, **values)
            if state == credit_notes.REFUSED:
                await raise_once(
                    connection, build_note_alert(note, "A credit note cannot be made", values["error"], now)
                )
            if stripe_invoice is not None:
                await stripe_reports.apply_stripe_invoice(connection, stripe_invoice)

    async def _put_off_credit_note(self, note: CreditNote, error: Exception, now: float) -> None:
        """Postpone a credit note after an unexpected error, and raise an alert."""
        self._log.error("a fault in the collector", credit_note=note.id, exc_info=error)
        async with self._database.writing() as connection:
            values = {"error": repr(error), **_compute_retry(note, now)}
            await credit_notes.transition(connection, note, credit_notes.REQUESTED, **values)
            alert = build_note_alert(note, "A credit note fails, and is tried again", repr(error), now)
            await raise_once(connection, alert)

    async def _run_each(
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
                    if now < self._denied_until or (is_charging and not await self._is_charging()):
                        return
                    try:
                        await apply(row)
                    except StripeCallError as error:
                        await self._put_off(row, error, now)
                    except CONNECTION_ERRORS:
                        raise
                    except Exception as error:
                        await self._put_off_unexpected(row, error, now)

        try:
            async with asyncio.TaskGroup() as group:
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

    async def _put_off(self, row: InvoiceRow, error: StripeCallError, now: float) -> None:
        """Postpone an invoice after a failed call, or hold it if another try would be refused, too."""
        if self._is_denied(error, now):
            return
        async with self._database.writing() as connection:
            if not await _is_unchanged(connection, row):
                return  # A person has decided otherwise meanwhile.
            if error.outcome is CallOutcome.REFUSED and invoices.HELD in invoices.TRANSITIONS[row.state]:
                await self._hold_invoice(connection, row, f"{invoices.STRIPE_REFUSES} {error}", now)
                return
            if error.outcome is CallOutcome.REFUSED and (decided := invoices.DECIDED.get(row.state)) is not None:
                await raise_once(connection, invoices.build_decision_alert(row, decided, f"Stripe refuses: {error}"))
            retry_values = {"tries": row.tries + 1} if error.outcome in NEW_KEY else {}
            pauses = WAIT_SECONDS if isinstance(error, InvoiceNotReadyError) else RETRY_SECONDS
            await invoices.update_invoice(
                connection, row.id, **_compute_retry(row, now, pauses), error=str(error), **retry_values
            )
        if not isinstance(error, InvoiceNotReadyError):
            self._limited_log.error("a call of Stripe failed, and is tried again", str(error), invoice=row.id)

    def _is_denied(self, error: StripeCallError, now: float) -> bool:
        """Return whether Stripe denied the API key. If so, no calls are made for a while."""
        if error.outcome is not CallOutcome.DENIED:
            return False
        self._denied_until = now + DENIED_SECONDS
        self._limited_log.error("Stripe takes no calls with this key", str(error))
        return True

    async def _put_off_unexpected(self, row: InvoiceRow, error: Exception, now: float) -> None:
        """Postpone an invoice after an unexpected error, and raise an alert. The other invoices go on."""
        self._log.error("a fault in the collector", invoice=row.id, exc_info=error)
        async with self._database.writing() as connection:
            if not await _is_unchanged(connection, row):
                return
            await invoices.update_invoice(connection, row.id, **_compute_retry(row, now), error=repr(error))
            alert = Alert(
                key=f"invoice-failed:{row.id}",
                kind=AlertKind.INVOICE_FAILED,
                title=f"The invoice of {row.name} for {row.period} fails, and is tried again: {error!r}",
                details={"invoice": row.id, "why": repr(error)},
                at=now,
            )
            await raise_once(connection, alert)

    async def _hold_invoice(self, connection: AsyncConnection, row: InvoiceRow, why: str, now: float) -> None:
        """Hold an invoice for a person's decision, and raise an alert."""
        await invoices.transition(connection, row.id, row.state, invoices.HELD, held_why=why)
        await raise_once(
            connection,
            Alert(
                key=f"invoice-held:{row.id}:{why}"[:TITLE_CHARACTERS_MAX],
                kind=AlertKind.INVOICE_HELD,
                title=f"The invoice of {row.name} for {row.period} is held: {why}",
                details={"invoice": row.id, "why": why},
                at=now,
            ),
        )
        self._log.error("an invoice is held", invoice=row.id, customer=row.name, why=why)

    async def _settle_invoice(self, row: InvoiceRow, state: str, **values: object) -> None:
        """Set an invoice to a state, unless a person has decided otherwise meanwhile."""
        async with self._database.writing() as connection:
            if await _is_unchanged(connection, row):
                await invoices.transition(connection, row.id, row.state, state, **values)

    async def _fetch_due(self, state: str, now: float, *conditions: sa.ColumnElement[bool]) -> list[InvoiceRow]:
        """Return the invoices in a state whose next try is due, oldest first."""
        is_due = (invoices_table.c.state == state, invoices_table.c.try_at <= now)
        async with self._database.reading() as connection:
            return await invoices.fetch_invoices(connection, *is_due, *conditions, limit=PAGE)


async def _is_unchanged(connection: AsyncConnection, row: InvoiceRow) -> bool:
    """Return whether an invoice is unchanged since this row was read. It is locked until the transaction ends."""
    current = await invoices.get_invoice(connection, row.id, lock=True)
    return (current.state, current.tries) == (row.state, row.tries)


def _compute_retry(row: InvoiceRow | CreditNote, now: float, pauses: Sequence[int] = RETRY_SECONDS) -> dict[str, int]:
    """Return the columns for the next try of an invoice or a credit note after another failure."""
    failures = row.failures + 1
    return {"failures": failures, "try_at": int(now) + pauses[min(failures, len(pauses)) - 1]}


def build_note_alert(note: CreditNote, what: str, why: object, now: float) -> Alert:
    """Build the alert for a credit note that Stripe has not created, with the reason."""
    title, details = f"{what}: {why}"[:TITLE_CHARACTERS_MAX], {"credit_note": note.id, "invoice": note.invoice}
    kind = AlertKind.CREDIT_NOTE_FAILED
    key = f"credit-note-failed:{note.id}"
    return Alert(key=key, kind=kind, title=title, details={**details, "why": str(why)}, at=now)
