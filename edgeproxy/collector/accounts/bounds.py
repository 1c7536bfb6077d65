"""What an admin has set on keys, which their customer can make narrower and not wider. Pure."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import orjson

from edgeproxy.collector.accounts.change import ChangeRejectedError
from edgeproxy.config.limits import KeyLimit


class KeyBounds(NamedTuple):
    """What a key may do, how often, and until when."""

    scopes: frozenset[str] = frozenset()
    limits: tuple[KeyLimit, ...] = ()
    expires_at: int | None = None
    """In Unix milliseconds; None: it does not end."""


def parse_bounds(row: Any) -> KeyBounds:
    """Return the bounds of the row of a key."""
    scopes = frozenset() if row.scopes is None else frozenset(orjson.loads(row.scopes))
    limits = () if row.limits is None else tuple(map(KeyLimit.model_validate, orjson.loads(row.limits)))
    return KeyBounds(scopes, limits, row.expires_at)


def require_within(bounds: KeyBounds, existing: Sequence[KeyBounds]) -> None:
    """Raise ChangeRejectedError(403) where a customer would have a key that is wider than each of those it has."""
    more = bounds.scopes.difference(*(one.scopes for one in existing))
    if more:
        raise ChangeRejectedError(403, f"none of your keys has the scope {min(more)}: an admin gives it")
    wider = [find_wider_field(bounds, one) for one in existing]
    if all(wider):
        raise ChangeRejectedError(403, f"the {wider[0]} would be wider than your keys have them: an admin can do that")


def find_wider_field(bounds: KeyBounds, existing: KeyBounds) -> Literal["scopes", "limits", "expires_at"] | None:
    """Name what is wider than it is held; None where nothing is."""
    if not bounds.scopes <= existing.scopes:
        return "scopes"
    if not all(any(_is_within(mine, limit) for mine in bounds.limits) for limit in existing.limits):
        return "limits"
    if existing.expires_at is not None and (bounds.expires_at is None or bounds.expires_at > existing.expires_at):
        return "expires_at"
    return None


def _is_within(requested: KeyLimit, limit: KeyLimit) -> bool:
    """Whether it is the same limit, be it of fewer requests or of another name."""
    same = requested.model_copy(update={"name": limit.name, "rate": limit.rate}) == limit
    return same and requested.window == limit.window and requested.count <= limit.count
