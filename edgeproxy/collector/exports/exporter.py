"""The exporter: each closed hour is exported once, even after a kill, and again after late additions.

A file is named by its hour and revision, and never changes. Then the manifest lists it. If a run is interrupted between
these steps, the next run finds the file, keeps it, and exports missing usage as the next revision. So no usage is in
two files, whichever process exports. The hours of a day are recorded together.
"""

from collections.abc import Callable, Mapping
from typing import Generic, NamedTuple, TypeVar

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY, HOUR
from edgeproxy.collector.exports import closed_hours, files, reading_files
from edgeproxy.collector.exports.closed_hours import ClosedHours
from edgeproxy.collector.exports.files import Rows
from edgeproxy.collector.exports.manifest import FOLDER, File, Manifests, file_path, find_month_start
from edgeproxy.collector.exports.storage import Storage
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.queries import format_time as moment

R = TypeVar("R", Rows, reading_files.Rows)


class FileFormat(NamedTuple, Generic[R]):
    """A kind of files."""

    folder: str
    written: Callable[[int, R], bytes]
    read: Callable[[str, int, bytes], R]
    less: Callable[[str, R, R], R]


USAGE = FileFormat(files.FOLDER, files.format_file, files.parse_file, files.subtract)
READINGS = FileFormat(reading_files.FOLDER, reading_files.format_file, reading_files.parse_file, reading_files.subtract)


class MissedHoursError(Exception):
    """Hours were deleted from the ledger before they were exported. The message names them."""


class ExportResult(NamedTuple):
    """The result of an export run."""

    hours: int
    """Hours exported for the first time."""
    late: int
    """Hours that were exported before and had grown."""
    files: int
    rows: int
    until: int | None
    """All hours before this Unix second are exported; None if there are none."""


async def export_hours(database: Database, place: Storage) -> ExportResult:
    """Export all usage that is not exported yet. The work before an error is kept.

    Raises DamagedExportError, MissedHoursError, ConcurrentExportError and StorageUnavailableError. Only one export may
    run from this database at a time (`single_runner.try_exclusive`).
    """
    return await ParquetExporter(database, place).run()


class ParquetExporter:
    """A run of the export."""

    def __init__(self, database: Database, place: Storage) -> None:
        self._database = database
        self._place = place
        manifests = {path: place.get(path) for path in place.sizes() if path.startswith(FOLDER)}
        self._book = Manifests({path: body for path, (body, _) in manifests.items()})
        self._tags = {path: tag for path, (_, tag) in manifests.items()}
        self._files = self._rows = 0
        self._retained_from = 0
        """Before this Unix second the ledger has only readings."""

    async def run(self) -> ExportResult:
        """Export all hours that are due."""
        async with self._database.reading(whole=True) as connection:
            there = await closed_hours.fetch_closed_hours(connection)
            late = await rollup.fetch_late_counts(connection, there.retained_from, there.until)
            readings = await closed_hours.count_readings(connection, 0, there.until)
        new, grown = self._list_due(there, late, readings)
        if grown and self._book.since is not None and grown[0] < self._book.since:
            for hour in self._book.reach_back(grown[0]):
                self._write_manifest(hour)
        due = {*new, *grown}
        days = sorted({hour - hour % DAY for hour in due})
        for day, then in zip(days, [*days, None][1:], strict=True):
            before = self._files
            await self._export_day(day, {hour for hour in due if day <= hour < day + DAY})
            if self._files > before or then is None or find_month_start(then) != find_month_start(day):
                self._write_manifest(day)
        return ExportResult(len(new), len(grown), self._files, self._rows, self._book.until)

    def _list_due(
        self, there: ClosedHours, late: Mapping[int, int], readings: Mapping[int, int]
    ) -> tuple[list[int], list[int]]:
        """Return the hours to export: new ones, and ones that have grown. Raises MissedHoursError."""
        begin = min([there.since, *readings]) if self._book.until is None else self._book.until
        new = list(range(begin, there.until, HOUR))
        if new and self._book.until is not None and begin < there.retained_from:
            raise MissedHoursError(
                f"hours from {moment(begin)} to {moment(there.retained_from)} are not kept any more "
                "(retention.hours), and were never exported: export to another prefix"
            )
        known = self._book.hours
        grown = {hour for hour in late if hour < begin and late[hour] != (known[hour].late if hour in known else 0)}
        # Compared by number, because counting a reading adds nothing to the ledger's late hours.
        grown |= {hour for hour in readings if hour < begin and readings[hour] != self._book.readings(hour)}
        return new, sorted(grown)

    async def _export_day(self, day: int, due: set[int]) -> None:
        """Export these hours of a day."""
        async with self._database.reading(whole=True) as connection:
            self._retained_from = (await rollup.fetch_state(connection)).hours_from  # It may have advanced since.
            late = await rollup.fetch_late_counts(connection, day, day + DAY)
            read = await closed_hours.count_readings(
                connection, day, day + DAY
            )  # Usually none: each hour needs a query.
            async for hour, rows in closed_hours.stream_hours(connection, day, day + DAY):
                if hour in due:
                    readings = await closed_hours.fetch_readings(connection, hour) if hour in read else {}
                    self._export_hour(hour, rows, late.get(hour, 0), readings)

    def _export_hour(self, hour: int, rows: Rows, late: int, readings: reading_files.Rows) -> None:
        """Export the part of an hour that no file has."""
        before = self._book.hour(hour)
        if hour < self._retained_from:  # The rest of its usage is being deleted.
            late, usage = before.late, before.files
        else:
            usage = self._export_rows(USAGE, hour, rows, before.files)
        self._book.put(hour, late, usage, self._export_rows(READINGS, hour, readings, before.readings))

    def _export_rows(self, form: FileFormat[R], hour: int, rows: R, before: tuple[File, ...]) -> tuple[File, ...]:
        """Export the rows of an hour that no file has. Return all files of the hour."""
        named = [*before]
        for file in before:
            body, _ = self._place.get(file.path)
            rows = form.less(file.path, rows, form.read(file.path, hour, files.check_file(file, body)))
        while rows:
            path = file_path(form.folder, hour, len(named) + 1)
            body, taken = form.written(hour, rows), rows
            if not self._place.create(path, body):
                body, _ = self._place.get(path)
                taken = form.read(path, hour, body)
            named.append(files.describe_file(path, body, len(taken)))
            rows = form.less(path, rows, taken)
            self._files += 1
            self._rows += len(taken)
        return tuple(named)

    def _write_manifest(self, hour: int) -> None:
        """Write the manifest of this hour's month."""
        path, text = self._book.month(hour)
        self._tags[path] = self._place.replace(path, text, self._tags.get(path))
