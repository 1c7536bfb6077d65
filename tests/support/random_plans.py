"""Random plans as plans.yaml writes them, and random usage of them: for a second opinion of the rater."""

import random
from collections.abc import Mapping
from typing import Any

from edgeproxy.collector.billing.rating.rater import Segment, UsageKey


def draw_price(chance: random.Random) -> str:
    written = f"{chance.choice([0, 0, chance.randrange(20)])}.{chance.randrange(10**4):04}"
    return written + chance.choice(["", "/10", "/1000", "/8"])


def draw_meter(chance: random.Random) -> dict[str, Any]:
    kind = chance.randrange(5)
    if kind == 0:
        return {"included": "unlimited"}
    if kind == 1:
        return {"included": str(chance.randrange(1000)), "cap": chance.choice(["soft", "hard"])}
    if kind == 2:
        ends = sorted(chance.sample(range(1, 2000), chance.randrange(1, 4)))
        tiers = [{"up_to": str(end), "price": draw_price(chance)} for end in ends]
        mode = {"tiers_mode": "volume"} if chance.randrange(2) else {}
        return {"tiers": [*tiers, {"up_to": "none", "price": draw_price(chance)}], **mode}
    price_plan: dict[str, Any] = {
        "included": str(chance.choice([0, chance.randrange(1000)])),
        "price": draw_price(chance),
    }
    if kind == 3:
        values = chance.sample(["m1", "m2", "m3"], chance.randrange(1, 4))
        price_plan["by"] = {"dimension": "model", "prices": {value: draw_price(chance) for value in values}}
    elif chance.randrange(2):
        price_plan["package"] = str(chance.choice([2, 1000, chance.randrange(2, 5000)]))
    return price_plan


CURRENCIES = ("usd", "eur", "jpy", "kwd")


def draw_plan(chance: random.Random, currency: str) -> dict[str, Any]:
    fee = f"{chance.randrange(500)}" + ("" if currency == "jpy" else f".{chance.randrange(100):02}")
    least = {"minimum": f"{chance.randrange(500, 10 ** chance.randrange(3, 8))}"} if chance.randrange(2) else {}
    return {
        "fee": fee,
        **least,
        "meters": {f"m{number}": draw_meter(chance) for number in range(chance.randrange(1, 5))},
    }


def draw_usage(chance: random.Random, meter_plans: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    def quantity() -> int:
        return chance.choice([0, 1, chance.randrange(3000), chance.randrange(10**15), -chance.randrange(100)])

    usage: dict[str, dict[str, int]] = {}
    for name in chance.sample([*meter_plans["meters"]], chance.randrange(len(meter_plans["meters"]) + 1)):
        values = chance.sample(["", "m1", "m2", "m3", "other"], chance.randrange(1, 5))
        usage[name] = {value: quantity() for value in values}
    return usage


def to_keys(segment: Segment, quantities: Mapping[str, Mapping[str, int]]) -> dict[UsageKey, int]:
    return {
        UsageKey(segment.span, name, value): quantity
        for name, values in quantities.items()
        for value, quantity in values.items()
    }
