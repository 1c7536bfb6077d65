"""A second opinion on what usage costs: fractions, unit by unit in thought, written from what the plan says alone.

It shares no code with the product. A plan here is what its YAML says, as plain values.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import floor
from typing import Any

Where = tuple[str, str, int]
"""Meter, dimension value, number of the price: 0 is what is included, tiers count from 1."""


def dollars(price: str) -> Fraction:
    """Cents a unit."""
    amount, _, units = price.partition("/")
    return Fraction(amount) * 100 / int(units or 1)


def nearest(value: Fraction) -> int:
    """The nearest whole number, a half away from zero."""
    return floor(value + Fraction(1, 2)) if value >= 0 else -floor(-value + Fraction(1, 2))


def usage_charges(plan: Mapping[str, Any], usage: Mapping[str, Mapping[str, int]]) -> dict[Where, tuple[int, int]]:
    """(quantity, cents) of each price that any usage meets; `usage`: by meter, then by dimension value."""
    charges: dict[Where, tuple[int, int]] = {}
    for meter, meter_plan in plan["meters"].items():
        if meter not in usage:
            continue
        by = meter_plan.get("by", {}).get("prices", {})
        order = [*by, ""]
        counted = dict.fromkeys(order, 0)
        for value, quantity in usage[meter].items():
            counted[value if value in by else ""] += quantity
        begin = 0
        if meter_plan.get("tiers_mode") == "volume":
            whole = sum(max(0, quantity) for quantity in counted.values())
            number, price = volume_tier(meter_plan["tiers"], whole)
            if whole:
                charges[meter, "", number] = whole, nearest(whole * price)
            continue
        for value in order:
            end = begin + max(0, counted[value])
            for number, first, last, price in intervals(meter_plan, by.get(value)):
                units = min(end, last) - max(begin, first) if last is not None else end - max(begin, first)
                if units > 0:
                    billed = -(-units // int(meter_plan["package"])) if number and "package" in meter_plan else units
                    charges[meter, value, number] = billed, nearest(billed * price)
            begin = end
    return charges


def volume_tier(tiers: Sequence[Mapping[str, Any]], units: int) -> tuple[int, Fraction]:
    """(number, cents a unit) of the tier that all of these units have."""
    for number, tier in enumerate(tiers, start=1):
        if tier["up_to"] == "none" or units <= int(tier["up_to"]):
            return number, dollars(tier["price"])
    raise AssertionError("the last tier has no end")


def intervals(meter_plan: Mapping[str, Any], own: str | None) -> list[tuple[int, int, int | None, Fraction]]:
    """(number, first, last, cents a unit) of each price: units from `first` up to but without `last`."""
    if "tiers" in meter_plan:
        ends = [None if tier["up_to"] == "none" else int(tier["up_to"]) for tier in meter_plan["tiers"]]
        firsts = [0, *(end for end in ends if end is not None)]
        prices = [dollars(tier["price"]) for tier in meter_plan["tiers"]]
        return [(n, *one) for n, one in enumerate(zip(firsts, ends, prices, strict=True), start=1)]
    if meter_plan["included"] == "unlimited":
        return [(0, 0, None, Fraction(0))]
    included = int(meter_plan["included"])
    return [(0, 0, included, Fraction(0)), (1, included, None, dollars(own or meter_plan.get("price", "0")))]


def fee(plan: Mapping[str, Any], *, seconds: int, of: int) -> int:
    """Cents of a month's fee for so many seconds of so many."""
    return nearest(Fraction(plan["fee"]) * 100 * seconds / of)
