"""Manifests: the exported hours and their files, with one manifest per month of UTC. Pure.

The months are consecutive. An hour without files had no usage. If an hour has several files, each has the usage added
since the previous file, so the sum of all files is the hour's usage.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

from edgeproxy.collector.database.schema import HOUR

FOLDER = "manifest/"
FORMAT: Final = "edgeproxy usage 1"


class DamagedExportError(Exception):
    """The export is damaged. The message is a sentence that names the first wrong file."""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file with its numbers of rows and bytes, and its SHA-256 in hex."""

    path: str
    rows: int
    bytes: int
    sha256: str


class Hour(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An hour: its files, oldest first, and the files of its readings.

    `late` is how often the ledger had grown for the hour after it was closed, at the time of the export.
    """

    hour: datetime
    late: int
    files: tuple[File, ...]
    readings: tuple[File, ...] = ()


class MonthManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A manifest. All hours from `since` on and before `until` are exported. The hours in `hours` have files."""

    format: Literal["edgeproxy usage 1"]
    since: datetime
    until: datetime
    hours: tuple[Hour, ...]


class Manifests:
    """The content of all manifests, in Unix seconds. Raises DamagedExportError if they are not consecutive."""

    def __init__(self, bodies: Mapping[str, bytes]) -> None:
        self.since: int | None = None
        """The first hour; None if nothing is exported."""
        self.until: int | None = None
        """All earlier hours are exported."""
        self.hours: dict[int, Hour] = {}
        for path in sorted(bodies):
            month = parse_manifest(path, bodies[path])
            since, until = to_second(month.since), to_second(month.until)
            if (
                self.until not in (None, since)
                or path != manifest_path(since)
                or not since < until <= _find_month_end(since)
            ):
                raise DamagedExportError(f"{path}: does not go on where the month before it ends")
            self.since, self.until = since if self.since is None else self.since, until
            self.hours |= {to_second(hour.hour): hour for hour in month.hours}
            if any(not since <= to_second(hour.hour) < until for hour in month.hours):
                raise DamagedExportError(f"{path}: has an hour that is not of it")

    def paths(self) -> set[str]:
        """Return all files in the manifests."""
        return {file.path for hour in self.hours.values() for file in (*hour.files, *hour.readings)}

    def readings(self, hour: int) -> int:
        """Return the number of exported readings of an hour."""
        return sum(file.rows for file in self.hour(hour).readings)

    def hour(self, hour: int) -> Hour:
        """Return the export of an hour. Without an export it has no files."""
        return self.hours.get(hour, Hour(to_datetime(hour), 0, ()))

    def put(self, hour: int, late: int, files: tuple[File, ...], readings: tuple[File, ...]) -> None:
        """Record the exported files of an hour."""
        self.since = hour if self.since is None else self.since
        self.until = max(hour + HOUR, self.until or 0)
        if late or files or readings:
            self.hours[hour] = Hour(to_datetime(hour), late, files, readings)

    def reach_back(self, hour: int) -> list[int]:
        """Begin with an earlier hour. Return an hour of each month whose manifest must be written for that.

        They are in descending order, so that the months are consecutive even after an interruption.
        """
        assert self.since is not None
        months = [find_month_start(self.since)]
        self.since = hour
        while months[-1] > hour:
            months.append(find_month_start(months[-1] - HOUR))
        return months

    def month(self, of: int) -> tuple[str, bytes]:
        """Return the path and the text of the manifest of this hour's month."""
        assert self.since is not None
        assert self.until is not None
        begin = find_month_start(of)
        since, until = max(begin, self.since), min(_find_month_end(begin), self.until)
        hours = tuple(self.hours[hour] for hour in sorted(self.hours) if since <= hour < until)
        text = msgspec.json.encode(MonthManifest(FORMAT, to_datetime(since), to_datetime(until), hours))
        return manifest_path(of), msgspec.json.format(text, indent=1) + b"\n"


def parse_manifest(path: str, body: bytes) -> MonthManifest:
    """Parse a manifest. Raises DamagedExportError."""
    try:
        return msgspec.json.decode(body, type=MonthManifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedExportError(f"{path}: is no manifest: {error}") from None


def manifest_path(hour: int) -> str:
    """Return the path of the manifest of this hour's month."""
    return f"{FOLDER}{to_datetime(hour):%Y-%m}.json"


def file_path(folder: str, hour: int, revision: int) -> str:
    """Return the path of an hour's file; the first one is revision 1."""
    at = to_datetime(hour)
    return f"{folder}/day={at:%Y-%m-%d}/{at:%H}.{revision}.parquet"


def to_datetime(at: int) -> datetime:
    """Return a Unix second as a time."""
    return datetime.fromtimestamp(at, UTC)


def to_second(at: datetime) -> int:
    """Return a time as a Unix second."""
    return int(at.timestamp())


def find_month_start(hour: int) -> int:
    """Return the Unix second when the hour's month begins."""
    return to_second(to_datetime(hour).replace(day=1, hour=0))


def _find_month_end(hour: int) -> int:
    """Return the Unix second when the hour's month ends."""
    at = to_datetime(hour)
    return to_second(datetime(at.year + at.month // 12, at.month % 12 + 1, 1, tzinfo=UTC))
