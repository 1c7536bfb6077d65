"""Where things are in a table's file only edge/counters/ knows, and the few files that decide at every request.

All others read and write the map through what edge/counters/ offers for it (rows.py, heads.py, hub_column.py, claims.py
…).
"""

import ast
from pathlib import Path

import pytest

import edgeproxy

PACKAGE = Path(edgeproxy.__file__).parent
LAYOUT = "edgeproxy.edge.counters.layout"
WORDS = {"words", "_words"}

BY_WORDS = {
    "edge/limits/bucket.py": "sees at each decision whether the row has changed",
    "edge/limits/counts.py": "sums a row's cells whenever a new cell begins",
    "edge/limits/gate.py": "sees at each request of a shared limit whether the hub must be asked or told",
    "edge/limits/levels.py": "reads and says a bucket's level at each decision",
    "edge/limits/quota.py": "reads the other workers' counts and adds its own at each request",
    "edge/limits/slots.py": "reads the other workers' gauges and sets its own at each request",
    "edge/limits/window.py": "reads the other workers' cells and adds to its own at each request",
}
"""The files outside edge/counters/ that index words, and why a method call more would cost too much there."""


def by_words(source: str) -> bool:
    """Return whether a module imports the layout, or indexes the words of a map."""
    if "words" not in source and "layout" not in source:
        return False  # Most modules need not be parsed.
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names) if any(name.name == LAYOUT for name in names):
                return True
            case ast.ImportFrom(module=module, names=names) if LAYOUT in {
                str(module),
                *(f"{module}.{name.name}" for name in names),
            }:
                return True
            case ast.Attribute(attr=name) if name in WORDS:
                return True
    return False


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from edgeproxy.edge.counters import layout as at", True),
        ("from edgeproxy.edge.counters.layout import HOSTS", True),
        ("import edgeproxy.edge.counters.layout", True),
        ("total = table.words[row + 3]", True),
        ("words = self._table.words", True),
        ("from edgeproxy.edge.counters.rows import LimitTable\nwords = [1]\nfirst = words[0]", False),
    ],
)
def test_raw_word_access_is_detected(source: str, expected: bool) -> None:
    assert by_words(source) is expected


def test_only_the_listed_files_index_words() -> None:
    # Pages use only the collector's API (.importlinter), and their `words` are texts of a language.
    elsewhere = (PACKAGE / "edge/counters", PACKAGE / "collector/pages")
    paths = [path for path in PACKAGE.rglob("*.py") if path.parent not in elsewhere]
    found = {str(path.relative_to(PACKAGE)) for path in paths if by_words(path.read_text())}
    assert found == BY_WORDS.keys()
