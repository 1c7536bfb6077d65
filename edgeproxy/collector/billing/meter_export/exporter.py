"""The exporter: it sends outbox rows to Stripe as meter events, and records the answers.

Only one exporter works at a time, no matter how many collectors run. Rows are marked before they are sent, so a crash
leaves no sent row that looks unsent. `outbox.py` decides the meaning of an answer.
"""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.meter_export import outbox, outbox_rows
from edgeproxy.collector.billing.meter_export.outbox import (
    MINUTE,
    TRIED_SECONDS,
    Answer,
    Doubt,
    Meaning,
    Reply,
    RowState,
    classify_answer,
    compute_event_time,
    compute_rest,
    interpret_reply,
)
from edgeproxy.collector.billing.meter_export.outbox_rows import OutboxRow, RowOutcome
from edgeproxy.collector.billing.meter_export.slicing import Slicing
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.stripe.request_rates import Bucket
from edgeproxy.collector.database.delivery_tables import billing_exporter, billing_outbox

CALLS_AT_ONCE_MAX = 400
"""The most calls that wait for an answer."""
HEARTBEAT_SECONDS = 60.0
LOST_SECONDS = 3600.0
"""If the heartbeat is older than this, the database may have been restored from a backup."""
SKEW_SECONDS_MAX = 60.0
"""The largest allowed difference in seconds between this machine's clock and Stripe's."""
ROUND_SECONDS = 2.0
"""The target length of a round in seconds. Decisions by people take effect in the next round."""
RECHECK_PAUSE_MS = 60_000
"""Milliseconds until a row is looked up again after Stripe did not answer."""
DOUBTS_MAX = 100
"""The most doubtful rows examined in a round."""

EXPORTER_STATE = sa.select(billing_exporter)
BEAT = sa.update(billing_exporter).values(heartbeat=sa.bindparam("now"))


class MeterEventsUnavailableError(Exception):
    """Stripe did not return the requested data."""


class MeterEventsUnlistedError(MeterEventsUnavailableError):
    """Stripe has no such customer, or no such meter."""


class MeterEvents(Protocol):
    """Meter events at Stripe."""

    @property
    def skew(self) -> float:
        """Stripe's clock was ahead of ours by this many seconds at its last answer."""

    async def send(self, row: OutboxRow) -> Answer:
        """Send an event. Raises nothing, whatever the result."""

    async def fetch_sum(self, customer: str, meter: str, span: Span) -> int:
        """Return the sum of the events in a span of whole minutes.

        Raises MeterEventsUnavailableError and MeterEventsUnlistedError.
        """


class SendResult(NamedTuple):
    """The result of sending a row, and the alert about it."""

    outcome: RowOutcome
    alert: Alert | None = None


class MeterExporter:
    """Sends the rows of the outbox.

    `on_reply` receives the reply to each event. Tests pass `clock` and `random_share`.
    """

    def __init__(
        self,
        slicing: Slicing,
        stripe: MeterEvents,
        bucket: Bucket,
        *,
        clock: Callable[[], float] = time.time,
        random_share: Callable[[], float] = random.random,
        on_reply: Callable[[Reply], None] = lambda reply: None,
    ) -> None:
        self._slicing = slicing
        self._database = slicing.database
        self._stripe = stripe
        self._bucket = bucket
        self._clock = clock
        self._random = random_share
        self._on_reply = on_reply
        """Receives the reply to each sent event."""
        self._beat_at = 0.0
        self._recheck: Span | None = None
        self._is_broken_off = False
        """True if a round was started and its results are not written yet."""
        self._log = log.get_logger()

    async def take_over(self) -> None:
        """Take over from the previous exporter: rows that it was sending become unknown.

        Call this once, while holding the lock.
        """
        now = self._clock()
        async with self._database.writing() as connection:
            await self._recover_rows(connection)
            row = (await connection.execute(EXPORTER_STATE)).one()
            # People let exports go on by a restart.
            values: dict[str, object] = {"stopped": None}
            if row.heartbeat and now - row.heartbeat / 1000 > LOST_SECONDS:
                # Rows may have been sent after the backup, so each row is looked up at Stripe before it is sent.
                values |= {"recheck_from": 0, "recheck_until": int(now)}
            await connection.execute(sa.update(billing_exporter).values(values))
        await self._read_control()

    async def _recover_rows(self, connection: AsyncConnection) -> None:
        """Mark rows as unknown that were being sent when an exporter ended."""
        if lost := await outbox_rows.recover_rows(connection, int(self._clock() * 1000)):
            self._log.warning("rows were under way when an exporter ended; they are sent again", rows=lost)

    async def _read_control(self) -> str | None:
        """Read the decisions by people. Return the reason why nothing may be sent, or None."""
        async with self._database.reading() as connection:
            row = (await connection.execute(EXPORTER_STATE)).one()
        self._recheck = Span(row.recheck_from, row.recheck_until) if row.recheck_until else None
        stopped: str | None = row.stopped
        return stopped

    async def step(self) -> int:
        """Send a round of rows, and return their number."""
        now = self._clock()
        if await self._read_control() is not None:
            return 0
        if now - self._beat_at >= HEARTBEAT_SECONDS:
            async with self._database.writing() as connection:
                await connection.execute(BEAT, {"now": int(now * 1000)})
            # LOST_SECONDS is an hour, so a write in each round would tell nothing more.
            self._beat_at = now
        if abs(self._stripe.skew) > SKEW_SECONDS_MAX:
            await self._stop_exports(f"this machine's clock is {abs(self._stripe.skew):.0f} s away from Stripe's")
            return 0
        async with self._database.writing() as connection:
            # For example, the database became unavailable before the results of a round were written.
            if self._is_broken_off:
                await self._recover_rows(connection)
            # A round has only as many rows as can be sent in its time: each claimed row is unknown if the exporter
            # dies.
            rows_max = max(1, int(self._bucket.rate * ROUND_SECONDS))
            chains = await outbox_rows.claim_rows(connection, int(now * 1000), rows_max)
        self._is_broken_off = bool(chains)
        results = await self._send_chains(chains)
        await self._record_results(results)
        self._is_broken_off = False
        return sum(outcome.was_sent for outcome, _ in results)

    async def _send_chains(self, chains: Sequence[Sequence[OutboxRow]]) -> list[SendResult]:
        """Send the rows of several customers, each customer's rows in order."""
        results: list[SendResult] = []
        remaining = iter(chains)

        async def send_some() -> None:
            for chain in remaining:
                results.extend(await self._send_chain(chain))

        # A fixed number of tasks take the next chain each. A semaphore would scan all waiting tasks each time one ends.
        await asyncio.gather(*(send_some() for _ in chains[:CALLS_AT_ONCE_MAX]))
        return results

    async def _record_results(self, results: Sequence[SendResult]) -> None:
        """Write the results of a round, raise each of its alerts once, and stop if an alert demands it."""
        if not results:
            return
        # One for each key: thousands of rows may fail for one reason.
        alerts = {alert.key: alert for _, alert in results if alert is not None}
        async with self._database.writing() as connection:
            ms = int(self._clock() * 1000)
            await outbox_rows.settle_rows(connection, [outcome for outcome, _ in results], ms)
            for alert in alerts.values():
                await raise_once(connection, alert)
        for alert in alerts.values():
            if alert.details.get("stops"):
                await self._stop_exports(alert.title)

    async def _stop_exports(self, why: str) -> None:
        """Stop the export until a person has looked at the problem and restarts it."""
        now = self._clock()
        async with self._database.writing() as connection:
            await connection.execute(sa.update(billing_exporter).values(stopped=why))
            alert = Alert(
                key=f"billing-export-stopped-{int(now) // 3600}",
                kind=AlertKind.USAGE_EXPORT_STOPPED,
                title=f"Exports to Stripe have stopped: {why}",
                details={"why": why},
                at=now,
            )
            await raise_once(connection, alert)
        self._log.error("exports to Stripe have stopped", why=why)

    async def _send_chain(self, chain: Sequence[OutboxRow]) -> list[SendResult]:
        """Send rows of one customer in order. Rows after an unsettled one are put back."""
        results: list[SendResult] = []
        goes_on = True
        for row in chain:
            if goes_on:
                result = await self._send_row(row)
                if result is not None:
                    results.append(result)
                goes_on = result is not None and result.outcome.state in (RowState.ACCEPTED, RowState.CONFIRMED)
            else:
                returned = RowOutcome(row, row.state, row.due, row.in_doubt, answer=row.answer, was_sent=False)
                results.append(SendResult(returned))
        return results

    async def _send_row(self, row: OutboxRow) -> SendResult | None:
        """Send a row. Return None if Stripe already has it, which is then recorded."""
        is_rechecked = self._must_recheck(row)
        if is_rechecked:
            try:
                if await self._adopt_from_stripe(row):
                    return None
            except MeterEventsUnavailableError as error:
                due = int(self._clock() * 1000) + RECHECK_PAUSE_MS
                return SendResult(RowOutcome(row, row.state, due, row.in_doubt, answer=str(error), was_sent=False))
        delay = self._bucket.reserve_slot(self._clock())
        if delay:
            await asyncio.sleep(delay)
        answer = await self._stripe.send(row)
        # The lost database may have recorded an earlier attempt.
        reply = classify_answer(answer, attempted=row.attempts > 0 or is_rechecked)
        self._on_reply(reply)
        meaning = interpret_reply(reply, in_doubt=row.in_doubt)
        then = self._clock()
        if meaning.halves:
            self._bucket.halve(then)
        outcome = RowOutcome(
            row,
            meaning.state,
            int((then + compute_rest(meaning, row.attempts + 1, self._random())) * 1000),
            in_doubt=meaning.state is RowState.UNKNOWN,
            new_key=meaning.new_key,
            answer=f"{answer.status}: {answer.message}" if answer.message else str(answer.status),
        )
        return SendResult(outcome, build_alert(outcome, reply, meaning, then))

    def _must_recheck(self, row: OutboxRow) -> bool:
        return self._recheck is not None and self._recheck.start < row.until <= self._recheck.end

    async def _adopt_from_stripe(self, row: OutboxRow) -> bool:
        """Look for a row in Stripe's sum of its slice, and adopt revisions there that were unknown here.

        Returns False if there are none. Each revision has a minute of its own, so the sums of minutes tell which
        revisions Stripe has.
        """
        async with self._database.reading() as connection:
            rows = await outbox_rows.fetch_slice(connection, row.customer, row.meter, row.slice)
        stored = {
            other.revision: other.value for other in rows if other.state in (RowState.ACCEPTED, RowState.CONFIRMED)
        }
        span = Span(max(row.slice, row.since), row.until)
        missing = await self._stripe.fetch_sum(row.customer, row.meter, span) - sum(stored.values())
        counted: dict[int, int] = {}
        revision = 0
        while missing and (at := compute_event_time(max(row.slice, row.since), row.until, revision)) is not None:
            if revision not in stored:
                value = await self._stripe.fetch_sum(row.customer, row.meter, minute_of(at))
                missing -= value
                if value:
                    counted[revision] = value
            revision += 1
        if not counted:
            return False
        async with self._database.writing() as connection:
            await outbox_rows.adopt_counted(connection, self._slicing.account, row, counted, int(self._clock() * 1000))
        return True

    async def resolve_doubts(self) -> int:
        """Decide on doubtful rows that are no longer sent, by the sum of their minute.

        Return the number of settled rows.
        """
        now = self._clock()
        old = billing_outbox.c.first_sent <= int((now - TRIED_SECONDS) * 1000)
        async with self._database.reading() as connection:
            unknown = billing_outbox.c.state == RowState.UNKNOWN
            rows = await outbox_rows.select_rows(connection, unknown, old, limit=DOUBTS_MAX)
        count = 0
        for row in rows:
            try:
                assert row.dated is not None
                counted = await self._stripe.fetch_sum(row.customer, row.meter, minute_of(row.dated))
            except MeterEventsUnlistedError:
                continue  # People must fix that; the other rows are decided.
            except MeterEventsUnavailableError:
                return count
            age = now - (row.first_sent or 0) / 1000
            doubt = outbox.resolve_doubt(age, is_counted=counted == row.value)
            ms = int(now * 1000)
            async with self._database.writing() as connection:
                if doubt is Doubt.CONFIRM:
                    why = "found in Stripe's sums"
                    count += await outbox_rows.change_row(connection, row, RowState.CONFIRMED, ms, why)
                elif doubt is Doubt.VOID and await outbox_rows.change_row(
                    connection, row, RowState.VOID, ms, "not in Stripe's sums"
                ):
                    await outbox_rows.insert_revision(connection, self._slicing.account, row, row.value, ms)
                    count += 1
        return count


def build_alert(outcome: RowOutcome, reply: Reply, meaning: Meaning, now: float) -> Alert | None:
    """Return the alert about a reply to a row, one per customer and day, or None if the reply raises none."""
    if meaning.alert is None:
        return None
    row = outcome.row
    details = {"customer": row.customer, "meter": row.meter, "slice": row.slice, "answer": outcome.answer}
    return Alert(
        key=f"billing-export-{reply}-{row.customer}-{int(now) // 86400}",
        kind=AlertKind.USAGE_EXPORT_FAILED,
        title=meaning.alert,
        details={"stops": meaning.stops, "why": meaning.alert, **details},
        at=now,
    )


def minute_of(at: int) -> Span:
    """Return the minute of an event. It contains no other event of this customer and meter."""
    return Span(at - at % MINUTE, at - at % MINUTE + MINUTE)
