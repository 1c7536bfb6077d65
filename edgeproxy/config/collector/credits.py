"""Settings of prepaid credits and of accounts, under `billing` in collector.yaml."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from edgeproxy.config.collector.catalog import Price
from edgeproxy.config.field_types import Name
from edgeproxy.config.forms import build_text, written
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


@written(build_text("text", r"\S(.*\S)?", "200"))
def read_account(value: object) -> str:
    """Read what an account is called in somebody's books."""
    name = read_text(value, AN_ACCOUNT)
    if not (1 <= len(name) <= ACCOUNT_CHARACTERS_MAX and name.isprintable() and name.strip() == name):
        raise value_error("is no name of an account", AN_ACCOUNT)
    return name


class Credits(Part):
    """[Prepaid credits](credits.md). 1,000 credits are one US dollar."""

    meter: Name = Field(default="cost", description="Meter with the cost of requests, in millicredits.")
    cogs: dict[Name, Price] = Field(
        default={},
        description='Your cost of a unit of each meter in USD, such as `"0.002/1000"`. It is booked with the usage.',
    )


Accounts = dict[AccountName, Annotated[str, BeforeValidator(read_account)]]
