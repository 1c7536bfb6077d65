"""What is sold, at Stripe: a meter for each of ours, a product for each, and a price for each version of a plan.

What a price says of money never changes: it is found by a `lookup_key` that names the version, and a version is never
edited. Fees are no prices there: they are items of invoices, as they are in the other mode.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from edgeproxy.collector.billing.invoices.invoices import decimal
from edgeproxy.collector.billing.meter_export.meter_events import event_name
from edgeproxy.config.catalog import MeterPrice, Plan

LOOKED_UP_MAX = 10
"""Prices that are asked for at once by their keys."""


class Asked(Protocol):
    """What is asked of Stripe; raises StripeFailure."""

    async def call(self, name: str, /, *ids: str, key: str | None = None, **params: Any) -> dict[str, Any]:
        """Make a call."""

    async def every(self, name: str, /, *ids: str, **params: Any) -> list[dict[str, Any]]:
        """List all of something."""


class Step(NamedTuple):
    """Something that Stripe has not as it should be."""

    state: str
    """missing, archived, renamed; or differs, which nobody can mend."""
    what: str
    """meter, product or price."""
    name: str
    """Its event name, id or lookup key."""
    said: str = ""
    call: str = ""
    """What mends it, as Stripe's package calls it; nothing does where it is empty."""
    id: str | None = None
    params: Mapping[str, Any] = {}

    def __str__(self) -> str:
        return f"{self.state:9} {self.what:8} {self.name}{': ' if self.said else ''}{self.said}"


def lookup_key(version: str, meter: str) -> str:
    """What a price is found by: `edgeproxy/standard@3/llm_tokens/month`."""
    return f"edgeproxy/{version}/{meter}/month"


def is_metered(plan: Plan) -> bool:
    """Whether usage of a plan can cost anything: then there is a subscription at Stripe, which charges it."""
    return any(price.price or price.tiers for price in plan.meters.values())


def tiers(price: MeterPrice) -> list[dict[str, Any]]:
    """The tiers of a price as Stripe takes them: what is included costs 0."""
    if price.tiers:
        return [
            {"up_to": "inf" if tier.up_to is None else tier.up_to, "unit_amount_decimal": decimal(tier.price)}
            for tier in price.tiers
        ]
    above = {"up_to": "inf", "unit_amount_decimal": decimal(price.price or 0)}
    return [{"up_to": price.included, "unit_amount_decimal": "0"}, above] if price.included else [above]


async def look(stripe: Asked, plans: Mapping[str, Plan]) -> list[Step]:
    """What is missing, archived or different at Stripe, in the order in which it is mended; raises StripeFailure."""
    meters = sorted({meter for plan in plans.values() for meter in plan.meters})
    there = {one["event_name"]: one for one in await stripe.every("v1.billing.meters.list")}
    there |= {one["event_name"]: one for one in await stripe.every("v1.billing.meters.list", status="active")}
    steps = [step for meter in meters for step in _meter(meter, there.get(event_name(meter)))]
    ids = [event_name(meter) for meter in meters]
    products = {one["id"]: one for one in (await stripe.every("v1.products.list", ids=ids) if ids else [])}
    steps += [step for meter in meters for step in _product(meter, products.get(event_name(meter)))]
    wanted = {
        lookup_key(version, meter): (meter, price)
        for version, plan in plans.items()
        for meter, price in plan.meters.items()
    }
    found = await prices(stripe, wanted)
    for key, (meter, price) in wanted.items():
        known = there.get(event_name(meter))
        steps += _price(key, event_name(meter), None if known is None else known["id"], price, found.get(key))
    return steps


async def prices(stripe: Asked, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The prices with these lookup keys, with their tiers; raises StripeFailure."""
    wanted = list(keys)
    found: dict[str, dict[str, Any]] = {}
    for first in range(0, len(wanted), LOOKED_UP_MAX):
        some = wanted[first : first + LOOKED_UP_MAX]
        listed = await stripe.every("v1.prices.list", lookup_keys=some, expand=["data.tiers"])
        found |= {one["lookup_key"]: one for one in listed}
    return found


async def sync(stripe: Asked, plans: Mapping[str, Plan]) -> list[Step]:
    """Mend what is missing, archived or renamed, and return what that was and what cannot be mended. What is done
    twice, Stripe has once. Raises StripeFailure.
    """
    found = await look(stripe, plans)
    first = [step for step in found if step.what != "price"]
    await _mend(stripe, first)
    # Prices name their meters, which may be there only now.
    last = [step for step in (await look(stripe, plans) if first else found) if step.what == "price"]
    await _mend(stripe, last)
    return first + last


async def _mend(stripe: Asked, steps: Sequence[Step]) -> None:
    for step in steps:
        if step.call:
            ids = () if step.id is None else (step.id,)
            await stripe.call(step.call, *ids, **step.params)


def _meter(meter: str, there: Mapping[str, Any] | None) -> list[Step]:
    name = event_name(meter)
    if there is None:
        params = {"event_name": name, "display_name": meter, "default_aggregation": {"formula": "sum"}}
        return [Step("missing", "meter", name, "", "v1.billing.meters.create", None, params)]
    found = []
    if (formula := there["default_aggregation"]["formula"]) != "sum":
        found.append(Step("differs", "meter", name, f"its formula is {formula}, and cannot be changed to sum"))
    if there["status"] != "active":
        found.append(Step("archived", "meter", name, "", "v1.billing.meters.reactivate", there["id"]))
    if there["display_name"] != meter:
        params = {"display_name": meter}
        found.append(Step("renamed", "meter", name, "", "v1.billing.meters.update", there["id"], params))
    return found


def _product(meter: str, there: Mapping[str, Any] | None) -> list[Step]:
    name = event_name(meter)
    if there is None:
        return [Step("missing", "product", name, "", "v1.products.create", None, {"id": name, "name": meter})]
    found = []
    if not there["active"]:
        found.append(Step("archived", "product", name, "", "v1.products.update", name, {"active": True}))
    if there["name"] != meter:
        found.append(Step("renamed", "product", name, "", "v1.products.update", name, {"name": meter}))
    return found


def _price(key: str, product: str, meter: str | None, price: MeterPrice, there: Mapping[str, Any] | None) -> list[Step]:
    if there is None:
        params = {
            "lookup_key": key,
            "product": product,
            "currency": "usd",
            "recurring": {"interval": "month", "usage_type": "metered", "meter": meter},
            "billing_scheme": "tiered",
            "tiers_mode": "graduated",
            "tiers": tiers(price),
            "tax_behavior": "exclusive",
        }
        return [Step("missing", "price", key, "", "v1.prices.create", None, params)]
    if (wrong := _wrong(product, meter, price, there)) is not None:
        return [Step("differs", "price", key, f"its {wrong}: write a new version of the plan")]
    if not there["active"]:
        return [Step("archived", "price", key, "", "v1.prices.update", there["id"], {"active": True})]
    return []


def _wrong(product: str, meter: str | None, price: MeterPrice, there: Mapping[str, Any]) -> str | None:
    """What a price says otherwise, and cannot be changed."""
    recurring = there.get("recurring") or {}
    shape = (there["currency"], there["billing_scheme"], there.get("tiers_mode"), recurring.get("interval"))
    if shape != ("usd", "tiered", "graduated", "month") or recurring.get("interval_count") != 1:
        return "kind is another"
    if there["product"] != product or recurring.get("meter") != meter:
        return "meter or product is another"
    has = [(tier["up_to"], plain(tier["unit_amount_decimal"])) for tier in there.get("tiers") or ()]
    wants = [(None if tier["up_to"] == "inf" else tier["up_to"], tier["unit_amount_decimal"]) for tier in tiers(price)]
    flat = any(tier.get("flat_amount_decimal") for tier in there.get("tiers") or ())
    return None if has == wants and not flat else "money is another"


def plain(amount: Any) -> str:
    """A decimal as we write it, without zeros that say nothing."""
    written = f"{amount:f}" if not isinstance(amount, str) else amount
    return written.rstrip("0").rstrip(".") if "." in written else written
