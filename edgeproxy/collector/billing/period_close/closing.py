"""The run that begins periods, closes invoices and brings them to Stripe: one at a time for all collectors.

Whatever it does is begun in a row before, so that a run that is killed is taken up by the next one.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts.change import Refused
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.invoices import invoices, shadow_log
from edgeproxy.collector.billing.meter_export import metered_segments
from edgeproxy.collector.billing.mismatch import Row
from edgeproxy.collector.billing.period_close import invoice_lines, quantities
from edgeproxy.collector.billing.period_close.collection.invoice_items import Differs
from edgeproxy.collector.billing.period_close.collection.meters import Meters, NotYet
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.billing.rollout.charging import Charging
from edgeproxy.collector.billing.stripe.client import Outcome, Stripe, StripeFailure
from edgeproxy.collector.billing.subscriptions import subscriptions
from edgeproxy.collector.billing.subscriptions.changes import PERIOD
from edgeproxy.collector.database.billing_tables import credit_notes
from edgeproxy.collector.database.billing_tables import invoices as invoices_table
from edgeproxy.collector.database.database import LOST, Database
from edgeproxy.collector.database.periodic import do_alone, repeat
from edgeproxy.collector.database.schema import DAY
from edgeproxy.config.billing import Billing
from edgeproxy.config.collector import Settings

JOB = "billing-closing"
LOOK_SECONDS = 2.0
"""Seconds between two looks for something to do."""
AT_ONCE = 16
"""Invoices that are brought to Stripe at the same time."""
PAGE = 500
"""Rows that are taken up in a look."""
RETRY_SECONDS = (5, 30, 120, 600, 3600)
"""Seconds until the next try, after so many."""
WAIT_SECONDS = RETRY_SECONDS[:-1]
"""The same where something else has to come first."""
DENIED_SECONDS = 60
TITLE_CHARACTERS_MAX = 200


class Collection(Protocol):
    """How invoices get to Stripe."""

    async def begin(self, row: Any, billing: Billing) -> dict[str, Any]:
        """Have a draft at Stripe, and return it."""

    async def is_drafted(self, row: Any) -> bool:
        """Whether Stripe drafts an invoice by itself, whatever it comes to."""

    async def fix(self, connection: AsyncConnection, row: Any, now: float) -> None:
        """Do what belongs to writing the lines of an invoice, in the same transaction; raises NotYet."""

    async def close(self, row: Any, billing: Billing) -> dict[str, Any]:
        """Bring an invoice to where it is paid, or sent, and return it."""

    async def void(self, row: Any) -> dict[str, Any] | None:
        """Take an invoice back."""

    async def credit(self, note: Any, row: Any) -> dict[str, Any]:
        """Make a credit note."""


class Closing:
    """Does what there is to do; `settings` says what is configured now."""

    def __init__(self, database: Database, stripe: Stripe, settings: Callable[[], Settings]) -> None:
        self._database = database
        self._settings = settings
        self._collection: Collection = Meters(database, stripe, settings)
        self._denied_until = 0.0
        self._log = log.get()
        self._seldom = log.Seldom(60.0)

    async def run(self) -> None:
        """Do what there is to do, until cancelled."""
        failed = "invoices could not be closed, and are taken up again"

        async def work() -> None:
            await do_alone(self._database, JOB, lambda: self.step(time.time()))

        await repeat(LOOK_SECONDS, self._seldom, failed, work)

    async def step(self, now: float) -> bool:
        """Do what is due at this Unix second; whether there was anything."""
        billing = self._settings().billing
        if billing is None or billing.mode == "off":
            return False
        busy = await self._roll(now)
        async with self._database.reading() as connection:
            who = await charging.read(connection, billing)
        if now < self._denied_until:
            return busy
        busy |= await self._begin(now, billing, who)
        if not who.is_on:
            return busy
        busy |= await self._fix(now, billing)
        busy |= await self._bring(now, billing, who)
        return busy | await self._credit(now)

    # ---- periods

    async def _roll(self, now: float) -> bool:
        """Begin the periods that are due, and end what deleted customers have."""
        known = self._settings()
        async with self._database.reading() as connection:
            due = await subscriptions.due(connection, now, PAGE)
            deleted = await subscriptions.of_deleted(connection, PAGE)
        for number in due:
            try:
                async with self._database.writing() as connection:
                    await subscriptions.roll(connection, number, known=known, now=now)
            except LOST:
                raise
            except Exception as no:
                await self._stuck(number, no, now)
        for customer in deleted:
            try:
                async with self._database.writing() as connection:
                    await subscriptions.cancel(connection, subscriptions.RUNNER, customer, "now", known=known, now=now)
            except LOST:
                raise
            except Exception as no:
                await self._stuck(customer, no, now)
        return bool(due or deleted)

    async def _stuck(self, number: str, no: Exception, now: float) -> None:
        """Tell of a subscription whose period cannot end, as with a tier that is gone; the others go on."""
        why = repr(no)
        if isinstance(no, Refused):
            why = "; ".join([no.why, *(f"{field}: {fault}" for field, fault in no.faults)])
        else:
            self._log.error("a fault in the collector", exc_info=no)
        self._seldom.error("the period of a subscription cannot end, and is tried again", why, subscription=number)
        async with self._database.writing() as connection:
            await raise_once(
                connection,
                Alert(
                    key=f"billing-stuck:{number}:{why}"[:TITLE_CHARACTERS_MAX],
                    kind="billing_stuck",
                    severity="page",
                    title=f"The period of a subscription cannot end: {why}"[:TITLE_CHARACTERS_MAX],
                    details={"subscription": number, "why": why},
                    at=now,
                ),
            )

    # ---- lines

    async def _begin(self, now: float, billing: Billing, who: Charging) -> bool:
        """Have drafts at Stripe for periods that are over, and will be closed at their freeze. Those that Stripe makes
        by itself it would charge by itself too: they are held whoever is charged."""
        columns = invoices_table.c
        waiting = columns.stripe_id.is_(None)
        early = columns.closes_at > now
        drafted = (columns.kind == PERIOD) & metered_segments.DRAFTED
        theirs = await self._rows(invoices.DRAFT, now, waiting, drafted, *([early] if who.is_on else []))
        await self._each(theirs, lambda row: self._collection.begin(row, billing), now, is_charging=False)
        if not who.is_on:
            return bool(theirs)
        rows = await self._rows(invoices.DRAFT, now, waiting, ~drafted, early)
        charged = [row for row in rows if who.bills(row.name)]
        others = [row for row in rows if not who.bills(row.name)]
        if others:  # They are looked at again when they close.
            async with self._database.writing() as connection:
                for row in others:
                    await invoices.update(connection, row.id, try_at=row.closes_at)
        await self._each(charged, lambda row: self._collection.begin(row, billing), now)
        return bool(theirs or rows)

    async def _fix(self, now: float, billing: Billing) -> bool:
        """Write the lines of drafts whose freeze is over, those of earlier periods first."""
        rows = await self._rows(invoices.DRAFT, now, invoices_table.c.closes_at <= now)
        for row in sorted(rows, key=lambda row: row.period_start):
            try:
                await self._write_lines(row, now)
            except NotYet as no:
                await self._put_off(row, no, now)
            except LOST:
                raise
            except Exception as fault:
                await self._failed(row, fault, now)
        return bool(rows)

    async def _write_lines(self, row: Any, now: float) -> None:
        async with self._database.writing() as connection:
            draft = await invoices.find(connection, row.id, lock=True)
            if draft.state != invoices.DRAFT:
                return
            await self._database.hold_rollup(connection)  # Else what is rolled up meanwhile counts twice.
            try:
                found = await invoice_lines.period_lines(connection, draft, self._settings().meters)
            except (quantities.TooMuch, quantities.NotKept) as no:
                await self._hold(connection, draft, str(no), now)
                return
            await self._collection.fix(connection, draft, now)
            await invoices.write_lines(connection, draft.id, found.lines)
            await shadow_log.note(connection, draft.id, found.shadow, now)

    # ---- Stripe

    async def _bring(self, now: float, billing: Billing, who: Charging) -> bool:
        """Bring invoices with lines to Stripe, and take those back that somebody voids."""
        closing = await self._rows(invoices.CLOSING, now)
        charged = []
        for row in closing:
            if not who.bills(row.name):
                await self._settle(row, state=invoices.WAIVED, held_why=f"not charged: mode {billing.mode}")
            elif row.stripe_id is None and not row.total and not await self._collection.is_drafted(row):
                await self._settle(row, state=invoices.PAID)  # Nothing is to be paid.
            else:
                charged.append(row)
        await self._each(charged, lambda row: self._close(row, billing, now), now)
        voiding = await self._rows(invoices.VOIDING, now)
        await self._each(voiding, self._void, now)
        return bool(closing or voiding)

    async def _close(self, row: Any, billing: Billing, now: float) -> None:
        try:
            there = await self._collection.close(row, billing)
        except Differs as no:
            async with self._database.writing() as connection:
                if await _is_as_it_was(connection, row):
                    await self._hold(connection, row, str(no), now)
                if no.rows:
                    period = Span(row.period_start, row.period_end)
                    await discrepancies.keep(connection, "C", period, no.rows, now)
            return
        async with self._database.writing() as connection:
            await shadow_log.charged(connection, row.id, there["subtotal"], now)
            if row.accepted_why is None:
                today = int(now) // DAY * DAY
                both = Row(row.name, "invoice", row.subtotal, there["subtotal"])
                await discrepancies.tally(connection, "C", Span(today, today + DAY), [both], now)
            await invoices.apply(connection, there)
            if (why := there.get("edgeproxy_refused")) is not None:
                await invoices.update(connection, row.id, error=why)

    async def _void(self, row: Any) -> None:
        there = await self._collection.void(row)
        if there is not None and there["status"] != "void":
            await self._settle(row, state=invoices.AT_STRIPE[there["status"]], error="it was settled before")
        else:
            await self._settle(row, state=invoices.VOID, error=None)

    async def _credit(self, now: float) -> bool:
        """Make the credit notes that somebody asked for."""
        columns = credit_notes.c
        async with self._database.reading() as connection:
            asked = sa.select(credit_notes).where(columns.state == "asked", columns.try_at <= now)
            notes = (await connection.execute(asked.order_by(columns.id).limit(PAGE))).all()
        for note in notes:
            if now < self._denied_until:
                break
            async with self._database.reading() as connection:
                row = await invoices.find(connection, note.invoice)
            values: dict[str, Any]
            try:
                there = await self._collection.credit(note, row)
                values = {"state": "made", "stripe_id": there["id"], "error": None}
            except StripeFailure as failure:
                if self._is_denied(failure, now):
                    break
                values = {"error": str(failure), **_later(note, now)}
                if failure.outcome is Outcome.REFUSED:
                    values["state"] = "refused"
                elif failure.outcome in (Outcome.FAILED, Outcome.REUSED):
                    values["tries"] = note.tries + 1
            async with self._database.writing() as connection:
                await connection.execute(sa.update(credit_notes).where(columns.id == note.id).values(**values))
        return False

    async def _each(self, rows: list[Any], do: Callable[[Any], Any], now: float, *, is_charging: bool = True) -> None:
        """Do something with each invoice, those of some customers at a time; what fails is put off. What charges ends
        with charging."""
        room = asyncio.Semaphore(AT_ONCE)
        by_customer: dict[str, list[Any]] = {}
        for row in rows:
            by_customer.setdefault(row.customer, []).append(row)

        async def one_by_one(own: list[Any]) -> None:
            for row in own:
                async with room:
                    if now < self._denied_until or (is_charging and not await self._is_on()):
                        return
                    try:
                        await do(row)
                    except StripeFailure as failure:
                        await self._put_off(row, failure, now)
                    except LOST:
                        raise
                    except Exception as fault:
                        await self._failed(row, fault, now)

        try:
            async with asyncio.TaskGroup() as group:
                for own in by_customer.values():
                    group.create_task(one_by_one(own))
        except BaseExceptionGroup as lost:  # The database is; what was under way has ended with it.
            raise lost.exceptions[0] from lost

    async def _is_on(self) -> bool:
        """Whether anybody is charged still: that may end while many invoices are brought to Stripe."""
        billing = self._settings().billing
        if billing is None:
            return False
        async with self._database.reading() as connection:
            return (await charging.read(connection, billing)).is_on

    async def _put_off(self, row: Any, failure: StripeFailure, now: float) -> None:
        """Put an invoice off after a call that failed, or hold it where another try would be refused too."""
        if self._is_denied(failure, now):
            return
        async with self._database.writing() as connection:
            if not await _is_as_it_was(connection, row):
                return  # Somebody has decided something else meanwhile.
            if failure.outcome is Outcome.REFUSED:
                await self._hold(connection, row, f"{invoices.STRIPE_REFUSES} {failure}", now)
                return
            again = {"tries": row.tries + 1} if failure.outcome in (Outcome.FAILED, Outcome.REUSED) else {}
            pauses = WAIT_SECONDS if isinstance(failure, NotYet) else RETRY_SECONDS
            await invoices.update(connection, row.id, **_later(row, now, pauses), error=str(failure), **again)
        if not isinstance(failure, NotYet):
            self._seldom.error("a call of Stripe failed, and is tried again", str(failure), invoice=row.id)

    def _is_denied(self, failure: StripeFailure, now: float) -> bool:
        """Whether Stripe takes no calls with this key; then none is made for a while."""
        if failure.outcome is not Outcome.DENIED:
            return False
        self._denied_until = now + DENIED_SECONDS
        self._seldom.error("Stripe takes no calls with this key", str(failure))
        return True

    async def _failed(self, row: Any, fault: Exception, now: float) -> None:
        """Put an invoice off that nobody foresaw would fail, and tell people; the others go on."""
        self._log.error("a fault in the collector", invoice=row.id, exc_info=fault)
        async with self._database.writing() as connection:
            if not await _is_as_it_was(connection, row):
                return
            await invoices.update(connection, row.id, **_later(row, now), error=repr(fault))
            alert = Alert(
                key=f"invoice-failed:{row.id}",
                kind="invoice_failed",
                severity="page",
                title=f"The invoice of {row.name} for {row.period} fails, and is tried again: {fault!r}",
                details={"invoice": row.id, "why": repr(fault)},
                at=now,
            )
            await raise_once(connection, alert)

    async def _hold(self, connection: Any, row: Any, why: str, now: float) -> None:
        """Leave an invoice for a person to look at."""
        await invoices.update(connection, row.id, state=invoices.HELD, held_why=why)
        await raise_once(
            connection,
            Alert(
                key=f"invoice-held:{row.id}:{why}"[:TITLE_CHARACTERS_MAX],
                kind="invoice-held",
                severity="page",
                title=f"The invoice of {row.name} for {row.period} is held: {why}",
                details={"invoice": row.id, "why": why},
                at=now,
            ),
        )
        self._log.error("an invoice is held", invoice=row.id, customer=row.name, why=why)

    async def _settle(self, row: Any, **values: Any) -> None:
        """Write what became of an invoice, unless somebody has decided something else meanwhile."""
        async with self._database.writing() as connection:
            if await _is_as_it_was(connection, row):
                await invoices.update(connection, row.id, **values)

    async def _rows(self, state: str, now: float, *also: sa.ColumnElement[bool]) -> list[Any]:
        """Invoices in a state that are to be taken up now, the oldest first."""
        wanted = invoices.selected().where(invoices_table.c.state == state, invoices_table.c.try_at <= now, *also)
        async with self._database.reading() as connection:
            return list((await connection.execute(wanted.order_by(invoices_table.c.id).limit(PAGE))).all())


async def _is_as_it_was(connection: Any, row: Any) -> bool:
    """Whether an invoice is in the state in which this row has it; nobody changes it until the transaction ends."""
    there = await invoices.find(connection, row.id, lock=True)
    return (there.state, there.tries) == (row.state, row.tries)


def _later(row: Any, now: float, pauses: Sequence[int] = RETRY_SECONDS) -> dict[str, Any]:
    """When an invoice, or a credit note, is tried again that has failed once more."""
    failures = row.failures + 1
    return {"failures": failures, "try_at": int(now) + pauses[min(failures, len(pauses)) - 1]}
