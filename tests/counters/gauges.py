"""A process that has things in use: `python -m tests.counters.gauges TABLE`.

It takes a column, says which, and for each line `KEY COUNT` on its standard input has so many of KEY in use.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeproxy.counters import layout as at
from edgeproxy.counters.columns import take
from edgeproxy.counters.rows import HAS_GAUGES, LimitTable
from tests.support.tables import WIDTH, opened


def use(table: LimitTable, key: bytes, count: int, now: float = 1000.0) -> int:
    """Have so many in use, as a worker does. Returns where the row begins."""
    row, _, _ = table.find(table.key(key), WIDTH, now, HAS_GAUGES)
    table.words[row + table.head_at + at.GAUGE] = table.owner << at.OWNER_SHIFT | count
    return row


class Process:
    """Such a process, as the test that started it sees it."""

    def __init__(self, running: "subprocess.Popen[str]") -> None:
        self.running = running
        self.column = int(self._answer())

    def use(self, key: bytes, count: int) -> None:
        """Have so many in use from now on."""
        assert self.running.stdin is not None
        self.running.stdin.write(f"{key.decode()} {count}\n")
        self.running.stdin.flush()
        assert self._answer() == "done"

    def kill(self) -> None:
        """Kill -9, and wait until it is gone."""
        self.running.kill()
        self.running.wait(10)

    def _answer(self) -> str:
        assert self.running.stdout is not None
        return self.running.stdout.readline().strip()


@contextmanager
def process(path: Path) -> Iterator[Process]:
    """A process that counts in the table at this path."""
    command = (sys.executable, "-m", "tests.counters.gauges", str(path))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        try:
            yield Process(running)
        finally:
            running.kill()


def main(path: Path) -> None:
    file = opened(path)
    table = LimitTable(file, take([file]))
    print(table.column, flush=True)
    for line in sys.stdin:
        key, count = line.split()
        use(table, key.encode(), int(count))
        print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
