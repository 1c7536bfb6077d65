"""Unreadable batches: their bodies, and replays that count them later.

A replay counts such a batch exactly once, no matter how often it is requested: one transaction writes state, ledger and
note. The original body stays stored with its hash, because the next batch names that hash.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import sqlalchemy as sa
import zstandard
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.collector.alerts.alert import raise_alerts
from edgeproxy.collector.database.database import Database, is_overflow
from edgeproxy.collector.database.schema import COUNTED, GAP, NOT_COUNTED, QUARANTINED, ZSTD, batches, edges
from edgeproxy.collector.database.unreadable_rows import set_aside
from edgeproxy.collector.ledger.batch_alerts import make_cap_alerts
from edgeproxy.collector.ledger.batch_writer import TOO_LARGE
from edgeproxy.collector.ledger.chain_audit import BatchRow, find_previous_hash
from edgeproxy.collector.ledger.dimension_values import DimensionValues
from edgeproxy.collector.ledger.ledger_writer import LedgerWriter, SumTooLargeError
from edgeproxy.collector.ledger.queries import format_time
from edgeproxy.collector.ledger.received_batch import BatchHeaders, decode_batch, inflate
from edgeproxy.collector.problems import operation_codes
from edgeproxy.collector.problems.coded_error import CodedError
from edgeproxy.config.meters import Meter
from edgeproxy.wire.batch import (
    FIRST,
    NAME,
    NUMBER_MAX,
    Batch,
    CountKey,
    InvalidBatchError,
    compute_digest,
    format_batch,
    parse_batch,
)

LISTED_MAX = 1000
"""The most batches in a list."""
UNKNOWN = "unknown"
"""The region of an edge without a readable batch so far."""


class ReplayRejectedError(CodedError):
    """A replay was rejected."""

    def __str__(self) -> str:
        return self.why


class QuarantineEntry(TypedDict):
    """A batch in quarantine, in the list of all."""

    edge: str
    """The id of the edge."""
    seq: int
    """The number of the batch."""
    received: str
    """The time when the batch arrived."""
    size: int
    """The size of the stored body in bytes."""
    coding: str
    """The content coding of the stored body, such as `zstd`."""
    why: str
    """The reason why it could not be read."""


class QuarantineList(TypedDict):
    """The batches in quarantine."""

    count: int
    """The number of batches in quarantine."""
    batches: list[QuarantineEntry]
    """The first of these batches, by edge and number."""


class QuarantinedBatch(TypedDict):
    """A batch in quarantine, with its details."""

    edge: str
    """The id of the edge."""
    seq: int
    """The number of the batch."""
    state: Literal["quarantined", "counted"]
    """`quarantined`, or `counted` after a replay."""
    why: str
    """The reason why it could not be read."""
    hash: str
    """The hash of the batch in the edge's chain, in hex digits."""
    sha256: str
    """The SHA-256 of the uncompressed body, in hex digits."""
    prev: str | None
    """The hash of the batch before it. A body sent for a replay must name it; null if any hash will do."""
    received: str
    """The time when the batch arrived."""
    coding: str
    """The content coding of the stored body, such as `zstd`."""
    size: int
    """The size of the stored body in bytes."""
    begins: str
    """The first bytes of the uncompressed body, as text."""


class BatchReplayResult(TypedDict):
    """The rows of a replayed batch."""

    rows: int
    """The number of rows counted."""
    total: int
    """The sum of the values of these rows, in the units of their meters."""
    minute: str
    """The start of the minute that the rows are counted in."""
    again: bool
    """True if the batch had been counted before, so that nothing changed."""


class ReplayResult(NamedTuple):
    """The result of a replay."""

    rows: int
    total: int
    """The sum of all values."""
    minute: int
    """The Unix second of the start of the minute that counts them."""
    again: bool
    """True if the batch was counted before, so this replay did nothing."""
    begun: set[CountKey]
    """The series that the replay began."""

    def to_response(self) -> BatchReplayResult:
        """Return the result as the JSON object of an answer."""
        return {"rows": self.rows, "total": self.total, "minute": format_time(self.minute), "again": self.again}


RecordReplay = Callable[[AsyncConnection, ReplayResult], Awaitable[None]]
"""Records a replay in the audit log."""


async def list_batches(connection: AsyncConnection, edge: str | None = None) -> QuarantineList:
    """Return `{count, batches}` of the quarantine, of one edge or all: the first LISTED_MAX batches by edge and seq."""
    if edge is not None and not _is_possible(edge):
        return {"count": 0, "batches": []}
    columns = batches.c
    there = NOT_COUNTED & (columns.state == QUARANTINED)
    if edge is not None:
        there &= columns.edge == edge
    count = (await connection.execute(sa.select(sa.func.count()).select_from(batches).where(there))).scalar_one()
    fetched = await connection.execute(
        sa.select(
            columns.edge, columns.seq, columns.received, sa.func.length(columns.body), columns.coding, columns.why
        )
        .where(there)
        .order_by(columns.edge, columns.seq)
        .limit(LISTED_MAX)
    )
    listed: list[QuarantineEntry] = [
        {"edge": edge, "seq": seq, "received": format_time(at // 1000), "size": size, "coding": coding, "why": why}
        for edge, seq, at, size, coding, why in fetched
    ]
    return {"count": count, "batches": listed}


async def find_batch(connection: AsyncConnection, edge: str, seq: int) -> QuarantinedBatch | None:
    """Return a quarantined or replayed batch without its body, or None if there is none.

    `prev` is the hash that a replacement body must name, or None if any will do.
    """
    row = await _find_row(connection, edge, seq)
    if row is None or (row.state != QUARANTINED and not _was_quarantined(row)):
        return None
    text = _decompress(row.body, row.coding)
    return {
        "edge": edge,
        "seq": seq,
        "state": "counted" if row.state == COUNTED else "quarantined",
        "why": row.why or "",
        "hash": row.hash,
        "sha256": compute_digest(text),
        "prev": await find_previous_hash(connection, edge, seq),
        "received": format_time(row.received // 1000),
        "coding": row.coding,
        "size": len(row.body),
        "begins": text[:200].decode("utf-8", "backslashreplace"),
    }


async def find_body(connection: AsyncConnection, edge: str, seq: int) -> bytes | None:
    """Return the body of such a batch, uncompressed if possible, else as received."""
    row = await _find_row(connection, edge, seq)
    if row is None or (row.state != QUARANTINED and not _was_quarantined(row)):
        return None
    return _decompress(row.body, row.coding)


async def build_empty_body(connection: AsyncConnection, edge: str, seq: int) -> bytes | None:
    """Return a body without rows for a batch whose content is lost, or None if the batch is not in quarantine."""
    row = await _find_row(connection, edge, seq)
    if row is None or row.state != QUARANTINED:
        return None
    region = await connection.scalar(sa.select(edges.c.region).where(edges.c.edge == edge))
    at = row.received // 1000
    return format_batch(
        Batch(edge, region or UNKNOWN, seq, at, at, await find_previous_hash(connection, edge, seq) or FIRST)
    )


async def replay_batch(
    database: Database,
    edge: str,
    seq: int,
    given: bytes | None = None,
    *,
    record: RecordReplay | None = None,
    meters: Mapping[str, Meter] | None = None,
) -> ReplayResult:
    """Count a quarantined batch by its own body or by the uncompressed replacement `given`.

    A later version may be able to read the batch's own body. `record` is called within the transaction that counts.
    `meters` bound the values of their dimensions. Raises ReplayRejectedError.
    """
    try:
        async with database.writing() as connection:
            result = await _count_replay(
                connection, LedgerWriter(database), DimensionValues(database, meters or {}), edge, seq, given
            )
            if record is not None and not result.again:
                await record(connection, result)
            return result
    except SumTooLargeError:
        raise ReplayRejectedError(operation_codes.BATCH_INVALID, TOO_LARGE) from None
    except sa.exc.DBAPIError as error:
        if is_overflow(error):
            raise ReplayRejectedError(operation_codes.BATCH_INVALID, TOO_LARGE) from None
        raise


async def _count_replay(
    connection: AsyncConnection, counts: LedgerWriter, values: DimensionValues, edge: str, seq: int, given: bytes | None
) -> ReplayResult:
    if not _is_possible(edge, seq):
        raise ReplayRejectedError(operation_codes.BATCH_NOT_FOUND, f"there is no batch {seq} of {edge}")
    # Ingest takes the same lock, so two replays, or a replay and an edge that resends the batch, take turns.
    await connection.execute(sa.select(edges.c.seq).where(edges.c.edge == edge).with_for_update())
    row = await _find_row(connection, edge, seq)
    if row is None:
        raise ReplayRejectedError(operation_codes.BATCH_NOT_FOUND, f"there is no batch {seq} of {edge}")
    if row.state == GAP:
        raise ReplayRejectedError(operation_codes.BATCH_IS_GAP, "it owns up to a gap, and counts nothing")
    if row.state == COUNTED:
        own = _decompress(row.body if row.replay is None else row.replay, row.coding if row.replay is None else ZSTD)
        if given not in (None, own):
            raise ReplayRejectedError(
                operation_codes.BATCH_COUNTED_OTHERWISE, "it is counted already, with another body"
            )
        try:
            return _build_result(parse_batch(own), again=True)
        except InvalidBatchError as error:
            set_aside(batches.name, f"{edge},{seq}", error)
            raise ReplayRejectedError(
                operation_codes.BATCH_COUNTED, "it is counted already, and its stored body cannot be read"
            ) from error
    batch = _parse_replacement(row, given)
    prev = await find_previous_hash(connection, edge, seq)
    if prev not in (None, batch.prev):
        raise ReplayRejectedError(
            operation_codes.BATCH_INVALID, f"its prev is {batch.prev}, and the batch before it has the hash {prev}"
        )
    (as_counted,), (folded,), passed = await values.fold_batches(connection, [batch])
    begun = await counts.add_batches(connection, [as_counted])
    await raise_alerts(connection, [*make_cap_alerts([batch]), *passed])
    note = f"replayed on {datetime.fromtimestamp(time.time(), UTC):%Y-%m-%d %H:%M:%S} UTC: it {row.why}"
    values_to_store: dict[str, object] = {"state": COUNTED, "why": note, "rows": len(batch.rows)}
    values_to_store |= {"since": batch.since, "until": batch.until, "folded": folded}
    whole = _decompress(row.body, row.coding) if given is None else given
    small = zstandard.ZstdCompressor().compress(whole)
    # If it has the hash that the edge computed, it is the batch itself, which first arrived damaged.
    values_to_store |= {"coding": ZSTD, "body": small} if compute_digest(whole) == row.hash else {"replay": small}
    await connection.execute(
        sa.update(batches).where((batches.c.edge == edge) & (batches.c.seq == seq)).values(values_to_store)
    )
    return _build_result(batch, again=False, begun=begun)


def _parse_replacement(row: BatchRow, given: bytes | None) -> Batch:
    """Parse the batch to count. Raises ReplayRejectedError."""
    try:
        if given is None:
            arrival = decode_batch(BatchHeaders(row.edge, row.seq, row.hash), row.body, row.coding)
            if arrival.batch is None:
                raise InvalidBatchError([arrival.why])
            batch = arrival.batch
        else:
            batch = parse_batch(given)
            if (batch.edge, batch.seq) != (row.edge, row.seq):
                raise InvalidBatchError(["has another edge or seq than the one that it stands for"])
        if batch.gap is not None:
            raise InvalidBatchError(["owns up to a gap, and counts nothing"])
    except InvalidBatchError as error:
        raise ReplayRejectedError(operation_codes.BATCH_INVALID, f"the body {error}") from None
    return batch


def _build_result(batch: Batch, *, again: bool, begun: set[CountKey] | None = None) -> ReplayResult:
    total = sum(row[3] for row in batch.rows)
    return ReplayResult(len(batch.rows), total, batch.minute, again, begun or set())


def _was_quarantined(row: BatchRow) -> bool:
    """Return whether a counted batch was in quarantine before."""
    return row.state == COUNTED and row.why is not None


def _decompress(stored: bytes, coding: str) -> bytes:
    """Return a stored body, uncompressed if possible."""
    try:
        return inflate(stored, coding)
    except InvalidBatchError:
        return stored


async def _find_row(connection: AsyncConnection, edge: str, seq: int) -> BatchRow | None:
    """Return the row of a batch, or None."""
    if not _is_possible(edge, seq):
        return None
    statement = sa.select(batches).where(batches.c.edge == edge, batches.c.seq == seq)
    row = (await connection.execute(statement)).one_or_none()
    return None if row is None else BatchRow(*row)


def _is_possible(edge: str, seq: int = 1) -> bool:
    """Return whether a batch with this edge and seq can exist.

    Impossible names and numbers are not sent to the database: some databases reject NUL or invalid text, and none takes
    a number beyond its integer range.
    """
    return NAME.fullmatch(edge) is not None and 1 <= seq <= NUMBER_MAX
