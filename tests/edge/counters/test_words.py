"""The tables' assumptions about the machine: aligned words do not tear, and stores become visible in order.

Some machines need a barrier between the stores.
"""

import ast
from pathlib import Path
from time import monotonic

import pytest

import edgeproxy
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence
from tests.support.program import Program
from tests.support.tables import CUSTOMERS, make, opened

WRITER = """
import select, sys
from pathlib import Path
from edgeproxy.edge.counters.memory_order import IS_WEAK, fence
from tests.support.tables import opened
words = opened(Path(sys.argv[1])).words
print("ready", flush=True)
n = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for _ in range(200):
        n += 1
        word = n % 0xFFFFFFFF
        words[1000] = word << 32 | word
        if IS_WEAK:
            fence()
        words[2003] = word
        if IS_WEAK:
            fence()
        words[1001] = word
"""

ENOUGH, CHANGES = 0.7, 200
"""Seconds to look, and how often something new must be seen, which on a busy machine may take longer."""


def test_words_neither_tear_nor_come_out_of_order(tmp_path: Path) -> None:
    path = make(tmp_path, CUSTOMERS)
    words = opened(path).words
    with Program("-c", WRITER, path) as writer:
        assert writer.heard() == "ready"
        began = monotonic()
        changes = last = 0
        while monotonic() < began + ENOUGH or changes < CHANGES:
            assert monotonic() < began + 60
            for _ in range(500):
                # The reader reads in the reverse order of the writer.
                third = words[1001]
                if IS_WEAK:
                    fence()
                second = words[2003]
                if IS_WEAK:
                    fence()
                first, *_ = words[1000:1008].tolist()
                assert first >> 32 == first & 0xFFFFFFFF
                assert third <= second <= first >> 32
                changes += third != last
                last = third
        writer.end()


# ---- the few files that know places in a table


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
