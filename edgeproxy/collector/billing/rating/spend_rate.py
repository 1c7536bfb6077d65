"""A customer's rate of spending: the value of an hour's usage compared with the usual value. Pure.

The value uses the plan's prices beyond the included units, whether those are used up or not. So a leaked key is
detected at the start of a month as well as at its end. The value only serves to compare hours. The actual cost of an
hour is an amount of `usage_amounts`.
"""

from collections.abc import Mapping, Sequence
from statistics import median_low

from edgeproxy.collector.billing.rating.money import compute_amount
from edgeproxy.collector.billing.rating.rater import OTHER, split_by_steps
from edgeproxy.config.collector.billing import BreakerThresholds
from edgeproxy.config.collector.catalog import MeterPrice, Plan
from edgeproxy.config.collector.currency_units import USD

MONTH_HOURS = 730
"""The hours of a month."""
HourUsage = Mapping[str, Mapping[str, int]]
"""The units of an hour, by meter and by the value that its price depends on."""


def get_highest_price(price: MeterPrice) -> int:
    """Return the highest price of a unit of a meter, in 10⁻¹² smallest units; 0 if the plan has none."""
    by = [] if price.by is None else list(price.by.prices.values())
    prices: list[int] = [(price.price or 0) // (price.package or 1), *by, *(tier.price for tier in price.tiers)]
    return max(prices)


def compute_value(plan: Plan, used: HourUsage) -> int:
    """Return the value of usage at a plan's prices without included units, in smallest units, for example cents."""
    return sum(
        compute_amount(quantity, step.price, plan.currency)
        for meter, values in used.items()
        if meter in plan.meters
        for step, _, quantity in split_by_steps(_without_included(plan.meters[meter]), values)
    )


def _without_included(price: MeterPrice) -> MeterPrice:
    return price if price.included is None else price.model_copy(update={"included": 0})


def compute_included_value(plan: Plan) -> int:
    """Return the larger hourly value of the plan's fee and of its included amounts, in smallest units."""
    included = compute_value(plan, {meter: {OTHER: price.included or 0} for meter, price in plan.meters.items()})
    return max(plan.fee, included) // MONTH_HOURS


def compute_usual_value(plan: Plan, hours: Sequence[HourUsage]) -> int:
    """Return the usual value of an hour in smallest units: the median of this hour in earlier weeks.

    For a new customer without such hours, it is the value that the plan includes.
    """
    if not hours:
        return compute_included_value(plan)
    return median_low(compute_value(plan, used) for used in hours)


def is_spike(spent: int, usual: int, breaker: BreakerThresholds, currency: str = USD) -> bool:
    """Return whether an hour of this value, in smallest units of a currency, is extraordinary.

    It never is if the breaker has no least amount in the currency.
    """
    return currency in breaker.least and spent >= breaker.least[currency] and spent > breaker.times * usual
