"""The audit of stored batches: each has the body that was hashed, follows the previous one, and counts its rows."""

from typing import NamedTuple

import sqlalchemy as sa
import zstandard
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database.schema import COUNTED, GAP, QUARANTINED, ZSTD, batches, checkpoints, series
from edgeproxy.collector.ledger.dimension_values import apply_note
from edgeproxy.wire.batch import BODY_BYTES_MAX, FIRST, Batch, InvalidBatchError, compute_digest, count_key, parse_batch

SeriesKey = tuple[str, str, str, str, str]
"""The identity of a series within an edge: region, customer, meter, route, and dimensions as text."""


class BrokenChainError(Exception):
    """The first break of a chain. The message describes it in a sentence."""


class BatchRow(NamedTuple):
    """A row of `batches`, with the columns in order."""

    edge: str
    seq: int
    last: int
    hash: str
    state: str
    rows: int
    since: int | None
    until: int | None
    why: str | None
    received: int
    coding: str
    body: bytes
    replay: bytes | None
    folded: str | None


class Checkpoint(NamedTuple):
    """A row of `checkpoints`, with the columns in order: the end of the dropped batches of an edge."""

    edge: str
    seq: int
    hash: str | None
    batches: int
    minute: int


class ChainWalk:
    """A walk along an edge's chain, from the checkpoint at the end of its dropped batches."""

    def __init__(self, edge: str, checkpoint: Checkpoint | None) -> None:
        self.edge = edge
        self.dropped: int = 0 if checkpoint is None else checkpoint.seq
        """Counted batches up to this seq are dropped."""
        self.settled = self.dropped
        """The seq that the walk has reached."""
        self.hash: str | None = FIRST if checkpoint is None else checkpoint.hash
        """The hash of the batch at `settled`, or None after a gap (unknown)."""

    def follow(self, row: BatchRow) -> Batch | None:
        """Return the batch that the next row of `batches` counts, or None if it is in quarantine.

        Raises BrokenChainError.
        """
        where = f"edge {self.edge}: batch {row.seq}"
        # Quarantined batches stay and are counted later, when the batches before them may already be dropped.
        late = row.seq <= self.dropped
        if not late and row.seq != self.settled + 1:
            raise BrokenChainError(f"edge {self.edge}: batch {self.settled + 1} is missing, the next is {row.seq}")
        batch = None
        if row.state != QUARANTINED:
            # The replacement body of an unreadable batch was counted. The original body stays only for the chain.
            batch = (
                _parse_body(where, row, row.replay, ZSTD)
                if row.state == COUNTED and row.replay is not None
                else _parse_body(where, row, _read_own_body(where, row), None)
            )
            recorded = (row.last, row.since, row.state == COUNTED)
            if recorded != (batch.last, batch.since, batch.gap is None):
                raise BrokenChainError(f"{where} is not what is said of it")
            batch = _apply_folded(where, batch, row.folded)
            # An edge that lost batches may also have lost the hash before them.
            any_prev = late or self.hash is None or (batch.gap is not None and batch.prev == FIRST)
            if not any_prev and batch.prev != self.hash:
                raise BrokenChainError(
                    f"{where} does not follow the one before: its prev is {batch.prev}, not {self.hash}"
                )
        if not late:
            self.settled, self.hash = row.last, None if row.state == GAP else row.hash
        return batch


def _apply_folded(where: str, batch: Batch, folded: str | None) -> Batch:
    """Fold the values of a batch beyond a bound, as when the batch was counted."""
    try:
        return apply_note(batch, folded)
    except (ValueError, LookupError, AttributeError, TypeError):
        raise BrokenChainError(f"{where}: what of it was folded is not what its rows are") from None


def _read_own_body(where: str, row: BatchRow) -> bytes:
    """Return the body of a row. Raises BrokenChainError if it differs from the hashed one."""
    body = _decompress(where, row.body, row.coding)
    if compute_digest(body) != row.hash:
        raise BrokenChainError(f"{where} is not the body that was hashed")
    return body


def _parse_body(where: str, row: BatchRow, body: bytes, coding: str | None) -> Batch:
    try:
        batch = parse_batch(_decompress(where, body, coding))
    except InvalidBatchError as error:
        raise BrokenChainError(f"{where} cannot be read: {error}") from None
    if (batch.edge, batch.seq) != (row.edge, row.seq):
        raise BrokenChainError(f"{where} is another's: {batch.edge}, {batch.seq}")
    return batch


def _decompress(where: str, body: bytes, coding: str | None) -> bytes:
    if coding != ZSTD:
        return body
    try:
        return zstandard.ZstdDecompressor().decompress(body, max_output_size=BODY_BYTES_MAX)
    except zstandard.ZstdError as error:
        raise BrokenChainError(f"{where} cannot be read: {error}") from None


def add_rows(sums: dict[int, dict[SeriesKey, int]], time: int, batch: Batch) -> None:
    """Add the rows of a batch to the sums of its edge for this minute, hour or day."""
    values = sums.setdefault(time, {})
    for row in batch.rows:
        of = (batch.region, *count_key(row))
        values[of] = values.get(of, 0) + row[3]


async def find_checkpoint(connection: AsyncConnection, edge: str) -> Checkpoint | None:
    """Return the checkpoint of an edge's dropped batches, or None if none were dropped."""
    row = (await connection.execute(sa.select(checkpoints).where(checkpoints.c.edge == edge))).one_or_none()
    return None if row is None else Checkpoint(*row)


async def find_previous_hash(connection: AsyncConnection, edge: str, seq: int) -> str | None:
    """Return the hash that this batch of an edge must name as its `prev`, or None if it is unknown (after a gap)."""
    if seq == 1:
        return FIRST
    columns = batches.c
    before = (
        sa.select(columns.last, columns.hash, columns.state)
        .where(columns.edge == edge, columns.seq < seq)
        .order_by(columns.seq.desc())
        .limit(1)
    )
    row = (await connection.execute(before)).one_or_none()
    if row is not None and row.last == seq - 1:
        return None if row.state == GAP else row.hash
    at = await find_checkpoint(connection, edge)
    return at.hash if at is not None and at.seq == seq - 1 else None


async def fetch_series_numbers(connection: AsyncConnection, edge: str) -> dict[SeriesKey, int]:
    """Return the numbers of an edge's series."""
    columns = series.c
    rows = await connection.execute(
        sa.select(columns.id, columns.region, columns.customer, columns.meter, columns.route, columns.dimensions).where(
            columns.edge == edge
        )
    )
    return {(region, *names): number for number, region, *names in rows}
