"""Meter keys: the names of usage at Stripe's meters. Pure.

A meter has one key, its name. A meter with prices by a dimension has one more for each listed value, for example
`llm_tokens:large`, because a price at Stripe belongs to one meter. Its own name is then the key of all other values.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from edgeproxy.collector.billing.rating.rater import OTHER
from edgeproxy.config.collector.catalog import MeterPrice, Plan

SEPARATOR = ":"


class UsageSource(NamedTuple):
    """The usage that has a key."""

    meter: str
    dimension: str = ""
    """The dimension that the meter is priced by, or empty."""
    value: str = OTHER
    """The value of the dimension; empty for all values that are not listed."""
    listed: tuple[str, ...] = ()
    """The values that have keys of their own."""


def build_key(meter: str, value: str = OTHER) -> str:
    """Return the key of a meter and a priced value of its dimension."""
    return f"{meter}{SEPARATOR}{value}" if value else meter


def get_meter(key: str) -> str:
    """Return the meter of a key."""
    return key.partition(SEPARATOR)[0]


def list_sources(meter: str, price: MeterPrice) -> Iterator[tuple[str, UsageSource]]:
    """Yield each key of a meter in a plan, with its usage."""
    if price.by is None:
        yield meter, UsageSource(meter)
        return
    listed = tuple(price.by.prices)
    for value in (*listed, OTHER):
        yield build_key(meter, value), UsageSource(meter, price.by.dimension, value, listed)


def list_prices(plan: Plan) -> dict[str, MeterPrice]:
    """Return the price at Stripe of each key of a plan.

    A price by a dimension charges from the first unit on: the values share the included units, and each price at
    Stripe counts its own units alone. An item of the invoice takes the included units off.
    """
    prices: dict[str, MeterPrice] = {}
    for meter, price in plan.meters.items():
        if price.by is None:
            prices[meter] = price
            continue
        for value in (*price.by.prices, OTHER):
            own = {"included": 0, "by": None, "price": price.by.prices.get(value, price.price)}
            prices[build_key(meter, value)] = price.model_copy(update=own)
    return prices


def list_unit_prices(plan: Plan) -> dict[str, int]:
    """Return the prices by a dimension, in 10⁻¹² of the smallest unit of the plan's currency, by key."""
    prices = list_prices(plan)
    return {key: price.price or 0 for key, price in prices.items() if plan.meters[get_meter(key)].by is not None}


def fold_values(meter: str, price: MeterPrice, values: Mapping[str, int]) -> dict[str, int]:
    """Return the quantity of each key of a meter from the quantities of its dimension's values."""
    listed: Collection[str] = () if price.by is None else price.by.prices
    folded: dict[str, int] = {}
    for value, quantity in values.items():
        key = build_key(meter, value if value in listed else OTHER)
        folded[key] = folded.get(key, 0) + quantity
    return folded
