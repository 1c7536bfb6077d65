"""Queries of keys."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.key_budgets import KeyBudgetTerms
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import Cursor, PageLimit, Truth
from edgeproxy.wire.key_uses import USAGE_KEY_DIGITS

USAGE_KEYS = f"^[0-9a-f]{{{USAGE_KEY_DIGITS}}}(,[0-9a-f]{{{USAGE_KEY_DIGITS}}}){{0,99}}$"


class KeysQuery(Query):
    """The page of keys."""

    limit: PageLimit = 100
    """The number of keys on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""
    sort: Literal["created_at", "-created_at", "name", "-name", "last_used_on", "-last_used_on"] = "created_at"
    """The order of keys; `-` reverses it. Keys without a name or a last use sort as the lowest."""
    due: Truth = False
    """True lists only keys that should be rotated. The customer gets alerts about these."""
    usage_key: Annotated[str, Field(pattern=USAGE_KEYS)] | None = None
    """Only the keys with these ids in usage, at most 100, separated by commas."""


class KeyBudgetUse(KeyBudgetTerms):
    """The budget of a key, and the used part."""

    key: str
    """The id of the key; for keys that replaced each other, the id of the latest."""
    start: str
    """The first characters of the key."""
    name: str | None
    """A name for people; null if there is none."""
    used: int | None
    """The used part in this period, as far as edges have shipped it; null if the customer's plan has no prices in the
    currency any more, or if the meter is not counted by key.
    """
    percent: float | None
    """The share of the budget that is used, in percent; null if it is not known."""
    resets: str
    """The end of the period."""


class KeyBudgetList(TypedDict):
    """The budgets of a customer's keys."""

    customer: str
    """The customer, by name."""
    budgets: list[KeyBudgetUse]
    """The budgets, in the order of their keys' creation."""
