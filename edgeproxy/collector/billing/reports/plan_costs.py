"""What a customer's usage of this period would cost by each plan: an estimate, as if the period ended now.

Amounts are those of a month before discounts and tax: the fee, usage above what the plan includes, and what is missing
up to its minimum.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.period_close.quantities import QuantityTerms
from edgeproxy.collector.billing.rating.rater import FEES, Segment, UsageKey, rate_segments, sum_amounts
from edgeproxy.collector.billing.reports.price_effect import fetch_usage_of_plans
from edgeproxy.collector.billing.subscriptions.subscription_rows import LoadedSubscription
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.meters import Meter


class PlanCost(NamedTuple):
    """What usage costs by a plan, in the smallest unit of its currency."""

    version: str
    total: int
    """The fee of a month, and usage; at least the minimum of the plan."""
    by_meter: Mapping[str, int]
    """What usage of each meter costs above what is included."""


async def compute_costs(
    connection: AsyncConnection, loaded: LoadedSubscription, plans: Mapping[str, Plan], meters: Mapping[str, Meter]
) -> list[PlanCost]:
    """Return what the usage since the present plan began in this period would cost by each of the plans.

    The connection must read one moment. Raises UsageNotStoredError.
    """
    last, period = loaded.current.last, loaded.current.period
    segments = [
        Segment(version, plan, last.span, period, quantity=1 if plan.quantity is None else last.quantity)
        for version, plan in plans.items()
    ]
    if not segments:
        return []
    terms = QuantityTerms(meters, loaded.current.anchor)
    usage = await fetch_usage_of_plans(connection, loaded.customer.name, segments, terms)
    return [_rate(segment, used) for segment, used in zip(segments, usage, strict=True)]


def _rate(segment: Segment, usage: Mapping[UsageKey, int]) -> PlanCost:
    lines = rate_segments([segment], usage)
    by_meter: Counter[str] = Counter()
    for line in lines:
        if line.meter:
            by_meter[line.meter] += line.amount
    total = segment.fee + sum_amounts(line for line in lines if line.kind not in FEES)
    return PlanCost(segment.version, max(total, segment.plan.minimum or 0), by_meter)
