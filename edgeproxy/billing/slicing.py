"""Slices of usage become rows of the outbox, in the transaction that reads the ledger; and what came later, revisions.

What is told to Stripe of a slice is fixed here, once. A comparison with the ledger that follows makes the difference a
row of its own, so that the sum of all rows is always what the ledger has.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.billing import charging, outbox_rows, slices
from edgeproxy.billing.drift import Row as Different
from edgeproxy.billing.outbox_rows import Row, new_row
from edgeproxy.billing.rating import Span
from edgeproxy.database.database import Database
from edgeproxy.database.delivery_tables import billing_exporter, billing_slices
from edgeproxy.database.schema import edges
from edgeproxy.ledger import rollup
from edgeproxy.ledger.edges import SERVING
from edgeproxy.ledger.queries import Asked, statement_of

CAUGHT_UP_MAX = 48
"""Slices that are fixed one after the other before anything else is done."""

Pair = tuple[str, str]
"""A customer, and a meter that is a `sum`."""
Targets = Mapping[Pair, Sequence[Span]]
"""Whose usage of what goes to Stripe, and the segments of it, in the order of time."""


class Slicing(NamedTuple):
    """What is known beforehand of the account that is billed."""

    database: Database
    account: str
    """Of Stripe's: identifiers are of one account."""


async def watermarks(connection: AsyncConnection) -> list[int | None]:
    """Return how far each edge that is not retired has told."""
    return list((await connection.execute(sa.select(edges.c.until).where(SERVING))).scalars())


async def used(connection: AsyncConnection, span: Span, customer: str | None = None) -> dict[Pair, int]:
    """Return what each customer used of each meter in a time of whole minutes; the caller holds the roll-up."""
    question = Asked(customer, None, span.start, span.end, ("customer", "meter"))
    found = await connection.execute(statement_of(question, await rollup.read(connection)))
    return {(name, meter): ((high or 0) << 32) + (low or 0) for name, meter, high, low in found}


async def fix(of: Slicing, targets: Targets, since: int, now: float) -> int:
    """Fix the slices that are complete by the Unix second `now`; return how many.

    `since` is where the first slice begins if there is none yet.
    """
    count = 0
    while count < CAUGHT_UP_MAX:
        async with of.database.writing() as connection:
            row = (await connection.execute(sa.select(billing_exporter.c.length))).scalar_one()
            last = (await connection.execute(sa.select(sa.func.max(billing_slices.c.until)))).scalar_one()
            span = slices.following(since if last is None else last, row)
            if not slices.is_complete(span, now, await watermarks(connection)):
                return count
            free = await charging.waived(connection)
            await of.database.hold_rollup(connection)
            rows = await _rows(connection, of.account, targets, span, free)
            ms = int(now * 1000)
            await outbox_rows.put(connection, rows, ms)
            made = {"start": span.start, "until": span.end, "fixed": ms}
            await connection.execute(sa.insert(billing_slices), [made])
        count += 1
    return count


async def _rows(
    connection: AsyncConnection, account: str, targets: Targets, span: Span, free: Sequence[Span]
) -> list[Row]:
    """Make the rows of a slice, none where nothing was used."""
    read: dict[Span, dict[Pair, int]] = {}
    rows = []
    for pair, segments in targets.items():
        for piece in slices.pieces(span, segments, free):
            if piece.span not in read:  # All but a few customers have the slice in one piece.
                read[piece.span] = await used(connection, piece.span)
            value = read[piece.span].get(pair, 0)
            if value:
                place = (*pair, piece.span.start, 0)
                rows.append(new_row(account, place, piece.span.end, piece.segment, value, is_waived=piece.is_waived))
    return rows


async def compare(of: Slicing, targets: Targets, since: int, now: float) -> tuple[Span, list[Different]]:
    """Hold the ledger against the outbox, slice by slice from `since` on; what the outbox lacks becomes revisions.

    Returns the time and what both have of each customer and meter after that: reconciliation A, where anything but the
    same is a fault of ours.
    """
    ms = int(now * 1000)
    grid = billing_slices.c
    totals: dict[Pair, Different] = {}
    async with of.database.reading(whole=True) as connection:
        chosen = sa.select(grid.start, grid.until).where(grid.start >= since).order_by(grid.start)
        spans = [Span(*row) for row in await connection.execute(chosen)]
        apart = [span for span in spans if await _revisions(connection, of, targets, span)]
    for span in apart:
        async with of.database.writing() as connection:
            await of.database.hold_rollup(connection)
            for row, more, is_free in await _revisions(connection, of, targets, span):
                await outbox_rows.revise(connection, of.account, row, more, ms, waived=is_free)
    if not spans:
        return Span(since, since), []
    whole = Span(spans[0].start, spans[-1].end)
    async with of.database.reading(whole=True) as connection:
        free = await charging.waived(connection)
        wanted = await _rows(connection, of.account, targets, whole, free)
        fixed = await outbox_rows.fixed(connection, whole.start, whole.end)
    for (customer, meter, _), value in fixed.items():
        ours = totals.get((customer, meter), Different(customer, meter, 0, 0))
        totals[customer, meter] = ours._replace(theirs=ours.theirs + value)
    for row in wanted:
        ours = totals.get(row.place[:2], Different(row.customer, row.meter, 0, 0))
        totals[row.place[:2]] = ours._replace(ours=ours.ours + row.value)
    return whole, list(totals.values())


async def _revisions(
    connection: AsyncConnection, of: Slicing, targets: Targets, span: Span
) -> list[tuple[Row, int, bool]]:
    """What is to be added to the rows of a slice that was fixed, and whether that is waived."""
    free = await charging.waived(connection)
    wanted = {row.place[:3]: row for row in await _rows(connection, of.account, targets, span, free)}
    had = await outbox_rows.fixed(connection, span.start, span.end)
    for gone in had.keys() - wanted.keys():
        wanted[gone] = (await outbox_rows.of_slice(connection, *gone))[0]._replace(value=0)
    return [
        (row, row.value - had.get(place, 0), any(one.start <= row.slice < one.end for one in free))
        for place, row in wanted.items()
        if row.value != had.get(place, 0)
    ]
