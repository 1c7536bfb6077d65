"""Defaults that depend on other fields: the names of limits."""

import re
from collections.abc import Callable

from edgeproxy.config.parsers import NAME
from edgeproxy.config.tree import FlatTable, Items, Table, Value

NAME_CHARACTERS_MAX = 64
"""Characters of a name."""

WORDS = re.compile(r"[A-Za-z0-9]+")


def add_limit_names(tree: Table) -> Table:
    """Return the tree with a name for every limit: by default the name of the tier or route, then `<name>-2` and so on.

    The original tree is not changed, because an alias may be in several places. Values of another shape stay unchanged.
    """
    filled = Table(tree)
    for section, called in NAME_SOURCES.items():
        parts = tree.get(section)
        if isinstance(parts, Table):
            filled[section] = Table({name: _name_limits(part, called, name) for name, part in parts.items()})
        elif isinstance(parts, Items):
            filled[section] = Items(_name_limits(part, called, "") for part in parts)
    return filled


def _name_limits(part: Value, called: Callable[[Table, str], Value], name: str) -> Value:
    """Return a part of this name with names for its limits. `called` gives the default name."""
    if type(part) is FlatTable:
        return part
    limits = part.get("limits") if isinstance(part, Table) else None
    if not isinstance(part, Table) or not isinstance(limits, Items):
        return part
    first = called(part, name)
    if not isinstance(first, str) or not NAME.fullmatch(first):
        first = "limit"  # The default name itself is invalid, which is reported elsewhere.
    return Table({**part, "limits": Items(_name_limit(limit, first, number) for number, limit in enumerate(limits, 1))})


def _get_route_name(route: Table, _name: str) -> Value:
    """Return the name of a route, or one made of its path: `v1-orders` for /v1/orders/*."""
    path = route.get("path")
    if "name" in route or not isinstance(path, str):
        return route.get("name")
    return "-".join(WORDS.findall(path))[:NAME_CHARACTERS_MAX] or "route"


NAME_SOURCES: dict[str, Callable[[Table, str], Value]] = {
    "tiers": lambda _, name: name,
    "customers": lambda customer, _: customer.get("tier"),
    "keys": lambda _key, _: "key",
    "routes": _get_route_name,
}
"""The source of limits' names, by section."""


def _name_limit(limit: Value, first: str, number: int) -> Value:
    if not isinstance(limit, Table) or "name" in limit:
        return limit
    suffix = "" if number == 1 else f"-{number}"
    return Table({**limit, "name": first[: NAME_CHARACTERS_MAX - len(suffix)] + suffix})
