"""Settings of plans.yaml: plans with their versions and prices.

A version is never edited. A change is a new version, and customers move to it when an operator decides so.

Each plan is read once per currency of its prices (`Plan.in_currency`).
"""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import Annotated, Literal, Self

import orjson
from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    model_validator,
)

from edgeproxy.config.check import Kind
from edgeproxy.config.collector.currency_units import DECIMALS, USD, Currency, get_payable_unit
from edgeproxy.config.collector.money import Price, find_currency, get_reading, read_fee, reading_in
from edgeproxy.config.field_types import DimensionValue, Name
from edgeproxy.config.part import Part
from edgeproxy.config.references import Fault
from edgeproxy.config.selection import HeldRoutes, HeldScopes, is_of_all
from edgeproxy.config.tree import Table
from edgeproxy.config.units import Whole, format_value, read_duration, read_share, read_text, value_error

QUANTITY_MAX = 10**15
"""The maximum of an included amount or of the end of a tier."""
MONTHS = 12
PLAN_QUANTITY_MAX = 10_000
"""The maximum quantity of a plan in a subscription."""
TRIAL_DAYS_MAX = 730
"""Maximum days of a trial, as Stripe allows."""

VERSION = re.compile(r"([a-z0-9][a-z0-9-]{0,47})@([1-9][0-9]{0,5})(?:\+([A-Za-z0-9][A-Za-z0-9_-]{0,63}))?")
A_QUANTITY = "a whole number of units, or unlimited"
A_PACKAGE = "a whole number of units from 2 on"
AN_END = "a whole number of units, or none for the last tier"
A_VERSION = "PLAN@VERSION such as standard@3, or standard@3+acme for one customer"


def read_included(value: object) -> int | None:
    """Read the units that the fee includes. None: unlimited."""
    if value is None or isinstance(value, int):
        return value
    written = read_text(value, A_QUANTITY)
    return None if written == "unlimited" else _read_quantity(written, A_QUANTITY)


def read_package(value: object) -> int | None:
    """Read the units of a package; None: there are no packages."""
    if value is None or isinstance(value, int):
        return value
    units = _read_quantity(read_text(value, A_PACKAGE), A_PACKAGE)
    if units < 2:
        raise value_error(f"{units} is no package", A_PACKAGE)
    return units


def read_end(value: object) -> int | None:
    """Read the last unit of a tier; None: it has none."""
    if value is None or isinstance(value, int):
        return value
    written = read_text(value, AN_END)
    return None if written == "none" else _read_quantity(written, AN_END)


def _read_quantity(written: str, hint: str) -> int:
    if not re.fullmatch(r"[0-9]{1,16}", written) or int(written) > QUANTITY_MAX:
        raise value_error(f"{format_value(written)} is not a number from 0 to {QUANTITY_MAX}", hint)
    return int(written)


def read_version(value: object) -> str:
    """Read the name of a version."""
    written = read_text(value, A_VERSION)
    if not VERSION.fullmatch(written):
        raise value_error(f"{format_value(written)} is not the name of a version", A_VERSION)
    return written


Version = Annotated[str, BeforeValidator(read_version)]


class PriceTier(Part):
    """A tier of a graduated price."""

    up_to: Annotated[int | None, BeforeValidator(read_end)] = Field(
        description="Number of the last unit at this price, counted from the start of the period; `none`: all further "
        "units."
    )
    price: Price = Field(description="Price of a unit.")


class PricesBy(Part):
    """Prices that differ by a dimension of usage."""

    dimension: Name = Field(description="Dimension of the meter, such as `model`.")
    prices: dict[DimensionValue, Price] = Field(
        description="Price of a unit for each value, such as `gpt-4.1`. The included units are used up in this order. "
        "Other values come last, at the meter's `price`."
    )


ITEMS_MAX = 20
"""The most prices that a subscription at Stripe has."""


class MeterPrice(Part):
    """The price of a meter in a plan: the included amount, and what happens above it."""

    included: Annotated[int | None, BeforeValidator(read_included)] = Field(
        default=0, description="Units that the fee covers in a period, or `unlimited`."
    )
    cap: Literal["soft", "hard"] | None = Field(
        default=None,
        description="Treatment of usage above the included units: `soft` serves it, without a price only within the "
        "plan's grace; `hard` refuses it.",
    )
    price: Price | None = Field(
        default=None,
        description='Price of a unit above the included ones: `"0.10"`, `"0.01/1000"` for a thousand units, '
        '`"1.25/1M"` for a million, or `{usd: "0.10", jpy: "15"}`.',
    )
    package: Annotated[int | None, BeforeValidator(read_package)] = Field(
        default=None,
        description="Units of a package. `price` is for each package above the included units; a partly used package "
        "counts as a whole one.",
    )
    tiers: tuple[PriceTier, ...] = Field(
        default=(), description="Prices by quantity, instead of `included` and `price`: see `tiers_mode`."
    )
    tiers_mode: Literal["graduated", "volume"] = Field(
        default="graduated",
        description="`graduated`: each unit has the price of its own tier. `volume`: all units of a period have the "
        "price of the last unit's tier.",
    )
    by: PricesBy | None = Field(default=None, description="Prices that differ by a dimension.")
    routes: HeldRoutes = ()
    scopes: HeldScopes = ()

    @property
    def has_prices(self) -> bool:
        """True if its usage can ever cost anything."""
        by = () if self.by is None else self.by.prices.values()
        return any((self.price, *by, *(tier.price for tier in self.tiers)))

    @model_validator(mode="after")
    def _check_consistency(self) -> "MeterPrice":
        if self.tiers and (self.included or self.price is not None or self.by is not None):
            raise value_error("has tiers and beside them included, price or by", "leave those out: a tier may cost 0")
        if self.tiers_mode == "volume" and not self.tiers:
            raise value_error("has a mode of tiers and no tiers", "write tiers, or leave it out")
        if self.package is not None and (self.price is None or self.by is not None):
            raise value_error("has a package without one price for it", "write price, and no by")
        ends = [tier.up_to for tier in self.tiers]
        if ends and (ends[-1] is not None or None in ends[:-1]):
            raise value_error("has tiers that do not cover every unit", "give the last one, and no other, up_to: none")
        if any(one >= other for one, other in pairwise(end for end in ends if end is not None)):
            raise value_error("has tiers that overlap", "give each tier an up_to above that of the one before")
        if self.by is not None and self.price is None:
            raise value_error("has prices by dimension and none for other values", "write price beside by")
        is_billed = self.price is not None or bool(self.tiers)
        if self.cap == "hard" and is_billed:
            raise value_error("has a price above a hard cap, which lets nothing through", "leave out one of them")
        if self.cap is None and not is_of_all(self):
            raise value_error(
                "names the requests of a cap that is not there", "write cap: hard or soft, or leave it out"
            )
        if self.included is None and (is_billed or self.cap is not None):
            raise value_error("has a price or a cap for what is unlimited", "leave it out")
        if self.included is not None and not is_billed and self.cap is None:
            raise value_error("does not say what happens above what is included", "write price, or cap: soft or hard")
        return self


class Grace(Part):
    """The grace above a soft cap without a price: it ends at the first of two bounds; then the cap is hard."""

    percent: Annotated[float, BeforeValidator(read_share)] = Field(
        description="Usage above the included units, as a share of them."
    )
    for_: Annotated[float, BeforeValidator(read_duration)] = Field(alias="for", description="Time, such as `3day`.")


class Annual(Part):
    """A year paid in advance; usage stays monthly."""

    discount: Annotated[float, BeforeValidator(read_share)] = Field(description="Discount on twelve monthly fees.")


class Trial(Part):
    """A time before the first fee in which nothing is charged, once for a customer."""

    days: Annotated[int, BeforeValidator(Whole(1, TRIAL_DAYS_MAX))] = Field(description="Length in days.")
    card: Literal["required", "not_required"] = Field(
        default="not_required", description="`required`: customers need a payment method at Stripe to start the trial."
    )
    missing_payment_method: Literal["cancel", "create_invoice"] = Field(
        default="cancel",
        description="Treatment of a subscription if its customer has no payment method at the end of the trial. "
        "`cancel`: it ends. `create_invoice`: it goes on, with an invoice by mail.",
    )


class PlanQuantity(Part):
    """How many of a plan a subscription can have, such as seats."""

    max: Annotated[int, BeforeValidator(Whole(1, PLAN_QUANTITY_MAX))] = Field(
        default=1000, description="The largest quantity."
    )


class Plan(Part):
    """A version of a plan."""

    name: str | None = Field(default=None, description="Name for customers. By default the plan's name.")
    fee: Annotated[int, BeforeValidator(read_fee)] = Field(
        description='Fee for a month: `"99"`, or in several [currencies](billing.md#currencies) `{usd: "99", jpy: '
        '"14800"}`.'
    )
    quantity: PlanQuantity | None = Field(
        default=None,
        description="Subscriptions choose a quantity, such as the number of seats. The fee is charged for each. The "
        "units that meters include are for all together. By default the quantity is 1.",
    )
    minimum: Annotated[int, BeforeValidator(read_fee)] | None = Field(
        default=None,
        description="Minimum charge for a month, fee and usage together. The difference is a line at the end of the "
        "month.",
    )
    annual: Annual | None = Field(
        default=None, description="Price of a year in advance. By default the plan is not sold by the year."
    )
    tier: Name | None = Field(default=None, description="Tier at the edge. By default the tier with the plan's name.")
    meters: dict[Name, MeterPrice] = Field(
        default={}, description="Included amount and price of each meter. Other meters are not billed."
    )
    entitlements: dict[Name, str] = Field(
        default={}, description="Features that are not billed, such as `concurrent_jobs: 10`, in words for customers."
    )
    grace: Grace | None = Field(default=None, description="Grace above soft caps without a price.")
    threshold: Annotated[int, BeforeValidator(read_fee)] | None = Field(
        default=None,
        description="Amount of usage that triggers an invoice within the month. By default usage is invoiced at the "
        "end of the month.",
    )
    trial: Trial | None = Field(
        default=None, description="Trial at the start of subscriptions. By default there is none."
    )

    _currency: str = PrivateAttr(default=USD)
    _is_free: bool = PrivateAttr(default=False)
    _others: dict[str, "Plan"] = PrivateAttr(default_factory=dict)

    @cached_property  # A private attribute takes pydantic several calls, and the rater reads it for each segment.
    def currency(self) -> str:
        """The currency of all amounts of this plan."""
        return self._currency

    @property
    def others(self) -> dict[str, "Plan"]:
        """The plan in its other currencies, by their codes."""
        return self._others

    @property
    def currencies(self) -> tuple[str, ...]:
        """The currencies of its prices, its own first. A plan without any price has all currencies."""
        rest = sorted(DECIMALS.keys() - {self._currency}) if self._is_free else self._others
        return self._currency, *rest

    def in_currency(self, currency: str) -> "Plan":
        """Return the plan with its prices in a currency; raises ValueError if it has none in it."""
        if currency == self._currency:
            return self
        if currency in self._others:
            return self._others[currency]
        if not self._is_free:
            raise ValueError(f"there are no prices in {currency}")
        plan = self.model_copy()
        plan._currency = currency
        vars(plan).pop("currency", None)  # The copy has the cached value, too.
        return plan

    @model_validator(mode="after")
    def _check_terms(self) -> "Plan":
        if self.minimum is not None and self.minimum <= self.fee:
            raise value_error("has a minimum that the fee reaches by itself", "write one above the fee")
        if self.threshold == 0:
            raise value_error("has a threshold of nothing", "write an amount above zero")
        if self.trial is not None and not self.has_prices:
            raise value_error("has a trial of what costs nothing", "leave it out")
        return self

    @property
    def quantity_max(self) -> int:
        """The maximum quantity of it in a subscription."""
        return 1 if self.quantity is None else self.quantity.max

    @property
    def year_fee(self) -> int | None:
        """The price of a year in advance, in smallest units. None: it is not sold by the year."""
        if self.annual is None:
            return None
        # A share has at most ten places, so whole numbers and one rounding are exact.
        left = 10**10 - round(self.annual.discount * 10**10)
        step = get_payable_unit(self._currency)
        return step * ((2 * MONTHS * self.fee * left + step * 10**10) // (2 * step * 10**10))

    @model_validator(mode="wrap")
    @classmethod
    def _read_currencies(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Read the plan once in each currency of its prices."""
        if not isinstance(value, Mapping):
            return handler(value)
        base = get_reading().base
        with reading_in(base, is_plan=True) as reading:
            plan = handler(value)
        plan._currency, plan._is_free = base, not plan.has_prices
        for currency in sorted(reading.named - {base}):
            with reading_in(currency, base, is_plan=True):
                plan._others[currency] = handler(value)
            plan._others[currency]._currency = currency
        return plan

    @property
    def fits_stripe_meters(self) -> bool:
        """True if prices of Stripe's meters can charge its usage: by tiers, once a period, in US dollars."""
        return self.find_meters_obstacle() is None

    def find_meters_obstacle(self) -> str | None:
        """Return the first of its terms that prices of Stripe's meters cannot express, or None."""
        for name, price in self.meters.items():
            if price.package is not None:
                return f"prices of {name} by package"
        if (count := sum(1 + len(price.by.prices if price.by else ()) for price in self.meters.values())) > ITEMS_MAX:
            return f"{count} prices of usage, and a subscription at Stripe has {ITEMS_MAX}"
        if self.threshold is not None:
            return "a threshold"
        return None if self._currency == USD else f"prices in {self._currency}"

    def find_items_reason(self) -> str | None:
        """Return why Stripe's meters cannot charge its usage. None: they can, or its usage costs nothing."""
        if not any(price.has_prices for price in self.meters.values()):
            return None
        return self.in_currency(USD).find_meters_obstacle() if USD in self.currencies else "no prices in usd"

    @property
    def has_prices(self) -> bool:
        """True if it can ever cost anything."""
        return bool(self.fee or self.minimum) or any(price.has_prices for price in self.meters.values())


def serialize_plan(plan: Plan) -> str:
    """Serialize a plan in all its currencies, as JSON for `parse_plan`.

    A free plan or one in US dollars only has the JSON of versions with a single currency.
    """
    terms = plan.model_dump_json(by_alias=True, exclude_defaults=True)
    others = {code: orjson.loads(serialize_plan(other)) for code, other in plan.others.items()}
    if not others and (plan.currency == USD or not plan.has_prices):
        return terms
    return orjson.dumps({**orjson.loads(terms), "currency": plan.currency, "currencies": others}).decode()


def parse_plan(settings: str) -> Plan:
    """Parse the JSON of `serialize_plan`."""
    terms = orjson.loads(settings)
    currency, others = terms.pop("currency", USD), terms.pop("currencies", {})
    with reading_in(currency):
        plan = Plan.model_validate(terms)
    plan.others.update((code, parse_plan(orjson.dumps(other).decode())) for code, other in others.items())
    return plan


def get_default_currency(plans: Mapping[str, Plan]) -> str:
    """Return the default currency of prices in the file of these plans."""
    return next((plan.currency for plan in plans.values()), USD)


def get_plan_name(version: str) -> str:
    """Return the plan's name in the name of a version: `standard` for `standard@3+acme`."""
    return version.partition("@")[0]


def find_version_owner(version: str) -> str | None:
    """Return the customer with an own price in this version. None: the version is for all customers."""
    return version.partition("+")[2] or None


def get_version_number(version: str) -> int:
    """Return the number of a version: 3 for `standard@3+acme`."""
    return int(version.partition("@")[2].partition("+")[0])


def get_plan_tier(version: str, plan: Plan) -> str:
    """Return the tier at the edge of customers with this version."""
    return plan.tier or get_plan_name(version)


def find_newest_versions(plans: Mapping[str, Plan], customer: str | None = None) -> dict[str, str]:
    """Return the newest version of each plan by the plan's name, for sale to a customer.

    A version with the customer's own price takes precedence. None: the versions for all customers.
    """
    newest_versions: dict[str, str] = {}
    for version in sorted(
        plans, key=lambda version: (get_version_number(version), find_version_owner(version) is not None)
    ):
        if find_version_owner(version) in (None, customer):
            newest_versions[get_plan_name(version)] = version
    return {name: newest_versions[name] for name in dict.fromkeys(map(get_plan_name, plans)) if name in newest_versions}


class PlansFile(Part):
    """Settings of plans.yaml."""

    currency: Currency = Field(
        default=USD, description="Currency of prices without one, such as `usd`. Each plan has prices in it."
    )
    plans: dict[Version, Plan] = Field(description="Plans by version, such as `standard@3`.")

    @model_validator(mode="wrap")
    @classmethod
    def _read_in_currency(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Read prices without a currency in the file's currency."""
        with reading_in(find_currency(value)):
            return handler(value)


def find_faults(tree: Table) -> Iterator[Fault]:
    """Find customers' own prices for plans that do not exist."""
    plans = tree.get("plans")
    if isinstance(plans, Table):
        for version in plans:
            general, plus, _ = version.partition("+")
            if plus and general not in plans:
                yield Fault(("plans", version), f"is a price of {general}, which is not there", f"write {general} too")


KIND = Kind(PlansFile, find_faults)


def is_plans_file(tree: Table) -> bool:
    """Return whether a file with these sections is a plans.yaml."""
    return "plans" in tree
