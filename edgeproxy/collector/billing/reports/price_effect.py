"""The effect of a price change: the cost of each subscriber's last full period under the old and the new version.

Amounts are for a month, before discounts and tax: the fee (a twelfth of a yearly one), usage, and the rest up to a
minimum fee.
"""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.period_close import quantities
from edgeproxy.collector.billing.period_close.quantities import QuantityTerms, UsageNotStoredError
from edgeproxy.collector.billing.rating import periods
from edgeproxy.collector.billing.rating.money import compute_share
from edgeproxy.collector.billing.rating.rater import FEES, Segment, Span, UsageKey, rate_segments, sum_amounts
from edgeproxy.collector.billing.subscriptions import price_changes, subscription_rows
from edgeproxy.collector.billing.subscriptions.price_moves import PriceMove, find_moved_version
from edgeproxy.collector.billing.subscriptions.subscription_rows import LoadedSubscription
from edgeproxy.collector.database.billing_tables import subscriptions
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.unreadable_rows import skip_unreadable
from edgeproxy.config.collector.catalog import MONTHS, Plan
from edgeproxy.config.collector.currency_units import USD
from edgeproxy.config.meters import Meter

PAGE = 50
"""The subscribers rated in one transaction."""
RATING_SECONDS_MAX = 20.0
"""The longest time in seconds to rate subscribers, because a caller waits."""


class SubscriberEffect(NamedTuple):
    """The effect on a subscriber. Amounts are in the currency's smallest unit."""

    customer: str
    before_version: str
    after_version: str
    period: Span
    """The period whose usage is rated."""
    before: int | None
    """None if its usage is no longer stored."""
    after: int | None
    currency: str = USD

    @property
    def difference(self) -> int:
        """The increase of the price; negative for a decrease."""
        return (self.after or 0) - (self.before or 0)


class PriceEffect(NamedTuple):
    """The effect on all rated subscribers, by currency, with the largest increase first."""

    subscribers: int
    """The number of all subscribers, rated or not."""
    effects: list[SubscriberEffect]


async def compute_effect(
    database: Database, moves: Sequence[PriceMove], plans: Mapping[str, Plan], meters: Mapping[str, Meter]
) -> PriceEffect:
    """Return the effect of a change with these moves and plans, which need not be stored."""
    deadline = time.monotonic() + RATING_SECONDS_MAX
    effects: list[SubscriberEffect] = []
    async with database.reading() as connection:
        counts = await price_changes.count_subscribers(connection, moves)
        versions = await price_changes.fetch_versions(connection)
    for move in moves:
        after = ""
        query = price_changes.build_subscribers(move, moves, versions).order_by(subscriptions.c.id).limit(PAGE)
        while time.monotonic() < deadline:
            # A transaction for each page, so that none holds a snapshot for all subscribers.
            async with database.reading(whole=True) as connection:
                page = (await connection.execute(query.where(subscriptions.c.id > after))).all()
                for row in page:
                    effect = await skip_unreadable(_compute_subscriber(connection, row.id, move, plans, meters))
                    if effect is not None:
                        effects.append(effect)
            if len(page) < PAGE:
                break
            after = page[-1].id
    effects.sort(key=lambda effect: (effect.currency, -effect.difference, effect.customer))
    return PriceEffect(sum(counts.values()), effects)


async def _compute_subscriber(
    connection: AsyncConnection, number: str, move: PriceMove, plans: Mapping[str, Plan], meters: Mapping[str, Meter]
) -> SubscriberEffect:
    """Return the effect of a move on a subscriber."""
    (row,) = await subscription_rows.fetch_subscriptions(connection, subscriptions.c.id == number)
    loaded = await subscription_rows.load_subscription(connection, row)
    current = loaded.current
    # The change itself is left out, because it may be stored already. Other changes come first if they are earlier.
    others = [other for other in current.moves if other.change != move.change]
    version = find_moved_version(current.next_version or current.last.version, others, move.at)
    # The last complete period: the present one has only a part of its usage.
    period = periods.period_at(current.period.start - 1, current.anchor)
    known, chosen = {**plans, **loaded.plans}, loaded.customer.currency
    pair = [known[one] if chosen is None else known[one].in_currency(chosen) for one in (version, move.after)]
    terms = QuantityTerms(meters, current.anchor)
    segments = [
        _build_segment(loaded, one, plan, period) for one, plan in zip((version, move.after), pair, strict=True)
    ]
    name, currency = loaded.customer.name, pair[1].currency
    try:
        before, after = [
            _rate_month(segment, usage)
            for segment, usage in zip(
                segments, await fetch_usage_of_plans(connection, name, segments, terms), strict=True
            )
        ]
    except UsageNotStoredError:
        # Listed without amounts, so that the operator knows of a subscriber who is affected.
        return SubscriberEffect(name, version, move.after, period, None, None, currency)
    return SubscriberEffect(name, version, move.after, period, before, after, currency)


def _build_segment(loaded: LoadedSubscription, version: str, plan: Plan, period: Span) -> Segment:
    """Return a period of a subscription as if it had a version."""
    is_yearly = loaded.current.last.is_yearly and plan.year_fee is not None
    paid = periods.year_of_period(period, loaded.current.anchor) if is_yearly else period
    return Segment(version, plan, period, paid, is_yearly, period, quantity=loaded.current.last.quantity)


async def fetch_usage_of_plans(
    connection: AsyncConnection, customer: str, segments: Sequence[Segment], terms: QuantityTerms
) -> list[dict[UsageKey, int]]:
    """Return the billed usage of a period under each plan of the segments. Raises UsageNotStoredError.

    If the plans split usage alike, it is read only once.
    """
    dimensions = [
        {meter: price.by and price.by.dimension for meter, price in segment.plan.meters.items()} for segment in segments
    ]
    all_dimensions = {meter: dimension for one in dimensions for meter, dimension in one.items()}
    if all(dimension.items() <= all_dimensions.items() for dimension in dimensions):
        all_meters = {meter: price for segment in segments for meter, price in segment.plan.meters.items()}
        whole = segments[0]._replace(plan=segments[0].plan.model_copy(update={"meters": all_meters}))
        usage = await quantities.fetch_quantities(connection, customer, [whole], whole, terms, leaves_out=True)
        return [usage] * len(segments)
    return [
        await quantities.fetch_quantities(connection, customer, [segment], segment, terms, leaves_out=True)
        for segment in segments
    ]


def _rate_month(segment: Segment, usage: Mapping[UsageKey, int]) -> int:
    """Return the cost of a period's usage under a version, with the fee of a month."""
    lines = rate_segments([segment], usage, settled={segment.span})
    fee = compute_share(segment.fee, 1, MONTHS, segment.plan.currency) if segment.is_yearly else segment.fee
    return fee + sum_amounts(line for line in lines if line.kind not in FEES)
