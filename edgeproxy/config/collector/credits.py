"""Settings of prepaid credits and of accounts, under `billing` in collector.yaml."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.config.collector.currency_units import USD
from edgeproxy.config.collector.money import CENTS, DECIMAL, read_fee, read_unit_costs
from edgeproxy.config.field_types import Name
from edgeproxy.config.forms import build_text, written
from edgeproxy.config.part import Part
from edgeproxy.config.units import format_value, read_text, value_error

AN_ACCOUNT = "the name or the code that it has in your books: 1 to 100 printable characters"
ACCOUNT_CHARACTERS_MAX = 100
PACKAGE_CENTS_MIN, PACKAGE_CENTS_MAX = 500, 1_000_000
"""The bounds of a purchase of credits."""
PACKAGES_MAX = 12
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
    "breakage",
    "tax",
    "rounding",
]


@written(build_text("text", r"\S(.*\S)?", "200"))
def read_account(value: object) -> str:
    """Read what an account is called in somebody's books."""
    name = read_text(value, AN_ACCOUNT)
    if not (1 <= len(name) <= ACCOUNT_CHARACTERS_MAX and name.isprintable() and name.strip() == name):
        raise value_error("is no name of an account", AN_ACCOUNT)
    return name


@written(build_text("amount", DECIMAL.pattern, "25"), lambda cents: f"{cents / CENTS:g}")
def read_package(value: object) -> int:
    """Read the price of a package of credits in US dollars, as cents."""
    cents = read_fee(value)
    if not PACKAGE_CENTS_MIN <= cents <= PACKAGE_CENTS_MAX:
        raise value_error(f"{format_value(str(value))} is not sold in one purchase", A_PACKAGE)
    return cents


class Credits(Part):
    """[Prepaid credits](credits.md). 1,000 credits are one US dollar."""

    meter: Name = Field(default="cost", description="Meter with the cost of requests, in millicredits.")
    packages: Annotated[
        tuple[Annotated[int, BeforeValidator(read_package)], ...], Field(min_length=1, max_length=PACKAGES_MAX)
    ] = Field(
        default=(1_000, 2_500, 5_000, 10_000, 25_000, 100_000),
        description='Packages that the portal offers, in USD from `"5"` to `"10000"`. Other amounts can be bought too.',
    )
    cogs: dict[Name, Annotated[dict[str, int], BeforeValidator(read_unit_costs)]] = Field(
        default={},
        description='Your cost of a unit of each meter: `"0.002/1000"` in USD, or `{usd: "0.002/1000", eur: '
        '"0.0018/1000"}` for margins in each currency. That in USD is booked with the usage of credits.',
    )

    def list_costs(self, currency: str = USD) -> dict[str, int]:
        """Return what a unit of each meter costs in a currency, in 10⁻¹² smallest units, where that is known."""
        return {meter: costs[currency] for meter, costs in self.cogs.items() if currency in costs}


Accounts = dict[AccountName, Annotated[str, BeforeValidator(read_account)]]
