"""The budgets of keys: what a key may use in a day or a month, in units of a meter or in money. Pure.

A budget is stored with its key, as JSON. It has an id of its own, under which usage is counted: a key that replaces
another has the same budget, and goes on from what the other has used.
"""

import re
from typing import Annotated, Literal, NamedTuple, Self

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema, model_validator
from typing_extensions import TypedDict

from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.accounts.ids import generate_id
from edgeproxy.config.collector.currency_units import DECIMALS, Currency, parse_amount
from edgeproxy.config.field_types import Name
from edgeproxy.config.limits import SPEND, KeyBudget
from edgeproxy.config.units import Whole, value_error

AMOUNT_MAX = (1 << 53) - 1
WRITTEN = re.compile(r"([$€£]?) ?([0-9]{1,16}(?:\.[0-9]{1,4})?) ?([A-Za-z0-9_-]*) ?/ ?(day|month)")
SYMBOLS = {"$": "usd", "€": "eur", "£": "gbp"}
A_BUDGET = "such as $50/month, 50 eur/month or 1000000 tokens/day"
Amount = Annotated[
    int, BeforeValidator(Whole(1, AMOUNT_MAX)), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": AMOUNT_MAX})
]


class KeyBudgetRequest(BaseModel):
    """The budget of a key, in units of a meter or, without one, in money."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: Amount
    """The units of the meter, or the smallest units of the currency, such as cents."""
    per: Literal["day", "month"]
    """The period of the calendar, in UTC, after which the count begins again."""
    meter: Name | None = None
    """The meter, which must have the dimension `key`; by default the budget is in money."""
    currency: Currency | None = None
    """The currency, in which the customer's plan must have prices; by default that of the plan."""

    @model_validator(mode="after")
    def require_one_kind(self) -> Self:
        """Raise a value error for a budget in both units and money."""
        if self.meter is not None and self.currency is not None:
            raise value_error("is in units of a meter and in money", "give `meter` or `currency`")
        return self


class KeyBudgetTerms(TypedDict):
    """The budget of a key."""

    amount: int
    """The units of the meter, or the smallest units of the currency, such as cents."""
    per: Literal["day", "month"]
    """The period of the calendar, in UTC, after which the count begins again."""
    meter: str | None
    """The meter that is counted; null for a budget in money."""
    currency: str | None
    """The currency; null for a budget in units of a meter."""


class StoredBudget(NamedTuple):
    """A budget as it is stored with a key."""

    id: str
    amount: int
    per: Literal["day", "month"]
    meter: str | None
    currency: str | None

    @property
    def counted(self) -> str:
        """The name under which the ledger's count is told to edges."""
        return self.meter or SPEND

    def to_response(self) -> KeyBudgetTerms:
        """Return the budget as the API does."""
        return {"amount": self.amount, "per": self.per, "meter": self.meter, "currency": self.currency}

    def to_directory(self, start: str) -> KeyBudget:
        """Return the budget as edges get it; `start` are the first characters of its key."""
        return KeyBudget(
            id=self.id,
            meter=self.counted,
            is_of_money=self.meter is None,
            per=self.per,
            included=self.amount,
            why=f"The budget of the API key {start} for the {self.per} is used up",
        )

    def is_within(self, other: "StoredBudget") -> bool:
        """Return whether it is the same budget, or a smaller one."""
        return self[2:] == other[2:] and self.amount <= other.amount


def parse_written(written: str) -> JsonObject:
    """Return the budget that people write as `$50/month`, `50 eur/month` or `1000000 tokens/day`, as a request has it.

    Raises ValueError, which says what is wrong with it.
    """
    match = WRITTEN.fullmatch(written.strip())
    symbol, amount, unit, per = match.groups() if match else ("", "", "", "")
    currency = SYMBOLS.get(symbol) or (unit.lower() if unit.lower() in DECIMALS else None)
    if match is None or (symbol and unit.lower() not in ("", currency)) or not (symbol or unit):
        raise ValueError(f"is no budget {A_BUDGET}")
    if currency is not None:
        return {"amount": parse_amount(amount, currency), "per": per, "currency": currency}
    if not amount.isdecimal():
        raise ValueError(f"is no whole number of {unit}")
    return {"amount": int(amount), "per": per, "meter": unit}


def parse_budget(stored: str | None) -> StoredBudget | None:
    """Return the budget in the column of a key."""
    return None if stored is None else StoredBudget(**orjson.loads(stored))


def dump_budget(requested: KeyBudgetRequest | None, before: StoredBudget | None = None) -> str | None:
    """Return the column of a key with this budget, which goes on counting where the one `before` counted the same."""
    if requested is None:
        return None
    budget = StoredBudget(generate_id(), requested.amount, requested.per, requested.meter, requested.currency)
    if before is not None and before[2:] == budget[2:]:
        budget = budget._replace(id=before.id)
    return orjson.dumps(budget._asdict()).decode()
