"""The tables' assumptions about the machine: aligned words do not tear, and stores become visible in order.

Some machines need a barrier between the stores.
"""

from pathlib import Path
from time import monotonic

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
