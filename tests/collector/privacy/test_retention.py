"""Each table states its retention, and maintenance deletes expired rows without any request."""

import asyncio
import re
import time
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts.limit_raises import end_all_due
from edgeproxy.collector.anomalies import store
from edgeproxy.collector.database.book_text import BookText
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.personal_data import TABLES
from edgeproxy.collector.database.schema import MINUTE, metadata
from edgeproxy.collector.jobs import maintenance
from edgeproxy.collector.jobs.maintenance import MaintenanceJobs
from edgeproxy.collector.metrics import Metrics
from edgeproxy.collector.pages.expired_rows import delete_expired
from edgeproxy.collector.webhooks.messages import drop_messages
from edgeproxy.config.collector.settings import Retention
from tests.support.planted import list_planted, plant

TIMED = re.compile(r"\d+ (minutes|hours|days)|an hour|until (`expires_at`|the raise ends|they unsubscribe; a day)")
OTHERWISE = {
    "batches": "tests/collector/ledger",  # Batches form a chain, and retention keeps their sums.
    "ledger": "tests/collector/ledger",  # PostgreSQL drops the partitions of whole months.
    "checks": "tests/collector/pages/test_checks.py",  # No personal data. A new day deletes old ones.
}
"""Tables with expiring rows that other tests cover, and the paths of these tests."""
IDLE_STEPS = 5
"""Maintenance has tried all of its jobs after this number of idle or failed steps."""
REASON = re.compile(r"for good, (as|unless) ")
UNTIL = re.compile(r"until |as `|a row for each ")


def test_each_table_has_a_bound_or_a_reason_to_be_kept_for_good() -> None:
    unclear = {
        name: entry.retention
        for name, entry in TABLES.items()
        if not any(each.search(entry.retention) for each in (TIMED, REASON, UNTIL))
    }
    assert unclear == {}


async def plant_others(connection: AsyncConnection) -> None:
    """Plant a row in each table with expiring rows that have no customer."""
    for name in sorted(list_timed() - {table.name for table in list_planted()}):
        row = {column.name: make_value(column) for column in metadata.tables[name].columns if not column.nullable}
        await connection.execute(sa.insert(metadata.tables[name]), [row])


def make_value(column: sa.Column[Any]) -> object:
    """Return a value for a column of a row of the greatest age."""
    if isinstance(column.type, sa.Text | BookText):
        return "applied" if column.name == "state" else f"planted.{column.name}"
    return b"planted" if isinstance(column.type, sa.LargeBinary) else {"step": MINUTE}.get(column.name, 7)


def list_timed() -> set[str]:
    """List the tables with expiring rows that no other test covers."""
    return {name for name, entry in TABLES.items() if TIMED.match(entry.retention)} - OTHERWISE.keys()


@pytest.mark.both_databases
@pytest.mark.parametrize("is_failing", [False, True], ids=["all", "but for erasures and roll-up"])
def test_maintenance_deletes_expired_rows_without_requests(
    is_failing: bool, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "list_due_alerts", no_alerts)
    if is_failing:
        for module, name in ((maintenance.erasure, "list_due"), (maintenance.rollup, "roll_up_slice")):
            monkeypatch.setattr(module, name, time_out)

    async def do() -> dict[str, int]:
        opened = await Database.connect(database)
        try:
            async with opened.writing() as connection:
                await plant(connection)
                await plant_others(connection)
            before = await count(opened)
            assert all(before.values()), before
            now = time.time()
            jobs = MaintenanceJobs(opened, Retention(), Metrics())
            idle = 0
            while idle < IDLE_STEPS:
                is_busy = False
                with suppress(TimeoutError):
                    is_busy = await jobs.step(now)
                idle += not is_busy
            async with opened.writing() as connection:
                await delete_expired(connection, now)
                await store.delete_expired(connection, int(now))
                await drop_messages(connection, int(now * 1000))
            await end_all_due(opened)
            return await count(opened)
        finally:
            await opened.close()

    assert {name: number for name, number in asyncio.run(do()).items() if number} == {}


async def time_out(*_: object) -> bool:
    raise TimeoutError


async def no_alerts(*_: object) -> list[object]:
    return []


async def count(database: Database) -> dict[str, int]:
    """Return the number of rows of each table."""
    async with database.reading() as connection:
        statements = {name: sa.select(sa.func.count()).select_from(metadata.tables[name]) for name in list_timed()}
        return {name: (await connection.execute(statement)).scalar_one() for name, statement in statements.items()}
