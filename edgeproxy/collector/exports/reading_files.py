"""The files of readings: events of an hour that are not summed, for example levels of gauges. Pure.

Equal rows give equal bytes. `dimensions` are the dimensions as counted. `item` is the item that a `unique` meter counts
once.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import pyarrow as pa

from edgeproxy.collector.accounts.end_users import ERASED
from edgeproxy.collector.database.schema import HOUR
from edgeproxy.collector.exports.files import encode_table, parse_columns
from edgeproxy.collector.exports.manifest import DamagedExportError, to_datetime, to_second
from edgeproxy.config import dimensions

FOLDER: Final = "readings"
SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("ms", tz="UTC"), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in ("source", "id", "customer", "meter")),
        pa.field("dimensions", pa.map_(pa.string(), pa.string()), nullable=False),
        pa.field("value", pa.int64(), nullable=False),
        pa.field("item", pa.string()),
    ]
)


class ReadingRow(NamedTuple):
    """A reading from an event; `time` in Unix seconds, `split` as text."""

    time: int
    customer: str
    meter: str
    split: str
    value: int
    item: str | None


Key = tuple[str, str]
"""Source and id of an event."""
Rows = dict[Key, ReadingRow]


def format_file(_: int, rows: Mapping[Key, ReadingRow]) -> bytes:
    """Return the file of these readings."""
    keys = sorted(rows)
    times, customers, meters, splits, values, items = zip(*(rows[key] for key in keys), strict=True)
    sources, ids = zip(*keys, strict=True)
    texts = [list(dimensions.parse_dimensions(split).items()) for split in splits]
    columns = [[to_datetime(time) for time in times], sources, ids, customers, meters, texts, values, items]
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return encode_table(pa.Table.from_arrays(arrays, schema=SCHEMA))


def parse_file(path: str, hour: int, body: bytes) -> Rows:
    """Return the readings of a file of this hour; raises DamagedExportError."""
    times, sources, ids, *names, splits, values, items = parse_columns(path, body, SCHEMA)
    seconds = [to_second(time) for time in times]
    texts = [dimensions.format_dimensions(dict(some)) for some in splits]
    readings = map(ReadingRow, seconds, *names, texts, values, items)
    rows = dict(zip(zip(sources, ids, strict=True), readings, strict=True))
    if len(rows) != len(times) or any(not hour <= second < hour + HOUR for second in seconds):
        raise DamagedExportError(f"{path}: has readings twice, or of another hour")
    return rows


def subtract(path: str, rows: Rows, taken: Mapping[Key, ReadingRow]) -> Rows:
    """Remove a file's readings from readings. Raises DamagedExportError if the file has others.

    A file is never rewritten. It still has the item of an event after the ledger's item was erased.
    """
    for key, reading in taken.items():
        there = rows.get(key)
        if there is not None and reading.item is not None and _is_erased(there.item):
            there = there._replace(item=reading.item)
        if there != reading:
            raise DamagedExportError(f"{path}: says of the event {' '.join(key)} what the ledger does not")
    return {key: reading for key, reading in rows.items() if key not in taken}


def _is_erased(item: str | None) -> bool:
    """Return True if an item may have been erased, with its customer or as an end user."""
    return item is None or item.startswith(ERASED)
