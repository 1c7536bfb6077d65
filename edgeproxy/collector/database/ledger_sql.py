"""The statements of the ledger: sums of usage, their series, and the partitions of a month.

They differ between SQLite and PostgreSQL, and most of a collector's time is spent in them.
"""

from calendar import monthrange
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.ownership import CREATE_PARTITION, DROP_PARTITION
from edgeproxy.collector.database.schema import (
    DAY,
    days,
    dropped,
    edges,
    hours,
    late_hours,
    ledger,
    series,
    series_dimensions,
)
from edgeproxy.collector.database.statements import unnest

ROLLUP_LOCK = 7305_0002
"""The lock of `rollup`. It replaces a row lock, since new readers would overtake a writer that waits for a row lock."""
PARTITION_LOCK = 7305_0003
"""The lock for creating and dropping partitions."""
PARTITION_LOCK_TIMEOUT = "500ms"
"""Longest wait for the lock of a partition before it is dropped; later users of the partition wait as well."""
LOCK_TIMEOUT_STATE = "55P03"
"""The SQLSTATE after a wait for a lock exceeded its limit."""
REFUSED_STATE = "22023"
"""The SQLSTATE when DROP_PARTITION refuses to drop a month within the retention period."""
ROWS_REMEMBERED_MAX = 500_000
"""Ledger rows that this process remembers as existing; each takes about 100 bytes."""
MINUTES_REMEMBERED = 3
"""Minutes whose existing rows are remembered. Edges report the current minute and the one before."""

Month = tuple[int, int]
"""Year and month in UTC."""


class LedgerChangedError(OSError):
    """Another program than a collector changed the ledger. The process forgets the rows that it remembered."""


class LedgerSql:
    """The statements of the ledger of one database."""

    def __init__(
        self,
        writing: Callable[[], AbstractAsyncContextManager[AsyncConnection]],
        report_refusal: Callable[[Exception], None],
        *,
        is_sqlite: bool,
    ) -> None:
        """`writing` begins a transaction. `report_refusal` logs that the owner of the tables keeps minutes."""
        self._writing = writing
        self._report_refusal = report_refusal
        self.is_sqlite = is_sqlite
        self.has_partitions = not is_sqlite
        """True if the ledger has one partition per month (`drop_month`)."""
        self._add_statements = {
            table.name: self._build_add_statement(table) for table in (ledger, hours, days, dropped)
        }
        self._months: set[Month] = set()
        """Months that are known to have a partition."""
        self._present: dict[int, set[int]] = {}
        """The series that are known to have a row, by minute, for the latest minutes only. PostgreSQL only."""

    def forget(self) -> None:
        """Forget partitions and rows: the rollback of a transaction may remove those that it created."""
        self._months.clear()
        self._present.clear()

    async def insert_edges(self, connection: AsyncConnection, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert new edges. Rows that another collector has inserted meanwhile are skipped."""
        await connection.execute(self._insert(edges).on_conflict_do_nothing(), list(rows))

    async def insert_series(self, connection: AsyncConnection, keys: Sequence[Sequence[str]]) -> None:
        """Insert new series, each [edge, region, customer, meter, route, dimensions]."""
        names = [column.name for column in series.columns if column.name != "id"]
        insert = self._insert(series)
        rows: Any = [dict(zip(names, key, strict=True)) for key in keys]
        if not self.is_sqlite:
            lists = {name: sa.bindparam(name, type_=ARRAY(sa.Text())) for name in names}
            insert = insert.from_select(names, unnest(lists))
            rows = {name: [row[name] for row in rows] for name in names}
        await connection.execute(insert.on_conflict_do_nothing(), rows)

    async def insert_series_dimensions(self, connection: AsyncConnection, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert dimensions of series, each {name, series, value}. Existing rows are skipped."""
        await connection.execute(self._insert(series_dimensions).on_conflict_do_nothing(), list(rows))

    async def record_late_hours(self, connection: AsyncConnection, hours: Iterable[tuple[str, int]]) -> None:
        """Count once more, for each of these hours of edges, that it has grown after it was closed."""
        rows = [{"edge": edge, "hour": hour, "times": 1} for edge, hour in sorted(hours)]
        if rows:
            statement = self._insert(late_hours).on_conflict_do_update(
                index_elements=list(late_hours.primary_key), set_={"times": late_hours.c.times + 1}
            )
            await connection.execute(statement, rows)

    async def lock_rollup(self, connection: AsyncConnection, *, alone: bool = False) -> None:
        """Lock rolled-up rows against changes until the transaction ends. With `alone`, also block counting."""
        if not self.is_sqlite:  # SQLite has one writer.
            lock = sa.func.pg_advisory_xact_lock if alone else sa.func.pg_advisory_xact_lock_shared
            await connection.execute(sa.select(lock(ROLLUP_LOCK)))

    async def add(
        self, connection: AsyncConnection, table: sa.Table, increments: Mapping[int, Mapping[int, int]]
    ) -> None:
        """Add increments to a table of sums. `increments` maps a minute (hour, day) to the growth of each series."""
        rows = [(one, time, value) for time, values in increments.items() for one, value in values.items()]
        if not rows:
            return
        if self.is_sqlite:
            # Without SQLAlchemy, which inspects every value of every row again and takes half of the time.
            await connection.exec_driver_sql(self._add_statements[table.name], rows)
            return
        if table is ledger:
            await self.create_partitions(connection, increments)
            for minute, values in increments.items():
                rows = [
                    (one, minute, value)
                    for one, value in (await self._update_present(connection, minute, values)).items()
                ]
                await self._upsert(connection, table, rows)
                self._remember_present(minute, values)
            return
        await self._upsert(connection, table, rows)

    async def _upsert(self, connection: AsyncConnection, table: sa.Table, rows: Sequence[tuple[int, int, int]]) -> None:
        """Add rows to a table of sums on PostgreSQL, inserting or updating."""
        if rows:
            columns = map(_format_array, zip(*rows, strict=True))
            await connection.execute(
                self._add_statements[table.name], dict(zip(table.columns.keys(), columns, strict=True))
            )

    async def _update_present(
        self, connection: AsyncConnection, minute: int, values: Mapping[int, int]
    ) -> Mapping[int, int]:
        """Update the rows of a minute that are known to exist, and return the remaining values.

        An UPDATE takes three quarters of the CPU of an upsert, which must look for each row first.
        """
        there = self._present.get(minute, set())
        old = {one: value for one, value in values.items() if one in there}
        if old:
            own = {"of": minute, "those": _format_array(old), "by": _format_array(old.values())}
            if (await connection.execute(UPDATE_PRESENT, own)).rowcount != len(old):
                # The database was replaced, perhaps by a restored one. The sender's next attempt works with the current
                # rows.
                raise LedgerChangedError(f"the ledger lacks rows of the minute {minute} that it had")
        return {one: value for one, value in values.items() if one not in there} if old else values

    def _remember_present(self, minute: int, series: Iterable[int]) -> None:
        """Remember that these series have a row in this minute."""
        self._present.setdefault(minute, set()).update(series)
        while len(self._present) > MINUTES_REMEMBERED or sum(map(len, self._present.values())) > ROWS_REMEMBERED_MAX:
            del self._present[min(self._present)]

    def _build_add_statement(self, table: sa.Table) -> Any:
        """Build the statement that adds rows to a table of sums."""
        insert = self._insert(table)
        names = table.columns.keys()
        if not self.is_sqlite:
            texts = {name: sa.cast(sa.bindparam(name, type_=sa.Text()), ARRAY(sa.BigInteger())) for name in names}
            insert = insert.from_select(names, unnest(texts))
        statement = insert.on_conflict_do_update(
            index_elements=list(table.primary_key),
            set_={"value": table.c.value + insert.excluded.value},
        )
        if not self.is_sqlite:
            return statement
        compiled = statement.compile(dialect=sqlite.dialect(paramstyle="qmark"))
        assert compiled.positiontup == names
        return str(compiled)

    async def create_partitions(self, connection: AsyncConnection, minutes: Iterable[int]) -> None:
        """Create the missing partitions of these minutes."""
        needed = {_month_of(minute) for minute in minutes}
        if needed <= self._months:
            return
        await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(PARTITION_LOCK)))
        there = await _fetch_partitions(connection)
        for month in sorted(needed - there):
            await connection.exec_driver_sql(f"SELECT {CREATE_PARTITION}($1)", (date(*month, 1),))
        self._months = there | needed

    def droppable(self, second: int) -> int:
        """Return the Unix second up to which minutes can be dropped if retention ends at `second`.

        Whole months are dropped if the ledger has partitions, otherwise whole days.
        """
        return _month_span(_month_of(second))[0] if self.has_partitions else second - second % DAY

    async def drop_month(self, before: int) -> bool:
        """Drop the oldest partition of the ledger that ends at `before` or earlier.

        Return False if there is none, if the owner of the tables refuses, or if the ledger is in use. The method does
        not wait for users of the ledger, since others would queue behind it.
        """
        async with self._writing() as connection:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(PARTITION_LOCK)))
            old = sorted(month for month in await _fetch_partitions(connection) if _month_span(month)[1] <= before)
            if not old:
                return False
            await connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{PARTITION_LOCK_TIMEOUT}'")
            try:
                await connection.exec_driver_sql(f"SELECT {DROP_PARTITION}($1)", (date(*old[0], 1),))
            except sa.exc.DBAPIError as error:
                state = getattr(error.orig, "sqlstate", None)
                if state not in (LOCK_TIMEOUT_STATE, REFUSED_STATE):
                    raise
                if state == REFUSED_STATE:
                    self._report_refusal(error)
                await connection.rollback()
                return False
            self._months.discard(old[0])
        return True

    def _insert(self, table: sa.Table) -> Any:
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)


async def _fetch_partitions(connection: AsyncConnection) -> set[Month]:
    """Return the months that have a partition."""
    names = await connection.exec_driver_sql(
        "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = 'ledger'::regclass"
    )
    return {(int(year), int(month)) for _, year, month in (name.split("_") for name in names.scalars())}


def _month_of(second: int) -> Month:
    """Return the UTC month of a Unix second."""
    at = datetime.fromtimestamp(second, UTC)
    return at.year, at.month


def _month_span(month: Month) -> tuple[int, int]:
    """Return the Unix seconds of the beginning and the end of a month."""
    begin = int(datetime(*month, 1, tzinfo=UTC).timestamp())
    return begin, begin + monthrange(*month)[1] * DAY


def _format_array(numbers: Iterable[int]) -> str:
    """Format an array for PostgreSQL as text.

    The driver inspects each number of a list three times, which takes longer than everything else.
    """
    return "{" + ",".join(map(str, numbers)) + "}"


def _build_grow_statement() -> sa.Update:
    """Build the UPDATE that adds to existing rows of one minute, on PostgreSQL."""
    texts = [sa.cast(sa.bindparam(name, type_=sa.Text()), ARRAY(sa.BigInteger())) for name in ("those", "by")]
    grown = sa.func.unnest(*texts).table_valued("series", "value", name="grown").render_derived()
    return (
        sa.update(ledger)
        # The minute is a single value, so the planner finds the partition.
        .where(ledger.c.minute == sa.bindparam("of"), ledger.c.series == grown.c.series)
        .values(value=ledger.c.value + grown.c.value)
    )


UPDATE_PRESENT = _build_grow_statement()
