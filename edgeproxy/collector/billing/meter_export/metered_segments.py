"""Metered segments: the segments collected by Stripe's meters, and the quantities counted by Stripe."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.meter_export import outbox_rows
from edgeproxy.collector.billing.meter_export.exporter import MeterEvents
from edgeproxy.collector.billing.meter_export.meter_keys import UsageSource, list_sources
from edgeproxy.collector.billing.meter_export.outbox import RowState
from edgeproxy.collector.billing.meter_export.slices import MINUTE, MeteredSegment
from edgeproxy.collector.billing.meter_export.slicing import Pair, Slicing, Targets
from edgeproxy.collector.billing.mismatch import Comparison
from edgeproxy.collector.billing.rating.rater import Span
from edgeproxy.collector.billing.subscriptions import plan_versions
from edgeproxy.collector.database.billing_tables import billing_customers, invoices, segments, subscriptions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.delivery_tables import billing_outbox
from edgeproxy.collector.database.schema import customers
from edgeproxy.config.meters import Meter

KNOWN_SECONDS = 62 * 86400
"""For how many seconds after their end segments are still read. Slices are shorter, so that none is missed."""
METERS = "meters"
"""The collection of usage that goes to Stripe's meters."""


class UsageMismatchError(Exception):
    """Stripe's sums of a segment differ from the sent quantities."""

    def __init__(self, accepted: dict[str, int], rows: list[Comparison]) -> None:
        super().__init__("Stripe's sums differ from the events that it accepted")
        self.accepted = accepted
        """The units that Stripe has accepted, by meter."""
        self.rows = rows
        """The units of each meter that differs: accepted by Stripe, and counted by Stripe."""


def is_sum(meters: Mapping[str, Meter], meter: str) -> bool:
    """Return whether usage of a meter adds up, so that it is sent slice by slice."""
    return meter not in meters or meters[meter].aggregate == "sum"


def build_slicing(database: Database, is_live: bool, meters: Mapping[str, Meter]) -> Slicing:
    """Return the slicing terms of a key's account. A database is billed by one account in each of its modes."""
    gauges = frozenset(meter for meter in meters if not is_sum(meters, meter))
    return Slicing(database, "live" if is_live else "test", gauges)


class SegmentRow(NamedTuple):
    """A segment row of a subscription. Times are Unix seconds."""

    start: int
    end: int
    plan_version: str
    period_start: int
    period_end: int
    collection: str
    counted_from: int | None
    """The first Unix second that Stripe counts events for, or None if Stripe counts none."""
    counted_until: int | None
    """The Unix second when Stripe's counts became final; None while they may grow."""


SEGMENT_FIELDS = [*(segments.c[name] for name in SegmentRow._fields[:6]), segments.c.told_from, segments.c.told_until]


def parse_segment(row: SegmentRow, source: UsageSource) -> MeteredSegment:
    """Return the metered segment of a row."""
    return MeteredSegment(Span(row.start, row.end), row.counted_from or 0, row.counted_until is not None, source)


async def fetch_targets(
    connection: AsyncConnection, meters: Mapping[str, Meter], since: float, customer: str | None = None
) -> Targets:
    """Return the customers and meters whose usage is sent, with their segments that end after a Unix second.

    The result covers all customers, or one by id; for one customer it raises UnreadableRowError. Among all customers,
    those with an unreadable plan version are left out with all their segments, so that no sent usage is taken back.
    Once the version can be read, a comparison of ledger and outbox adds the missing usage.
    """
    joined = segments.join(subscriptions, subscriptions.c.id == segments.c.subscription).join(
        customers, customers.c.id == subscriptions.c.customer
    )
    statement = (
        sa.select(*SEGMENT_FIELDS, customers.c.name)
        .select_from(joined)
        .where(segments.c.meter == "", segments.c.told_from.is_not(None), segments.c.end > int(since))
        .order_by(segments.c.start)
    )
    if customer is not None:
        statement = statement.where(subscriptions.c.customer == customer)
    rows = (await connection.execute(statement)).all()
    # For one customer the error reaches its caller. For all customers it must not stop the export of the others.
    fetch = plan_versions.fetch_readable_plans if customer is None else plan_versions.fetch_plans
    plans = await fetch(connection, {row.plan_version for row in rows})
    # A customer is left out as a whole: usage without its target would look like usage that was taken back.
    left_out = {row.name for row in rows if row.plan_version not in plans}
    segments_by_pair: dict[Pair, list[MeteredSegment]] = {}
    for row in (row for row in rows if row.name not in left_out):
        for meter, price in plans[row.plan_version].meters.items():
            if is_sum(meters, meter):
                for key, source in list_sources(meter, price):
                    segment = parse_segment(SegmentRow(*row[:-1]), source)
                    segments_by_pair.setdefault((row.name, key), []).append(segment)
    return segments_by_pair


CHARGED = sa.and_(
    segments.c.meter == "",
    segments.c.collection == METERS,
    sa.func.coalesce(segments.c.told_from, segments.c.end) + MINUTE <= segments.c.end,
    segments.c.start + MINUTE <= segments.c.end,
)
"""The condition for segments with a minute or more that Stripe counts."""
DRAFTED = sa.exists().where(
    segments.c.subscription == invoices.c.subscription, segments.c.period_start == invoices.c.period_start, CHARGED
)
"""The condition for invoices that Stripe drafts by itself: their periods have such segments."""


async def fetch_charged(connection: AsyncConnection, subscription: str, period_start: int) -> list[SegmentRow]:
    """Return the rows of a period's segments whose usage Stripe charges, in order of time.

    A segment that ends before Stripe counts is left out.
    """
    conditions = (segments.c.subscription == subscription, segments.c.period_start == period_start)
    statement = sa.select(*SEGMENT_FIELDS).where(*conditions, CHARGED).order_by(segments.c.start)
    return [SegmentRow(*row) for row in await connection.execute(statement)]


def get_event_window(row: SegmentRow) -> Span:
    """Return the span that contains the times of all events of a segment."""
    return Span(max(row.start, row.counted_from or 0), row.end)


async def is_under_way(connection: AsyncConnection, customer: str, starts: Iterable[int]) -> bool:
    """Return whether usage of these segments of a customer, by name, is unsent, or may or may not be counted."""
    columns = billing_outbox.c
    conditions = (columns.customer == customer, columns.segment.in_(list(starts)), columns.state.in_(outbox_rows.OPEN))
    return (await connection.execute(sa.select(columns.revision).where(*conditions).limit(1))).first() is not None


async def fetch_accepted(connection: AsyncConnection, customer: str, start: int) -> dict[str, int]:
    """Return the units of a customer's segment that Stripe has accepted, by meter."""
    columns = billing_outbox.c
    conditions = (
        columns.customer == customer,
        columns.segment == start,
        columns.state.in_([RowState.ACCEPTED, RowState.CONFIRMED]),
    )
    rows = await connection.execute(
        sa.select(columns.meter, sa.func.sum(columns.value)).where(*conditions).group_by(columns.meter)
    )
    return {meter: int(value) for meter, value in rows}


async def confirm_segment(connection: AsyncConnection, customer: str, start: int, now: float) -> None:
    """Record that the accepted rows of a segment are counted."""
    columns = billing_outbox.c
    statement = outbox_rows.build_transition([RowState.ACCEPTED], RowState.CONFIRMED, int(now * 1000))
    await connection.execute(statement.where(columns.customer == customer, columns.segment == start))


async def verify_sums(
    database: Database, events: MeterEvents, customer: str, row: SegmentRow, now: float
) -> dict[str, int]:
    """Compare Stripe's sums of a segment with the accepted rows, confirm these rows, and return the sums by meter.

    Raises UsageMismatchError and MeterEventsUnavailableError.
    """
    async with database.reading() as connection:
        accepted = await fetch_accepted(connection, customer, row.start)
    rows = [
        Comparison(customer, meter, quantity, await events.fetch_sum(customer, meter, get_event_window(row)))
        for meter, quantity in accepted.items()
    ]
    if differing := [comparison for comparison in rows if comparison.difference]:
        raise UsageMismatchError(accepted, differing)
    async with database.writing() as connection:
        await confirm_segment(connection, customer, row.start, now)
    return accepted


async def fetch_stripe_ids(connection: AsyncConnection, names: Iterable[str] | None = None) -> dict[str, str]:
    """Return Stripe's ids of customers by their names here, for all or some."""
    joined = billing_customers.join(customers, customers.c.id == billing_customers.c.customer)
    statement = sa.select(customers.c.name, billing_customers.c.stripe_id).select_from(joined)
    if names is not None:
        statement = statement.where(customers.c.name.in_(set(names)))
    return {row[0]: row[1] for row in await connection.execute(statement)}
