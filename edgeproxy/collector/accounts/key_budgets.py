"""The budgets of keys: the most that a key may use in a day or a month, in units of a meter or in money. Pure.

A budget is stored with its key as JSON. Usage is counted under the budget's own id. A key that replaces another keeps
the budget and its count.
"""

import re
from typing import Annotated, Literal, NamedTuple, NotRequired, Self

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, WithJsonSchema, model_validator
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.ids import generate_id
from edgeproxy.config.collector.currency_units import DECIMALS, Currency, parse_amount
from edgeproxy.config.field_codes import NOT_A_BUDGET
from edgeproxy.config.field_types import Name, RoutePattern, Scope
from edgeproxy.config.limits import SPEND, KeyBudget
from edgeproxy.config.units import Whole, format_value, value_error

AMOUNT_MAX = (1 << 53) - 1
WRITTEN = re.compile(r"([$€£]?) ?([0-9]{1,16}(?:\.[0-9]{1,4})?) ?([A-Za-z0-9_-]*) ?/ ?(day|month)")
SYMBOLS = {"$": "usd", "€": "eur", "£": "gbp"}
A_BUDGET = "$50/month, 50 eur/month or 1000000 tokens/day"
PATTERNS = WithJsonSchema({"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 100}})
Amount = Annotated[
    int, BeforeValidator(Whole(1, AMOUNT_MAX)), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": AMOUNT_MAX})
]


def parse_written(value: object) -> object:
    """Parse a budget like `$50/month`, `50 eur/month` or `1000000 tokens/day` into an object's fields.

    Returns a value that is not a text unchanged. Raises a value error.
    """
    if not isinstance(value, str):
        return value
    match = WRITTEN.fullmatch(value.strip())
    symbol, amount, unit, per = match.groups() if match else ("", "", "", "")
    currency = SYMBOLS.get(symbol) or (unit.lower() if unit.lower() in DECIMALS else None)
    if not (symbol or unit) or (symbol and unit.lower() not in ("", currency)):
        raise value_error(f"{format_value(value)} is no budget", A_BUDGET, NOT_A_BUDGET)
    try:
        units = int(amount) if currency is None else parse_amount(amount, currency)
    except ValueError:
        raise value_error(f"{format_value(value)} is no budget that can be counted", A_BUDGET, NOT_A_BUDGET) from None
    return {"amount": units, "per": per, **({"meter": unit} if currency is None else {"currency": currency})}


class KeyBudgetRequest(BaseModel):
    """The budget of a key, in units of a meter, or in money if it names no meter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: Amount
    """The allowed amount: units of the meter, or the smallest unit of the currency, for example cents."""
    per: Literal["day", "month"]
    """The calendar period (UTC). The count starts again with each period."""
    meter: Name | None = None
    """The meter. It must have the dimension `key`. By default the budget is in money."""
    currency: Currency | None = None
    """The currency; the customer's plan must have prices in it. By default the plan's currency."""
    routes: Annotated[tuple[RoutePattern, ...], PATTERNS] = ()
    """The routes whose requests are refused once the budget is used up: names, or patterns like `chat-*`. By default
    the routes that feed the meter; for a budget in money, all routes.
    """
    scopes: Annotated[tuple[Scope, ...], PATTERNS] = ()
    """Scopes. Requests of each route that requires one of these scopes are refused too."""

    @model_validator(mode="before")
    @classmethod
    def read_text(cls, value: object) -> object:
        """Return the fields of a budget written as text. Raises a value error."""
        return parse_written(value)

    @model_validator(mode="after")
    def require_one_kind(self) -> Self:
        """Raise a value error for a budget in both units and money."""
        if self.meter is not None and self.currency is not None:
            raise value_error("is in units of a meter and in money", "give `meter` or `currency`")
        return self


class KeyBudgetTerms(TypedDict):
    """The budget of a key."""

    amount: int
    """The allowed amount: units of the meter, or the smallest unit of the currency, for example cents."""
    per: Literal["day", "month"]
    """The calendar period (UTC). The count starts again with each period."""
    meter: str | None
    """The counted meter; null for a budget in money."""
    currency: str | None
    """The currency; null for a budget in units of a meter."""
    routes: NotRequired[list[str]]
    """The routes whose requests are refused once the budget is used up, if the budget names any."""
    scopes: NotRequired[list[str]]
    """The scopes of further routes whose requests are refused, if the budget names any."""


class StoredBudget(NamedTuple):
    """A budget as stored with a key."""

    id: str
    amount: int
    per: Literal["day", "month"]
    meter: str | None
    currency: str | None
    routes: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()

    @property
    def counted(self) -> str:
        """The name of the ledger's count that edges receive."""
        return self.meter or SPEND

    def to_response(self) -> KeyBudgetTerms:
        """Return the budget in the form of the API."""
        terms: KeyBudgetTerms = {
            "amount": self.amount,
            "per": self.per,
            "meter": self.meter,
            "currency": self.currency,
        }
        if self.routes:
            terms["routes"] = list(self.routes)
        if self.scopes:
            terms["scopes"] = list(self.scopes)
        return terms

    def to_directory(self, start: str) -> KeyBudget:
        """Return the budget in the form that edges receive. `start` are the first characters of its key."""
        return KeyBudget(
            id=self.id,
            meter=self.counted,
            is_of_money=self.meter is None,
            per=self.per,
            included=self.amount,
            routes=self.routes,
            scopes=self.scopes,
            why=f"The budget of the API key {start} for the {self.per} is used up",
        )

    def is_within(self, other: "StoredBudget") -> bool:
        """Return whether it is an equal or a smaller budget."""
        return self[2:] == other[2:] and self.amount <= other.amount


def parse_budget(stored: str | None) -> StoredBudget | None:
    """Parse the budget column of a key."""
    if stored is None:
        return None
    fields = orjson.loads(stored)
    return StoredBudget(**{**fields, **{name: tuple(fields.get(name, ())) for name in ("routes", "scopes")}})


def dump_budget(requested: KeyBudgetRequest | None, before: StoredBudget | None = None) -> str | None:
    """Return the column of a key with this budget. It keeps the id of the budget `before` if both count alike."""
    if requested is None:
        return None
    terms = requested.amount, requested.per, requested.meter, requested.currency
    budget = StoredBudget(generate_id(), *terms, requested.routes, requested.scopes)
    if before is not None and before[2:5] == budget[2:5]:
        budget = budget._replace(id=before.id)
    return orjson.dumps(budget._asdict()).decode()
