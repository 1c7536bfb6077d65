"""The outbox is held against Stripe's sums (reconciliation B), day by day; what agrees is confirmed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import sqlalchemy as sa

from edgeproxy.billing import outbox_rows, reconciliations
from edgeproxy.billing.drift import Drift, Level, Row
from edgeproxy.billing.exporter import MeterEvents
from edgeproxy.billing.outbox import State
from edgeproxy.billing.rating import Span
from edgeproxy.database.database import Database
from edgeproxy.database.delivery_tables import billing_outbox

READS = 3
"""Times that a sum is read before it is taken for a difference: Stripe's sums lag."""
READ_PAUSE_SECONDS = 600.0
READS_AT_ONCE_MAX = 8
columns = billing_outbox.c

Pair = tuple[str, str]


async def with_stripe(
    database: Database,
    stripe: MeterEvents,
    span: Span,
    now: float,
    *,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> tuple[Drift, Level]:
    """Hold what is dated in a time of whole minutes against Stripe's sums; raises Away, and nothing is kept then."""
    apart: dict[Pair, Row] = {}
    agreed: dict[Pair, Row] = {}
    for number in range(READS):
        if number:
            await pause(READ_PAUSE_SECONDS)
        ours = await _sums(database, span)
        wanted = {pair: sums for pair, sums in ours.items() if not number or pair in apart}
        theirs = await _theirs(stripe, list(wanted), span)
        apart = {}
        for pair, (sure, unknown) in wanted.items():
            both = sure + unknown == theirs[pair]
            row = Row(*pair, sure + unknown if both else sure, theirs[pair])
            if row.difference:
                apart[pair] = row
            else:
                agreed[pair] = row
                await _confirm(database, pair, span, now, unknown=both)
        if not apart:
            break
    async with database.writing() as connection:
        return await reconciliations.keep(connection, "B", span, [*agreed.values(), *apart.values()], now)


async def _sums(database: Database, span: Span) -> Mapping[Pair, tuple[int, int]]:
    """What Stripe should have of each pair: surely, and what nobody knows of."""

    def total(*states: State) -> sa.ColumnElement[int]:
        return sa.func.coalesce(sa.func.sum(sa.case((columns.state.in_(states), columns.value), else_=0)), 0)

    pair = (columns.customer, columns.meter)
    statement = (
        sa.select(*pair, total(State.ACCEPTED, State.CONFIRMED), total(State.UNKNOWN, State.SENDING))
        .where(columns.dated >= span.start, columns.dated < span.end, columns.state.in_(outbox_rows.COUNTED))
        .group_by(*pair)
    )
    async with database.reading() as connection:
        rows = (await connection.execute(statement)).all()
    return {(customer, meter): (int(sure), int(unknown)) for customer, meter, sure, unknown in rows}


async def _theirs(stripe: MeterEvents, pairs: Sequence[Pair], span: Span) -> dict[Pair, int]:
    at_once = asyncio.Semaphore(READS_AT_ONCE_MAX)

    async def read(pair: Pair) -> tuple[Pair, int]:
        async with at_once:
            return pair, await stripe.counted(*pair, span)

    return dict(await asyncio.gather(*map(read, pairs)))


async def _confirm(database: Database, pair: Pair, span: Span, now: float, *, unknown: bool) -> None:
    """What Stripe's sum has is counted."""
    states = [State.ACCEPTED, State.UNKNOWN] if unknown else [State.ACCEPTED]
    statement = (
        sa.update(billing_outbox)
        .where(columns.customer == pair[0], columns.meter == pair[1], columns.state.in_(states))
        .where(columns.dated >= span.start, columns.dated < span.end)
        .values(state=State.CONFIRMED, settled=int(now * 1000))
    )
    async with database.writing() as connection:
        await connection.execute(statement)
