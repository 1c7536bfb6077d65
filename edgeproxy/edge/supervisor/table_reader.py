"""Reads of the tables for the admin listener: usage, metrics, limits.

Tables may have hundreds of thousands of rows, so they are read in a thread, and the event loop runs between two of
them. One reader runs at a time, and none during table maintenance: rows that move from a file to the base meanwhile
would be counted twice or not at all.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from time import monotonic, thread_time
from typing import Generic, TypeVar

from edgeproxy.config.customers import Flag
from edgeproxy.config.directory import KnownCustomer
from edgeproxy.config.edge.settings import EdgeSettings
from edgeproxy.edge.counters.store import MaintenanceResult, Store
from edgeproxy.edge.counters.tallies import tally_key
from edgeproxy.edge.counters.usage_key import UsageTotal
from edgeproxy.edge.metrics import Series
from edgeproxy.edge.supervisor.limit_report import Policy, list_policies
from edgeproxy.edge.usage.table_reading import sum_unsealed
from edgeproxy.edge.usage.traffic import read_traffic
from edgeproxy.wire.traffic_report import TrafficCounts

EXPENSIVE_SECONDS = 0.05
"""A read that takes more seconds of CPU than this has its result cached."""
CACHED_TIMES = 10.0
"""The time a result is cached for, as a multiple of its own cost: so scraping takes at most a tenth of a core."""

CLIENTS = tally_key("edge_connections", "client")

UNREACHED = ("connection_refused", "connection_timeout")
"""Upstream errors of connections that were not made."""

T = TypeVar("T")


class TableReader:
    """The readable totals of one store's tables."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reading = asyncio.Lock()
        self._meters = CachedRead(lambda: sum_by_meter(store.usage_totals()))
        self._unsealed = CachedRead(lambda: sum_unsealed(store))

    async def maintain(self) -> MaintenanceResult:
        """Run one slice of table maintenance, while nothing reads."""
        async with self._reading:
            return self._store.maintain(monotonic() + self._store.offset)

    async def usage(self) -> list[UsageTotal]:
        """Return the sorted usage since the state was created. Rows of zero are left out."""
        return await self.run_exclusively(lambda: sorted(row for row in self._store.usage_totals() if row[3]))

    async def meters(self) -> dict[str, int]:
        """Return the usage by meter since the state was created. It may be seconds old if tables are large."""
        return await self._read_cached(self._meters)

    async def unsealed(self) -> tuple[dict[str, int], int]:
        """Return the unsealed usage by meter, and the Unix second that everything is sealed up to.

        It may be seconds old.
        """
        return await self._read_cached(self._unsealed)

    async def series(self) -> list[Series]:
        """Return every metric of the tables and about the tables."""
        store = self._store
        metrics: list[Series] = await self.run_exclusively(lambda: list(store.metric_totals()))
        metrics += [("edge_usage_counted_total", (meter,), [n]) for meter, n in (await self.meters()).items()]
        for name, rows in self.rows().items():
            metrics += [("edge_table_rows", (name,), [rows["used"]]), ("edge_table_capacity", (name,), [rows["rows"]])]
        return metrics

    def rows(self) -> dict[str, dict[str, int]]:
        """Return by table its rows, and how many of them are used."""
        store = self._store
        tables = (store.customers, store.addresses, store.end_users, store.quotas, store.usage, store.metrics)
        return {table.name: {"used": table.rows_in_use, "rows": table.layout.rows} for table in tables}

    async def refused(self) -> Mapping[str, int]:
        """Return the number of failed connections by upstream."""
        sums: Counter[str] = Counter()
        for name, labels, words in await self.run_exclusively(lambda: list(self._store.metric_totals())):
            if name == "edge_upstream_errors_total" and labels[1] in UNREACHED:
                sums[labels[0]] += words[0]
        return sums

    async def traffic(self) -> dict[str, TrafficCounts]:
        """Return the answers of each route since the state was created."""
        return await self.run_exclusively(lambda: read_traffic(self._store.metric_totals()))

    async def connections(self, columns: Iterable[int]) -> dict[int, int]:
        """Return the number of client connections of the workers that hold these columns."""

        def of(column: int) -> int:
            rows = self._store.metrics.totals(frozenset({column}))
            return next((words[0] for _, key, words in rows if key == CLIENTS), 0)

        return await self.run_exclusively(lambda: {column: of(column) for column in columns})

    async def limits(self, settings: EdgeSettings, customer: KnownCustomer, flags: Mapping[str, Flag]) -> list[Policy]:
        """Return the policies of a customer and their present use; `flags` are the directory's.

        Raises UnservedCustomerError.
        """
        store = self._store
        return await self.run_exclusively(
            lambda: list_policies(store.limits, settings, customer, monotonic() + store.offset, flags)
        )

    async def run_exclusively(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread while nothing else reads or maintains the tables."""
        async with self._reading:
            return await asyncio.to_thread(work)

    async def _read_cached(self, cached: "CachedRead[T]") -> T:
        if monotonic() >= cached.until:
            cached.value, took = await self.run_exclusively(cached.timed)
            cached.until = monotonic() + took * CACHED_TIMES if took > EXPENSIVE_SECONDS else 0.0
        return cached.value


class CachedRead(Generic[T]):
    """A result that is cached for a time in proportion to its cost. `until` is monotonic."""

    value: T

    def __init__(self, read: Callable[[], T]) -> None:
        self._read = read
        self.until = 0.0

    def timed(self) -> tuple[T, float]:
        """Read, and return the result and the seconds of CPU that it took."""
        began = thread_time()
        return self._read(), thread_time() - began


def sum_by_meter(rows: Iterable[UsageTotal]) -> dict[str, int]:
    """Return the sums of `rows` by meter."""
    sums: Counter[str] = Counter()
    for _, meter, _, total, *_ in rows:
        sums[meter] += total
    return dict(sums)
