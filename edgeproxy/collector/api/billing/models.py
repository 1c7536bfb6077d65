"""Plans, subscriptions and billed usage as the API shows them."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, NotRequired

from pydantic import BeforeValidator, WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.api.coupons import CouponCode
from edgeproxy.collector.api.credits.models import Url
from edgeproxy.collector.api.customer_billing import CustomerChangeQuery
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import exact
from edgeproxy.collector.billing.invoices.line_rows import InvoiceLine, format_unit_price
from edgeproxy.collector.billing.period_close.quantities import MeterUsageResponse
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
    """The currency of the prices, for example `eur`; by default the currency of the plans file."""


Quantity = Annotated[
    int,
    exact(int, f"a whole number from 1 to {PLAN_QUANTITY_MAX}", 1, PLAN_QUANTITY_MAX),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": PLAN_QUANTITY_MAX}),
]


class UpgradeQuery(CustomerChangeQuery):
    """The tier of the edge that is bought."""

    tier: Name
    """The tier at the edge. The plan with this tier is chosen."""


class CancelQuery(CustomerChangeQuery):
    """The time when a subscription ends."""

    when: Literal["now", "period_end"] = "period_end"
    """`period_end` ends the subscription when its paid period ends, `now` at once."""


class CreateSubscriptionRequest(Body):
    """A subscription to create."""

    plan: PlanName
    """The plan: a name for its newest version, or a version like `standard@3`."""
    interval: Literal["month", "year"] = "month"
    """The billing interval. The fee is paid in advance."""
    quantity: Quantity = 1
    """The quantity, for example the number of seats, for a plan that is sold by quantity."""
    coupon: CouponCode | None = None
    """The code of a coupon, in upper or lower case."""
    currency: Currency | None = None
    """The currency of all the customer's charges, if none is set yet; by default the plan's currency. It cannot change
    later.
    """


class UpdateSubscriptionRequest(Body):
    """A change to another plan, interval or quantity."""

    plan: PlanName
    """The plan: a name for its newest version, or a version like `standard@3`."""
    when: Literal["now", "period_end"] | None = None
    """The time of the change; by default `now` for a plan that costs more, `period_end` for a plan that costs less."""
    interval: Literal["month", "year"] | None = None
    """The billing interval. The fee is paid in advance. By default it does not change."""
    quantity: Quantity | None = None
    """The quantity, for a plan that is sold by quantity; by default it does not change."""
    currency: Currency | None = None
    """The currency of all the customer's charges, if none is set yet; by default the plan's currency. It cannot change
    later.
    """


class PreviewSubscriptionRequest(UpdateSubscriptionRequest):
    """A change of plan, or a new subscription, to preview. A new subscription is monthly by default."""

    coupon: CouponCode | None = None
    """The code of a coupon, in upper or lower case; only for a new subscription."""


class PriceTier(TypedDict):
    """A tier of units with its own price."""

    up_to: int | None
    """The number of the last unit of the tier; null in the last tier."""
    price: str
    """The price of a unit in the smallest unit of the currency, for example cents, as a decimal number."""


class DimensionPrices(TypedDict):
    """Prices by the value of a dimension."""

    dimension: str
    """The dimension, for example `model`."""
    prices: dict[str, str]
    """The price of a unit in the smallest unit of the currency, as a decimal number, by the value of the dimension."""


class MeterPriceResponse(TypedDict):
    """The terms of a meter in a plan."""

    included: int | None
    """The units that the fee covers in a period; null if it covers any number."""
    cap: Literal["soft", "hard"] | None
    """`soft` allows usage above the included units for a grace period, `hard` refuses it; null if there is no cap."""
    price: NotRequired[str]
    """The price of a unit above the included ones in the smallest unit of the currency, as a decimal number."""
    package: NotRequired[int]
    """The units of a package; `price` is the price of one package. Missing if units are billed one by one."""
    tiers: NotRequired[list[PriceTier]]
    """The prices of units, tier by tier."""
    tiers_mode: NotRequired[Literal["graduated", "volume"]]
    """`graduated`: each unit has the price of its own tier; `volume`: all units have the price of the last unit's tier.
    """
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
    """The trial of a plan. Nothing is charged during it."""

    days: int
    """The length of the trial in days."""
    card: Literal["required", "not_required"]
    """True if the trial needs a payment method."""


class PlanResponse(TypedDict):
    """A plan on sale. Amounts are in the smallest unit of its currency, for example cents. Unit prices are for one
    unit.
    """

    plan: str
    """The name of the plan, for example `standard`."""
    name: str
    """The name of the plan for customers."""
    version: str
    """The version of the plan on sale, for example `standard@3`."""
    currency: str
    """The currency of all amounts (ISO 4217), for example `usd`."""
    tier: str
    """The tier of the edge. Its limits and quotas come with the plan."""
    fee: int
    """The monthly fee."""
    year_fee: int | None
    """The yearly fee; null if the plan is not sold by the year."""
    max_quantity: int | None
    """The largest quantity, for example of seats. The fee is charged for each; null if not sold by quantity."""
    minimum: int | None
    """The minimum charge for a month, fee and usage together; null if there is no minimum."""
    threshold: int | None
    """The amount of usage that triggers an invoice within the period; null if usage is invoiced at the end only."""
    trial: TrialTerms | None
    """The trial for customers who have not had one yet; null if the plan has none."""
    meters: dict[str, MeterPriceResponse]
    """The terms of each meter, by its name."""
    entitlements: dict[str, str]
    """Further features of the plan, by name."""


class MeterDisplayResponse(TypedDict):
    """The label and the unit of a meter on pages."""

    label: str
    """The name of the meter on pages."""
    unit: UnitName | None
    """The name of its unit on pages; null if it has none."""
    scale: int | None
    """The number of units that pages write a price for; null: a number that makes the price readable. Prices of plans
    are for one unit.
    """


def list_displays(plans: Iterable[Plan], meters: Mapping[str, Meter]) -> dict[str, MeterDisplayResponse]:
    """Return labels and units of the meters in these plans, by name."""
    displays = {name: find_display(meters, name) for name in sorted({name for plan in plans for name in plan.meters})}
    return {
        name: {"label": display.label, "unit": display.unit or None, "scale": display.scale}
        for name, display in displays.items()
    }


class PlanList(TypedDict):
    """All plans on sale."""

    currency: str
    """The currency of all amounts (ISO 4217), for example `usd`."""
    currencies: list[str]
    """The currencies of all plans' prices."""
    plans: list[PlanResponse]
    """The plans that have prices in this currency or are free, each in its newest version."""
    meters: dict[str, MeterDisplayResponse]
    """The labels and units of these plans' meters on pages, by the name of the meter."""


class PlanCostResponse(TypedDict):
    """An estimate of the cost of this period's usage under a plan, so far and before tax."""

    version: str
    """The version of the plan."""
    total: int
    """The monthly fee plus usage, at least the plan's minimum, in the smallest unit of the currency."""
    meters: dict[str, int]
    """The cost of each meter's usage above the included units."""


class PlanCostList(TypedDict):
    """An estimate of the cost of the current period's usage under each plan on sale."""

    customer: str
    """The customer, by name."""
    currency: str
    """The currency of all amounts (ISO 4217), for example `usd`."""
    period_start: str | None
    """The start of the usage that counts: the start of the period, or of a subscription that started later."""
    plans: list[PlanCostResponse]
    """The plans, as in the list of plans."""


class BillingStatusResponse(TypedDict):
    """The status of purchases and charges."""

    mode: Mode
    """`off` charges no customers, `shadow` computes invoices without sending them, `live` charges customers."""
    purchase: bool
    """True if customers can buy plans and credits now."""
    charging: bool
    """True if customers are charged now."""
    message: str | None
    """A message for customers while charging is stopped; null otherwise."""


class SubscriptionPreview(TypedDict):
    """The cost of a change of plan. Amounts are in the smallest unit of its currency, for example cents."""

    plan: str
    """The version of the plan after the change."""
    when: When
    """`now` or `period_end`."""
    at: str | None
    """The time of the change."""
    trial_ends_at: str | None
    """The time when the trial would end. Nothing is due until then. Null if there is no trial."""
    due_now: int
    """The amount due with the change, before tax. A negative amount is returned to the customer."""
    currency: str
    """The currency of all amounts (ISO 4217), for example `usd`."""
    lines: list[InvoiceLine]
    """The invoice lines of this amount."""
    withdrawn: WithdrawnChange | None
    """The pending change that this one would withdraw; null if none is pending."""


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
    """The page that the browser returns to from Stripe's customer portal."""

    return_url: Url
    """The URL of the page that the browser returns to from Stripe's customer portal."""
