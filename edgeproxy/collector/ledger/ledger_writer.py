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
        begun: set[CountKey] = set()
        grown: dict[int, dict[int, int]] = defaultdict(dict)
        latest: dict[str, int] = {}
        touched: set[tuple[str, int]] = set()
        for batch in batches:
            numbers = await self._resolve_numbers(connection, batch, begun)
            values = grown[batch.minute]
            for number, row in zip(numbers, batch.rows, strict=True):
                values[number] = values.get(number, 0) + row[3]
            if batch.rows:
                latest[batch.edge] = max(batch.minute, latest.get(batch.edge, 0))
                touched.add((batch.edge, batch.minute - batch.minute % HOUR))
        highest = max((max(values.values()) for values in grown.values() if values), default=0)
        if highest > MINUTE_VALUE_MAX:
            raise SumTooLargeError
        if any(any(values.values()) for values in grown.values()):  # Corrections are negative.
            rolled = await rollup.lock_state(self._database, connection)
            for table, grows in zip((ledger, hours, days), rolled.split_increments(grown), strict=True):
                await self._database.ledger.add(connection, table, grows)
            late = ((edge, hour) for edge, hour in touched if rolled.hours_from <= hour < rolled.hour)
            await self._database.ledger.record_late_hours(connection, late)
            await self._update_latest(connection, latest)
        return begun

    def forget(self, names: Iterable[str]) -> None:
        """Forget these edges' cached state, which may be uncommitted."""
        gone = set(names)
        for where in [where for where in self._known if where[0] in gone]:
            del self._known[where]
        for edge in gone:
            self._latest.pop(edge, None)

    async def _update_latest(self, connection: AsyncConnection, latest: Mapping[str, int]) -> None:
        """Advance the latest minute of edges. Never move it back."""
        later = {edge: minute for edge, minute in latest.items() if minute > self._latest.get(edge, -1)}
        if later:
            earlier = edges.c.latest.is_(None) | (edges.c.latest < sa.bindparam("minute"))
            one = sa.update(edges).where(edges.c.edge == sa.bindparam("of"), earlier)
            rows = [{"of": edge, "minute": minute} for edge, minute in later.items()]
            await connection.execute(one.values(latest=sa.bindparam("minute")), rows)
            self._latest |= later

    async def _resolve_numbers(self, connection: AsyncConnection, batch: Batch, begun: set[CountKey]) -> list[int]:
        """Return the series number of each row. New series get a number and are added to `begun`."""
        where = (batch.edge, batch.region)
        known = self._known.get(where)
        if known is None:
            known = self._known[where] = {}
            await self._load_series(connection, where, known)
        self._known.move_to_end(where)
        counted = [count_key(row) for row in batch.rows]
        missing = {one for one in counted if one not in known}
        if missing:
            await self._database.ledger.insert_series(connection, [(*where, *one) for one in sorted(missing)])
            await self._load_series(connection, where, known)
            split = [
                {"series": known[one], "name": name, "value": value}
                for one in missing
                for name, value in dimensions.parse_dimensions(one[3]).items()
            ]
            if split:
                await self._database.ledger.insert_series_dimensions(connection, split)
            begun |= missing
            self._evict_series()
        return [known[one] for one in counted]

    async def _load_series(self, connection: AsyncConnection, where: EdgeRegion, known: dict[CountKey, int]) -> None:
        """Read the unknown series of an edge. Their numbers are above those already cached."""
        above = max(known.values(), default=-1)
        columns = series.c
        rows = await connection.execute(
            sa.select(columns.id, columns.customer, columns.meter, columns.route, columns.dimensions).where(
                columns.edge == where[0], columns.region == where[1], columns.id > above
            )
        )
        for number, customer, meter, route, split in rows:
            known[customer, meter, route, split] = number

    def _evict_series(self) -> None:
        size = sum(map(len, self._known.values()))
        while size > SERIES_REMEMBERED_MAX and len(self._known) > 1:
            _, gone = self._known.popitem(last=False)
            size -= len(gone)
