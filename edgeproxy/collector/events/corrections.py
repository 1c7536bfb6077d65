"""Corrections: events that take usage back, by a negative value or by replacing an earlier event.

A correction is an event like any other. The replaced event stays, with a mark, and no longer counts. The audit log has
each correction. Usage on a closed invoice cannot be corrected here; a credit note returns a part of an invoice.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.database.schema import events
from edgeproxy.collector.events.event import READING_TAKEN_BACK, SUM_TAKEN_BACK, UsageEvent
from edgeproxy.collector.ledger.dimension_values import DimensionUse
from edgeproxy.collector.ledger.queries import format_time

LOOKED_UP_MAX = 5_000
"""The most events that one statement looks up."""
NO_RIGHT = "takes usage back, which needs a token with sensitive: true"
NO_EVENT = "replaces: there is no such event of this source"
TAKEN_BACK = "replaces: that event was taken back before"
OTHER = "replaces: that event is of another customer or meter"
INVOICED = "time: that usage is on a closed invoice, so credit a part of the invoice instead"

Identity = tuple[str, str]
"""The source and the id of an event."""
FindInvoiced = Callable[[AsyncConnection, Collection[tuple[str, int]]], Awaitable[set[tuple[str, int]]]]
"""Returns the (customer, Unix second) pairs among these whose usage is on a closed invoice."""


class Correction(NamedTuple):
    """A new event that takes usage back, and the event that it replaces; None if it has a negative value instead."""

    event: UsageEvent
    replaced: UsageEvent | None


class Corrections(NamedTuple):
    """New events that take usage back."""

    replaced: dict[Identity, Correction]
    refused: dict[Identity, str]
    """The reasons why other events are refused."""


async def find_nothing_invoiced(_: AsyncConnection, __: object) -> set[tuple[str, int]]:
    """Return an empty set: without billing there are no invoices."""
    return set()


def find_callers(requests: Iterable[tuple[Caller | None, Sequence[UsageEvent]]]) -> dict[Identity, Caller]:
    """Return the caller of each event, if the caller may take usage back."""
    return {(event.source, event.id): caller for caller, sent in requests if caller is not None for event in sent}


async def fetch_counted(connection: AsyncConnection, identities: Sequence[Identity]) -> dict[Identity, UsageEvent]:
    """Return the events that were counted before under these identities."""
    counted: dict[Identity, UsageEvent] = {}
    for begin in range(0, len(identities), LOOKED_UP_MAX):
        some = identities[begin : begin + LOOKED_UP_MAX]
        statement = sa.select(events).where(sa.tuple_(events.c.source, events.c.id).in_(some))
        for row in await connection.execute(statement):
            counted[row.source, row.id] = UsageEvent(*row)
    return counted


async def find_corrections(
    connection: AsyncConnection,
    sent: Iterable[UsageEvent],
    callers: Mapping[Identity, Caller],
    find_invoiced: FindInvoiced,
) -> Corrections:
    """Return the corrections among the events in `sent`, without those counted before."""
    sent_by_identity = {(event.source, event.id): event for event in sent if event.is_correction}
    if not sent_by_identity:
        return Corrections({}, {})
    replaced_names = {
        (event.source, event.replaces) for event in sent_by_identity.values() if event.replaces is not None
    }
    stored = await fetch_counted(connection, sorted({*sent_by_identity, *replaced_names}))
    new = {identity: event for identity, event in sent_by_identity.items() if identity not in stored}
    before = {identity: stored.get((event.source, event.replaces or "")) for identity, event in new.items()}
    uses = {(one.customer, one.time) for one in (*new.values(), *before.values()) if one is not None}
    invoiced = await find_invoiced(connection, uses)
    corrections = Corrections({}, {})
    taken: set[Identity] = set()
    for identity, event in new.items():
        old = before[identity]
        why = NO_RIGHT if identity not in callers else _find_fault(event, old, taken, invoiced)
        if why is not None:
            corrections.refused[identity] = why
            continue
        corrections.replaced[identity] = Correction(event, old)
        if old is not None:
            taken.add((old.source, old.id))
    return corrections


def _find_fault(
    event: UsageEvent, old: UsageEvent | None, taken: Collection[Identity], invoiced: Collection[tuple[str, int]]
) -> str | None:
    """Return the reason why a correction is refused, or None. `old` is the event that it replaces."""
    if event.replaces is None:
        return INVOICED if (event.customer, event.time) in invoiced else None
    if old is None:
        return NO_EVENT
    if old.is_summed in (SUM_TAKEN_BACK, READING_TAKEN_BACK) or (old.source, old.id) in taken:
        return TAKEN_BACK
    if (old.customer, old.meter) != (event.customer, event.meter):
        return OTHER
    return INVOICED if (old.customer, old.time) in invoiced else None


async def take_back(connection: AsyncConnection, replaced: Mapping[Identity, Correction]) -> dict[DimensionUse, int]:
    """Mark the events that corrections replace, and return the negative amounts to add to sums.

    Readings add nothing.
    """
    taken: dict[DimensionUse, int] = {}
    for _, old in replaced.values():
        if old is None:
            continue
        split = old.dimensions if old.folded is None else old.folded
        use = DimensionUse(old.customer, old.meter, old.minute, split)
        mark = SUM_TAKEN_BACK if old.is_summed else READING_TAKEN_BACK
        if old.is_summed:
            taken[use] = taken.get(use, 0) - old.value
        its = (events.c.source == old.source) & (events.c.id == old.id)
        await connection.execute(sa.update(events).where(its).values(is_summed=mark))
    return taken


async def record_corrections(
    connection: AsyncConnection,
    replaced: Mapping[Identity, Correction],
    callers: Mapping[Identity, Caller],
) -> None:
    """Append each correction to the audit log, without ids, because they may name a person."""
    for identity, (event, old) in replaced.items():
        before = None if old is None else _describe(old)
        await audit.append_entry(
            connection, callers[identity], AuditEntry("usage.correct", event.customer, before, _describe(event))
        )


def _describe(event: UsageEvent) -> JsonObject:
    return {"source": event.source, "meter": event.meter, "value": event.value, "time": format_time(event.time)}
