"""Fields that the contract promises for a later version: they are refused, never ignored.

`LATER` has a row for each: where it stands (`*` is any name or index), the shape of its value, and what to write
instead. Where a field works already with other values, these are in the models, and only a value of the row's
shape is refused.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from edgeproxy.config.problems import Steps
from edgeproxy.config.tree import Items, Table, Value


class Later(NamedTuple):
    """A field to come: the type of its value, and what to write until then."""

    shape: Any
    instead: str = "leave it out"


LATER: dict[str, Later] = {
    "tiers.*.caps": Later(Any),
    "customers.*.caps": Later(Any),
}


def uses(tree: Table, rows: Mapping[str, Later]) -> Iterator[tuple[Steps, Value, Later]]:
    """Find the places of `tree` at which one of these rows has something to say."""
    for pattern, later in rows.items():
        for path, value in _matches(tree, (), tuple(pattern.split("."))):
            yield path, value, later


def fields(path: Steps, rows: Mapping[str, Later]) -> set[str]:
    """List the names that these rows know in the mapping at `path`."""
    depth = len(path)
    patterns = (pattern.split(".") for pattern in rows)
    return {
        row[-1]
        for row in patterns
        if len(row) == depth + 1 and all(a in ("*", str(b)) for a, b in zip(row, path, strict=False))
    } - {"*"}


def _matches(node: Value, path: Steps, pattern: tuple[str, ...]) -> Iterator[tuple[Steps, Value]]:
    """Find the values below `node` that the pattern leads to."""
    if not pattern:
        yield path, node
        return
    step, rest = pattern[0], pattern[1:]
    if step == "*":
        members = node.items() if isinstance(node, Table) else enumerate(node) if isinstance(node, Items) else ()
        for key, value in members:
            yield from _matches(value, (*path, key), rest)
    elif isinstance(node, Table) and step in node:
        yield from _matches(node[step], (*path, step), rest)
