"""The processor of webhook events: it fetches the object of an event from Stripe and applies its current state.

The order and the repetition of events do not matter, because each time the object's current state is applied. An object
is fetched once, no matter how many of its events wait.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.billing.credits.purchases import PURCHASE
from edgeproxy.collector.billing.invoices.unexpected_objects import UnbookedPaymentError, UnexpectedObjectError
from edgeproxy.collector.billing.stripe.billing_details import StaleCustomerError
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.collector.billing.stripe.webhook_event import InvalidStripeEventError, parse_event_object
from edgeproxy.collector.billing.webhooks import receiver
from edgeproxy.collector.billing.webhooks.receiver import EventState, ReceivedEvent
from edgeproxy.collector.billing.webhooks.retry import PAUSES, Cause, decide_retry
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database, format_reason
from edgeproxy.collector.database.delivery_tables import webhook_events
from edgeproxy.collector.database.encryption import ColumnCipher
from edgeproxy.collector.database.schema import DAY, HOUR
from edgeproxy.collector.database.statements import lock_rows

OBJECTS_AT_ONCE_MAX = 16
ROUND_OBJECTS_MAX = 200
COMPLETE_ROUNDS_MAX = 1000
"""The most rounds of events in a row, so that constantly changing objects do not block the caller."""
POLL_SECONDS = 600.0
"""Seconds between two polls for lost events."""
OVERLAP_SECONDS = 3600
"""The next list begins this many seconds before the latest listed event."""
KNOWN_DAYS = 30
"""For how many days Stripe lists events."""
CLOCK_SKEW_SECONDS = 86400
"""An upper bound in seconds for the difference between Stripe's clock and ours.

Events older than that were in the last list, even if it was empty.
"""
UNREAD_SECONDS_MAX = 6 * HOUR
"""The most seconds without a complete read of a list before an alert. Until a read no customer is paused."""
BATCH_EVENTS_MAX = 100
"""The most listed events stored in one transaction. Events that arrive meanwhile wait for it."""
ERROR_CHARACTERS_MAX = 300
SNAPSHOTS, THIN = "snapshots", "thin"
"""Stripe's two lists of events."""

Apply = Callable[[AsyncConnection, StripeObject], Awaitable[None]]
"""Applies the current state of an object; idempotent."""
columns = webhook_events.c


class StripeUnavailableError(Exception):
    """Stripe does not answer now, or limits the rate. The event itself is fine."""


class StripeDeniedError(StripeUnavailableError):
    """Stripe denies the API key the call: the key is wrong, or lacks a permission."""


class StaleObjectError(Exception):
    """Another step has settled some of the object's events meanwhile, so it may have applied a newer state."""


class StripeObjectSource(Protocol):
    """Objects and events of Stripe. All methods raise StripeUnavailableError."""

    async def fetch(self, object_type: str, id: str) -> StripeObject:
        """Return the current state of an object; `{id, object, deleted: true}` if it was deleted."""

    async def list_events(self, since: int) -> list[StripeObject]:
        """List the snapshot events since a Unix second."""

    async def list_thin_events(self, since: int) -> list[StripeObject]:
        """List the thin events since a Unix second."""

    async def fetch_event(self, id: str) -> StripeObject | None:
        """Return an event, or None if Stripe does not have it (any more)."""


class EventSubject(NamedTuple):
    """The object that events are about."""

    type: str
    id: str


class WaitingEvent(NamedTuple):
    """An event that waits to be applied."""

    id: str
    type: str
    attempts: int
    created: int
    """Unix seconds by Stripe's clock."""
    due: int
    """Unix milliseconds."""
    received: int
    """Unix milliseconds."""
    applied: int | None
    """The Unix millisecond of an earlier application, or None."""


class Processor:
    """Applies events with a table of functions by object type.

    `on_applied` receives the seconds from an event to its effect, `on_seen` the types of new events and their object.
    Tests pass a `clock`.
    """

    def __init__(
        self,
        database: Database,
        stripe: StripeObjectSource,
        table: Mapping[str, Apply],
        payloads: ColumnCipher,
        *,
        live: bool,
        clock: Callable[[], float] = time.time,
        on_applied: Callable[[float], None] = lambda seconds: None,
        on_seen: Callable[[Sequence[str], StripeObject], None] = lambda types, stripe_object: None,
    ) -> None:
        self._database = database
        self._stripe = stripe
        self._table = table
        self.payloads = payloads
        """Encrypts the events that are fetched. A reload replaces it."""
        self._live = live
        self._clock = clock
        self._began = clock()
        self._on_applied = on_applied
        """Receives the seconds from an event to its first effect."""
        self._on_seen = on_seen
        """Receives the types of events that were applied together for the first time, and their object."""
        self._at_once = asyncio.Semaphore(OBJECTS_AT_ONCE_MAX)
        self._turn = asyncio.Lock()
        self._log = log.get_logger()

    async def step(self) -> int:
        """Apply the objects with due events, and return their number."""
        now = int(self._clock() * 1000)
        oldest = sa.func.min(columns.received)
        statement = (
            sa.select(columns.object_type, columns.object)
            .where(columns.state == EventState.WAITING, columns.due <= now)
            .group_by(columns.object_type, columns.object)
            .order_by(oldest)
            .limit(ROUND_OBJECTS_MAX)
        )
        async with self._database.reading() as connection:
            subjects = [EventSubject(*row) for row in await connection.execute(statement)]
        # One call for each object, not for each event: the state fetched from Stripe covers all its events.
        await asyncio.gather(*(self._apply_subject(subject) for subject in subjects))
        return len(subjects)

    async def _apply_subject(self, subject: EventSubject) -> None:
        """Apply an object, and settle all its events received so far."""
        async with self._at_once:
            waiting = (
                sa.select(*(columns[name] for name in WaitingEvent._fields))
                .where(columns.state == EventState.WAITING, columns.object == subject.id)
                .where(columns.object_type == subject.type)
            )
            async with self._database.reading() as connection:
                # Read before the object is fetched, because later events may belong to a later state.
                events = [WaitingEvent(*row) for row in await connection.execute(waiting)]
                # Read before the attempt, too: an event applied meanwhile may be the one that this attempt lacks.
                listed = await self._find_listed(connection, events)
            if not events:
                return
            try:
                stripe_object = await self._apply_object(subject, [row.id for row in events])
            except CONNECTION_ERRORS as error:  # The database is unavailable, so the failure cannot be stored either.
                self._log.error("an event could not be applied, and is tried again", why=format_reason(error))
            except (StaleCustomerError, StaleObjectError):
                pass  # The events stay due: the next round fetches their object again.
            except StripeUnavailableError as error:
                await self._put_off(events, str(error), Cause.UNAVAILABLE)
                if isinstance(error, StripeDeniedError):
                    await self._alert_unread(f"objects of type {subject.type}", error)
            except UnexpectedObjectError as error:
                # A payment may be reported before the object that it pays. That is not our fault.
                self._log.warning("an event is applied later", object_type=subject.type, why=str(error))
                cause = Cause.UNBOOKED if isinstance(error, UnbookedPaymentError) else Cause.FAULT
                await self._put_off(events, str(error), cause, listed)
            except Exception as error:
                self._log.error("an event could not be applied", object_type=subject.type, exc_info=error)
                await self._put_off(events, f"{type(error).__name__}: {error}", Cause.FAULT)
            else:
                # A replayed event was reported when it first arrived.
                first = [row for row in events if row.applied is None]
                if stripe_object is not None:
                    self._on_seen([row.type for row in first], stripe_object)
                for row in first:
                    self._on_applied(max(0.0, self._clock() - row.created))

    async def _apply_object(self, subject: EventSubject, events: Sequence[str]) -> StripeObject | None:
        """Apply an object and return it, or None if its type is ignored. Raises StaleObjectError."""
        stripe_object: StripeObject | None = None
        apply = self._table.get(subject.type)
        now = int(self._clock() * 1000)
        if apply is None:
            values: dict[str, object] = {"state": EventState.IGNORED}
        else:
            stripe_object = await self._stripe.fetch(subject.type, subject.id)
            values = {"state": EventState.APPLIED, "applied": now, "error": None}
        # One at a time: a new event then waits for one application, not for all that are due.
        async with self._turn, self._database.writing() as connection:
            waiting = sa.select(columns.id).where(columns.id.in_(events), columns.state == EventState.WAITING)
            if len((await connection.execute(lock_rows(waiting.order_by(columns.id)))).all()) < len(events):
                raise StaleObjectError
            if apply is not None and stripe_object is not None:
                await apply(connection, stripe_object)
            await connection.execute(sa.update(webhook_events).where(columns.id.in_(events)).values(values))
        return stripe_object

    async def _find_listed(self, connection: AsyncConnection, events: Sequence[WaitingEvent]) -> int | None:
        """Return the Unix millisecond when the last complete read of Stripe's event list began.

        Returns None if there was no such read, if a purchase still waits, or if none of these events has had enough
        attempts to need it.
        """
        if all(row.attempts < len(PAUSES) for row in events) or await receiver.is_waiting(connection, PURCHASE):
            return None
        return await receiver.find_read_began(connection, SNAPSHOTS)

    async def _put_off(self, events: Sequence[WaitingEvent], why: str, cause: Cause, listed: int | None = None) -> None:
        """Postpone events, or turn them into dead letters. `listed` is the result of `_find_listed` before the attempt.

        Events that are not due were tried only because of another event, so the attempt does not count for them.
        """
        now = self._clock()
        async with self._turn, self._database.writing() as connection:
            for row in (row for row in events if row.due <= now * 1000):
                is_listed = listed is not None and listed > row.received
                retry = decide_retry(row.attempts, cause, is_listed=is_listed)
                error = f"{why}{retry.why}"[:ERROR_CHARACTERS_MAX]
                values = {
                    "state": EventState.DEAD if retry.pause is None else EventState.WAITING,
                    "attempts": row.attempts + 1,
                    "due": int((now + (retry.pause or 0)) * 1000),
                    "error": error,
                }
                is_waiting = (columns.id == row.id) & (columns.state == EventState.WAITING)
                update = sa.update(webhook_events).where(is_waiting).values(values)
                if (await connection.execute(update)).rowcount and retry.pause is None:
                    alert = Alert(
                        key=f"billing-dead-letter-{row.id}-{int(now)}",
                        kind=AlertKind.WEBHOOK_EVENT_FAILED,
                        title="An event of Stripe's could not be applied: mend the cause, then replay it",
                        details={"event": row.id, "why": error},
                        at=now,
                    )
                    await raise_once(connection, alert)

    async def poll(self) -> int:
        """Store events that were lost on their way, and return their number. Raises StripeUnavailableError."""
        # Kept even if Stripe refuses the other list.
        snapshots = await self._poll_list(SNAPSHOTS, self._stripe.list_events)
        return snapshots + await self._poll_list(THIN, self._stripe.list_thin_events)

    async def _poll_list(self, name: str, listed: Callable[[int], Awaitable[list[StripeObject]]]) -> int:
        """Store the events of one Stripe list since its last read, and return the number of new ones."""
        began = self._clock()
        now = int(began)
        async with self._database.reading() as connection:
            read_until = await receiver.find_read_until(connection, name)
            read_began = await receiver.find_read_began(connection, name)
        since = (now if read_until is None else read_until) - OVERLAP_SECONDS
        if since < now - KNOWN_DAYS * 86400:
            self._log.warning("events were not looked for so long that Stripe has forgotten some", days=KNOWN_DAYS)
            since = now - KNOWN_DAYS * 86400
        stored_count, until = 0, max(since, read_until or 0, now - CLOCK_SKEW_SECONDS)
        try:
            events = await listed(since)
        except StripeUnavailableError as error:
            # While no collector ran, nobody could read the list.
            unread_since = max(self._began, (read_began or 0) / 1000)
            if isinstance(error, StripeDeniedError) or began - unread_since >= UNREAD_SECONDS_MAX:
                await self._alert_unread(f"its list of events ({name})", error)
            raise
        for first in range(0, len(events), BATCH_EVENTS_MAX):
            batch = self._parse_events(events[first : first + BATCH_EVENTS_MAX], "poll")
            stored_count += len(await self._store_events(batch))
            until = max([until, *(received.event.created for received in batch)])
        async with self._database.writing() as connection:
            await receiver.record_read(connection, name, until, int(began * 1000))
        return stored_count

    async def _alert_unread(self, what: str, error: StripeUnavailableError) -> None:
        """Raise an alert, once a day, that Stripe does not let us read something."""
        now = self._clock()
        alert = Alert(
            key=f"billing-unread-{what}-{int(now) // DAY}",
            kind=AlertKind.WEBHOOK_EVENT_FAILED,
            title=f"Stripe denies us {what}: check the permissions of the API key"
            if isinstance(error, StripeDeniedError)
            else f"Stripe has not returned {what} for {UNREAD_SECONDS_MAX // HOUR} hours",
            details={"unread": what, "why": str(error)[:ERROR_CHARACTERS_MAX]},
            at=now,
        )
        async with self._database.writing() as connection:
            await raise_once(connection, alert)

    async def complete(self) -> None:
        """Read lost events and apply all due events. Raises StripeUnavailableError if a list cannot be read.

        Events whose object cannot be fetched or applied still wait afterwards: see possible_payers.py.
        """
        await self.poll()
        for _ in range(COMPLETE_ROUNDS_MAX):
            if not await self.step():
                break

    async def replay(self, event: str) -> bool:
        """Apply an event again, from this database or else from Stripe. Return False if neither has it.

        Raises StripeUnavailableError.
        """
        now = int(self._clock() * 1000)
        async with self._database.writing() as connection:
            if await receiver.replay_event(connection, event, now):
                return True
        stripe_event = await self._stripe.fetch_event(event)
        return stripe_event is not None and bool(await self._store_events(self._parse_events([stripe_event], "replay")))

    def _parse_events(self, events: Sequence[StripeObject], source: str) -> list[ReceivedEvent]:
        """Return the listed events that can be parsed."""
        received = []
        for body in events:
            try:
                received.append(
                    ReceivedEvent(parse_event_object(body), orjson.dumps(dict(body), default=str), source)
                )  # Decimals.
            except InvalidStripeEventError as error:
                self._log.error(
                    "an event that Stripe lists cannot be read", id=str(body.get("id"))[:100], why=str(error)
                )
        return received

    async def _store_events(self, events: Sequence[ReceivedEvent]) -> list[str]:
        now = int(self._clock() * 1000)
        rows = receiver.build_rows(events, self.payloads, live=self._live, now=now)
        async with self._database.writing() as connection:
            return await receiver.insert_events(connection, rows, now)
