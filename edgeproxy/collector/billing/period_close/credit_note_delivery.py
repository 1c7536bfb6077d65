"""Credit notes, created at Stripe."""

from edgeproxy.base import log
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.invoices import credit_notes, invoices, stripe_reports
from edgeproxy.collector.billing.invoices.credit_decision import NoteRefusedError
from edgeproxy.collector.billing.invoices.credit_notes import CreditNote
from edgeproxy.collector.billing.period_close.collection.collection import Collection
from edgeproxy.collector.billing.period_close.invoice_tries import (
    PAGE,
    TITLE_CHARACTERS_MAX,
    InvoiceTries,
    compute_retry,
)
from edgeproxy.collector.billing.stripe.client import CallOutcome, StripeCallError
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database


class CreditNoteDelivery:
    """Creates the requested credit notes at Stripe."""

    def __init__(self, database: Database, collection: Collection, tries: InvoiceTries) -> None:
        self._database = database
        self._collection = collection
        self._tries = tries
        self._log = log.get_logger()

    async def deliver(self, now: float) -> None:
        """Create the requested credit notes at Stripe, oldest first."""
        async with self._database.reading() as connection:
            notes = await credit_notes.list_due(connection, now, PAGE)
        for note in notes:
            if not self._tries.may_call(now):
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
            # A credit note changes the amounts of its invoice.
            stripe_invoice = await self._collection.fetch_invoice(row)
            parts = credit_notes.parse_parts(stripe_note)._asdict()
            values = {"stripe_id": stripe_note["id"], "error": None, **parts}
        except NoteRefusedError as error:  # It was paid, disputed or credited after the request.
            state, values = credit_notes.REFUSED, {"error": f"the invoice {error}"}
        except StripeCallError as error:
            if self._tries.is_denied(error, now):
                return
            state, values = credit_notes.REQUESTED, {"error": str(error), **compute_retry(note, now)}
            if error.outcome is CallOutcome.REFUSED:
                state = credit_notes.REFUSED
            # Stripe would repeat this answer for the Idempotency-Key, so the next try has another one.
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
            values = {"error": repr(error), **compute_retry(note, now)}
            await credit_notes.transition(connection, note, credit_notes.REQUESTED, **values)
            alert = build_note_alert(note, "A credit note fails, and is tried again", repr(error), now)
            await raise_once(connection, alert)


def build_note_alert(note: CreditNote, what: str, why: object, now: float) -> Alert:
    """Build the alert for a credit note that Stripe has not created, with the reason."""
    title, details = f"{what}: {why}"[:TITLE_CHARACTERS_MAX], {"credit_note": note.id, "invoice": note.invoice}
    kind = AlertKind.CREDIT_NOTE_FAILED
    key = f"credit-note-failed:{note.id}"
    return Alert(key=key, kind=kind, title=title, details={**details, "why": str(why)}, at=now)
