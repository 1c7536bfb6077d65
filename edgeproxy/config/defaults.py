"""What files leave out and what stands around it says: the names of limits."""

from edgeproxy.config.kinds import NAME
from edgeproxy.config.tree import Items, Table, Value

LONGEST = 64
"""Characters of a name."""


def with_names(tree: Table) -> Table:
    """The tree with a name for every limit: by default that of the tier, then `<tier>-2` and so on.

    Trees are not changed (an alias may be in several places), and what has another shape is left as it is.
    """
    filled = Table(tree)
    for section in ("tiers", "customers"):
        parts = tree.get(section)
        if isinstance(parts, Table):
            filled[section] = Table(
                {name: _named(part, name if section == "tiers" else None) for name, part in parts.items()}
            )
    return filled


def _named(part: Value, tier: str | None) -> Value:
    """A tier of this name, or a customer (None: it says its tier itself), with names for its limits."""
    limits = part.get("limits") if isinstance(part, Table) else None
    if not isinstance(part, Table) or not isinstance(limits, Items):
        return part
    first = tier or part.get("tier")
    if not isinstance(first, str) or not NAME.fullmatch(first):
        first = "limit"  # The tier's own name is wrong, which is said elsewhere.
    return Table({**part, "limits": Items(_with_name(limit, first, number) for number, limit in enumerate(limits, 1))})


def _with_name(limit: Value, first: str, number: int) -> Value:
    if not isinstance(limit, Table) or "name" in limit:
        return limit
    suffix = "" if number == 1 else f"-{number}"
    return Table({**limit, "name": first[: LONGEST - len(suffix)] + suffix})
