"""A process that has things in use: `python -m tests.edge.counters.gauges TABLE`.

It takes a column, says which, and for each line `KEY COUNT` on its standard input has so many of KEY in use.
"""

import sys
from pathlib import Path

from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.columns import acquire_column
from edgeproxy.edge.counters.row_key import HAS_GAUGES
from edgeproxy.edge.counters.rows import LimitTable
from tests.support.program import Program
from tests.support.tables import WIDTH, opened


def use(table: LimitTable, key: bytes, count: int, now: float = 1000.0) -> int:
    """Set a gauge to this number, as a worker does. Return the start of the row."""
    row, _, _ = table.find(table.make_key(key), WIDTH, now, HAS_GAUGES)
    table.words[row + table.head_at + at.GAUGE] = table.owner << at.OWNER_SHIFT | count
    return row


class Process(Program):
    """Such a process, as the test that starts it sees it."""

    def __init__(self, path: Path) -> None:
        super().__init__("-m", "tests.edge.counters.gauges", path)
        self.column = int(self.heard())

    def use(self, key: bytes, count: int) -> None:
        """Have so many in use from now on."""
        self.say(f"{key.decode()} {count}")
        assert self.heard() == "done"


def main(path: Path) -> None:
    file = opened(path)
    table = LimitTable(file, acquire_column([file]))
    print(table.column, flush=True)
    for line in sys.stdin:
        key, count = line.split()
        use(table, key.encode(), int(count))
        print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
