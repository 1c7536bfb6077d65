"""Settings of prepaid credits and of accounts, under `billing` in collector.yaml."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ModelWrapValidatorHandler, model_validator

from edgeproxy.config.collector.currency_units import CHARGE_MAX, USD, Currency, get_least_charge
from edgeproxy.config.collector.money import (
    CENTS,
    DECIMAL,
    find_currency,
    get_reading,
    read_fee,
    read_unit_costs,
    reading_in,
)
from edgeproxy.config.field_types import Name
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import Whole, format_value, read_text, value_error

AN_ACCOUNT = "the name or the code that it has in your books: 1 to 100 printable characters"
ACCOUNT_CHARACTERS_MAX = 100
PACKAGE_CENTS_MIN, PACKAGE_CENTS_MAX = 500, 1_000_000
"""The minimum and maximum of a purchase of credits."""
PACKAGES_MAX = 12
MONTH_PURCHASES_MAX = 100
"""The most that automatic top-up may buy in a month, as a multiple of the largest purchase."""
A_PACKAGE = f'US dollars from "{PACKAGE_CENTS_MIN // CENTS}" to "{PACKAGE_CENTS_MAX // CENTS}", such as "25"'

AccountName = Literal[
    "cash",
    "clearing",
    "bank",
    "other",
    "fees",
    "chargebacks",
    "bad_debt",
    "customer_balance",
    "receivable",
    "deferred",
    "deferred_fees",
    "overdraft",
    "revenue",
    "revenue_fees",
    "discounts",
    "promotion",
    "cogs",
    "payable",
    "refunds",
    "residencies",
    "breakage",
    "tax",
    "rounding",
]


@written(build_text("text", r"\S(.*\S)?", "200"))
def read_account(value: object) -> str:
    """Read the name of an account in a chart of accounts."""
    name = read_text(value, AN_ACCOUNT)
    if not (1 <= len(name) <= ACCOUNT_CHARACTERS_MAX and name.isprintable() and name.strip() == name):
        raise value_error("is no name of an account", AN_ACCOUNT)
    return name


@written(build_text("amount", DECIMAL.pattern, "25"), lambda cents: f"{cents / CENTS:g}")
def read_package(value: object) -> int:
    """Read the price of a package of credits in US dollars, in cents."""
    cents = read_fee(value)
    if not PACKAGE_CENTS_MIN <= cents <= PACKAGE_CENTS_MAX:
        raise value_error(f"{format_value(str(value))} is not sold in one purchase", A_PACKAGE)
    return cents


@written(build_text("amount", DECIMAL.pattern, "25"), lambda _: None)
def read_foreign_package(value: object) -> int:
    """Read the price of a package of credits in the current currency, in its smallest units."""
    amount, least = read_fee(value), get_least_charge(get_reading().currency)
    if not least <= amount <= CHARGE_MAX:
        raise value_error("is no amount that Stripe charges", f"from {least} to {CHARGE_MAX} of the smallest unit")
    return amount


class ForeignCredits(Part):
    """Credits in another currency than US dollars. Ten credits are its smallest unit."""

    currency: Currency = Field(description="Currency of the credits, such as `eur`.")
    meter: Name = Field(description="Meter that counts the cost of requests in these credits, in millicredits.")
    packages: Annotated[
        tuple[Annotated[int, BeforeValidator(read_foreign_package)], ...], Field(min_length=1, max_length=PACKAGES_MAX)
    ] = Field(
        description='Packages in the portal, in this currency: `["10", "50"]`. Customers can also buy other amounts '
        "between the smallest and the largest."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _read_in_currency(cls, value: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Read amounts in the currency of the section."""
        with reading_in(find_currency(value)):
            return handler(value)


class Credits(Part):
    """[Prepaid credits](credits.md). 1,000 credits are one US dollar."""

    meter: Name = Field(default="cost", description="Meter with the cost of requests, in millicredits.")
    packages: Annotated[
        tuple[Annotated[int, BeforeValidator(read_package)], ...], Field(min_length=1, max_length=PACKAGES_MAX)
    ] = Field(
        default=(1_000, 2_500, 5_000, 10_000, 25_000, 100_000),
        description='Packages in the portal, in USD from `"5"` to `"10000"`. Customers can also buy other amounts.',
    )
    cogs: dict[Name, Annotated[dict[str, int], BeforeValidator(read_unit_costs)]] = Field(
        default={},
        description='Your cost for a unit of each meter: `"0.002/1000"` in USD, or `{usd: "0.002/1000", eur: '
        '"0.0018/1000"}` in each currency. The cost is booked with the usage of credits.',
    )
    low_percent: Annotated[int, BeforeValidator(Whole(0, 100))] = Field(
        default=20,
        description="A customer gets a [mail](credits.md#mails) when at most this percentage of its last purchase or "
        "gift is left. 0 turns this mail off.",
    )
    others: tuple[ForeignCredits, ...] = Field(
        default=(), description="Credits in [other currencies](credits.md#other-currencies). By default there are none."
    )

    @model_validator(mode="after")
    def _check_currencies(self) -> Self:
        codes = [other.currency for other in self.others]
        if USD in codes or len(set(codes)) < len(codes):
            raise value_error("has a currency twice", "write each once in others, and usd beside it")
        return self

    @property
    def meters(self) -> dict[str, str]:
        """The meter of the credits of each currency."""
        return {USD: self.meter, **{other.currency: other.meter for other in self.others}}

    def list_packages(self, currency: str) -> tuple[int, ...]:
        """Return the packages in a currency, in its smallest units, or none if no credits are sold in it."""
        if currency == USD:
            return self.packages
        return next((other.packages for other in self.others if other.currency == currency), ())

    def find_bounds(self, currency: str) -> tuple[int, int]:
        """Return the minimum and maximum price of one purchase in a currency, in its smallest units.

        Raises ValueError if no credits are sold in it.
        """
        if currency == USD:
            return PACKAGE_CENTS_MIN, PACKAGE_CENTS_MAX
        packages = self.list_packages(currency)
        return min(packages), max(packages)

    def list_costs(self, currency: str = USD) -> dict[str, int]:
        """Return the known costs of a unit of each meter in a currency, in 10⁻¹² smallest units."""
        return {meter: costs[currency] for meter, costs in self.cogs.items() if currency in costs}


Accounts = dict[AccountName, Annotated[str, BeforeValidator(read_account)]]


def format_meters(meters: Mapping[str, str]) -> str:
    """Format the meters of credits by currency, as in the database: `cost eur=cost_eur`."""
    others = (f"{currency}={meter}" for currency, meter in sorted(meters.items()) if currency != USD)
    return " ".join((meters[USD], *others))


def parse_meters(text: str) -> dict[str, str]:
    """Parse the text of `format_meters`. Versions with a single currency wrote only the first meter."""
    first, *others = text.split(" ")
    return {USD: first, **dict(other.split("=", 1) for other in others)}
