"""What operators write of prepaid credits and of the books, under `billing` of collector.yaml."""

from typing import Annotated, Literal

from pydantic import BeforeValidator

from edgeproxy.config.collector.catalog import Price
from edgeproxy.config.field_types import Name
from edgeproxy.config.part import Part
from edgeproxy.config.units import read_text, value_error

AN_ACCOUNT = "the name or the code that it has in your books: 1 to 100 printable characters"
ACCOUNT_CHARACTERS_MAX = 100

AccountName = Literal[
    "cash",
    "fees",
    "receivable",
    "deferred",
    "deferred_fees",
    "overdraft",
    "revenue",
    "revenue_fees",
    "promotion",
    "cogs",
    "payable",
    "refunds",
    "breakage",
    "tax",
    "rounding",
]


def read_account(value: object) -> str:
    """Read what an account is called in somebody's books."""
    name = read_text(value, AN_ACCOUNT)
    if not (1 <= len(name) <= ACCOUNT_CHARACTERS_MAX and name.isprintable() and name.strip() == name):
        raise value_error("is no name of an account", AN_ACCOUNT)
    return name


class Credits(Part):
    """Credits that customers buy in advance and use up: 1,000 are one US dollar."""

    meter: Name = "cost"
    """The meter that counts what a request costs, in millicredits: `count: cost`, or what upstreams report."""
    cogs: dict[Name, Price] = {}
    """By meter: what a unit of it costs you, in USD: `"0.002/1000"`. It is booked beside the usage."""


Accounts = dict[AccountName, Annotated[str, BeforeValidator(read_account)]]
