"""The outbox is held against Stripe's sums (reconciliation B), day by day; what agrees is confirmed."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.discrepancies import Money
from edgeproxy.collector.billing.meter_export import outbox_rows
from edgeproxy.collector.billing.meter_export.exporter import Away, MeterEvents, Unlisted
from edgeproxy.collector.billing.meter_export.outbox import State
from edgeproxy.collector.billing.mismatch import Drift, Level, Row
from edgeproxy.collector.billing.rating import money
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.reconciliation import sampling
from edgeproxy.collector.billing.reconciliation.sampling import Pair, Weight
from edgeproxy.collector.billing.stripe.request_rates import Bucket
from edgeproxy.collector.billing.subscriptions import plan_versions
from edgeproxy.collector.database.billing_tables import CANCELED, subscriptions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import billing_outbox
from edgeproxy.collector.database.schema import DAY, HOUR, customers

READS = 3
"""Times that a sum is read before it is taken for a difference: Stripe's sums lag."""
READ_PAUSE_SECONDS = 600.0
READS_AT_ONCE_MAX = 8
READ_RATE = 10.0
"""Sums that are read in a second; customers who wait have the rest of what Stripe allows."""
READ_TRIES = 5
"""Times that Stripe is asked for a sum, should it not answer."""
SETTLED_SECONDS = 2 * HOUR
"""Seconds after the end of a day at which its sums are read."""
KNOWN_DAYS = 35
"""Days for which what is not confirmed is looked for: Stripe takes no older events."""
DOUBTFUL = (State.ACCEPTED, State.UNKNOWN, State.SENDING)
"""States of what was sent, and is not known to be counted."""
columns = billing_outbox.c
Pause = Callable[[float], Awaitable[None]]


class Ours(NamedTuple):
    """What Stripe should have of a pair."""

    sure: int
    unknown: int
    """What nobody knows of."""
    is_confirmed: bool


async def days(database: Database, stripe: MeterEvents, now: float, *, pause: Pause = asyncio.sleep) -> int:
    """Hold each day that is over and was not yet against Stripe's sums, and of earlier ones what is in doubt; return
    how many days that were. Raises Away: what was done is kept.
    """
    end = int(now - SETTLED_SECONDS) // DAY * DAY
    async with database.reading() as connection:
        done = await discrepancies.reached(connection, "B")
    first = end - DAY if done is None else max(done, end - KNOWN_DAYS * DAY)
    for start in range(first, end, DAY):
        for doubtful in await _doubtful_days(database, start):
            await with_stripe(database, stripe, doubtful, now, pause=pause, only_doubtful=True)
        await with_stripe(database, stripe, Span(start, start + DAY), now, pause=pause)
    return max(0, end - first) // DAY


async def with_stripe(
    database: Database,
    stripe: MeterEvents,
    span: Span,
    now: float,
    *,
    pause: Pause = asyncio.sleep,
    only_doubtful: bool = False,
) -> tuple[Drift, Level]:
    """Hold what is dated in a time of whole minutes against Stripe's sums; raises Away, and nothing is kept then.

    `only_doubtful`: pairs alone of which something is not known to be counted.
    """
    apart: dict[Pair, Row] = {}
    agreed: dict[Pair, Row] = {}
    async with database.reading() as connection:
        prices = await _prices(connection)
    bucket = Bucket(READ_RATE, time.monotonic())
    chosen: Collection[Pair] = ()
    for number in range(READS):
        if number:
            await pause(READ_PAUSE_SECONDS)
        ours = await _sums(database, span)
        if not number:
            weights = {
                pair: Weight(one.is_confirmed, money.amount(one.sure, prices.get(pair, 0)))
                for pair, one in ours.items()
                if not (only_doubtful and one.is_confirmed)
            }
            chosen = sampling.chosen(weights, span.start // DAY, sampling.PAIRS_MAX)
        wanted = {pair: one for pair, one in ours.items() if pair in (apart if number else chosen)}
        theirs = await _theirs(stripe, wanted, span, bucket, pause)
        apart = {}
        for pair, (sure, unknown, _) in wanted.items():
            both = sure + unknown == theirs[pair]
            row = Row(*pair, sure + unknown if both else sure, theirs[pair])
            if row.difference:
                apart[pair] = row
            else:
                agreed[pair] = row
                await _confirm(database, pair, span, now, unknown=both)
        if not apart:
            break
    rows = {**agreed, **apart}
    cost = Money(
        sum(money.amount(row.ours, prices.get(pair, 0)) for pair, row in rows.items()),
        sum(money.amount(abs(row.difference), prices.get(pair, 0)) for pair, row in apart.items()),
    )
    async with database.writing() as connection:
        return await discrepancies.keep(connection, "B", span, list(rows.values()), now, cost)


async def _doubtful_days(database: Database, before: int) -> list[Span]:
    """The days before a day of which something is not known to be counted."""
    day = columns.dated - columns.dated % DAY
    wanted = (
        sa.select(day)
        .distinct()
        .where(columns.state.in_(DOUBTFUL), columns.dated < before, columns.dated >= before - KNOWN_DAYS * DAY)
        .order_by(day)
    )
    async with database.reading() as connection:
        return [Span(at, at + DAY) for at in (await connection.execute(wanted)).scalars()]


async def _sums(database: Database, span: Span) -> Mapping[Pair, Ours]:
    """What Stripe should have of each pair: surely, and what nobody knows of."""

    def total(*states: State) -> sa.ColumnElement[int]:
        return sa.func.coalesce(sa.func.sum(sa.case((columns.state.in_(states), columns.value), else_=0)), 0)

    pair = (columns.customer, columns.meter)
    doubtful = sa.func.sum(sa.case((columns.state.in_(DOUBTFUL), 1), else_=0))
    statement = (
        sa.select(*pair, total(State.ACCEPTED, State.CONFIRMED), total(State.UNKNOWN, State.SENDING), doubtful)
        .where(columns.dated >= span.start, columns.dated < span.end, columns.state.in_(outbox_rows.COUNTED))
        .group_by(*pair)
    )
    async with database.reading() as connection:
        rows = (await connection.execute(statement)).all()
    return {(name, meter): Ours(int(sure), int(unknown), not many) for name, meter, sure, unknown, many in rows}


async def _theirs(
    stripe: MeterEvents, pairs: Collection[Pair], span: Span, bucket: Bucket, pause: Pause
) -> dict[Pair, int]:
    at_once = asyncio.Semaphore(READS_AT_ONCE_MAX)

    async def read(pair: Pair) -> tuple[Pair, int]:
        async with at_once:
            for tried in range(1, READ_TRIES + 1):
                await asyncio.sleep(bucket.delay(time.monotonic()))
                try:
                    return pair, await stripe.counted(*pair, span)
                except Unlisted:
                    return pair, 0
                except Away:
                    if tried == READ_TRIES:
                        raise
                    await pause(2.0**tried)
            raise AssertionError

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


async def _prices(connection: AsyncConnection) -> dict[Pair, int]:
    """What a unit beyond the included amount costs each customer now, by name and meter, in 10⁻¹² cents."""
    joined = sa.select(customers.c.name, subscriptions.c.plan_version).join_from(
        subscriptions, customers, customers.c.id == subscriptions.c.customer
    )
    rows = (await connection.execute(joined.where(subscriptions.c.state != CANCELED))).all()
    plans = await plan_versions.versions(connection, {row.plan_version for row in rows})
    return {
        (row.name, meter): price.price
        for row in rows
        for meter, price in plans[row.plan_version].meters.items()
        if price.price is not None
    }
