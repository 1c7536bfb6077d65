"""Random plans as plans.yaml writes them, and random usage of them: for a second opinion of the rater."""

import random
from collections.abc import Mapping
from typing import Any

from edgeproxy.collector.billing.rating.rater import Segment, UsageKey


def draw_price(chance: random.Random) -> str:
    written = f"{chance.choice([0, 0, chance.randrange(20)])}.{chance.randrange(10**4):04}"
    return written + chance.choice(["", "/10", "/1000", "/8", "/1M"])


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


CURRENCIES = ("usd", "eur", "gbp", "jpy", "kwd")


PLACES = {"jpy": ("",)} | dict.fromkeys(("usd", "eur", "gbp", "kwd"), ("", ".5", ".49"))
"""The decimal places of amounts in each currency, as text."""


def draw_plan(chance: random.Random, currency: str) -> dict[str, Any]:
    fee = f"{chance.randrange(500)}" + ("" if currency == "jpy" else f".{chance.randrange(100):02}")
    least = {"minimum": f"{chance.randrange(500, 10 ** chance.randrange(3, 8))}"} if chance.randrange(2) else {}
    return {
        "fee": fee,
        **least,
        "meters": {f"m{number}": draw_meter(chance) for number in range(chance.randrange(1, 5))},
    }


def draw_terms(chance: random.Random) -> dict[str, Any]:
    """A plan in all currencies, perhaps with a trial and a threshold."""
    drawn = draw_plan(chance, "jpy")
    if chance.randrange(2):
        drawn["threshold"] = f"{chance.randrange(1, 10 ** chance.randrange(1, 5))}"
    if chance.randrange(2) and drawn["fee"] != "0":
        drawn["trial"] = {"days": str(chance.randrange(1, 100))}

    def spread(name: str, value: Any) -> Any:
        if name == "prices" or not isinstance(value, str):
            return {key: spread("price", one) for key, one in value.items()} if name == "prices" else value
        if name == "price":
            return {currency: draw_price(chance) for currency in CURRENCIES}
        return {currency: value + chance.choice(PLACES[currency]) for currency in CURRENCIES}

    def spread_meter(plan: dict[str, Any]) -> dict[str, Any]:
        more = {name: spread(name, plan[name]) for name in ("price",) if name in plan}
        if "tiers" in plan:
            more["tiers"] = [{**tier, "price": spread("price", tier["price"])} for tier in plan["tiers"]]
        if "by" in plan:
            more["by"] = {**plan["by"], "prices": spread("prices", plan["by"]["prices"])}
        return {**plan, **more}

    amounts = {name: spread(name, drawn[name]) for name in ("fee", "minimum", "threshold") if name in drawn}
    return {**drawn, **amounts, "meters": {name: spread_meter(plan) for name, plan in drawn["meters"].items()}}


def choose_currency(terms: Any, currency: str) -> Any:
    """The same with the amounts of one currency alone."""
    if isinstance(terms, list):
        return [choose_currency(term, currency) for term in terms]
    if not isinstance(terms, dict):
        return terms
    if terms.keys() == set(CURRENCIES):
        return terms[currency]
    return {name: choose_currency(value, currency) for name, value in terms.items()}


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
