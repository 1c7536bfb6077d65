"""The cost of a customer's usage of this period under each plan: an estimate, as if the period ended now.

Amounts are for a month, before discounts and tax: the fee, usage beyond the included units, and the rest up to the
minimum.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.billing.period_close.quantities import QuantityTerms, fetch_segment_quantities
from edgeproxy.collector.billing.rating.rater import (
    FEES,
    RatedLine,
    Segment,
    Span,
    rate_segments,
    sum_amounts,
)
from edgeproxy.collector.billing.reports.price_effect import fetch_usage_of_plans
from edgeproxy.collector.billing.subscriptions.subscription_rows import LoadedSubscription
from edgeproxy.config.collector.catalog import Plan
from edgeproxy.config.meters import Meter


class PlanCost(NamedTuple):
    """The cost of usage under a plan, in the smallest unit of its currency."""

    version: str
    total: int
    """The monthly fee plus usage; at least the plan's minimum."""
    by_meter: Mapping[str, int]
    """The cost of each meter's usage above the included units."""


async def compute_costs(
    connection: AsyncConnection, loaded: LoadedSubscription, plans: Mapping[str, Plan], meters: Mapping[str, Meter]
) -> list[PlanCost]:
    """Return the cost of this period's usage under each of the plans. For the plan in force it is the actual cost.

    The actual cost includes usage under earlier plans of the period. The connection must read one snapshot. Raises
    QuantityTooLargeError and UsageNotStoredError.
    """
    current, last = loaded.current, loaded.current.last
    terms, whole = QuantityTerms(meters, current.anchor), Span(current.usage_start, last.span.end)
    segments = [
        Segment(version, plan, whole, current.period, quantity=1 if plan.quantity is None else last.quantity)
        for version, plan in plans.items()
    ]
    if not segments:
        return []
    usage = await fetch_usage_of_plans(connection, loaded.customer.name, segments, terms)
    costs = [_rate(segment, rate_segments([segment], used)) for segment, used in zip(segments, usage, strict=True)]
    own = next((number for number, version in enumerate(plans) if version == last.version), None)
    if own is not None:
        costs[own] = _rate(segments[own], await _rate_period(connection, loaded, terms))
    return costs


async def _rate_period(
    connection: AsyncConnection, loaded: LoadedSubscription, terms: QuantityTerms
) -> list[RatedLine]:
    """Return the lines of the usage of this period so far."""
    of_period = [segment for segment in loaded.current.segments if segment.period == loaded.current.last.period]
    by_segment = await fetch_segment_quantities(connection, loaded.customer.name, of_period, of_period, terms)
    return rate_segments(of_period, {key: value for used in by_segment.values() for key, value in used.items()})


def _rate(segment: Segment, lines: Sequence[RatedLine]) -> PlanCost:
    """Return the cost of a plan with these lines and the fee of a month."""
    by_meter: Counter[str] = Counter()
    for line in lines:
        if line.meter:
            by_meter[line.meter] += line.amount
    total = segment.fee + sum_amounts(line for line in lines if line.kind not in FEES)
    return PlanCost(segment.version, max(total, segment.plan.minimum or 0), by_meter)
