"""Reconciliation B compares the outbox with Stripe's sums of meter events, day by day, and confirms equal rows."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing import discrepancies
from edgeproxy.collector.billing.discrepancies import CostDifference
from edgeproxy.collector.billing.meter_export import outbox_rows
from edgeproxy.collector.billing.meter_export.exporter import (
    MeterEvents,
    MeterEventsUnavailableError,
    MeterEventsUnlistedError,
)
from edgeproxy.collector.billing.meter_export.meter_keys import list_prices
from edgeproxy.collector.billing.meter_export.outbox import RowState
from edgeproxy.collector.billing.mismatch import Comparison, Drift, Level
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
"""The number of reads before a difference counts, because Stripe's sums lag."""
READ_PAUSE_SECONDS = 600.0
READS_AT_ONCE_MAX = 8
READ_RATE = 10.0
"""Sums read per second. The rest of Stripe's rate is for waiting customers."""
READ_TRIES = 5
"""The number of requests for a sum if Stripe does not answer."""
SETTLED_SECONDS = 2 * HOUR
"""The sums of a day are read this many seconds after its end."""
COMPARED_DAYS = 35
"""Unconfirmed rows are compared for this many days. Stripe accepts no older events."""
DOUBTFUL = (RowState.ACCEPTED, RowState.UNKNOWN, RowState.SENDING)
"""States of rows that were sent and may not be counted."""
columns = billing_outbox.c
Pause = Callable[[float], Awaitable[None]]


class ExpectedSum(NamedTuple):
    """The sum that Stripe should have for a customer and a meter, in the meter's unit."""

    certain: int
    """Units of rows that Stripe has accepted."""
    unknown: int
    """Units of rows that Stripe may or may not have counted."""
    is_confirmed: bool
    """True if no row is in doubt."""


async def reconcile_days(database: Database, stripe: MeterEvents, now: float, *, pause: Pause = asyncio.sleep) -> int:
    """Compare each past day that was not compared yet, and the doubtful rows of earlier days.

    Returns the number of days compared for the first time. Raises MeterEventsUnavailableError; earlier days stay
    recorded.
    """
    end = int(now - SETTLED_SECONDS) // DAY * DAY
    async with database.reading() as connection:
        reconciled_until = await discrepancies.find_reconciled_until(connection, "B")
    first = end - DAY if reconciled_until is None else max(reconciled_until, end - COMPARED_DAYS * DAY)
    for start in range(first, end, DAY):
        # Later answers of Stripe can settle rows of days that were compared long ago.
        for doubtful in await _list_doubtful_days(database, start):
            await reconcile_span(database, stripe, doubtful, now, pause=pause, only_doubtful=True)
        await reconcile_span(database, stripe, Span(start, start + DAY), now, pause=pause)
    return max(0, end - first) // DAY


async def reconcile_span(
    database: Database,
    stripe: MeterEvents,
    span: Span,
    now: float,
    *,
    pause: Pause = asyncio.sleep,
    only_doubtful: bool = False,
) -> tuple[Drift, Level]:
    """Compare the events of a span of whole minutes with Stripe's sums, and record the result.

    `only_doubtful` leaves out pairs without doubtful rows. Raises MeterEventsUnavailableError, and then records
    nothing.
    """
    agreed: dict[Pair, Comparison] = {}
    differing: dict[Pair, Comparison] = {}
    async with database.reading() as connection:
        prices = await _fetch_prices(connection)
    bucket = Bucket(READ_RATE, time.monotonic())
    for number in range(READS):
        if number:
            await pause(READ_PAUSE_SECONDS)
        # Read again before each comparison, because rows are sent and accepted meanwhile.
        sums = await _fetch_expected(database, span)
        pairs = differing if number else _choose_pairs(sums, prices, span, only_doubtful=only_doubtful)
        expected = {pair: sums[pair] for pair in pairs if pair in sums}
        stripe_sums = await _fetch_stripe_sums(stripe, expected, span, bucket, pause)
        differing = {}
        for pair, (certain, unknown, _) in expected.items():
            # If Stripe has exactly all of them, the doubtful rows were counted. Any other sum does not show the counted
            # ones.
            is_all_counted = certain + unknown == stripe_sums[pair]
            row = Comparison(*pair, certain + unknown if is_all_counted else certain, stripe_sums[pair])
            (differing if row.difference else agreed)[pair] = row
            if not row.difference:
                await _confirm_rows(database, pair, span, now, unknown=is_all_counted)
        if not differing:
            break
    rows = [*agreed.values(), *differing.values()]
    cost = _compute_cost(rows, prices)
    async with database.writing() as connection:
        return await discrepancies.record_reconciliation(connection, "B", span, rows, now, cost)


def _compute_cost(rows: Sequence[Comparison], prices: Mapping[Pair, int]) -> CostDifference:
    """Return the approximate cost of these rows and of their differences."""
    row_prices = [(row, prices.get((row.customer, row.meter), 0)) for row in rows]
    return CostDifference(
        sum(money.compute_amount(row.ours, price) for row, price in row_prices),
        sum(money.compute_amount(abs(row.difference), price) for row, price in row_prices),
    )


def _choose_pairs(
    sums: Mapping[Pair, ExpectedSum], prices: Mapping[Pair, int], span: Span, *, only_doubtful: bool
) -> Collection[Pair]:
    """Return the pairs whose sums are read at Stripe."""
    weights = {
        pair: Weight(pair_sum.is_confirmed, money.compute_amount(pair_sum.certain, prices.get(pair, 0)))
        for pair, pair_sum in sums.items()
        if not (only_doubtful and pair_sum.is_confirmed)
    }
    return sampling.choose_pairs(weights, span.start // DAY, sampling.PAIRS_MAX)


async def _list_doubtful_days(database: Database, before: int) -> list[Span]:
    """Return the days before a Unix second that have doubtful rows."""
    day = columns.dated - columns.dated % DAY
    statement = (
        sa.select(day)
        .distinct()
        .where(columns.state.in_(DOUBTFUL), columns.dated < before, columns.dated >= before - COMPARED_DAYS * DAY)
        .order_by(day)
    )
    async with database.reading() as connection:
        return [Span(at, at + DAY) for at in await connection.scalars(statement)]


async def _fetch_expected(database: Database, span: Span) -> Mapping[Pair, ExpectedSum]:
    """Return the units that Stripe should have for each pair: certain and possible ones."""

    def total(*states: RowState) -> sa.ColumnElement[int]:
        return sa.func.coalesce(sa.func.sum(sa.case((columns.state.in_(states), columns.value), else_=0)), 0)

    pair = (columns.customer, columns.meter)
    doubtful = sa.func.sum(sa.case((columns.state.in_(DOUBTFUL), 1), else_=0))
    statement = (
        sa.select(
            *pair, total(RowState.ACCEPTED, RowState.CONFIRMED), total(RowState.UNKNOWN, RowState.SENDING), doubtful
        )
        .where(columns.dated >= span.start, columns.dated < span.end, columns.state.in_(outbox_rows.COUNTED))
        .group_by(*pair)
    )
    async with database.reading() as connection:
        rows = (await connection.execute(statement)).all()
    return {
        # PostgreSQL returns sums of BIGINT as Decimal.
        (name, meter): ExpectedSum(int(certain), int(unknown), not doubtful_count)
        for name, meter, certain, unknown, doubtful_count in rows
    }


async def _fetch_stripe_sums(
    stripe: MeterEvents, pairs: Collection[Pair], span: Span, bucket: Bucket, pause: Pause
) -> dict[Pair, int]:
    """Fetch the sums of these pairs, READS_AT_ONCE_MAX at a time; 0 for a meter that Stripe does not list."""
    at_once = asyncio.Semaphore(READS_AT_ONCE_MAX)

    async def fetch_sum(pair: Pair) -> tuple[Pair, int]:
        async with at_once:
            for attempt in range(1, READ_TRIES + 1):
                await asyncio.sleep(bucket.reserve_slot(time.monotonic()))
                try:
                    return pair, await stripe.fetch_sum(*pair, span)
                except MeterEventsUnlistedError:
                    return pair, 0
                except MeterEventsUnavailableError:
                    if attempt == READ_TRIES:
                        raise
                    await pause(2.0**attempt)
            # Never reached, because the last attempt returns or raises. The checker of types does not see that.
            raise AssertionError

    return dict(await asyncio.gather(*map(fetch_sum, pairs)))


async def _confirm_rows(database: Database, pair: Pair, span: Span, now: float, *, unknown: bool) -> None:
    """Confirm the rows of a pair whose sum Stripe has."""
    states = [RowState.ACCEPTED, RowState.UNKNOWN] if unknown else [RowState.ACCEPTED]
    statement = outbox_rows.build_transition(states, RowState.CONFIRMED, int(now * 1000))
    statement = statement.where(columns.customer == pair[0], columns.meter == pair[1])
    async with database.writing() as connection:
        await connection.execute(statement.where(columns.dated >= span.start, columns.dated < span.end))


async def _fetch_prices(connection: AsyncConnection) -> dict[Pair, int]:
    """Return the price of a unit beyond the included amount for each customer, by name and meter, in 10⁻¹² cents."""
    joined = sa.select(customers.c.name, subscriptions.c.plan_version).join_from(
        subscriptions, customers, customers.c.id == subscriptions.c.customer
    )
    rows = (await connection.execute(joined.where(subscriptions.c.state != CANCELED))).all()
    plans = await plan_versions.fetch_readable_plans(connection, {row.plan_version for row in rows})
    return {
        (row.name, key): price.price
        for row in rows
        if row.plan_version in plans
        for key, price in list_prices(plans[row.plan_version]).items()
        if price.price is not None
    }
