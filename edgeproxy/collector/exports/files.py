"""The files: an hour of usage as Parquet, with a row for each series with usage. Pure.

Equal rows give equal bytes. The columns are the ledger's. `dimensions` is a map of texts, which may be empty.
"""

import hashlib
import io
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from edgeproxy.collector.exports.manifest import DamagedExportError, File, to_datetime
from edgeproxy.config import dimensions

FOLDER: Final = "usage"
NAMES = ("customer", "meter", "region", "edge", "route")
SCHEMA = pa.schema(
    [
        pa.field("hour", pa.timestamp("ms", tz="UTC"), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in NAMES),
        pa.field("dimensions", pa.map_(pa.string(), pa.string()), nullable=False),
        pa.field("value", pa.int64(), nullable=False),
    ]
)

Key = tuple[str, str, str, str, str, str]
"""Customer, meter, region, edge, route, and dimensions as text."""
Rows = dict[Key, int]


def format_file(hour: int, rows: Mapping[Key, int]) -> bytes:
    """Return the file of these rows."""
    keys = sorted(rows)
    columns = list(zip(*keys, strict=True))
    *names, split = columns
    arrays = [
        [to_datetime(hour)] * len(keys),
        *names,
        [list(dimensions.parse_dimensions(text).items()) for text in split],
        [rows[key] for key in keys],
    ]
    table = pa.Table.from_arrays(
        [pa.array(array, type=field.type) for array, field in zip(arrays, SCHEMA, strict=True)], schema=SCHEMA
    )
    return encode_table(table)


def encode_table(table: pa.Table) -> bytes:
    """Return a table as the bytes of a file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def parse_file(path: str, hour: int, body: bytes) -> Rows:
    """Return the rows of a file of this hour; raises DamagedExportError."""
    at, *names, split, values = parse_columns(path, body, SCHEMA)
    texts = [dimensions.format_dimensions(dict(some)) for some in split]
    rows: Rows = dict(zip(zip(*names, texts, strict=True), values, strict=True))
    if len(rows) != len(at) or any(one != to_datetime(hour) for one in at):
        raise DamagedExportError(f"{path}: has rows twice, or of another hour")
    return rows


def parse_columns(path: str, body: bytes, schema: pa.Schema) -> list[list[Any]]:
    """Return the columns of a file with this schema; raises DamagedExportError."""
    try:
        table = pq.read_table(pa.BufferReader(body))
        if not table.schema.equals(schema):
            raise DamagedExportError(f"{path}: has other columns than such files have")
        return [column.to_pylist() for column in table.columns]
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # For invalid texts and times.
        raise DamagedExportError(f"{path}: cannot be read: {str(error).partition(chr(10))[0]}") from None


def describe_file(path: str, body: bytes, rows: int) -> File:
    """Return the manifest's entry of a file."""
    return File(path, rows, len(body), hashlib.sha256(body).hexdigest())


def check_file(file: File, body: bytes) -> bytes:
    """Return the bytes of a file if they match the manifest. Raises DamagedExportError."""
    if (len(body), hashlib.sha256(body).hexdigest()) != (file.bytes, file.sha256):
        raise DamagedExportError(f"{file.path}: was changed: it is not what the manifest names")
    return body


def subtract(path: str, rows: Rows, taken: Mapping[Key, int]) -> Rows:
    """Subtract a file's rows from rows. Raises DamagedExportError if the file has more."""
    left = dict(rows)
    for key, value in taken.items():
        rest = left.pop(key, 0) - value
        if rest < 0:
            raise DamagedExportError(
                f"{path}: has more of {' '.join(key)} than the ledger: `edgeproxy verify` says more"
            )
        if rest:
            left[key] = rest
    return left
