"""The exporter: rows of the outbox are sent to Stripe as meter events, and what it answers is written down.

One exporter works at a time, on however many collectors. Rows are marked before they are sent, so that a crash leaves
none that was sent and looks as if it was not; what the answers mean is in `outbox.py`.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.billing.meter_export import outbox, outbox_rows
from edgeproxy.collector.billing.meter_export.outbox import (
    MINUTE,
    TRIED_SECONDS,
    Answer,
    Doubt,
    Reply,
    State,
    dated,
    meaning_of,
    reply_of,
    rest,
)
from edgeproxy.collector.billing.meter_export.outbox_rows import Outcome, Row
from edgeproxy.collector.billing.meter_export.slicing import Slicing
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.stripe.request_rates import Bucket
from edgeproxy.collector.database.delivery_tables import billing_exporter, billing_outbox

CALLS_AT_ONCE_MAX = 400
"""Calls that wait for an answer."""
HEARTBEAT_SECONDS = 60.0
LOST_SECONDS = 3600.0
"""A heartbeat that is older than this may be that of a database that was restored."""
SKEW_SECONDS_MAX = 60.0
"""Seconds that this machine's clock may be away from Stripe's."""
ROUND_SECONDS = 2.0
"""Seconds that a round takes, by the rate: what people say meanwhile holds from the next one on."""
DOUBTS_MAX = 100
"""Rows in doubt that are looked at in a round."""

STANDING = sa.select(billing_exporter)
BEAT = sa.update(billing_exporter).values(heartbeat=sa.bindparam("now"))


class Away(Exception):
    """Stripe did not say what it was asked for."""


class Unlisted(Away):
    """Stripe has no such customer, or no such meter."""


class MeterEvents(Protocol):
    """What the exporter asks of Stripe."""

    @property
    def skew(self) -> float:
        """Seconds by which Stripe's clock was ahead of ours, when it answered last."""

    async def send(self, row: Row) -> Answer:
        """Send an event; nothing is raised, whatever comes of it."""

    async def counted(self, customer: str, meter: str, span: Span) -> int:
        """Return the sum of the events in a time of whole minutes; raises Away, and Unlisted."""


class Exporter:
    """Sends what is in the outbox. `clock` and `luck` are given by tests."""

    def __init__(
        self,
        of: Slicing,
        stripe: MeterEvents,
        bucket: Bucket,
        *,
        clock: Callable[[], float] = time.time,
        luck: Callable[[], float] = random.random,
        counted: Callable[[Reply], None] = lambda reply: None,
    ) -> None:
        self._of = of
        self._database = of.database
        self._stripe = stripe
        self._bucket = bucket
        self._clock = clock
        self._luck = luck
        self._counted = counted
        """Is told what comes of each event that is sent."""
        self._beat_at = 0.0
        self._recheck: Span | None = None
        self._is_broken_off = False
        """Whether a round was taken whose outcome is not written."""
        self._log = log.get()

    async def begin(self) -> None:
        """Take over from the exporter before: what it had under way is unknown. Call this once, holding the lock."""
        now = self._clock()
        async with self._database.writing() as connection:
            await self._recover(connection)
            row = (await connection.execute(STANDING)).one()
            values: dict[str, object] = {"stopped": None}
            if row.heartbeat and now - row.heartbeat / 1000 > LOST_SECONDS:
                # Nobody knows what was sent since: each row is looked up at Stripe before it is sent.
                values |= {"recheck_from": 0, "recheck_until": int(now)}
            await connection.execute(sa.update(billing_exporter).values(values))
        await self._look()

    async def _recover(self, connection: AsyncConnection) -> None:
        """What is under way by what the database says is not, or nobody will know what came of it."""
        if lost := await outbox_rows.recover(connection):
            self._log.warning("rows were under way when an exporter ended; they are sent again", rows=lost)

    async def _look(self) -> str | None:
        """Read what people have said meanwhile; return why nothing is to be sent."""
        async with self._database.reading() as connection:
            row = (await connection.execute(STANDING)).one()
        self._recheck = Span(row.recheck_from, row.recheck_until) if row.recheck_until else None
        stopped: str | None = row.stopped
        return stopped

    async def step(self) -> int:
        """Send a round of rows; return how many."""
        now = self._clock()
        if await self._look() is not None:
            return 0
        if now - self._beat_at >= HEARTBEAT_SECONDS:
            async with self._database.writing() as connection:
                await connection.execute(BEAT, {"now": int(now * 1000)})
            self._beat_at = now
        if abs(self._stripe.skew) > SKEW_SECONDS_MAX:
            await self._stop(f"this machine's clock is {abs(self._stripe.skew):.0f} s away from Stripe's")
            return 0
        async with self._database.writing() as connection:
            if self._is_broken_off:  # As where the database went away before it was written what came of a round.
                await self._recover(connection)
            most = max(1, int(self._bucket.rate * ROUND_SECONDS))
            chains = await outbox_rows.take(connection, int(now * 1000), most)
        self._is_broken_off = bool(chains)
        if not chains:
            return 0
        settled: list[tuple[Outcome, Alert | None]] = []
        left = iter(chains)

        async def send_some() -> None:
            for chain in left:
                settled.extend(await self._chain(chain))

        # So many that take the next chain, and no semaphore: that looks at all who wait each time that one ends.
        await asyncio.gather(*(send_some() for _ in chains[:CALLS_AT_ONCE_MAX]))
        outcomes = [one for one, _ in settled]
        alerts = {alert.key: alert for _, alert in settled if alert is not None}
        async with self._database.writing() as connection:
            ms = int(self._clock() * 1000)
            await outbox_rows.settle(connection, outcomes, ms)
            for alert in alerts.values():
                await raise_once(connection, alert)
        self._is_broken_off = False
        for alert in alerts.values():
            if alert.details.get("stops"):
                await self._stop(alert.title)
        return sum(one.was_sent for one in outcomes)

    async def _stop(self, why: str) -> None:
        """Send nothing more until somebody has looked and starts anew."""
        now = self._clock()
        async with self._database.writing() as connection:
            await connection.execute(sa.update(billing_exporter).values(stopped=why))
            alert = Alert(
                key=f"billing-export-stopped-{int(now) // 3600}",
                kind="billing_export_stopped",
                severity="page",
                title=f"Exports to Stripe have stopped: {why}",
                at=now,
            )
            await raise_once(connection, alert)
        self._log.error("exports to Stripe have stopped", why=why)

    async def _chain(self, chain: Sequence[Row]) -> list[tuple[Outcome, Alert | None]]:
        """Send rows of one customer in their order; those behind one that is not settled are put back."""
        done: list[tuple[Outcome, Alert | None]] = []
        goes_on = True
        for row in chain:
            if goes_on:
                outcome, alert = await self._send(row)
                done.append((outcome, alert))
                goes_on = outcome.state in (State.ACCEPTED, State.CONFIRMED)
            else:
                back = Outcome(row, row.state, row.due, row.in_doubt, answer=row.answer, was_sent=False)
                done.append((back, None))
        return done

    async def _send(self, row: Row) -> tuple[Outcome, Alert | None]:
        """Send a row, unless Stripe turns out to have it."""
        is_rechecked = self._must_recheck(row)
        if is_rechecked:
            try:
                if outcome := await self._found(row):
                    return outcome, None
            except Away as why:
                now = int(self._clock() * 1000)
                return Outcome(row, row.state, now + 60_000, row.in_doubt, answer=str(why), was_sent=False), None
        delay = self._bucket.delay(self._clock())
        if delay:
            await asyncio.sleep(delay)
        answer = await self._stripe.send(row)
        # The database that was lost may have had an attempt on record.
        reply = reply_of(answer, attempted=row.attempts > 0 or is_rechecked)
        self._counted(reply)
        meaning = meaning_of(reply, in_doubt=row.in_doubt)
        then = self._clock()
        if meaning.halves:
            self._bucket.halve(then)
        due = int((then + rest(meaning, row.attempts + 1, self._luck())) * 1000)
        outcome = Outcome(
            *(row, meaning.state, due),
            in_doubt=meaning.state is State.UNKNOWN,
            new_key=meaning.new_key,
            answer=f"{answer.status}: {answer.message}" if answer.message else str(answer.status),
        )
        if meaning.alert is None:
            return outcome, None
        details = {
            "stops": meaning.stops,
            "customer": row.customer,
            "meter": row.meter,
            "slice": row.slice,
            "answer": outcome.answer,
        }
        alert = Alert(
            key=f"billing-export-{reply}-{row.customer}-{int(then) // 86400}",
            kind="billing_export",
            severity="page",
            title=meaning.alert,
            details=details,
            at=then,
        )
        return outcome, alert

    def _must_recheck(self, row: Row) -> bool:
        return self._recheck is not None and self._recheck.start < row.until <= self._recheck.end

    async def _found(self, row: Row) -> Outcome | None:
        """Look for a row in Stripe's sum of its slice, beside what is known to be there; None: nothing else is.

        Each revision is in a minute of its own, so that the sums of minutes tell which ones Stripe has.
        """
        async with self._database.reading() as connection:
            rows = await outbox_rows.of_slice(connection, row.customer, row.meter, row.slice)
        known = {one.revision: one.value for one in rows if one.state in (State.ACCEPTED, State.CONFIRMED)}
        whole = Span(max(row.slice, row.since), row.until)
        left = await self._stripe.counted(row.customer, row.meter, whole) - sum(known.values())
        counted: dict[int, int] = {}
        revision = 0
        while left and (at := dated(max(row.slice, row.since), row.until, revision)) is not None:
            if revision not in known:
                value = await self._stripe.counted(row.customer, row.meter, minute_of(at))
                left -= value
                if value:
                    counted[revision] = value
            revision += 1
        if not counted:
            return None
        async with self._database.writing() as connection:
            await outbox_rows.adopt(connection, self._of.account, row, counted, int(self._clock() * 1000))
        return Outcome(row, State.VOID, was_sent=False)  # It is written already.

    async def settle_doubts(self) -> int:
        """Decide on rows that are sent no more and may have been counted, by the sum of their minute; return how many
        are settled.
        """
        now = self._clock()
        old = billing_outbox.c.first_sent <= int((now - TRIED_SECONDS) * 1000)
        async with self._database.reading() as connection:
            unknown = billing_outbox.c.state == State.UNKNOWN
            rows = await outbox_rows.select(connection, unknown, old, limit=DOUBTS_MAX)
        count = 0
        for row in rows:
            try:
                assert row.dated is not None
                counted = await self._stripe.counted(row.customer, row.meter, minute_of(row.dated))
            except Unlisted:
                continue  # That is for people to mend; the others are decided on.
            except Away:
                return count
            age = now - (row.first_sent or 0) / 1000
            doubt = outbox.resolve(age, is_counted=counted == row.value)
            ms = int(now * 1000)
            async with self._database.writing() as connection:
                if doubt is Doubt.CONFIRM:
                    await outbox_rows.change(connection, [row], State.CONFIRMED, ms, "found in Stripe's sums")
                elif doubt is Doubt.VOID:
                    await outbox_rows.change(connection, [row], State.VOID, ms, "not in Stripe's sums")
                    await outbox_rows.revise(connection, self._of.account, row, row.value, ms)
                else:
                    continue
            count += 1
        return count


def minute_of(at: int) -> Span:
    """The minute of an event, in which no other one of this customer and meter is."""
    return Span(at - at % MINUTE, at - at % MINUTE + MINUTE)
