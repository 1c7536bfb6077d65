"""The event writer. Events that arrive during one transaction are counted together in the next.

One transaction writes an event's row and its increments of the ledger. The database decides in it whether the event is
new: `(source, id)` counts once for ever, for any sender and any collector. The sender gets its answer only after the
commit.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.base.json_values import JsonObject, JsonValue
from edgeproxy.base.scarce_goods import ScarceGood
from edgeproxy.base.shares import Claim, Places, Share, compute_room
from edgeproxy.base.timestamps import format_timestamp as moment_ms
from edgeproxy.collector.accounts.audit import Caller
from edgeproxy.collector.accounts.ids import generate_id
from edgeproxy.collector.alerts.alert import Alert, raise_alerts
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database, format_reason
from edgeproxy.collector.database.group_commit import GroupCommit
from edgeproxy.collector.database.schema import EVENTS, EVENTS_REGION, EVENTS_ROUTE, MINUTE, dead_letters, edges, events
from edgeproxy.collector.events.corrections import (
    Correction,
    FindInvoiced,
    Identity,
    fetch_counted,
    find_callers,
    find_corrections,
    find_nothing_invoiced,
    record_corrections,
    take_back,
)
from edgeproxy.collector.events.event import Rejection, UsageEvent, list_differences
from edgeproxy.collector.events.event_rows import insert_events
from edgeproxy.collector.ledger.aggregates import Reading
from edgeproxy.collector.ledger.batch_writer import DatabaseUnavailableError
from edgeproxy.collector.ledger.dimension_values import DimensionUse, DimensionValues
from edgeproxy.collector.ledger.known_names import KnownNames
from edgeproxy.collector.ledger.ledger_writer import LedgerWriter, is_too_large
from edgeproxy.collector.ledger.queries import format_time as moment
from edgeproxy.config import dimensions
from edgeproxy.wire.batch import FIRST, Batch, CountKey, build_row

TRANSACTION_EVENTS_MAX = 50_000
"""The most events of one transaction, unless a single request has more."""
WAITING_EVENTS_MAX = 200_000
"""The most waiting events. Beyond it senders are asked to retry later."""
TOKEN_SHARE = 1 / 2
"""The largest share of the waiting events, and of the dead letters, for one token."""
DEAD_LETTERS_MAX = 100_000
"""The most stored dead letters. Further rejections are reported only to the sender."""
LETTER_CHARACTERS_MAX = 10_000
"""The most characters of an event in a dead letter."""
CHAIN_MAX = 16
"""The most events of one transaction that replace each other in a row."""
OTHER_CONTENT = "id: was counted with another {}"
TOO_LARGE = "makes a sum that is more than the ledger can hold"

FindRefusedReadings = Callable[
    [AsyncConnection, Mapping[tuple[str, str], Sequence[Reading]]], Awaitable[dict[tuple[str, str], dict[int, str]]]
]
"""Returns the refused new readings of a customer's meter, by index, with the reasons."""


async def find_no_refused_readings(_: AsyncConnection, __: object) -> dict[tuple[str, str], dict[int, str]]:
    """Return no refusals: without caps every reading counts."""
    return {}


class EventRequest(NamedTuple):
    """A request: its readable events with their index, and the rejected ones."""

    token: str
    events: Sequence[tuple[int, UsageEvent]]
    rejected: Sequence[Rejection]
    is_replay: bool = False
    """True if the event already has a dead letter."""
    caller: Caller | None = None
    """The caller in the audit log, if the request may take usage back."""


class Receipt(NamedTuple):
    """The outcome of a request's events."""

    accepted: int
    duplicates: int
    rejected: Sequence[Rejection]


class DeadLetterRow(NamedTuple):
    """A row of `dead_letters`."""

    id: str
    received: int
    """The Unix millisecond."""
    token: str
    """The label of the token that sent it."""
    error: str
    event: str
    """The event as sent, as JSON of a bounded length."""


class UsageIncrements(NamedTuple):
    """The increments by new events, by dimensions and minute."""

    sums: dict[DimensionUse, int]
    read: dict[DimensionUse, None]
    """Uses in readings, which are not added up, in order of arrival."""


class WrittenEvents:
    """The events that a transaction has written so far."""

    def __init__(self) -> None:
        self.known: dict[Identity, UsageEvent] = {}
        """All events that are counted by now, of these and of earlier transactions."""
        self.fresh: set[Identity] = set()
        """Those that were counted first in this transaction."""
        self.refused: dict[Identity, str] = {}
        """The reasons why others are refused."""
        self.replaced: dict[Identity, Correction] = {}
        self.alerts: list[Alert] = []
        self.uses: list[DimensionUse] = []
        self.readers: set[str] = set()
        """The customers of readings."""
        self.begun: set[CountKey] = set()
        """The counts that are new in the ledger."""


class EventMetrics(Protocol):
    """The metrics that the event writer reports."""

    def events_settled(self, receipt: Receipt) -> None:
        """Report that a request's events were settled."""

    def failed(self) -> None:
        """Report that a transaction failed."""

    goods: list[ScarceGood]
    """The scarce goods."""


class EventWriter:
    """The queue of requests for the database. `run` serves it until `end`."""

    def __init__(
        self,
        database: Database,
        names: KnownNames,
        metrics: EventMetrics,
        on_counted: Callable[[Iterable[tuple[str, str]]], None] = lambda _: None,
        find_refused_readings: FindRefusedReadings = find_no_refused_readings,
        find_invoiced: FindInvoiced = find_nothing_invoiced,
    ) -> None:
        """`on_counted` is called with the (customer, meter) pairs that have new counts."""
        self._on_counted = on_counted
        self._find_refused_readings = find_refused_readings
        self._find_invoiced = find_invoiced
        self._database = database
        self._names = names
        self._metrics = metrics
        self._ledger = LedgerWriter(database)
        self.values = DimensionValues(database, {})
        """The values of dimensions that customers use."""
        self._commits = GroupCommit(
            self._commit_group,
            cost_max=TRANSACTION_EVENTS_MAX,
            compute_cost=count_events,
            is_item_fault=lambda error: is_too_large(error) or not isinstance(error, CONNECTION_ERRORS),
            replace=_replace_too_large,
            fail=self._fail_group,
        )
        self._places = Places(WAITING_EVENTS_MAX)
        self._good = ScarceGood("waiting_events", lambda: WAITING_EVENTS_MAX, lambda: self._places.in_use)
        metrics.goods.append(self._good)

    def has_room(self, token: str) -> bool:
        """Return whether there is room for more events of a token."""
        key = self._places.find_exhausted(build_claim(token))
        if key is not None:
            self._good.record_refusal(key)
        return key is None

    async def write_events(self, sent: EventRequest) -> Receipt:
        """Write events, and return the outcome once it is on disk. Raises DatabaseUnavailableError."""
        claim, units = build_claim(sent.token), count_events(sent)
        self._places.take(claim, units)
        try:
            return await self._commits.submit(sent)
        finally:
            self._places.release(claim, units)

    async def run(self) -> None:
        """Write queued requests until `end` was called and the queue is empty."""
        await self._commits.run()

    def end(self) -> None:
        """Let `run` return once the queue is empty."""
        self._commits.end()

    async def _commit_group(self, group: Sequence[EventRequest]) -> list[Receipt]:
        """Write these requests in one transaction, and report their outcomes."""
        try:
            receipts = await self._write_group(group)
        except Exception:
            self._ledger.forget([EVENTS])
            self.values.forget()
            raise
        for receipt in receipts:
            self._metrics.events_settled(receipt)
        return receipts

    def _fail_group(self, group: Sequence[EventRequest], error: Exception) -> DatabaseUnavailableError:
        """Log the failure of a transaction. Return the error that asks senders to retry."""
        log.get_logger().error("events could not be counted", requests=len(group), why=format_reason(error))
        if not isinstance(error, CONNECTION_ERRORS):
            log.get_logger().error("a fault in the collector", exc_info=error)
        self._metrics.failed()
        return DatabaseUnavailableError()

    async def _write_group(self, group: Sequence[EventRequest]) -> list[Receipt]:
        """Count the new events of these requests, in order, in one transaction."""
        first: dict[Identity, UsageEvent] = {}
        for sent in group:
            for _, event in sent.events:
                first.setdefault((event.source, event.id), event)
        callers = find_callers((sent.caller, [event for _, event in sent.events]) for sent in group)
        written = WrittenEvents()
        async with self._database.writing() as connection:
            if first:
                await self._lock_events(connection)
            for some in split_corrections(first, callers):
                await self._write_some(connection, some, callers, written)
            receipts = [build_receipt(sent, written.fresh, written.known, written.refused) for sent in group]
            letters = await self._store_dead_letters(connection, group, receipts)
            await raise_alerts(connection, [*letters, *written.alerts])
            await record_corrections(connection, written.replaced, callers)
        self._on_counted({(use.customer, use.meter) for use in written.uses})
        customers = {customer for customer, *_ in written.begun} | written.readers
        await self._names.record_names(customers, (meter for _, meter, *_ in written.begun))
        return receipts

    async def _write_some(
        self,
        connection: AsyncConnection,
        sent: Mapping[Identity, UsageEvent],
        callers: Mapping[Identity, Caller],
        written: WrittenEvents,
    ) -> None:
        """Count those of these events that are new, and add the result to `written`."""
        corrections = await find_corrections(connection, sent.values(), callers, self._find_invoiced)
        refused = await self._find_refused(connection, sent.values()) | corrections.refused
        written.refused |= refused
        some = {one: event for one, event in sent.items() if one not in refused}
        if not some:
            return
        there = await insert_events(connection, sorted(some.values()))
        counted = await fetch_counted(connection, sorted(there))
        new = [event for one, event in some.items() if one not in there]
        grown = sum_events(new)
        folded, passed = await self._fold_dimensions(connection, grown, new)
        replaced = {one: both for one, both in corrections.replaced.items() if one in some}
        taken = await take_back(connection, replaced)
        batches = [*build_batches(grown.sums, folded), *build_batches(taken, {})]
        written.begun |= await self._ledger.add_batches(connection, batches)
        written.known |= some | counted
        written.fresh |= some.keys() - counted.keys()
        written.replaced |= replaced
        written.alerts += passed
        written.uses += (*grown.sums, *grown.read, *taken)
        written.readers |= {use.customer for use in grown.read}

    async def _find_refused(self, connection: AsyncConnection, sent: Iterable[UsageEvent]) -> dict[Identity, str]:
        """Return the uncounted events whose readings a cap refuses, with the reasons."""
        by_gauge: dict[tuple[str, str], list[UsageEvent]] = defaultdict(list)
        for event in sent:
            if not event.is_summed and event.item is None:
                by_gauge[event.customer, event.meter].append(event)
        if not by_gauge:
            return {}
        readings = {
            gauge: [Reading(event.time, event.dimensions, event.value) for event in some]
            for gauge, some in by_gauge.items()
        }
        refused: dict[Identity, str] = {}
        for gauge, reasons in (await self._find_refused_readings(connection, readings)).items():
            for index, reason in reasons.items():
                event = by_gauge[gauge][index]
                refused[event.source, event.id] = reason
        counted = await fetch_counted(connection, sorted(refused)) if refused else {}
        return {identity: reason for identity, reason in refused.items() if identity not in counted}

    async def _fold_dimensions(
        self, connection: AsyncConnection, grown: UsageIncrements, new: Sequence[UsageEvent]
    ) -> tuple[dict[DimensionUse, str], list[Alert]]:
        """Fold values beyond a bound and record the result.

        Return the new dimensions of those uses, and the alerts to raise.
        """
        uses = [use for use in (*grown.sums, *grown.read) if use.split]
        if not uses:
            return {}, []
        changed, passed = await self.values.fold(connection, uses)
        if changed:
            rows = [
                {"of_source": event.source, "of_id": event.id, "split": changed[use]}
                for event in new
                if (use := build_use(event)) in changed
            ]
            columns = events.c
            its = (columns.source == sa.bindparam("of_source")) & (columns.id == sa.bindparam("of_id"))
            await connection.execute(sa.update(events).where(its).values(folded=sa.bindparam("split")), rows)
        return changed, passed

    async def _lock_events(self, connection: AsyncConnection) -> None:
        """Lock out other collectors until the transaction ends, because series get their numbers under this lock."""
        row = {"edge": EVENTS, "region": EVENTS_REGION, "seq": 0, "hash": FIRST, "received": 0}
        await self._database.ledger.insert_edges(connection, [row])
        await connection.execute(sa.select(edges.c.edge).where(edges.c.edge == EVENTS).with_for_update())

    async def _store_dead_letters(
        self, connection: AsyncConnection, group: Sequence[EventRequest], receipts: Sequence[Receipt]
    ) -> list[Alert]:
        """Store rejected events while there is room, and return the alerts to raise."""
        now = round(time.time() * 1000)
        rows = [
            DeadLetterRow(generate_id(), now, sent.token, one.error, format_document(one.document))
            for sent, receipt in zip(group, receipts, strict=True)
            if not sent.is_replay
            for one in receipt.rejected
            if one.is_stored
        ]
        if rows:
            counts = sa.select(dead_letters.c.token, sa.func.count()).group_by(dead_letters.c.token)
            held = {row[0]: row[1] for row in await connection.execute(counts)}
            if stored := select_letters(rows, held):
                await connection.execute(sa.insert(dead_letters), [row._asdict() for row in stored])
        first = {row.token: row for row in reversed(rows)}
        return [*map(make_rejection_alert, first.values())]


def split_corrections(
    sent: Mapping[Identity, UsageEvent], callers: Mapping[Identity, Caller]
) -> Iterator[Mapping[Identity, UsageEvent]]:
    """Yield events in parts: one that may replace another one of them is in a later part, so that it finds that one."""
    left = sent
    for _ in range(CHAIN_MAX):
        later = {one: event for one, event in left.items() if one in callers and (event.source, event.replaces) in left}
        if not later or len(later) == len(left):  # The latter replace each other.
            break
        yield {one: event for one, event in left.items() if one not in later}
        left = later
    if left:
        yield left


def build_claim(token: str) -> Claim:
    """Return the share that a token's events are counted against."""
    return (Share(f"token {token}", TOKEN_SHARE),)


def select_letters(rows: Iterable[DeadLetterRow], held: Mapping[str, int]) -> list[DeadLetterRow]:
    """Return the rows that fit beside the stored dead letters. `held` is the number of these by token."""
    counts, selected = Counter(held), list[DeadLetterRow]()
    free = DEAD_LETTERS_MAX - counts.total()
    for row in rows:
        if compute_room(counts[row.token], free, TOKEN_SHARE) > 0:
            selected.append(row)
            counts[row.token] += 1
            free -= 1
    return selected


def make_rejection_alert(row: DeadLetterRow) -> Alert:
    """Return the alert for a dead letter. Only the first one of a token and UTC day raises an alert."""
    day = moment_ms(row.received)[:10]
    return Alert(
        key=f"dead_letters:{row.token}:{day}",
        kind=AlertKind.EVENTS_REJECTED,
        title=f"events of the token {row.token} were rejected on {day}: they count nothing so far",
        details={"token": row.token, "error": row.error, "letter": row.id},
        at=row.received / 1000,
    )


def count_events(sent: EventRequest) -> int:
    """Return the cost of a request in events. An empty request costs one, so that their number is bounded, too."""
    return len(sent.events) + len(sent.rejected) + 1


def build_use(event: UsageEvent) -> DimensionUse:
    """Return the dimension use of an event."""
    return DimensionUse(event.customer, event.meter, event.minute, event.dimensions)


def sum_events(new: Iterable[UsageEvent]) -> UsageIncrements:
    """Sum new events by their dimensions and minute."""
    sums: dict[DimensionUse, int] = {}
    read: dict[DimensionUse, None] = {}
    for event in new:
        use = build_use(event)
        if event.is_summed:
            sums[use] = sums.get(use, 0) + event.value
        else:
            read[use] = None
    return UsageIncrements(sums, read)


def build_batches(sums: Mapping[DimensionUse, int], folded: Mapping[DimensionUse, str]) -> list[Batch]:
    """Build the ledger increments of events in the form of edges: a batch for each minute, without a chain."""
    minutes: dict[int, Counter[CountKey]] = defaultdict(Counter)
    for use, value in sums.items():
        minutes[use.second][use.customer, use.meter, EVENTS_ROUTE, folded.get(use, use.split)] += value
    return [
        Batch(
            EVENTS, EVENTS_REGION, 0, minute, minute + MINUTE, FIRST, tuple(build_row(*item) for item in some.items())
        )
        for minute, some in sorted(minutes.items())
    ]


def build_receipt(
    sent: EventRequest, fresh: set[Identity], known: Mapping[Identity, UsageEvent], refused: Mapping[Identity, str]
) -> Receipt:
    """Build the receipt of a request's events. Events in `fresh` are accepted and removed from it.

    `known` are all events counted by now; `refused` are the events that a cap refuses.
    """
    accepted = duplicates = 0
    rejected = list(sent.rejected)
    for index, event in sent.events:
        identity = event.source, event.id
        if identity in refused:
            rejected.append(Rejection(index, refused[identity], to_json_object(event), is_stored=False))
        elif identity in fresh:
            fresh.discard(identity)
            accepted += 1
        elif differs := list_differences(known[identity], event):
            rejected.append(Rejection(index, OTHER_CONTENT.format(", ".join(differs)), to_json_object(event)))
        else:
            duplicates += 1
    return Receipt(accepted, duplicates, sorted(rejected, key=lambda one: one.position))


def _replace_too_large(sent: EventRequest, error: Exception) -> EventRequest | None:
    """Return the request with every event rejected if their sum is too large, else None."""
    return reject_all(sent) if is_too_large(error) and sent.events else None


def reject_all(sent: EventRequest) -> EventRequest:
    """Return the request with every event rejected."""
    rejected = [Rejection(index, TOO_LARGE, to_json_object(event)) for index, event in sent.events]
    return sent._replace(events=(), rejected=[*sent.rejected, *rejected])


def to_json_object(event: UsageEvent) -> JsonObject:
    """Return an event as the JSON object that its service sent."""
    document = event._asdict()
    is_dated = document.pop("is_dated")
    del document["is_summed"], document["folded"]
    document["time"] = moment(event.time) if is_dated else None
    document["dimensions"] = dimensions.parse_dimensions(event.dimensions) or None
    if (item := document.pop("item")) is not None:
        document["value"] = item
    return {name: value for name, value in document.items() if value is not None}


def format_document(document: JsonValue) -> str:
    """Format the event as sent, as JSON of a bounded length."""
    try:
        text = orjson.dumps(document).decode()
    except orjson.JSONEncodeError:  # orjson parses deeper nesting than it can write.
        return orjson.dumps("(nested too deeply to be kept)").decode()
    return text if len(text) <= LETTER_CHARACTERS_MAX else orjson.dumps(text[:LETTER_CHARACTERS_MAX]).decode()
