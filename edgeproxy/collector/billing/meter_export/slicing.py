"""Slicing: usage in the ledger becomes rows of the outbox, and later usage becomes revisions.

A slice is fixed once, in the transaction that reads the ledger. A later comparison writes any difference as a row of
its own, so that the sum of all rows always equals the ledger.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.meter_export import outbox_rows, slices
from edgeproxy.collector.billing.meter_export.meter_keys import UsageSource, get_meter
from edgeproxy.collector.billing.meter_export.outbox import RowState
from edgeproxy.collector.billing.meter_export.outbox_rows import OutboxRow, new_row
from edgeproxy.collector.billing.meter_export.slices import MeteredSegment
from edgeproxy.collector.billing.mismatch import Comparison as Different
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.rollout import charging
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import billing_exporter, billing_slices
from edgeproxy.collector.database.schema import edges
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.edges import SERVING
from edgeproxy.collector.ledger.queries import LedgerQuery, build_statement

CAUGHT_UP_MAX = 48
"""The most slices that one call fixes."""

Pair = tuple[str, str]
"""A customer, by name, and the key of a meter that is a `sum`."""
Targets = Mapping[Pair, Sequence[MeteredSegment]]
"""The customers and meters whose usage goes to Stripe, with their segments in order of time."""

LENGTH = sa.select(billing_exporter.c.length)
REACHED = sa.select(sa.func.max(billing_slices.c.until))
WATERMARKS = sa.select(edges.c.until).where(SERVING)


class Slicing(NamedTuple):
    """The account that is billed."""

    database: Database
    account: str
    """Stripe's account. Identifiers are unique within an account."""
    gauges: frozenset[str] = frozenset()
    """Meters that are not sums. Such a meter has one value per period, and no slices."""


class OutboxDifference(NamedTuple):
    """A difference between the ledger and the outbox."""

    row: OutboxRow
    """The row as if it were the first of its slice."""
    more: int
    is_new: bool


async def fetch_watermarks(connection: AsyncConnection) -> list[int | None]:
    """Return the watermark of each edge that is not retired: the Unix second that it has reported up to, or None."""
    return list(await connection.scalars(WATERMARKS))


class SpanUsage(NamedTuple):
    """The usage in a span of whole minutes."""

    totals: Mapping[Pair, int]
    """By customer and meter."""
    values: Mapping[tuple[str, str, str, str], int]
    """By customer, meter, dimension and value, for dimensions that plans price by."""

    def get_quantity(self, customer: str, source: UsageSource) -> int:
        """Return a customer's usage of a source."""
        place = (customer, source.meter, source.dimension)
        if source.value:
            return self.values.get((*place, source.value), 0)
        total = self.totals.get((customer, source.meter), 0)
        return total - sum(self.values.get((*place, value), 0) for value in source.listed)


def list_splits(targets: Targets) -> set[tuple[str, str]]:
    """Return the meters and dimensions by which the plans of these targets price usage."""
    sources = {segment.source for segments in targets.values() for segment in segments if segment.source is not None}
    return {(source.meter, source.dimension) for source in sources if source.dimension}


async def fetch_span_usage(
    connection: AsyncConnection, splits: Collection[tuple[str, str]], span: Span, customer: str | None = None
) -> SpanUsage:
    """Return the usage in a span: by meter, and by value for these meters and dimensions.

    The caller holds the roll-up lock.
    """
    totals = await fetch_usage(connection, span, customer)
    state = await rollup.fetch_state(connection) if splits else None
    values: dict[tuple[str, str, str, str], int] = {}
    for meter, dimension in sorted(splits):
        assert state is not None
        query = LedgerQuery(customer, meter, span.start, span.end, ("customer", dimension))
        rows = await connection.execute(build_statement(query, state))
        values |= {(name, meter, dimension, value): ((high or 0) << 32) + (low or 0) for name, value, high, low in rows}
    return SpanUsage(totals, values)


async def fetch_usage(connection: AsyncConnection, span: Span, customer: str | None = None) -> dict[Pair, int]:
    """Return the usage by customer and meter in a span of whole minutes. The caller holds the roll-up lock."""
    query = LedgerQuery(customer, None, span.start, span.end, ("customer", "meter"))
    rows = await connection.execute(build_statement(query, await rollup.fetch_state(connection)))
    return {(name, meter): ((high or 0) << 32) + (low or 0) for name, meter, high, low in rows}


async def find_reached(connection: AsyncConnection) -> int | None:
    """Return the end of the latest fixed slice, or None."""
    until: int | None = (await connection.execute(REACHED)).scalar_one()
    return until


async def is_due(connection: AsyncConnection, since: int, now: float) -> bool:
    """Return whether the slice that begins at `since` may be complete by the Unix second `now`."""
    length = (await connection.execute(LENGTH)).scalar_one()
    return slices.is_complete(slices.next_slice(since, length), now, await fetch_watermarks(connection))


async def fix_slices(slicing: Slicing, targets: Targets, since: int, now: float) -> int:
    """Fix the slices that are complete by the Unix second `now`, and return their number.

    `since` is the start of the first slice if there is none yet.
    """
    count = 0
    while count < CAUGHT_UP_MAX:
        async with slicing.database.writing() as connection:
            slice_seconds = (await connection.execute(LENGTH)).scalar_one()
            last = await find_reached(connection)
            span = slices.next_slice(since if last is None else last, slice_seconds)
            ahead = await outbox_rows.fetch_latest_end(connection, span)
            while span.end < ahead:  # A change of plan sent a part of it earlier.
                span = Span(span.start, slices.next_slice(span.end, slice_seconds).end)
            if not slices.is_complete(span, now, await fetch_watermarks(connection)):
                return count
            await update_outbox(connection, slicing, targets, span, now)
            row = {"start": span.start, "until": span.end, "fixed": int(now * 1000)}
            await connection.execute(sa.insert(billing_slices), [row])
        count += 1
    return count


async def update_outbox(
    connection: AsyncConnection, slicing: Slicing, targets: Targets, span: Span, now: float, customer: str | None = None
) -> int:
    """Write the ledger's usage of a span into the outbox, for all `targets` or one customer.

    Returns the number of written rows.
    """
    await slicing.database.ledger.lock_rollup(connection)
    # Closing an invoice also writes here. The lock prevents two revisions for the same difference.
    await slicing.database.hold(connection, "outbox")
    missing = await fetch_differences(connection, slicing, targets, span, customer)
    ms = int(now * 1000)
    await outbox_rows.insert_rows(connection, [difference.row for difference in missing if difference.is_new], ms)
    for difference in missing:
        if not difference.is_new:
            # A waived or late row stays so. Otherwise the revision checks whether its slice has a free minute.
            state = None if difference.row.state is RowState.READY else difference.row.state
            await outbox_rows.insert_revision(connection, slicing.account, difference.row, difference.more, ms, state)
    return len(missing)


async def fetch_differences(
    connection: AsyncConnection, slicing: Slicing, targets: Targets, span: Span, customer: str | None = None
) -> list[OutboxDifference]:
    """Return the usage that the outbox lacks, for slices that end within a span or with it."""
    rows = await _build_rows(connection, slicing.account, targets, span, customer)
    fixed = await outbox_rows.fetch_fixed(connection, span, customer)
    rows_by_place = {row.place[:3]: row for row in rows}
    names = {name for name, _ in targets}  # A name that is no customer's any more keeps its rows.
    # Usage that corrections took back whole has no row any more. The outbox must lose it too.
    for gone in fixed.keys() - rows_by_place.keys():
        if gone[0] in names and get_meter(gone[1]) not in slicing.gauges:
            rows_by_place[gone] = (await outbox_rows.fetch_slice(connection, *gone))[0]._replace(
                value=0, state=RowState.READY
            )
    return [
        OutboxDifference(row, row.value - fixed.get(place, 0), place not in fixed)
        for place, row in rows_by_place.items()
        if row.value != fixed.get(place, 0)
    ]


async def _build_rows(
    connection: AsyncConnection, account: str, targets: Targets, span: Span, customer: str | None = None
) -> list[OutboxRow]:
    """Return the rows of a slice, without empty ones."""
    waivers = await charging.list_waived(connection)
    splits = list_splits(targets)
    usage_by_span: dict[Span, SpanUsage] = {}
    rows = []
    for pair, segments in targets.items():
        for piece in slices.cut_pieces(span, segments, waivers):
            value = 0
            for part in (*piece.before, piece.span):
                if part not in usage_by_span:  # Almost all customers have the slice in one piece.
                    usage_by_span[part] = await fetch_span_usage(connection, splits, part, customer)
                value += usage_by_span[part].get_quantity(pair[0], piece.segment.source or UsageSource(pair[1]))
            if value:
                segment = piece.segment
                state = RowState.WAIVED if piece.is_waived else RowState.LATE if segment.is_final else None
                place = (*pair, piece.start, 0)
                until, start = piece.span.end, segment.span.start
                rows.append(new_row(account, place, until, start, value, since=segment.since, state=state))
    return rows


async def compare_with_ledger(
    slicing: Slicing, targets: Targets, since: int, now: float
) -> tuple[Span, list[Different]]:
    """Compare the ledger with the outbox from the slice that begins at `since` on, and write missing usage as
    revisions.

    Returns the span, and the units of each customer and meter in both afterwards. In this reconciliation A, any
    remaining difference is a fault of ours.
    """
    grid = billing_slices.c
    async with slicing.database.reading(whole=True) as connection:
        chosen = sa.select(grid.start, grid.until).where(grid.start >= since).order_by(grid.start)
        spans = [Span(*row) for row in await connection.execute(chosen)]
        differing = []
        for _, group in groupby(spans, lambda span: span.start // slices.DAY):
            day = list(group)  # Few days differ, and past days are read by the hour.
            if await _has_differences(connection, slicing, targets, Span(day[0].start, day[-1].end)):
                differing += [span for span in day if await fetch_differences(connection, slicing, targets, span)]
    for span in differing:
        async with slicing.database.writing() as connection:
            await update_outbox(connection, slicing, targets, span, now)
    if not spans:
        return Span(since, since), []
    compared_span = Span(spans[0].start, spans[-1].end)
    async with slicing.database.reading(whole=True) as connection:
        return compared_span, await fetch_totals(connection, slicing, targets, compared_span)


async def level_customer(
    connection: AsyncConnection, slicing: Slicing, targets: Targets, customer: str, span: Span, now: float
) -> None:
    """Write the ledger's usage of one customer in a span, including late usage, into the outbox.

    `targets` are this customer's. Slices are fixed up to the end of the span, or into the slice that contains it.
    """
    if not await _has_differences(connection, slicing, targets, span, customer):
        return
    grid = billing_slices.c
    chosen = sa.select(grid.start, grid.until).where(grid.until > span.start, grid.start < span.end)
    spans = [Span(*row) for row in await connection.execute(chosen.order_by(grid.start))]
    last = spans[-1].end if spans else span.start
    if last < span.end:
        spans.append(Span(last, span.end))
    for _, group in groupby(spans, lambda part: part.start // slices.DAY):
        day = list(group)
        # A day without a difference needs no look at its slices.
        if await _has_differences(connection, slicing, targets, Span(day[0].start, day[-1].end), customer):
            for part in day:
                await update_outbox(connection, slicing, targets, part, now, customer)


async def _has_differences(
    connection: AsyncConnection, slicing: Slicing, targets: Targets, span: Span, customer: str | None = None
) -> bool:
    return any(row.difference for row in await fetch_totals(connection, slicing, targets, span, customer))


async def fetch_totals(
    connection: AsyncConnection, slicing: Slicing, targets: Targets, span: Span, customer: str | None = None
) -> list[Different]:
    """Return the units of each customer and meter in a span, in the ledger and in the outbox."""
    comparisons: dict[Pair, Different] = {}
    names = {name for name, _ in targets}
    for (name, meter, _), value in (await outbox_rows.fetch_fixed(connection, span, customer)).items():
        if name in names and get_meter(meter) not in slicing.gauges:
            comparison = comparisons.get((name, meter), Different(name, meter, 0, 0))
            comparisons[name, meter] = comparison._replace(theirs=comparison.theirs + value)
    for row in await _build_rows(connection, slicing.account, targets, span, customer):
        comparison = comparisons.get(row.place[:2], Different(row.customer, row.meter, 0, 0))
        comparisons[row.place[:2]] = comparison._replace(ours=comparison.ours + row.value)
    return list(comparisons.values())
