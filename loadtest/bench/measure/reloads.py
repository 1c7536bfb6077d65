"""Reloads of many customers in an edge with two workers: `python -m loadtest.bench.measure.reloads CUSTOMERS`.

Each reload adds a key to a file of customers. Prints the elapsed seconds of each, and CPU and private memory of the
supervisor and the workers. On a busy machine `chrt --rr 1` before the command runs the edge before other processes.
"""

import sys
import tempfile
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from time import monotonic

from loadtest.admin import cpu_seconds
from loadtest.bench.measure.memory import of_processes
from loadtest.testbed.edge import Edge

RELOADS = 5


def write_customers(file: Path, customers: int, more: int = 0) -> None:
    """Write this many customers of the tier `free`, with a key each and `more` keys of the first one."""
    names = [f"c{number}" for number in range(customers)]
    owners = [*names, *["c0"] * more]
    keys = [
        f"  - {{sha256: {sha256(b'%d' % number).hexdigest()}, customer: {name}}}\n"
        for number, name in enumerate(owners)
    ]
    file.write_text("".join(("customers:\n", *(f"  {name}: {{tier: free}}\n" for name in names), "keys:\n", *keys)))


def main(customers: int) -> None:
    """Measure reloads of this many customers."""
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "customers.yaml"
        write_customers(file, customers)
        with closing(Edge(Path(temporary) / "edge", 9, include=[str(file)])) as edge:
            edge.start()
            pids = (edge.supervisor.pid, *edge.worker_pids())
            print("supervisor, then workers; private MiB:", *_list_private(pids))
            for number in range(RELOADS):
                write_customers(file, customers, number + 1)
                before, began = cpu_seconds(pids), monotonic()
                answer = edge.reload()
                elapsed = monotonic() - began
                assert answer.json()["result"] == "ok", answer
                after = cpu_seconds(pids)
                used = [f"{after[pid] - before[pid]:.2f}" for pid in pids]
                print(f"{elapsed:.2f} s elapsed; CPU s:", *used, "private MiB:", *_list_private(pids))


def _list_private(pids: tuple[int, ...]) -> list[str]:
    return [f"{of_processes([pid]).private / 2**20:.1f}" for pid in pids]


if __name__ == "__main__":
    main(int(sys.argv[1]))
