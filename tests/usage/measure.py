"""What sealing costs: CPU of a seal, of a look at which nothing has grown, of a start; bytes of the spool for a row.

python -m tests.usage.measure [GROWN [ROWS [FOLDER]]]      rows that grow each time; rows of the table; where
"""

import random
import sys
import tempfile
import time
from pathlib import Path

from edgeproxy.counters.store import Store
from edgeproxy.counters.tallies import COUNTER, tally_key
from edgeproxy.usage.seal import Sealer

ROUNDS = 8


def timed(what: str, grown: int, since: tuple[float, float]) -> None:
    """Print what has passed since: of CPU, and on the clock."""
    cpu, clock = 1e3 * (time.process_time() - since[0]), 1e3 * (time.perf_counter() - since[1])
    print(f"{what:<24} {cpu:8.1f} ms of CPU {clock:8.1f} ms  {1e3 * cpu / max(1, grown):6.2f} µs a row")


def began() -> tuple[float, float]:
    """Now, of CPU and on the clock."""
    return time.process_time(), time.perf_counter()


def main(grown: int = 10_000, rows: int = 200_000, folder: str | None = None) -> None:
    """Count, seal, print."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        state = Path(scratch) / "state"
        store = Store.prepare(state, workers=4, people=rows, addresses=100)
        store.identity.try_acquire()
        worker = Store.join(state)
        keys = [
            tally_key(f"customer-{n % 5000}", f"meter-{n // 5000}", f"api.example.com/v{n % 7}/*") for n in range(grown)
        ]
        own = [worker.usage.own(key, COUNTER) for key in keys]
        sealer = Sealer.open(store, "eu-west", time.time())
        chance = random.Random(1)
        for _ in range(ROUNDS):
            for word in own:
                worker.usage.words[word] += chance.randrange(1, 200)
            before, since = sealer.spool.size, began()
            done = sealer.seal()
            timed(f"{done.rows} rows in {done.batches}", done.rows, since)
            print(f"{'':<24} {(sealer.spool.size - before) / done.rows:8.2f} bytes a row")
        since = began()
        sealer.seal()
        timed("nothing has grown", grown, since)
        sealer.close()
        since = began()
        sealer = Sealer.open(store, "eu-west", time.time())
        timed(f"a start, {sealer.spool.size >> 10} KiB", ROUNDS * grown, since)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:4])
