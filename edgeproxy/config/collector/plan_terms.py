"""A plan as in plans.yaml, so that people can change a price and send it back. Pure."""

from collections.abc import Callable
from decimal import Decimal

from edgeproxy.config.collector.catalog import MeterPrice, Plan
from edgeproxy.config.collector.currency_units import USD, get_unit_count, to_decimal
from edgeproxy.config.collector.money import PRICE_SCALE
from edgeproxy.config.units import format_seconds

Terms = dict[str, object]
"""A section of the file. Its values are texts, lists and sections."""
SMALL_PRICE = Decimal("0.0001")
"""Smaller prices are written per 1,000 or 1,000,000 units."""


def write_terms(plan: Plan) -> Terms:
    """Return the section of a plan. In a file of its currency, `load_plans_text` reads an equal plan from it."""
    terms: Terms = {} if plan.name is None else {"name": plan.name}
    terms["fee"] = _write_money(plan, lambda one: one.fee, format_amount)
    for field in ("minimum", "threshold"):
        if getattr(plan, field) is not None:
            terms[field] = _write_money(plan, lambda one, field=field: getattr(one, field), format_amount)  # type: ignore[misc]
    if plan.annual is not None:
        terms["annual"] = {"discount": format_share(plan.annual.discount)}
    if plan.quantity is not None:
        terms["quantity"] = {"max": str(plan.quantity.max)}
    if plan.tier is not None:
        terms["tier"] = plan.tier
    if plan.meters:
        terms["meters"] = {meter: _write_meter(plan, meter) for meter in plan.meters}
    if plan.entitlements:
        terms["entitlements"] = dict(plan.entitlements)
    if plan.grace is not None:
        terms["grace"] = {"percent": format_share(plan.grace.percent), "for": format_seconds(plan.grace.for_)}
    if plan.trial is not None:
        missing = {"missing_payment_method": plan.trial.missing_payment_method}
        terms["trial"] = {"days": str(plan.trial.days), "card": plan.trial.card, **missing}
    return terms


def _write_meter(plan: Plan, meter: str) -> Terms:
    price = plan.meters[meter]

    def write(find: Callable[[MeterPrice], int]) -> object:
        return _write_money(plan, lambda one: find(one.meters[meter]), format_price)

    if price.tiers:
        tiers = [
            {
                "up_to": "none" if tier.up_to is None else str(tier.up_to),
                "price": write(lambda one, number=number: one.tiers[number].price),  # type: ignore[misc]
            }
            for number, tier in enumerate(price.tiers)
        ]
        terms: Terms = {"tiers": tiers, "tiers_mode": price.tiers_mode}
    else:
        terms = {"included": "unlimited" if price.included is None else str(price.included)}
    if price.cap is not None:
        terms["cap"] = price.cap
    if price.price is not None:
        terms["price"] = write(lambda one: one.price or 0)
    for field, named in (("routes", price.routes), ("scopes", price.scopes)):
        if named:
            terms[field] = list(named)
    if price.package is not None:
        terms["package"] = str(price.package)
    if price.by is not None:
        prices = {value: write(lambda one, value=value: one.by.prices[value]) for value in price.by.prices}  # type: ignore[misc]
        terms["by"] = {"dimension": price.by.dimension, "prices": prices}
    return terms


def _write_money(plan: Plan, find: Callable[[Plan], int], write: Callable[[int, str], str]) -> object:
    """Return an amount of a plan: one text, or a text per currency."""
    plans = {plan.currency: plan, **plan.others}
    amounts = {code: write(find(plan), code) for code, plan in plans.items()}
    return amounts[plan.currency] if len(amounts) == 1 or not any(map(find, plans.values())) else amounts


def format_amount(amount: int, currency: str = USD) -> str:
    """Format smallest units as an amount of the file: 99, 99.50."""
    text = _trim(to_decimal(amount, currency))
    return f"{text}0" if text[-2:-1] == "." else text


def format_price(parts: int, currency: str = USD) -> str:
    """Format a unit price as in the file: 0.10, 0.01/1000, 1.25/1M."""
    price = Decimal(parts) / (PRICE_SCALE * get_unit_count(currency))
    for units, called in ((1, ""), (1000, "/1000")):
        if not parts or price * units >= SMALL_PRICE:
            return _trim(price * units) + called
    return _trim(price * 10**6) + "/1M"


def format_share(share: float) -> str:
    """Format a share with all its decimal places: 20%, 12.5%."""
    return f"{_trim(Decimal(f'{share * 100:.10f}'))}%"


def _trim(value: Decimal) -> str:
    """Format a number without trailing zeros."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
