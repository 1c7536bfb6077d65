"""Writes to the ledger within the caller's transaction."""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.database import Database, is_overflow
from edgeproxy.collector.database.schema import HOUR, MINUTE_VALUE_MAX, days, edges, hours, ledger, series
from edgeproxy.collector.ledger import rollup
from edgeproxy.config import dimensions
from edgeproxy.wire.batch import Batch, CountKey, count_key

SERIES_REMEMBERED_MAX = 1_000_000
"""The most series with cached numbers, about 200 bytes each. Those of the edges idle longest are evicted."""

EdgeRegion = tuple[str, str]
"""Edge and region."""


class SumTooLargeError(Exception):
    """The sum of one minute of a series exceeds the ledger's maximum (MINUTE_VALUE_MAX)."""


def is_too_large(error: Exception) -> bool:
    """Return whether a transaction failed because a sum exceeds the ledger's maximum."""
    return isinstance(error, SumTooLargeError) or is_overflow(error)


class LedgerWriter:
    """The series that this process knows by number. Callers may only use edges that their transaction has locked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[EdgeRegion, dict[CountKey, int]] = OrderedDict()
        self._latest: dict[str, int] = {}
        """The latest minute of each edge."""

    async def add_batches(self, connection: AsyncConnection, batches: Iterable[Batch]) -> set[CountKey]:
        """Add the rows of these batches, whose edges are locked, and return the new series. Raises SumTooLargeError.

        Rows in minutes that are rolled up are also added to their hours and days, and hours that were fully rolled up
        before are recorded as late. If the transaction fails, call `forget`.
        """
        new_series: set[CountKey] = set()
        increments: dict[int, dict[int, int]] = defaultdict(dict)
        latest: dict[str, int] = {}
        touched: set[tuple[str, int]] = set()
        for batch in batches:
            numbers = await self._resolve_numbers(connection, batch, new_series)
            values = increments[batch.minute]
            for number, row in zip(numbers, batch.rows, strict=True):
                values[number] = values.get(number, 0) + row[3]
            if batch.rows:
                latest[batch.edge] = max(batch.minute, latest.get(batch.edge, 0))
                touched.add((batch.edge, batch.minute - batch.minute % HOUR))
        highest = max((max(values.values()) for values in increments.values() if values), default=0)
        if highest > MINUTE_VALUE_MAX:
            raise SumTooLargeError
        if any(any(values.values()) for values in increments.values()):  # Corrections are negative.
            rollup_state = await rollup.lock_state(self._database, connection)
            for table, table_increments in zip(
                (ledger, hours, days), rollup_state.split_increments(increments), strict=True
            ):
                await self._database.ledger.add(connection, table, table_increments)
            late = ((edge, hour) for edge, hour in touched if rollup_state.hours_from <= hour < rollup_state.hour)
            await self._database.ledger.record_late_hours(connection, late)
            await self._update_latest(connection, latest)
        return new_series

    def forget(self, names: Iterable[str]) -> None:
        """Forget these edges' cached state, which may be uncommitted."""
        forgotten = set(names)
        for source in [source for source in self._known if source[0] in forgotten]:
            del self._known[source]
        for edge in forgotten:
            self._latest.pop(edge, None)

    async def _update_latest(self, connection: AsyncConnection, latest: Mapping[str, int]) -> None:
        """Advance the latest minute of edges. Never move it back."""
        later = {edge: minute for edge, minute in latest.items() if minute > self._latest.get(edge, -1)}
        if later:
            earlier = edges.c.latest.is_(None) | (edges.c.latest < sa.bindparam("minute"))
            statement = sa.update(edges).where(edges.c.edge == sa.bindparam("of"), earlier)
            rows = [{"of": edge, "minute": minute} for edge, minute in later.items()]
            await connection.execute(statement.values(latest=sa.bindparam("minute")), rows)
            self._latest |= later

    async def _resolve_numbers(self, connection: AsyncConnection, batch: Batch, new_series: set[CountKey]) -> list[int]:
        """Return the series number of each row. New series get a number and are added to `begun`."""
        source = (batch.edge, batch.region)
        numbers = self._known.get(source)
        if numbers is None:
            numbers = self._known[source] = {}
            await self._load_series(connection, source, numbers)
        self._known.move_to_end(source)
        keys = [count_key(row) for row in batch.rows]
        missing = {key for key in keys if key not in numbers}
        if missing:
            await self._database.ledger.insert_series(connection, [(*source, *key) for key in sorted(missing)])
            await self._load_series(connection, source, numbers)
            dimension_rows = [
                {"series": numbers[key], "name": name, "value": value}
                for key in missing
                for name, value in dimensions.parse_dimensions(key[3]).items()
            ]
            if dimension_rows:
                await self._database.ledger.insert_series_dimensions(connection, dimension_rows)
            new_series |= missing
            self._evict_series()
        return [numbers[key] for key in keys]

    async def _load_series(self, connection: AsyncConnection, source: EdgeRegion, numbers: dict[CountKey, int]) -> None:
        """Read the unknown series of an edge. Their numbers are above those already cached."""
        above = max(numbers.values(), default=-1)
        columns = series.c
        rows = await connection.execute(
            sa.select(columns.id, columns.customer, columns.meter, columns.route, columns.dimensions).where(
                columns.edge == source[0], columns.region == source[1], columns.id > above
            )
        )
        for number, customer, meter, route, dimensions_text in rows:
            numbers[customer, meter, route, dimensions_text] = number

    def _evict_series(self) -> None:
        size = sum(map(len, self._known.values()))
        while size > SERIES_REMEMBERED_MAX and len(self._known) > 1:
            _, evicted = self._known.popitem(last=False)
            size -= len(evicted)
