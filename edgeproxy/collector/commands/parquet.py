"""Commands for Parquet files, with or without a running collector."""

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from edgeproxy.base.plural import format_count
from edgeproxy.collector.commands.database import CommandError, CommandResult, run_on_database
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.single_runner import try_exclusive
from edgeproxy.collector.ledger.queries import format_time
from edgeproxy.config.collector.settings import CollectorSettings

if TYPE_CHECKING:
    from edgeproxy.collector.exports.storage import Storage

NOT_INSTALLED = "--parquet: obstore and pyarrow are not installed: pip install 'edgeproxy[parquet]'"


def export_hours(settings: CollectorSettings, urls: Sequence[str], clickhouse_url: str | None = None) -> CommandResult:
    """Export closed hours to each place, and the first place's files to ClickHouse too. Return 0 and a summary.

    Each place is brought up to date by its own content, so an unavailable place does not delay others.
    """
    try:
        from edgeproxy.collector.exports import clickhouse, exporter
        from edgeproxy.collector.exports.storage import Storage
    except ImportError:
        return 2, NOT_INSTALLED

    async def export(database: Database, place: Storage, clickhouse_url: str | None) -> str:
        if clickhouse_url is None:
            return format_result(await exporter.export_hours(database, place))
        async with clickhouse.open_clickhouse(clickhouse_url, os.environ) as server:
            done = await exporter.export_hours(database, place)
            return f"{format_result(done)}; {await clickhouse.insert_export(place, server)}"

    def format_result(done: exporter.ExportResult) -> str:
        if done.until is None:
            return "no hour with usage is closed yet"
        return (
            f"{format_count(done.hours, 'hour')} exported, {format_count(done.late, 'hour')} added to: "
            f"{format_count(done.files, 'file')} with {format_count(done.rows, 'row')}; "
            f"all before {format_time(done.until)} is there"
        )

    return _run_for_each(settings, urls, clickhouse_url, export)


def verify_hours(settings: CollectorSettings, urls: Sequence[str], clickhouse_url: str | None = None) -> CommandResult:
    """Verify the export in each place and in ClickHouse. Return 0 and a summary if it is intact."""
    try:
        from edgeproxy.collector.exports import clickhouse
        from edgeproxy.collector.exports.storage import Storage
        from edgeproxy.collector.exports.verification import verify_export
    except ImportError:
        return 2, NOT_INSTALLED

    async def check(database: Database, place: Storage, clickhouse_url: str | None) -> str:
        if clickhouse_url is None:
            return str(await verify_export(database, place))
        async with clickhouse.open_clickhouse(clickhouse_url, os.environ) as server:
            totals = await verify_export(database, place)
            return f"{totals}; {await clickhouse.verify_copy(place, server)}"

    return _run_for_each(settings, urls, clickhouse_url, check)


def _run_for_each(
    settings: CollectorSettings,
    urls: Sequence[str],
    clickhouse_url: str | None,
    work: "Callable[[Database, Storage, str | None], Awaitable[str]]",
) -> CommandResult:
    """Run it for each place. Return the worst exit code, with a line per place."""
    from edgeproxy.collector.exports.storage import Storage

    results = []
    for at, url in enumerate(urls):

        async def run(database: Database, url: str = url, at: int = at) -> str:
            return await work(database, Storage(url, os.environ), None if at else clickhouse_url)

        results.append(_run_exclusively(settings, run))
    if len(results) == 1:
        return results[0]
    lines = [f"{url}: {text}" for url, (_, text) in zip(urls, results, strict=True)]
    return max(code for code, _ in results), "\n".join(lines)


def _run_exclusively(settings: CollectorSettings, work: Callable[[Database], Awaitable[str]]) -> CommandResult:
    """Run it while no one else exports from this database."""
    from edgeproxy.collector.exports.exporter import MissedHoursError
    from edgeproxy.collector.exports.manifest import DamagedExportError
    from edgeproxy.collector.exports.storage import ConcurrentExportError, InvalidStorageError

    async def do(database: Database) -> str:
        async with try_exclusive(database, "parquet") as is_alone:
            if not is_alone:
                raise CommandError("an export from this database is under way")
            try:
                return await work(database)
            except (DamagedExportError, MissedHoursError, ConcurrentExportError) as error:
                raise CommandError(str(error)) from None

    try:
        return run_on_database(settings, do)
    except InvalidStorageError as error:
        return 2, str(error)
