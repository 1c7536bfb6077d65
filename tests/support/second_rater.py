"""An independent computation of usage charges: fractions, unit by unit, derived from the plan alone.

It shares no code with the product. A plan here is its YAML as plain values.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from itertools import pairwise
from math import floor
from typing import Any, NamedTuple

Where = tuple[str, str, int]
"""Meter, dimension value, number of the price: 0 for included units, tiers count from 1."""


SMALLEST = {"usd": 100, "eur": 100, "gbp": 100, "jpy": 1, "kwd": 1000}
"""Smallest units in one of each currency."""
PAID_IN = {"kwd": 10}
"""All payments in these currencies are multiples of this many smallest units; 1 in other currencies."""


def smallest(price: str, currency: str) -> Fraction:
    """Return the smallest units of money per unit of usage."""
    amount, _, units = price.partition("/")
    return Fraction(amount) * SMALLEST[currency] / int(units.replace("M", "000000") or 1)


def nearest(value: Fraction, currency: str) -> int:
    """Return the nearest payable amount; halves round away from zero."""
    value /= PAID_IN.get(currency, 1)
    whole = floor(value + Fraction(1, 2)) if value >= 0 else -floor(-value + Fraction(1, 2))
    return whole * PAID_IN.get(currency, 1)


def usage_charges(
    plan: Mapping[str, Any], usage: Mapping[str, Mapping[str, int]], currency: str = "usd"
) -> dict[Where, tuple[int, int]]:
    """Return (quantity, amount) of each price that applies to usage; `usage` is by meter, then by dimension value."""
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
            number, price = volume_tier(meter_plan["tiers"], whole, currency)
            if whole:
                charges[meter, "", number] = whole, nearest(whole * price, currency)
            continue
        for value in order:
            end = begin + max(0, counted[value])
            for number, first, last, price in intervals(meter_plan, by.get(value), currency):
                units = min(end, last) - max(begin, first) if last is not None else end - max(begin, first)
                if units > 0:
                    billed = -(-units // int(meter_plan["package"])) if number and "package" in meter_plan else units
                    charges[meter, value, number] = billed, nearest(billed * price, currency)
            begin = end
    return charges


def volume_tier(tiers: Sequence[Mapping[str, Any]], units: int, currency: str) -> tuple[int, Fraction]:
    """Return (number, price) of the tier that applies to all of these units."""
    for number, tier in enumerate(tiers, start=1):
        if tier["up_to"] == "none" or units <= int(tier["up_to"]):
            return number, smallest(tier["price"], currency)
    raise AssertionError("the last tier has no end")


def intervals(
    meter_plan: Mapping[str, Any], own: str | None, currency: str
) -> list[tuple[int, int, int | None, Fraction]]:
    """Return (number, first, last, price) of each price: units from `first` up to but without `last`."""
    if "tiers" in meter_plan:
        ends = [None if tier["up_to"] == "none" else int(tier["up_to"]) for tier in meter_plan["tiers"]]
        firsts = [0, *(end for end in ends if end is not None)]
        prices = [smallest(tier["price"], currency) for tier in meter_plan["tiers"]]
        return [(n, *one) for n, one in enumerate(zip(firsts, ends, prices, strict=True), start=1)]
    if meter_plan["included"] == "unlimited":
        return [(0, 0, None, Fraction(0))]
    included = int(meter_plan["included"])
    return [(0, 0, included, Fraction(0)), (1, included, None, smallest(own or meter_plan.get("price", "0"), currency))]


def fee(plan: Mapping[str, Any], *, seconds: int, of: int, currency: str = "usd") -> int:
    """Return the part of a month's fee for `seconds` of `of` seconds."""
    return nearest(smallest(plan["fee"], currency) * seconds / of, currency)


def minimum(
    plan: Mapping[str, Any],
    usage: Mapping[str, Mapping[str, int]],
    *,
    seconds: int,
    of: int,
    currency: str = "usd",
) -> int:
    """Return how much the charges for this part of a period fall short of the minimum fee."""
    least = nearest(smallest(plan.get("minimum", "0"), currency) * seconds / of, currency)
    charged = sum(amount for _, amount in usage_charges(plan, usage, currency).values())
    return max(0, least - fee(plan, seconds=seconds, of=of, currency=currency) - charged)


def discount(coupon: Mapping[str, Any], cost: int, currency: str = "usd") -> int:
    """Return the discount that a coupon, as YAML, gives on a period with this cost."""
    if cost <= 0:
        return 0
    if "amount_off" in coupon:
        return min(cost, nearest(smallest(coupon["amount_off"], currency), currency))
    return nearest(cost * Fraction(coupon["percent_off"].rstrip("%")) / 100, currency)


def discounted_periods(coupon: Mapping[str, Any]) -> int | None:
    """Return for how many periods, from the first on, a coupon applies; None for all."""
    return {"once": 1, "forever": None}.get(coupon.get("duration", "once"), int(coupon.get("periods", "0")))


def first_of_next_month(second: int) -> int:
    """Return the Unix second of the start of the next month in UTC."""
    day = datetime.fromtimestamp(second, UTC)
    return int(datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC).timestamp())


def first_of_month(second: int) -> int:
    """Return the Unix second of the start of this month in UTC."""
    day = datetime.fromtimestamp(second, UTC)
    return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp())


def invoice_totals(
    plan: Mapping[str, Any],
    begun: int,
    periods: Sequence[Sequence[Mapping[str, Mapping[str, int]]]],
    *,
    has_trial: bool,
    currency: str = "usd",
) -> list[int]:
    """Return the totals of all invoices of a subscription, by months of UTC.

    The first invoice is the fee, after the trial. Each period has one invoice whenever its usage not yet invoiced
    costs as much as the threshold, and one at its end. `periods` holds the usage so far at each check of the
    threshold, and at last the usage at the end of the period.
    """
    start = begun // 60 * 60 + (int(plan["trial"]["days"]) * 86400 if has_trial and "trial" in plan else 0)
    end, month = first_of_next_month(start), first_of_month(start)
    totals = [fee(plan, seconds=end - start, of=end - month, currency=currency)]
    least = nearest(smallest(plan["threshold"], currency), currency) if "threshold" in plan else None
    for looks in periods:
        charged = 0
        for used in looks:
            cost = sum(amount for _, amount in usage_charges(plan, used, currency).values())
            if least is not None and cost - charged >= least:
                totals.append(cost - charged)
                charged = cost
        rest = cost - charged + minimum(plan, looks[-1], seconds=end - start, of=end - month, currency=currency)
        totals.append(rest + fee(plan, seconds=1, of=1, currency=currency))
        start = month = end
        end = first_of_next_month(start)
    return totals


class PlanPart(NamedTuple):
    """A part of a subscription with one plan, within a period; its fee is paid for a whole month or year."""

    version: str
    is_yearly: bool
    start: int
    end: int
    period_start: int
    period_end: int
    paid_start: int
    paid_end: int
    is_resting: bool = False
    """No fee is charged in advance for this part."""
    is_trial: bool = False
    """Nothing is charged for this part."""
    quantity: int = 1
    """The number of units of the plan."""


def changed_totals(
    plans: Mapping[str, Mapping[str, Any]],
    parts: Sequence[PlanPart],
    usage: Mapping[int, Mapping[str, Mapping[str, int]]],
    currency: str,
) -> list[int]:
    """Return the totals of all invoices of a subscription whose plan changes within periods.

    These are the first fee, the immediate charge of each change, and at the end of each period its usage and the
    next fee. The last part has just begun. `usage` is by the start of its part. A plan includes its amounts once per
    period, across all versions and parts.
    """
    totals = [rest_of_fee(plans, parts[0], parts[0], currency)]
    period: list[PlanPart] = [parts[0]]
    for before, part in pairwise(parts):
        due = 0
        is_same = (before.version, before.paid_start, before.paid_end) == (part.version, part.paid_start, part.paid_end)
        if not is_same or before.is_resting != part.is_resting:
            due = rest_of_fee(plans, part, part, currency)
            if before.paid_end > part.start:
                unused = rest_of_fee(plans, before, part, currency)
                due -= min(due, unused) if before.end < part.start else unused
        if part.period_start != period[0].period_start:
            due += _used_in_period(plans, period, usage, currency)
            period = []
        period.append(part)
        totals.append(due)
    return totals


def rest_of_fee(plans: Mapping[str, Mapping[str, Any]], paid: PlanPart, begun: PlanPart, currency: str) -> int:
    """Return the part of an advance payment for the time from the start of another part on."""
    if paid.is_resting:
        return 0
    whole = nearest(smallest(plans[paid.version]["fee"], currency), currency)
    if paid.is_yearly:
        off = Fraction(plans[paid.version]["annual"]["discount"].rstrip("%")) / 100
        whole = nearest(12 * whole * (1 - off), currency)
    whole *= paid.quantity
    left = Fraction(paid.paid_end - begun.start, paid.paid_end - paid.paid_start)
    return nearest(whole * left, currency)


def _used_in_period(
    plans: Mapping[str, Mapping[str, Any]],
    period: Sequence[PlanPart],
    usage: Mapping[int, Mapping[str, Mapping[str, int]]],
    currency: str,
) -> int:
    """Return the cost of a period's usage."""
    return sum(amount for _, amount in usage_items(plans, period, usage, currency))


def usage_items(
    plans: Mapping[str, Mapping[str, Any]],
    period: Sequence[PlanPart],
    usage: Mapping[int, Mapping[str, Mapping[str, int]]],
    currency: str,
) -> Iterator[tuple[tuple[object, ...], int]]:
    """Yield the cost of each price of each part of a period. A part continues at the price that its plan had reached
    before.
    """
    known: dict[str, dict[str, dict[str, int]]] = {}
    for part in period:
        counted = known.setdefault(part.version.partition("@")[0], {})
        own = usage[part.start]
        for meter in plans[part.version]["meters"]:
            if meter not in own:
                continue
            before = dict(counted.get(meter, {}))
            after = {value: before.get(value, 0) + own[meter].get(value, 0) for value in {*before, *own[meter]}}
            whole = {"meters": {meter: plans[part.version]["meters"][meter]}}
            now = usage_charges(whole, {meter: after}, currency)
            earlier = usage_charges(whole, {meter: before}, currency)
            for where in {**now, **earlier}:
                units = now.get(where, (0, 0))[0] - earlier.get(where, (0, 0))[0]
                price = _price_of(whole["meters"][meter], where, currency)
                yield ("usage", part.version, part.start, *where), nearest(units * price, currency)
            counted[meter] = after


def _price_of(meter_plan: Mapping[str, Any], where: Where, currency: str) -> Fraction:
    """Return the price of a unit, or package, at a place."""
    _, value, number = where
    if meter_plan.get("tiers_mode") == "volume":
        return smallest(meter_plan["tiers"][number - 1]["price"], currency)
    own = meter_plan.get("by", {}).get("prices", {}).get(value)
    return next(price for one, _, _, price in intervals(meter_plan, own, currency) if one == number)
