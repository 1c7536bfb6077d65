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
    """The order of keys; with `-` the other way round. Keys without a name or a use are before all others."""
    due: Truth = False
    """True lists the keys alone that are to be rotated: those of which the customer is alerted."""
    usage_key: Annotated[str, Field(pattern=USAGE_KEYS)] | None = None
    """Only the keys that usage has under one of these ids, at most 100 with commas between."""


class KeyBudgetUse(KeyBudgetTerms):
    """The budget of a key, and what is used of it."""

    key: str
    """The id of the key; of keys that have replaced each other, that of the latest."""
    start: str
    """The first characters of the key."""
    name: str | None
    """A name for people; null if there is none."""
    used: int | None
    """What is used in this period, as far as edges have shipped it; null where the customer's plan has no prices in
    the currency any more, or the meter is not counted by key."""
    percent: float | None
    """The share of the budget that is used, in percent; null where that is not known."""
    resets: str
    """The end of the period."""


class KeyBudgetList(TypedDict):
    """The budgets of a customer's keys."""

    customer: str
    """The customer, by name."""
    budgets: list[KeyBudgetUse]
    """The budgets, in the order in which their keys were made."""
