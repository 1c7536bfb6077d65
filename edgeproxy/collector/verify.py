"""Whether the ledger is what the batches say, and these are the chain that each edge has shipped.

Everything is read of one moment, edge by edge, and the first break is told by name. Takes memory for the minutes of one
edge at a time.
"""

from collections import defaultdict
from typing import NamedTuple

import sqlalchemy as sa
import zstandard
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.database import Database
from edgeproxy.collector.schema import COUNTED, GAP, QUARANTINED, ZSTD, batches, edges, ledger, series
from edgeproxy.usage.batch import FIRST, MOST_BYTES, BadBatch, Batch, digest, read

Cell = tuple[int, str, str, str, str]
"""Minute, region, customer, meter, route."""


class Broken(Exception):
    """The first break: a sentence that names it."""


class Sums(NamedTuple):
    """What was found: how many there are of each, and the sum of all values."""

    edges: int = 0
    batches: int = 0
    gaps: int = 0
    quarantined: int = 0
    total: int = 0

    def __str__(self) -> str:
        return (
            f"{self.edges} edges, {self.batches} batches, {self.gaps} gaps, {self.quarantined} quarantined; "
            f"total {self.total}"
        )


async def verify(database: Database) -> Sums:
    """The sums of a database in which all agrees; raises Broken."""
    sums = Sums()
    async with database.reading(whole=True) as connection:
        marks = (await connection.execute(sa.select(edges).order_by(edges.c.edge))).all()
        for mark in marks:
            found, cells = await _chain(connection, mark.edge, mark.seq, mark.hash)
            await _compare(connection, mark.edge, cells)
            sums = Sums(*(one + other for one, other in zip(sums, found, strict=True)))
        strangers = sa.select(series.c.edge).where(series.c.edge.not_in(sa.select(edges.c.edge))).limit(1)
        stranger = (await connection.execute(strangers)).scalar_one_or_none()
        if stranger is not None:
            raise Broken(f"edge {stranger} has usage, and never shipped")
    return sums


async def _chain(
    connection: AsyncConnection, edge: str, watermark: int, tip: str | None
) -> tuple[Sums, dict[Cell, int]]:
    """What an edge's batches add up to; raises Broken where they are no chain up to the watermark."""
    cells: dict[Cell, int] = defaultdict(int)
    count = {COUNTED: 0, GAP: 0, QUARANTINED: 0}
    settled, prev = 0, FIRST
    known = True
    statement = sa.select(batches).where(batches.c.edge == edge).order_by(batches.c.seq)
    async for row in await connection.stream(statement):
        where = f"edge {edge}: batch {row.seq}"
        if row.seq != settled + 1:
            raise Broken(f"edge {edge}: batch {settled + 1} is missing, the next is {row.seq}")
        if row.state != QUARANTINED:
            batch = _batch(where, row)
            if batch.last != row.last or (batch.gap is None) != (row.state == COUNTED):
                raise Broken(f"{where} is not what is said of it")
            # Who lost batches may have lost the hash before them too.
            if known and batch.prev != prev and (batch.gap is None or batch.prev != FIRST):
                raise Broken(f"{where} does not follow the one before: its prev is {batch.prev}, not {prev}")
            for customer, meter, route, value in batch.rows:
                cells[batch.minute, batch.region, customer, meter, route] += value
        count[row.state] += 1
        settled, prev, known = row.last, row.hash, row.state != GAP
    if settled != watermark:
        raise Broken(f"edge {edge}: its watermark is {watermark}, and its last batch {settled}")
    if tip != (prev if known else None):
        raise Broken(f"edge {edge}: its watermark has another hash than batch {settled}")
    return Sums(1, count[COUNTED], count[GAP], count[QUARANTINED], sum(cells.values())), cells


def _batch(where: str, row: sa.Row[tuple[object, ...]]) -> Batch:
    """The batch in a row, whose body must be what was hashed."""
    try:
        body: bytes = row.body
        if row.coding == ZSTD:
            body = zstandard.ZstdDecompressor().decompress(body, max_output_size=MOST_BYTES)
        if digest(body) != row.hash:
            raise Broken(f"{where} is not the body that was hashed")
        batch = read(body)
    except (zstandard.ZstdError, BadBatch) as bad:
        raise Broken(f"{where} cannot be read: {bad}") from None
    if (batch.edge, batch.seq) != (row.edge, row.seq):
        raise Broken(f"{where} is another's: {batch.edge}, {batch.seq}")
    return batch


async def _compare(connection: AsyncConnection, edge: str, cells: dict[Cell, int]) -> None:
    """Hold the ledger of an edge against what its batches add up to."""
    statement = (
        sa.select(ledger.c.minute, series.c.region, series.c.customer, series.c.meter, series.c.route, ledger.c.value)
        .select_from(ledger.join(series, series.c.id == ledger.c.series))
        .where(series.c.edge == edge)
    )
    async for *cell, value in await connection.stream(statement):
        wanted = cells.pop((cell[0], cell[1], cell[2], cell[3], cell[4]), 0)
        if value != wanted:
            raise Broken(f"edge {edge}: {_named(cell)} is {value} in the ledger, and {wanted} in its batches")
    for rest, wanted in cells.items():
        raise Broken(f"edge {edge}: {_named(rest)} is not in the ledger, and {wanted} in its batches")


def _named(cell: Cell | list[object]) -> str:
    minute, region, customer, meter, route = cell
    return f"{customer} {meter} {route} of {region} in the minute {minute}"
