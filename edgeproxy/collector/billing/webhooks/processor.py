"""Events are applied: what an event is about is asked of Stripe now, and written down as it is.

The order in which events come does not matter, nor how often: each time the object is taken as it is by then. However
many events an object has waiting, it is fetched once.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.alerts.alert import Alert, raise_once
from edgeproxy.collector.billing.credits.purchases import Unexpected
from edgeproxy.collector.billing.stripe.payload_encryption import Payloads
from edgeproxy.collector.billing.stripe.webhook_event import Unreadable, event_of
from edgeproxy.collector.billing.webhooks import receiver
from edgeproxy.collector.billing.webhooks.receiver import Received, State
from edgeproxy.collector.database.database import LOST, Database, reason
from edgeproxy.collector.database.delivery_tables import webhook_events

PAUSES: Sequence[float] = (5.0, 30.0, 120.0, 600.0, 3600.0)
"""Seconds after each attempt that failed; after the last one it is a dead letter."""
OBJECTS_AT_ONCE_MAX = 16
ROUND_OBJECTS_MAX = 200
POLL_SECONDS = 600.0
"""Seconds between two looks for events that were lost on their way."""
OVERLAP_SECONDS = 3600
"""Seconds before the latest event that was listed from which on they are looked for."""
KNOWN_DAYS = 30
"""Days for which Stripe lists events."""
CLOCKS_SECONDS = 86400
"""Seconds by which Stripe's clock and ours are not apart: what was made before that has been read with the list, though
nothing was in it."""
KEPT_TOGETHER_MAX = 100
"""Events of a list that are kept in one transaction: those that arrive meanwhile wait for it."""
ERROR_CHARACTERS_MAX = 300

Apply = Callable[[AsyncConnection, Mapping[str, Any]], Awaitable[None]]
"""Writes down an object as it is now; idempotent."""
columns = webhook_events.c


class Absent(Exception):
    """Stripe does not answer now, or refuses for how much it was asked: nothing is wrong with the event."""


class Objects(Protocol):
    """What is asked of Stripe. Raises Absent."""

    async def fetch(self, object_type: str, id: str) -> Mapping[str, Any]:
        """Return an object as it is now; of one that is gone `{id, object, deleted: true}`."""

    async def events(self, since: int) -> list[Mapping[str, Any]]:
        """List the snapshot events since a Unix second."""

    async def thin_events(self, since: int) -> list[Mapping[str, Any]]:
        """List the thin events since a Unix second."""

    async def event(self, id: str) -> Mapping[str, Any] | None:
        """Return an event; None where Stripe has none such any more."""


class Subject(NamedTuple):
    """What events are about."""

    type: str
    id: str


class Processor:
    """Applies events by a table of what each type of object is applied by. `clock` is given by tests."""

    def __init__(
        self,
        database: Database,
        stripe: Objects,
        table: Mapping[str, Apply],
        payloads: Payloads,
        *,
        live: bool,
        clock: Callable[[], float] = time.time,
        applied: Callable[[float], None] = lambda seconds: None,
        seen: Callable[[Sequence[str], Mapping[str, Any]], None] = lambda types, found: None,
    ) -> None:
        self._database = database
        self._stripe = stripe
        self._table = table
        self._payloads = payloads
        self._live = live
        self._clock = clock
        self._applied = applied
        """Is told how many seconds after Stripe made it an event was applied for the first time."""
        self._seen = seen
        """Is told the types of the events that were applied together for the first time, and their object."""
        self._at_once = asyncio.Semaphore(OBJECTS_AT_ONCE_MAX)
        self._turn = asyncio.Lock()
        self._log = log.get()

    async def step(self) -> int:
        """Apply what is due; return of how many objects."""
        now = int(self._clock() * 1000)
        oldest = sa.func.min(columns.received)
        wanted = (
            sa.select(columns.object_type, columns.object)
            .where(columns.state == State.WAITING, columns.due <= now)
            .group_by(columns.object_type, columns.object)
            .order_by(oldest)
            .limit(ROUND_OBJECTS_MAX)
        )
        async with self._database.reading() as connection:
            subjects = [Subject(*row) for row in await connection.execute(wanted)]
        await asyncio.gather(*(self._settle(subject) for subject in subjects))
        return len(subjects)

    async def _settle(self, subject: Subject) -> None:
        """Apply an object, and with it all events that have told of it by now."""
        async with self._at_once:
            waiting = (
                sa.select(columns.id, columns.type, columns.attempts, columns.created, columns.due, columns.applied)
                .where(columns.state == State.WAITING, columns.object == subject.id)
                .where(columns.object_type == subject.type)
            )
            async with self._database.reading() as connection:
                events = (await connection.execute(waiting)).all()  # Before it is fetched: later ones may know more.
            if not events:
                return
            try:
                found = await self._apply(subject, [row.id for row in events])
            except LOST as failure:  # The database is away: nothing can be written down about it either.
                self._log.error("an event could not be applied, and is tried again", why=reason(failure))
            except Absent as why:
                await self._put_off(events, str(why), is_absent=True)
            except Unexpected as why:  # As of a payment that is told of before what it pays: no fault of ours.
                self._log.warning("an event is applied later", object_type=subject.type, why=str(why))
                await self._put_off(events, str(why), is_absent=False)
            except Exception as failure:
                self._log.error("an event could not be applied", object_type=subject.type, exc_info=failure)
                await self._put_off(events, f"{type(failure).__name__}: {failure}", is_absent=False)
            else:
                first = [row for row in events if row.applied is None]  # A replayed one was counted when it came.
                if found is not None:
                    self._seen([row.type for row in first], found)
                for row in first:
                    self._applied(max(0.0, self._clock() - row.created))

    async def _apply(self, subject: Subject, events: Sequence[str]) -> Mapping[str, Any] | None:
        """Return the object; None where nothing is done about such."""
        found: Mapping[str, Any] | None = None
        apply = self._table.get(subject.type)
        now = int(self._clock() * 1000)
        if apply is None:
            values: dict[str, Any] = {"state": State.IGNORED}
        else:
            found = await self._stripe.fetch(subject.type, subject.id)
            values = {"state": State.APPLIED, "applied": now, "error": None}
        # One at a time: an event that arrives waits for one that is applied, and not for all that could be.
        async with self._turn, self._database.writing() as connection:
            if apply is not None and found is not None:
                await apply(connection, found)
            await connection.execute(sa.update(webhook_events).where(columns.id.in_(events)).values(values))
        return found

    async def _put_off(self, events: Sequence[Any], why: str, *, is_absent: bool) -> None:
        """Try these again later; who has tried often enough is a dead letter, unless Stripe is merely away.

        Those whose time has not come were tried for another one's sake: it does not count for them.
        """
        now = self._clock()
        async with self._turn, self._database.writing() as connection:
            for row in (row for row in events if row.due <= now * 1000):
                is_dead = row.attempts >= len(PAUSES) and not is_absent
                pause = PAUSES[min(row.attempts, len(PAUSES) - 1)]
                values = {
                    "state": State.DEAD if is_dead else State.WAITING,
                    "attempts": row.attempts + 1,
                    "due": int((now + pause) * 1000),
                    "error": why[:ERROR_CHARACTERS_MAX],
                }
                await connection.execute(sa.update(webhook_events).where(columns.id == row.id).values(values))
                if is_dead:
                    alert = Alert(
                        key=f"billing-dead-letter-{row.id}-{int(now)}",
                        kind="billing_dead_letter",
                        severity="page",
                        title="An event of Stripe's could not be applied: mend the cause, then replay it",
                        details={"event": row.id, "why": why[:ERROR_CHARACTERS_MAX]},
                        at=now,
                    )
                    await raise_once(connection, alert)

    async def poll(self) -> int:
        """Keep what was lost on its way; return how many events that were. Raises Absent."""
        snapshots = await self._look("snapshots", self._stripe.events)  # Though the other list be refused.
        return snapshots + await self._look("thin", self._stripe.thin_events)

    async def _look(self, name: str, listed: Callable[[int], Awaitable[list[Mapping[str, Any]]]]) -> int:
        """Keep what one list of Stripe's has since it was last read, however long ago that is; return how many events
        were new."""
        now = int(self._clock())
        async with self._database.reading() as connection:
            read = await receiver.read_until(connection, name)
        since = (now if read is None else read) - OVERLAP_SECONDS
        if since < now - KNOWN_DAYS * 86400:
            self._log.warning("events were not looked for so long that Stripe has forgotten some", days=KNOWN_DAYS)
            since = now - KNOWN_DAYS * 86400
        kept, until = 0, max(since, read or 0, now - CLOCKS_SECONDS)
        found = await listed(since)
        for first in range(0, len(found), KEPT_TOGETHER_MAX):
            some = self._received(found[first : first + KEPT_TOGETHER_MAX], "poll")
            kept += len(await self._keep(some))
            until = max([until, *(one.event.created for one in some)])
        async with self._database.writing() as connection:
            await receiver.note_read(connection, name, until)
        return kept

    async def replay(self, event: str) -> bool:
        """Have an event applied once more, of those kept here or else of Stripe's; False where neither has it.

        Raises Absent.
        """
        now = int(self._clock() * 1000)
        async with self._database.writing() as connection:
            if await receiver.replay(connection, event, now):
                return True
        found = await self._stripe.event(event)
        return found is not None and bool(await self._keep(self._received([found], "replay")))

    def _received(self, found: Sequence[Mapping[str, Any]], source: str) -> list[Received]:
        """Those of Stripe's list that can be read."""
        some = []
        for said in found:
            try:
                some.append(Received(event_of(said), orjson.dumps(dict(said), default=str), source))  # Decimals.
            except Unreadable as why:
                self._log.error("an event that Stripe lists cannot be read", id=str(said.get("id"))[:100], why=str(why))
        return some

    async def _keep(self, some: Sequence[Received]) -> list[str]:
        now = int(self._clock() * 1000)
        rows = receiver.rows_of(some, self._payloads, live=self._live, now=now)
        async with self._database.writing() as connection:
            return await receiver.put(connection, rows, now)
