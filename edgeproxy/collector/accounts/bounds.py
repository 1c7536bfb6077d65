"""The bounds that an admin sets on keys. The customer can narrow them, but not widen them. Pure."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import orjson

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.collector.accounts.key_budgets import StoredBudget, parse_budget
from edgeproxy.collector.problems import request_codes
from edgeproxy.config.limits import KeyLimit


class KeyBounds(NamedTuple):
    """The scopes, limits, budget and end of a key."""

    scopes: frozenset[str] = frozenset()
    limits: tuple[KeyLimit, ...] = ()
    budget: StoredBudget | None = None
    expires_at: int | None = None
    """The Unix millisecond of its end, or None."""


def parse_bounds(scopes: str | None, limits: str | None, budget: str | None, expires_at: int | None) -> KeyBounds:
    """Return the bounds of a key from the columns of its row."""
    parsed_limits = () if limits is None else tuple(map(KeyLimit.model_validate, orjson.loads(limits)))
    parsed_scopes = frozenset() if scopes is None else frozenset(orjson.loads(scopes))
    return KeyBounds(parsed_scopes, parsed_limits, parse_budget(budget), expires_at)


def require_within(bounds: KeyBounds, existing: Sequence[KeyBounds]) -> None:
    """Raise ChangeRejectedError(403) if a customer requests a key that is wider than each of its existing keys."""
    more = bounds.scopes.difference(*(held.scopes for held in existing))
    if more:
        raise ChangeRejectedError(
            request_codes.SCOPE_TOO_WIDE, f"none of your keys has the scope {min(more)}: an admin gives it"
        )
    wider = [find_wider_field(bounds, held) for held in existing]
    if all(wider):
        raise ChangeRejectedError(
            request_codes.SCOPE_TOO_WIDE,
            f"the {wider[0]} would be wider than your keys have them: an admin can do that",
        )


def find_wider_field(
    bounds: KeyBounds, existing: KeyBounds
) -> Literal["scopes", "limits", "budget", "expires_at"] | None:
    """Return the field that is wider than in the existing bounds, or None."""
    if not bounds.scopes <= existing.scopes:
        return "scopes"
    if not all(any(_is_within(mine, limit) for mine in bounds.limits) for limit in existing.limits):
        return "limits"
    if existing.budget is not None and (bounds.budget is None or not bounds.budget.is_within(existing.budget)):
        return "budget"
    if existing.expires_at is not None and (bounds.expires_at is None or bounds.expires_at > existing.expires_at):
        return "expires_at"
    return None


def _is_within(requested: KeyLimit, limit: KeyLimit) -> bool:
    """Return whether it is the same limit with at most as many requests, regardless of its name."""
    same = requested.model_copy(update={"name": limit.name, "rate": limit.rate}) == limit
    return same and requested.window == limit.window and requested.count <= limit.count
