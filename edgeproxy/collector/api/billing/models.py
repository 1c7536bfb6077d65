"""Plans, subscriptions and billed usage as the API shows them."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, NotRequired

from pydantic import BeforeValidator, WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.api.coupons.models import CouponCode
from edgeproxy.collector.api.credits.models import Url
from edgeproxy.collector.api.customer_billing import CustomerChangeQuery
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import exact
from edgeproxy.collector.billing.invoices.line_rows import InvoiceLine, format_unit_price
from edgeproxy.collector.billing.rollout.gates import Mode
from edgeproxy.collector.billing.subscriptions.changes import When
from edgeproxy.collector.billing.subscriptions.subscription_response import WithdrawnChange
from edgeproxy.collector.languages.meter_display import find_display
from edgeproxy.config.collector.catalog import PLAN_QUANTITY_MAX, VERSION, MeterPrice, Plan
from edgeproxy.config.collector.currency_units import Currency
from edgeproxy.config.field_types import Name
from edgeproxy.config.meters import Meter, UnitName
from edgeproxy.config.units import format_value, read_text, value_error

A_PLAN = "the name of a plan such as standard, or a version such as standard@3"
PLAN_SCHEMA = {
    "type": "string",
    "pattern": r"^[a-z0-9][a-z0-9-]{0,47}(@[1-9][0-9]{0,5}(\+[A-Za-z0-9][A-Za-z0-9_-]{0,63})?)?$",
    "examples": ["standard", "standard@3"],
}


def read_plan(value: object) -> str:
    """Read the name of a plan, or of a version of it."""
    text = read_text(value, A_PLAN)
    if not VERSION.fullmatch(text if "@" in text else f"{text}@1"):
        raise value_error(f"{format_value(text)} is no plan", A_PLAN)
    return text


PlanName = Annotated[str, BeforeValidator(read_plan), WithJsonSchema(PLAN_SCHEMA)]


class PlansQuery(Query):
    """The currency of prices."""

    currency: Currency | None = None
    """The currency of the prices, such as `eur`; by default that of the file of plans."""


Quantity = Annotated[
    int,
    exact(int, f"a whole number from 1 to {PLAN_QUANTITY_MAX}", 1, PLAN_QUANTITY_MAX),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": PLAN_QUANTITY_MAX}),
]


class UpgradeQuery(CustomerChangeQuery):
    """The tier of the edge that is bought."""

    tier: Name
    """The tier of the edge whose plan is chosen."""


class CancelQuery(CustomerChangeQuery):
    """The time when a subscription ends."""

    when: Literal["now", "period_end"] = "period_end"
    """`period_end` ends the subscription when its paid period ends, `now` at once."""


class CreateSubscriptionRequest(Body):
    """A subscription as it begins."""

    plan: PlanName
    """The plan by its name, which is its newest version, or by a version such as `standard@3`."""
    interval: Literal["month", "year"] = "month"
    """The interval for which the fee is paid in advance."""
    quantity: Quantity = 1
    """How many of the plan there are, such as seats, of a plan that is sold by quantity."""
    coupon: CouponCode | None = None
    """The code of a coupon, in capital or small letters."""
    currency: Currency | None = None
    """The currency in which the customer is charged for good, where none was chosen yet; by default the plan's."""


class UpdateSubscriptionRequest(Body):
    """A change to another plan, interval or quantity."""

    plan: PlanName
    """The plan by its name, which is its newest version, or by a version such as `standard@3`."""
    when: Literal["now", "period_end"] | None = None
    """The time of the change; by default `now` for a plan that costs more, `period_end` for one that costs less."""
    interval: Literal["month", "year"] | None = None
    """The interval for which the fee is paid in advance; by default it stays."""
    quantity: Quantity | None = None
    """How many of the plan there are; by default as many as before, of a plan that is sold by quantity."""
    currency: Currency | None = None
    """The currency in which the customer is charged for good, where none was chosen yet; by default the plan's."""


class PreviewSubscriptionRequest(UpdateSubscriptionRequest):
    """A change of plan, or a new subscription, to preview. A new one is by the month by default."""

    coupon: CouponCode | None = None
    """The code of a coupon, in capital or small letters; it comes with a new subscription alone."""


class PriceTier(TypedDict):
    """Units with a price of their own."""

    up_to: int | None
    """The number of the last unit of the tier; null in the last tier."""
    price: str
    """The price of a unit in the smallest unit of the currency, such as cents, as a decimal number."""


class DimensionPrices(TypedDict):
    """Prices by the value of a dimension."""

    dimension: str
    """The dimension, such as `model`."""
    prices: dict[str, str]
    """The price of a unit in the smallest unit of the currency, as a decimal number, by the value of the dimension."""


class MeterPriceResponse(TypedDict):
    """The terms of a meter in a plan."""

    included: int | None
    """The units that the fee covers in a period; null where it covers any number."""
    cap: Literal["soft", "hard"] | None
    """`soft` lets usage above the included units pass for a grace, `hard` refuses it; null where there is no cap."""
    price: NotRequired[str]
    """The price of a unit above the included ones in the smallest unit of the currency, as a decimal number."""
    package: NotRequired[int]
    """The units of a package, which `price` is for; missing where it is for each unit."""
    tiers: NotRequired[list[PriceTier]]
    """The prices of units, tier by tier."""
    tiers_mode: NotRequired[Literal["graduated", "volume"]]
    """`graduated`: each unit costs what its tier says; `volume`: all cost what the tier of the last one says."""
    by: NotRequired[DimensionPrices]
    """Prices that depend on a dimension."""


def price_to_response(price: MeterPrice) -> MeterPriceResponse:
    """Return a meter's included quantity and price in a plan, in the API's form."""
    response: MeterPriceResponse = {"included": price.included, "cap": price.cap}
    if price.price is not None:
        response["price"] = format_unit_price(price.price)
    if price.package is not None:
        response["package"] = price.package
    if price.tiers:
        response["tiers_mode"] = price.tiers_mode
        response["tiers"] = [{"up_to": tier.up_to, "price": format_unit_price(tier.price)} for tier in price.tiers]
    if price.by is not None:
        prices = {value: format_unit_price(unit_price) for value, unit_price in price.by.prices.items()}
        response["by"] = {"dimension": price.by.dimension, "prices": prices}
    return response


class TrialTerms(TypedDict):
    """The trial of a plan, in which nothing is charged."""

    days: int
    """The days that it lasts."""
    card: Literal["required", "not_required"]
    """Whether it begins with a payment method alone."""


class PlanResponse(TypedDict):
    """A plan that is sold. Amounts are smallest units of its currency, such as cents, unit prices those of a unit."""

    plan: str
    """The name of the plan, such as `standard`."""
    name: str
    """The name that customers read."""
    version: str
    """The version of the plan that is sold, such as `standard@3`."""
    currency: str
    """The currency of all amounts (ISO 4217), such as `usd`."""
    tier: str
    """The tier of the edge whose limits and quotas come with the plan."""
    fee: int
    """The fee of a month."""
    year_fee: int | None
    """The fee of a year; null where the plan is not sold by the year."""
    max_quantity: int | None
    """The largest quantity of it, such as seats, each of which costs the fee; null where it is sold once."""
    minimum: int | None
    """The least that a month costs, fee and usage together; null where there is no minimum."""
    threshold: int | None
    """The amount of usage at which it is invoiced within the period; null where it waits for the end."""
    trial: TrialTerms | None
    """The trial with which customers begin who have had none; null where the plan has none."""
    meters: dict[str, MeterPriceResponse]
    """The terms of each meter, by its name."""
    entitlements: dict[str, str]
    """Further features of the plan, by name."""


class MeterDisplayResponse(TypedDict):
    """How people read a meter."""

    label: str
    """What it is called."""
    unit: UnitName | None
    """What it counts; null where there is no word for it."""
    scale: int | None
    """The units that pages write a price for; null: as many as make it readable. Prices of plans are for one unit."""


def list_displays(plans: Iterable[Plan], meters: Mapping[str, Meter]) -> dict[str, MeterDisplayResponse]:
    """Return labels and units of the meters in these plans, by name."""
    displays = {name: find_display(meters, name) for name in sorted({name for plan in plans for name in plan.meters})}
    return {
        name: {"label": display.label, "unit": display.unit or None, "scale": display.scale}
        for name, display in displays.items()
    }


class PlanList(TypedDict):
    """All plans that are sold."""

    currency: str
    """The currency of all amounts (ISO 4217), such as `usd`."""
    currencies: list[str]
    """All currencies in which plans have prices."""
    plans: list[PlanResponse]
    """The plans that have prices in this currency, or cost nothing, each in its newest version."""
    meters: dict[str, MeterDisplayResponse]
    """How people read the meters of these plans, by the name of the meter."""


class PlanCostResponse(TypedDict):
    """An estimate of what the usage of this period would cost by a plan, so far and before tax."""

    version: str
    """The version of the plan."""
    total: int
    """The fee of a month and the usage, at least the minimum of the plan, in smallest units of the currency."""
    meters: dict[str, int]
    """What usage of each meter costs above what is included."""


class PlanCostList(TypedDict):
    """An estimate of what the usage of a customer's present period would cost by each plan that is sold."""

    customer: str
    """The customer, by name."""
    currency: str
    """The currency of all amounts (ISO 4217), such as `usd`."""
    period_start: str | None
    """The time since when usage counts: the beginning of the period, or of the subscription within it."""
    plans: list[PlanCostResponse]
    """The plans, as in the list of plans."""


class BillingStatusResponse(TypedDict):
    """Whether anything can be bought, and anybody is charged."""

    mode: Mode
    """`off` charges nobody, `shadow` computes invoices without sending them, `live` charges."""
    purchase: bool
    """Whether customers can buy plans and credits now."""
    charging: bool
    """Whether customers are charged now."""
    message: str | None
    """A message for customers while charging is stopped; null otherwise."""


class SubscriptionPreview(TypedDict):
    """The cost of a change of plan. Amounts are smallest units of its currency, such as cents."""

    plan: str
    """The version of the plan that the change leads to."""
    when: When
    """`now` or `period_end`."""
    at: str | None
    """The time of the change."""
    trial_ends_at: str | None
    """The time at which the trial would end, until which nothing is due; null where there is none."""
    due_now: int
    """The amount that is due with the change, before tax; below zero it is returned."""
    currency: str
    """The currency of all amounts (ISO 4217), such as `usd`."""
    lines: list[InvoiceLine]
    """The invoice lines that make up the amount."""
    withdrawn: WithdrawnChange | None
    """The change that waits and that this one would withdraw; null where none waits."""


class MeterUsageResponse(TypedDict):
    """The usage of a meter in this period, beside the units that the plan includes."""

    meter: str
    """The name of the meter."""
    quantity: int
    """The units used in this period while charging was on: those that count."""
    waived: int
    """The units used in this period while charging was stopped, which are never charged."""
    included: int | None
    """The units that the plan includes; null where it includes any number."""
    percentage: float | None
    """The share of the included units that is used, in percent; null where that has no meaning."""
    is_over: bool
    """Whether more is used than is included."""
    overage: int
    """The units above those that are included."""
    cap: Literal["soft", "hard"] | None
    """`soft` lets usage above the included units pass, `hard` refuses it; null where there is no cap."""
    is_billed: bool
    """Whether the plan has a price for this meter."""


class BilledUsage(TypedDict):
    """The usage of a customer in this period."""

    customer: str
    """The customer, by name."""
    plan: str
    """The version of the plan."""
    period_start: str | None
    """The beginning of the period."""
    period_end: str | None
    """The end of the period."""
    meters: list[MeterUsageResponse]
    """The usage of each meter."""


class PortalRequest(Body):
    """The page to which the customer portal sends the browser back."""

    return_url: Url
    """The page to which the browser is sent back from Stripe's customer portal."""
