"""The catalog at Stripe: a meter and a product for each of our meters, and a price for each plan version.

The amount of a price never changes: its `lookup_key` names the version, and a version is never edited. Fees are not
prices there but invoice items, as with `invoice_items`. The same applies to usage in other currencies, and under plans
from before the switch to meters that Stripe's prices cannot express.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple, Protocol

from edgeproxy.collector.billing.invoices.line_rows import format_unit_price
from edgeproxy.collector.billing.meter_export.meter_events import event_name
from edgeproxy.collector.billing.meter_export.meter_keys import SEPARATOR, list_prices
from edgeproxy.collector.billing.stripe.client import StripeObject
from edgeproxy.config.collector.catalog import MeterPrice, Plan
from edgeproxy.config.collector.currency_units import USD

LOOKED_UP_MAX = 10
"""The most prices that one call looks up."""


class StripeApi(Protocol):
    """The calls that the catalog needs. Both raise StripeCallError."""

    async def call(self, name: str, /, *ids: str, key: str | None = None, **params: object) -> StripeObject:
        """Make a call."""

    async def list_all(self, name: str, /, *ids: str, **params: object) -> list[StripeObject]:
        """Return all objects of a list."""


class SyncStep(NamedTuple):
    """An object at Stripe that is not as required."""

    state: str
    """missing, archived, renamed; or differs, which cannot be fixed."""
    object_kind: str
    """meter, product or price."""
    name: str
    """Event name, id or lookup key."""
    detail: str = ""
    call: str = ""
    """The method of Stripe's package that fixes it; empty if none does."""
    id: str | None = None
    params: StripeObject | None = None

    def __str__(self) -> str:
        return f"{self.state:9} {self.object_kind:8} {self.name}{': ' if self.detail else ''}{self.detail}"


def format_lookup_key(version: str, meter: str) -> str:
    """Return the lookup key of a price: `edgeproxy/standard@3/llm_tokens/month`."""
    return f"edgeproxy/{version}/{meter}/month"


def is_metered(plan: Plan) -> bool:
    """Return whether usage of a plan can cost anything, in a way that Stripe's prices can express.

    If so, a subscription at Stripe charges it.
    """
    metered = find_metered_plan(plan)
    return metered is not None and any(price.price or price.tiers for price in list_prices(metered).values())


def find_metered_plan(plan: Plan) -> Plan | None:
    """Return a plan in the currency of its Stripe prices, or None if its usage is collected by invoice items."""
    # A price at Stripe has one currency here. Usage of customers in others is collected by invoice items.
    dollars = plan.in_currency(USD) if USD in plan.currencies else plan
    return dollars if dollars.fits_stripe_meters else None


def build_tiers(price: MeterPrice) -> Sequence[Mapping[str, int | str]]:
    """Return the tiers of a price in Stripe's form. Included units cost 0."""
    if price.tiers:
        return [
            {"up_to": "inf" if tier.up_to is None else tier.up_to, "unit_amount_decimal": format_unit_price(tier.price)}
            for tier in price.tiers
        ]
    above = {"up_to": "inf", "unit_amount_decimal": format_unit_price(price.price or 0)}
    return [{"up_to": price.included, "unit_amount_decimal": "0"}, above] if price.included else [above]


async def fetch_sync_steps(stripe: StripeApi, plans: Mapping[str, Plan]) -> list[SyncStep]:
    """Return the steps for missing, archived and different objects at Stripe, in the order of application.

    Raises StripeCallError.
    """
    plans = {version: metered for version, plan in plans.items() if (metered := find_metered_plan(plan)) is not None}
    prices_of = {version: list_prices(plan) for version, plan in plans.items()}
    meters = sorted({key for prices in prices_of.values() for key in prices})
    stored_meters = {item["event_name"]: item for item in await stripe.list_all("v1.billing.meters.list")}
    # An active meter replaces an archived one of its name.
    stored_meters |= {
        item["event_name"]: item for item in await stripe.list_all("v1.billing.meters.list", status="active")
    }
    steps = [step for meter in meters for step in _compare_meter(meter, stored_meters.get(event_name(meter)))]
    ids = [event_name(meter) for meter in meters]
    products = {item["id"]: item for item in (await stripe.list_all("v1.products.list", ids=ids) if ids else [])}
    steps += [step for meter in meters for step in _compare_product(meter, products.get(event_name(meter)))]
    prices_by_key = {
        format_lookup_key(version, meter): (meter, price)
        for version, prices in prices_of.items()
        for meter, price in prices.items()
    }
    stored_prices = await fetch_prices(stripe, prices_by_key)
    for key, (meter, price) in prices_by_key.items():
        stored_meter = stored_meters.get(event_name(meter))
        steps += _compare_price(
            key, event_name(meter), None if stored_meter is None else stored_meter["id"], price, stored_prices.get(key)
        )
    return steps


async def fetch_prices(stripe: StripeApi, keys: Iterable[str]) -> dict[str, StripeObject]:
    """Return the prices with these lookup keys, with their tiers. Raises StripeCallError."""
    keys_in_order = list(keys)
    prices: dict[str, StripeObject] = {}
    for first in range(0, len(keys_in_order), LOOKED_UP_MAX):
        # Stripe takes few lookup keys in a call.
        page = keys_in_order[first : first + LOOKED_UP_MAX]
        listed = await stripe.list_all("v1.prices.list", lookup_keys=page, expand=["data.tiers"])
        prices |= {price["lookup_key"]: price for price in listed}
    return prices


async def sync_catalog(stripe: StripeApi, plans: Mapping[str, Plan]) -> list[SyncStep]:
    """Fix missing, archived and renamed objects. Return the steps done and the faults that cannot be fixed.

    It may be repeated. Raises StripeCallError.
    """
    steps = await fetch_sync_steps(stripe, plans)
    first = [step for step in steps if step.object_kind != "price"]
    await _apply_steps(stripe, first)
    # Prices refer to their meters, which may exist only now.
    price_steps = [
        step for step in (await fetch_sync_steps(stripe, plans) if first else steps) if step.object_kind == "price"
    ]
    await _apply_steps(stripe, price_steps)
    return first + price_steps


async def _apply_steps(stripe: StripeApi, steps: Sequence[SyncStep]) -> None:
    for step in steps:
        if step.call:
            ids = () if step.id is None else (step.id,)
            await stripe.call(step.call, *ids, **(step.params or {}))


def describe_key(key: str) -> str:
    """Return the name of a key for people: `llm_tokens, large`."""
    return key.replace(SEPARATOR, ", ", 1)


def _compare_meter(meter: str, stored: StripeObject | None) -> list[SyncStep]:
    name = event_name(meter)
    if stored is None:
        params = {"event_name": name, "display_name": describe_key(meter), "default_aggregation": {"formula": "sum"}}
        return [SyncStep("missing", "meter", name, "", "v1.billing.meters.create", None, params)]
    steps = []
    # Stripe cannot change it. With another formula, slices of usage would not add up.
    if (formula := stored["default_aggregation"]["formula"]) != "sum":
        steps.append(SyncStep("differs", "meter", name, f"its formula is {formula}, and cannot be changed to sum"))
    if stored["status"] != "active":
        steps.append(SyncStep("archived", "meter", name, "", "v1.billing.meters.reactivate", stored["id"]))
    if stored["display_name"] != describe_key(meter):
        params = {"display_name": describe_key(meter)}
        steps.append(SyncStep("renamed", "meter", name, "", "v1.billing.meters.update", stored["id"], params))
    return steps


def _compare_product(meter: str, stored: StripeObject | None) -> list[SyncStep]:
    name = event_name(meter)
    if stored is None:
        return [
            SyncStep(
                "missing", "product", name, "", "v1.products.create", None, {"id": name, "name": describe_key(meter)}
            )
        ]
    steps = []
    if not stored["active"]:
        steps.append(SyncStep("archived", "product", name, "", "v1.products.update", name, {"active": True}))
    if stored["name"] != describe_key(meter):
        steps.append(
            SyncStep("renamed", "product", name, "", "v1.products.update", name, {"name": describe_key(meter)})
        )
    return steps


def _compare_price(
    key: str, product: str, meter: str | None, price: MeterPrice, stored: StripeObject | None
) -> list[SyncStep]:
    if stored is None:
        params = {
            "lookup_key": key,
            "product": product,
            "currency": "usd",
            "recurring": {"interval": "month", "usage_type": "metered", "meter": meter},
            "billing_scheme": "tiered",
            "tiers_mode": price.tiers_mode,
            "tiers": build_tiers(price),
            "tax_behavior": "exclusive",
        }
        return [SyncStep("missing", "price", key, "", "v1.prices.create", None, params)]
    if (difference := _find_price_difference(product, meter, price, stored)) is not None:
        return [SyncStep("differs", "price", key, f"its {difference}: write a new version of the plan")]
    if not stored["active"]:
        return [SyncStep("archived", "price", key, "", "v1.prices.update", stored["id"], {"active": True})]
    return []


def _find_price_difference(product: str, meter: str | None, price: MeterPrice, stored: StripeObject) -> str | None:
    """Return the difference of a price, which cannot be changed, or None."""
    recurring = stored.get("recurring") or {}
    shape = (stored["currency"], stored["billing_scheme"], stored.get("tiers_mode"), recurring.get("interval"))
    if shape != ("usd", "tiered", price.tiers_mode, "month") or recurring.get("interval_count") != 1:
        return "kind is another"
    if stored["product"] != product or recurring.get("meter") != meter:
        return "meter or product is another"
    stored_tiers = [
        (tier["up_to"], normalize_decimal(tier["unit_amount_decimal"])) for tier in stored.get("tiers") or ()
    ]
    expected_tiers = [
        (None if tier["up_to"] == "inf" else tier["up_to"], tier["unit_amount_decimal"]) for tier in build_tiers(price)
    ]
    has_flat_amount = any(tier.get("flat_amount_decimal") for tier in stored.get("tiers") or ())
    return None if stored_tiers == expected_tiers and not has_flat_amount else "money is another"


def normalize_decimal(amount: Decimal | str) -> str:
    """Format a decimal as we write it, without trailing zeros."""
    written = f"{amount:f}" if not isinstance(amount, str) else amount
    return written.rstrip("0").rstrip(".") if "." in written else written
