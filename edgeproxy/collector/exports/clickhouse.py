"""ClickHouse as a copy of an export. Each file in the manifests is inserted once, over HTTP.

Each row names its file, so ClickHouse itself knows its content, and nothing is recorded elsewhere. A file is one INSERT
of one block, stored completely or not at all. Its token lets ClickHouse drop a repeated INSERT of a file that a server
has not seen yet.
"""

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

import aiohttp
import pyarrow as pa
import pyarrow.parquet as pq

from edgeproxy.base.http_peer import HttpPeer, open_session
from edgeproxy.base.plural import format_count
from edgeproxy.collector.exports import files, reading_files
from edgeproxy.collector.exports.manifest import FOLDER, DamagedExportError, File, Manifests
from edgeproxy.collector.exports.storage import InvalidStorageError, Storage, StorageUnavailableError
from edgeproxy.config import addresses
from edgeproxy.config.secret_text import InvalidSecretError, read_secret_variable

URL_FORM = "https://HOST:8443/DATABASE"
TABLES = (files.FOLDER, reading_files.FOLDER)
"""The tables. They have the names of their files' folders."""
PEER = HttpPeer("ClickHouse", 300.0, 16 << 20, 10.0)
"""The largest body is the list of all files of a table: about 80 bytes per hour, so it lasts for 20 years."""
REASON_CHARS_MAX = 300


class StoredFile(NamedTuple):
    """A table's data from one file."""

    rows: int
    value: int
    """The sum of the values."""


class CopyResult(NamedTuple):
    """The result of a run: inserted files and rows."""

    files: int
    rows: int

    def __str__(self) -> str:
        return f"ClickHouse got {format_count(self.files, 'file')} with {format_count(self.rows, 'row')}"


class ClickHouse:
    """A database of a ClickHouse server. Raises StorageUnavailableError."""

    def __init__(self, session: aiohttp.ClientSession, url: str, database: str) -> None:
        self._session, self._url, self._database = session, url, database

    async def fetch_stored(self, table: str) -> dict[str, StoredFile]:
        """Return a table's data by the path of the file."""
        query = f"SELECT file, count(), toString(sum(toInt128(value))) FROM {table} GROUP BY file"
        settings = {"output_format_json_quote_64bit_integers": "0", "default_format": "JSONCompactEachRow"}
        answer = await self._ask(query, settings)
        return {path: StoredFile(rows, int(value)) for path, rows, value in map(json.loads, answer.splitlines())}

    async def insert_file(self, table: str, file: File, body: bytes) -> None:
        """Insert a file completely or not at all. A file that was inserted before adds nothing."""
        rows = pq.read_table(pa.BufferReader(body))
        names = ", ".join([*rows.column_names, "file"])
        paths = pa.repeat(file.path, len(rows))
        settings = {
            "insert_deduplication_token": f"{file.path} {file.sha256}",
            "insert_deduplicate": "1",
            "async_insert": "0",
            # One block, stored as a whole.
            "input_format_parquet_max_block_size": str(file.rows),
            "max_insert_block_size": str(file.rows),
            "min_insert_block_size_rows": str(file.rows),
            "min_insert_block_size_bytes": "0",
            "max_insert_threads": "1",
        }
        content = files.encode_table(rows.append_column("file", paths))
        await self._ask(f"INSERT INTO {table} ({names}) FORMAT Parquet", settings, content)

    async def _ask(self, query: str, settings: Mapping[str, str], body: bytes = b"") -> bytes:
        """Return the answer to a query after its end."""
        parameters = {"database": self._database, "query": query, "wait_end_of_query": "1", **settings}
        try:
            # The password is not meant for the target of a redirect.
            async with self._session.post(self._url, params=parameters, data=body, allow_redirects=False) as response:
                answer = await response.read()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise StorageUnavailableError(f"{self._url}: {str(error) or 'does not answer in time'}") from None
        if response.status != 200:
            reason = " ".join(answer[:4096].decode(errors="replace").split())[:REASON_CHARS_MAX]
            raise StorageUnavailableError(f"{self._url}: status {response.status}: {reason}")
        return answer


@asynccontextmanager
async def open_clickhouse(url: str, environ: Mapping[str, str]) -> AsyncIterator[ClickHouse]:
    """Open the database of a URL, as CLICKHOUSE_USER with CLICKHOUSE_PASSWORD. Raises InvalidStorageError."""
    try:
        parts = urlsplit(url)
        host, database, _ = parts.hostname or "", parts.path.strip("/"), parts.port
    except ValueError:
        raise InvalidStorageError(f"--clickhouse: write {URL_FORM}") from None
    if parts.username is not None or parts.password is not None:
        raise InvalidStorageError("--clickhouse: has credentials in it: set CLICKHOUSE_USER and CLICKHOUSE_PASSWORD")
    if (
        parts.scheme not in ("http", "https")
        or not host
        or not database.isidentifier()
        or parts.query
        or parts.fragment
    ):
        raise InvalidStorageError(f"--clickhouse: write {URL_FORM}")
    if parts.scheme == "http" and not addresses.is_loopback(host):
        raise InvalidStorageError("--clickhouse: is not https://, which only a server on this host may be")
    credentials = {"X-ClickHouse-User": "CLICKHOUSE_USER", "X-ClickHouse-Key": "CLICKHOUSE_PASSWORD"}
    try:
        read = {field: read_secret_variable(name, environ) for field, name in credentials.items()}
    except InvalidSecretError as error:
        raise InvalidStorageError(str(error)) from None
    fields = {field: text for field, text in read.items() if text}
    async with open_session(PEER, headers=fields) as session:
        yield ClickHouse(session, f"{parts.scheme}://{parts.netloc}/", database)


async def insert_export(place: Storage, server: ClickHouse) -> CopyResult:
    """Insert all files of an export that ClickHouse lacks, oldest first.

    Raises DamagedExportError if ClickHouse has data that the export lacks. Only one process may insert at a time.
    """
    book = fetch_manifests(place)
    count = rows = 0
    for table in TABLES:
        stored = await server.fetch_stored(table)
        for file in list_missing(table, list_files(book, table), stored):
            body, _ = place.get(file.path)
            await server.insert_file(table, file, files.check_file(file, body))
            count += 1
            rows += file.rows
    return CopyResult(count, rows)


async def verify_copy(place: Storage, server: ClickHouse) -> CopyResult:
    """Return the totals of ClickHouse's copy if it is complete. Raises DamagedExportError."""
    book = fetch_manifests(place)
    count = rows = 0
    for table in TABLES:
        stored = await server.fetch_stored(table)
        named = list_files(book, table)
        for file in list_missing(table, named, stored):
            raise DamagedExportError(f"{file.path}: ClickHouse does not have it: export again")
        for file in named:
            body, _ = place.get(file.path)
            column = pq.read_table(pa.BufferReader(files.check_file(file, body)), columns=["value"])["value"]
            value = sum(column.to_pylist())
            if stored[file.path].value != value:
                raise DamagedExportError(
                    f"{file.path}: its values are {value} in all, and {stored[file.path].value} in ClickHouse"
                )
            count += 1
            rows += file.rows
    return CopyResult(count, rows)


def fetch_manifests(place: Storage) -> Manifests:
    """Return the manifests of an export."""
    return Manifests({path: place.get(path)[0] for path in place.sizes() if path.startswith(FOLDER)})


def list_files(book: Manifests, table: str) -> list[File]:
    """Return the files of a table, oldest hour first."""
    hours = [book.hours[hour] for hour in sorted(book.hours)]
    return [file for hour in hours for file in (hour.files if table == files.FOLDER else hour.readings)]


def list_missing(table: str, named: Iterable[File], stored: Mapping[str, StoredFile]) -> list[File]:
    """Return the files that ClickHouse lacks. Raises DamagedExportError if it has parts of files, or other files."""
    expected = {file.path: file for file in named}
    for path, there in sorted(stored.items()):
        if path not in expected:
            raise DamagedExportError(
                f"{path}: is in ClickHouse's table {table}, and in no manifest: a database belongs to one export"
            )
        if there.rows != expected[path].rows:
            raise DamagedExportError(
                f"{path}: ClickHouse has {there.rows} of its {format_count(expected[path].rows, 'row')}: "
                f"ALTER TABLE {table} DELETE WHERE file = '{path}', then export again"
            )
    return [file for path, file in expected.items() if path not in stored]
