"""Fields that the contract promises for a later version: they are refused, never ignored.

`LATER` has a row for each: where it stands (`*` is any name or index), and what to write instead.
"""

from collections.abc import Iterator, Mapping

from edgeproxy.config.problems import Steps
from edgeproxy.config.tree import Items, Table, Value

Later = Mapping[str, str]
"""What to write until then, by the path of a field to come."""

LATER: dict[str, str] = {}


def uses(tree: Table, rows: Later) -> Iterator[tuple[Steps, str]]:
    """Find the places of `tree` at which one of these fields stands, and what to write there instead."""
    for pattern, instead in rows.items():
        for path in _matches(tree, (), tuple(pattern.split("."))):
            yield path, instead


def fields(path: Steps, rows: Later) -> set[str]:
    """List the names that these rows know in the mapping at `path`."""
    depth = len(path)
    patterns = (pattern.split(".") for pattern in rows)
    return {
        row[-1]
        for row in patterns
        if len(row) == depth + 1 and all(a in ("*", str(b)) for a, b in zip(row, path, strict=False))
    } - {"*"}


def _matches(node: Value, path: Steps, pattern: tuple[str, ...]) -> Iterator[Steps]:
    """Find the paths of the values below `node` that the pattern leads to."""
    if not pattern:
        yield path
        return
    step, rest = pattern[0], pattern[1:]
    if step == "*":
        members = node.items() if isinstance(node, Table) else enumerate(node) if isinstance(node, Items) else ()
        for key, value in members:
            yield from _matches(value, (*path, key), rest)
    elif isinstance(node, Table) and step in node:
        yield from _matches(node[step], (*path, step), rest)
