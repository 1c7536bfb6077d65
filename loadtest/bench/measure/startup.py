"""What a configuration costs before the first request: `python -m loadtest.bench.measure.startup ROUTES`.

Prints CPU and growth of private memory for a supervisor's steps (load, dump) and a worker's (restore, prepare). A
reload repeats them.
"""

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import TypeVar

from edgeproxy.config.edge import load as edge_load
from edgeproxy.edge.counters.store import Store
from edgeproxy.edge.proxy.exchange.prepared_configuration import PreparedConfiguration
from edgeproxy.edge.proxy.exchange.runtime import Runtime
from edgeproxy.edge.proxy.exchange.snapshot import Snapshot
from loadtest.bench.measure.crowd import Crowd
from loadtest.bench.measure.memory import parse
from loadtest.bench.peers.edge import settings
from loadtest.bench.peers.peer import Place

Result = TypeVar("Result")


def main(routes: int) -> None:
    """Measure a configuration with this many routes and one customer."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        configuration = settings(Place(folder, 0, (7001, 7002), Path(sys.executable)), 7003, 7004, 7005)
        configuration["routes"] = Crowd(1, routes).list_routes()
        file = folder / "edge.yaml"
        file.write_text(json.dumps(configuration))
        loaded = measure("load", lambda: edge_load.load_edge(file, {}))
        dumped = measure("dump", lambda: edge_load.dump_settings(loaded))
        Store.prepare(folder / "state", workers=1, customers=1000, addresses=1000)
        store = Store.join(folder / "state")
        runtime = Runtime(store)
        prepared = measure("restore", lambda: PreparedConfiguration(dumped))
        measure("prepare", lambda: runtime.serve_snapshot(Snapshot(prepared, store, runtime.metrics)))


def measure(step: str, work: Callable[[], Result]) -> Result:
    """Do this, print its cost, and return its result."""
    seconds, before = process_time(), read_private_bytes()
    result = work()
    seconds = process_time() - seconds
    print(f"{step:8} {seconds * 1000:6.1f} ms of CPU {(read_private_bytes() - before) / 2**20:6.1f} MiB")
    return result


def read_private_bytes() -> int:
    """Return the private memory of this process."""
    return parse(Path("/proc/self/smaps_rollup").read_text()).private


if __name__ == "__main__":
    main(int(sys.argv[1]))
