"""The rate at which a customer spends: the value of an hour's usage beside what is usual for it. Pure.

The value is at the prices of the plan above what is included, whether that is used up or not: a leaked key costs as
much at the beginning of a month as at its end.
"""

from collections.abc import Mapping, Sequence
from statistics import median_low

from edgeproxy.collector.billing.rating.money import compute_amount
from edgeproxy.config.collector.billing import BreakerThresholds
from edgeproxy.config.collector.catalog import MeterPrice, Plan

MONTH_HOURS = 730
"""The hours of a month."""


def get_unit_price(price: MeterPrice) -> int:
    """Return the highest price of a unit of a meter, in 10⁻¹² cents; 0 where the plan has none."""
    by = [] if price.by is None else list(price.by.prices.values())
    prices: list[int] = [(price.price or 0) // (price.package or 1), *by, *(tier.price for tier in price.tiers)]
    return max(prices)


def compute_value(plan: Plan, used: Mapping[str, int]) -> int:
    """Return the value of usage, by meter, at the prices of a plan, in cents."""
    return sum(
        compute_amount(max(quantity, 0), get_unit_price(plan.meters[meter]))
        for meter, quantity in used.items()
        if meter in plan.meters
    )


def compute_included_value(plan: Plan) -> int:
    """Return the value that an hour of the plan's fee and included amounts has, whichever is more, in cents."""
    included = compute_value(plan, {meter: price.included or 0 for meter, price in plan.meters.items()})
    return max(plan.fee, included) // MONTH_HOURS


def compute_usual_value(plan: Plan, hours: Sequence[Mapping[str, int]]) -> int:
    """Return the usual value of an hour, in cents: the median of the same hour of the weeks before.

    Without any, as of a new customer, it is what the plan includes.
    """
    if not hours:
        return compute_included_value(plan)
    return median_low(compute_value(plan, used) for used in hours)


def is_spike(spent: int, usual: int, breaker: BreakerThresholds) -> bool:
    """Return whether an hour of this value, in cents, is out of the ordinary."""
    return spent >= breaker.least and spent > breaker.times * usual
