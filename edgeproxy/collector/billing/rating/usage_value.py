"""The value of usage by itself: what a part of a customer's usage costs, as though there were no other. Pure."""

from collections.abc import Mapping

from edgeproxy.collector.billing.rating.money import compute_amount
from edgeproxy.collector.billing.rating.rater import split_by_steps
from edgeproxy.config.collector.catalog import MeterPrice, Plan


def compute_own_value(plan: Plan, used: Mapping[str, Mapping[str, int]]) -> int:
    """Return what usage, by meter and the value that its price is by, costs at the prices of a plan, in smallest units.

    Nothing is included: what the fee covers is the customer's, and no part of its usage is more entitled to it than
    another.
    """
    total = 0
    for meter, quantities in used.items():
        if meter in plan.meters:
            for step, _, quantity in split_by_steps(_without_included(plan.meters[meter]), quantities):
                total += compute_amount(quantity, step.price, plan.currency)
    return total


def _without_included(price: MeterPrice) -> MeterPrice:
    return price if price.included is None else price.model_copy(update={"included": 0})
