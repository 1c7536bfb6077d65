"""Slices of usage become rows of the outbox, in the transaction that reads the ledger; and what came later, revisions.

What is told to Stripe of a slice is fixed here, once. A comparison with the ledger that follows makes the difference a
row of its own, so that the sum of all rows is always what the ledger has.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.meter_export import outbox_rows, slices
from edgeproxy.collector.billing.meter_export.outbox import State
from edgeproxy.collector.billing.meter_export.outbox_rows import Row, new_row
from edgeproxy.collector.billing.meter_export.slices import Told
from edgeproxy.collector.billing.mismatch import Row as Different
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import billing_exporter, billing_slices
from edgeproxy.collector.database.schema import edges
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.edges import SERVING
from edgeproxy.collector.ledger.queries import Asked, statement_of

CAUGHT_UP_MAX = 48
"""Slices that are fixed one after the other before anything else is done."""

Pair = tuple[str, str]
"""A customer, by name, and a meter that is a `sum`."""
Targets = Mapping[Pair, Sequence[Told]]
"""Whose usage of what goes to Stripe, and the segments of it, in the order of time."""

LENGTH = sa.select(billing_exporter.c.length)
REACHED = sa.select(sa.func.max(billing_slices.c.until))
WATERMARKS = sa.select(edges.c.until).where(SERVING)


class Slicing(NamedTuple):
    """What is known beforehand of the account that is billed."""

    database: Database
    account: str
    """Of Stripe's: identifiers are of one account."""
    gauges: frozenset[str] = frozenset()
    """Meters that are no sums: a period has one value of them, and no slices."""


class Difference(NamedTuple):
    """What the outbox lacks."""

    row: Row
    """As it would be if it were the first of its slice."""
    more: int
    is_new: bool


async def watermarks(connection: AsyncConnection) -> list[int | None]:
    """Return how far each edge that is not retired has told."""
    return list((await connection.execute(WATERMARKS)).scalars())


async def used(connection: AsyncConnection, span: Span, customer: str | None = None) -> dict[Pair, int]:
    """Return what each customer used of each meter in a time of whole minutes; the caller holds the roll-up."""
    question = Asked(customer, None, span.start, span.end, ("customer", "meter"))
    found = await connection.execute(statement_of(question, await rollup.read(connection)))
    return {(name, meter): ((high or 0) << 32) + (low or 0) for name, meter, high, low in found}


async def reached(connection: AsyncConnection) -> int | None:
    """Return the end of the latest slice that is fixed."""
    until: int | None = (await connection.execute(REACHED)).scalar_one()
    return until


async def is_due(connection: AsyncConnection, since: int, now: float) -> bool:
    """Whether the slice that begins at `since` may be complete by the Unix second `now`."""
    length = (await connection.execute(LENGTH)).scalar_one()
    return slices.is_complete(slices.following(since, length), now, await watermarks(connection))


async def fix(of: Slicing, targets: Targets, since: int, now: float) -> int:
    """Fix the slices that are complete by the Unix second `now`; return how many.

    `since` is where the first slice begins if there is none yet.
    """
    count = 0
    while count < CAUGHT_UP_MAX:
        async with of.database.writing() as connection:
            row = (await connection.execute(LENGTH)).scalar_one()
            last = await reached(connection)
            span = slices.following(since if last is None else last, row)
            ahead = await outbox_rows.ahead(connection, span)
            while span.end < ahead:  # Some of it was told earlier, as a plan was changed.
                span = Span(span.start, slices.following(span.end, row).end)
            if not slices.is_complete(span, now, await watermarks(connection)):
                return count
            await bring(connection, of, targets, span, now)
            made = {"start": span.start, "until": span.end, "fixed": int(now * 1000)}
            await connection.execute(sa.insert(billing_slices), [made])
        count += 1
    return count


async def bring(
    connection: AsyncConnection, of: Slicing, targets: Targets, span: Span, now: float, customer: str | None = None
) -> int:
    """Have the outbox say what the ledger does of a time, of all `targets` or of one customer's; return how many rows
    that took."""
    await of.database.hold_rollup(connection)
    # Whoever closes an invoice brings too: the same difference must not become a revision twice.
    await of.database.hold(connection, "outbox")
    found = await differences(connection, of, targets, span, customer)
    ms = int(now * 1000)
    await outbox_rows.put(connection, [one.row for one in found if one.is_new], ms)
    for one in found:
        if not one.is_new:
            # What is waived or late is so; whether there is a minute for it is for the revision to say.
            state = None if one.row.state is State.READY else one.row.state
            await outbox_rows.revise(connection, of.account, one.row, one.more, ms, state)
    return len(found)


async def differences(
    connection: AsyncConnection, of: Slicing, targets: Targets, span: Span, customer: str | None = None
) -> list[Difference]:
    """What the outbox lacks of the slices that end within a time or with it."""
    rows = await _rows(connection, of.account, targets, span, customer)
    had = await outbox_rows.fixed(connection, span, customer)
    wanted = {row.place[:3]: row for row in rows}
    names = {name for name, _ in targets}  # Who is no customer any more keeps what there is.
    for gone in had.keys() - wanted.keys():
        if gone[0] in names and gone[1] not in of.gauges:
            wanted[gone] = (await outbox_rows.of_slice(connection, *gone))[0]._replace(value=0, state=State.READY)
    return [
        Difference(row, row.value - had.get(place, 0), place not in had)
        for place, row in wanted.items()
        if row.value != had.get(place, 0)
    ]


async def _rows(
    connection: AsyncConnection, account: str, targets: Targets, span: Span, customer: str | None = None
) -> list[Row]:
    """Make the rows of a slice, none where nothing was used."""
    free = await charging.waived(connection)
    read: dict[Span, dict[Pair, int]] = {}
    rows = []
    for pair, segments in targets.items():
        for piece in slices.pieces(span, segments, free):
            value = 0
            for part in (*piece.before, piece.span):
                if part not in read:  # All but a few customers have the slice in one piece.
                    read[part] = await used(connection, part, customer)
                value += read[part].get(pair, 0)
            if value:
                segment = piece.segment
                state = State.WAIVED if piece.is_waived else State.LATE if segment.is_final else None
                place = (*pair, piece.start, 0)
                until, start = piece.span.end, segment.span.start
                rows.append(new_row(account, place, until, start, value, since=segment.since, state=state))
    return rows


async def compare(of: Slicing, targets: Targets, since: int, now: float) -> tuple[Span, list[Different]]:
    """Hold the ledger against the outbox, from the slice on that begins at `since` or after it; what the outbox lacks
    becomes revisions.

    Returns the time and what both have of each customer and meter after that: reconciliation A, where anything but the
    same is a fault of ours.
    """
    grid = billing_slices.c
    async with of.database.reading(whole=True) as connection:
        chosen = sa.select(grid.start, grid.until).where(grid.start >= since).order_by(grid.start)
        spans = [Span(*row) for row in await connection.execute(chosen)]
        apart = []
        for _, some in groupby(spans, lambda span: span.start // slices.DAY):
            day = list(some)  # Few days differ, and those that are over are read by the hour.
            if await _is_apart(connection, of, targets, Span(day[0].start, day[-1].end)):
                apart += [span for span in day if await differences(connection, of, targets, span)]
    for span in apart:
        async with of.database.writing() as connection:
            await bring(connection, of, targets, span, now)
    if not spans:
        return Span(since, since), []
    whole = Span(spans[0].start, spans[-1].end)
    async with of.database.reading(whole=True) as connection:
        return whole, await totals(connection, of, targets, whole)


async def level(
    connection: AsyncConnection, of: Slicing, targets: Targets, customer: str, span: Span, now: float
) -> None:
    """Have the outbox say what the ledger does of one customer in a time, also of what came late: `targets` are this
    customer's. Slices are fixed up to its end, or to within the one that it ends in.
    """
    if not await _is_apart(connection, of, targets, span, customer):
        return
    grid = billing_slices.c
    chosen = sa.select(grid.start, grid.until).where(grid.until > span.start, grid.start < span.end)
    spans = [Span(*row) for row in await connection.execute(chosen.order_by(grid.start))]
    last = spans[-1].end if spans else span.start
    if last < span.end:
        spans.append(Span(last, span.end))
    for _, some in groupby(spans, lambda one: one.start // slices.DAY):
        day = list(some)
        if await _is_apart(connection, of, targets, Span(day[0].start, day[-1].end), customer):
            for one in day:
                await bring(connection, of, targets, one, now, customer)


async def _is_apart(
    connection: AsyncConnection, of: Slicing, targets: Targets, span: Span, customer: str | None = None
) -> bool:
    return any(row.difference for row in await totals(connection, of, targets, span, customer))


async def totals(
    connection: AsyncConnection, of: Slicing, targets: Targets, span: Span, customer: str | None = None
) -> list[Different]:
    """What the ledger and the outbox have of each customer and meter in a time."""
    found: dict[Pair, Different] = {}
    names = {name for name, _ in targets}
    for (name, meter, _), value in (await outbox_rows.fixed(connection, span, customer)).items():
        if name in names and meter not in of.gauges:
            both = found.get((name, meter), Different(name, meter, 0, 0))
            found[name, meter] = both._replace(theirs=both.theirs + value)
    for row in await _rows(connection, of.account, targets, span, customer):
        both = found.get(row.place[:2], Different(row.customer, row.meter, 0, 0))
        found[row.place[:2]] = both._replace(ours=both.ours + row.value)
    return list(found.values())
