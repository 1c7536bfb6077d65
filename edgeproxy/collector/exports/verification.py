"""Verification of an export: each file against the manifests, and all files against the ledger."""

from typing import NamedTuple

from edgeproxy.base.plural import format_count
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.exports import closed_hours, files, reading_files
from edgeproxy.collector.exports.manifest import FOLDER, DamagedExportError, File, Manifests
from edgeproxy.collector.exports.storage import Storage
from edgeproxy.collector.ledger import rollup
from edgeproxy.collector.ledger.queries import format_time as moment


class ExportTotals(NamedTuple):
    """Totals of an export."""

    files: int
    rows: int
    until: int | None

    def __str__(self) -> str:
        if self.until is None:
            return "nothing is exported"
        files, rows = format_count(self.files, "file"), format_count(self.rows, "row")
        return f"{files} with {rows} of hours before {moment(self.until)}"


async def verify_export(database: Database, place: Storage) -> ExportTotals:
    """Return the totals of an intact export. Raises DamagedExportError with the first wrong file or hour.

    No export may run meanwhile.
    """
    sizes = place.sizes()
    book = Manifests({path: place.get(path)[0] for path in sizes if path.startswith(FOLDER)})
    if book.since is None or book.until is None:
        if sizes:
            raise DamagedExportError(f"{min(sizes)}: is there, and no manifest")
        return ExportTotals(0, 0, None)
    for path in sorted(sizes):
        if path not in book.paths() and not path.startswith(FOLDER):
            raise DamagedExportError(
                f"{path}: no manifest names it: it is not of the export, or one was broken off: export again"
            )
    rows = 0
    for day in range(book.since - book.since % DAY, book.until, DAY):
        rows += await _verify_day(database, place, book, day)
    return ExportTotals(len(book.paths()), rows, book.until)


async def _verify_day(database: Database, place: Storage, book: Manifests, day: int) -> int:
    """Return the row count of a day's files. Raises DamagedExportError."""
    assert book.since is not None
    assert book.until is not None
    count = 0
    async with database.reading(whole=True) as connection:
        retained_from = (await rollup.fetch_state(connection)).hours_from
        late = await rollup.fetch_late_counts(connection, day, day + DAY)
        span = max(day, book.since), min(day + DAY, book.until)
        async for hour, rows in closed_hours.stream_hours(connection, *span):
            known = book.hours.get(hour)
            left = rows
            for file in known.files if known is not None else ():
                file_rows = files.parse_file(file.path, hour, _fetch_body(place, file))
                count += len(file_rows)
                if hour >= retained_from:
                    left = files.subtract(file.path, left, file_rows)
            # Readings in no file have arrived since the last export. Their number makes the next export include them.
            if known is not None and known.readings:
                readings = await closed_hours.fetch_readings(connection, hour)
                for file in known.readings:
                    some = reading_files.parse_file(file.path, hour, _fetch_body(place, file))
                    count += len(some)
                    readings = reading_files.subtract(file.path, readings, some)
            # The next export includes usage since the last one.
            is_whole = late.get(hour, 0) == (known.late if known is not None else 0)
            if left and hour >= retained_from and is_whole:
                raise DamagedExportError(
                    f"the hour {moment(hour)} has {format_count(len(left), 'row')} in the ledger that no file has"
                )
    return count


def _fetch_body(place: Storage, file: File) -> bytes:
    """Return the bytes of a file that matches the manifest. Raises DamagedExportError."""
    try:
        body, _ = place.get(file.path)
    except FileNotFoundError:
        raise DamagedExportError(f"{file.path}: is not there") from None
    return files.check_file(file, body)
