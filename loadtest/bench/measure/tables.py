"""Tables of an edge with two workers, for programs that time decisions. Both workers are this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeproxy.edge.counters.store import Store


@contextmanager
def two_workers(folder: Path, rows: int = 1000) -> Iterator[tuple[Store, Store]]:
    """Yield two stores. Each has a column that the other reads."""
    supervisor = Store.prepare(folder, workers=2, customers=rows, addresses=rows)
    first = Store.join(folder)
    joined: list[Store] = []
    joining = threading.Thread(target=lambda: joined.append(Store.join(folder)))
    joining.start()
    # A joining worker waits until the others read its column too.
    while joining.is_alive():
        first.refresh_columns()
        joining.join(0.001)
    (second,) = joined
    yield first, second
    for store in (first, second, supervisor):
        store.close()
