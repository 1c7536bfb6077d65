"""What edges would ship: batches that follow each other."""

from itertools import count

from edgeproxy.wire.batch import FIRST, Batch, Gap, Row, compute_digest, format_batch

NOON = 1_790_000_040 - 1_790_000_040 % 86400 + 43200
"""Noon of a day of 2026, in Unix seconds."""
ROWS: tuple[Row, ...] = (("acme", "requests", "v1", 3), ("bolt", "requests", "v1", 4))


_numbers = count(1)


class Chain:
    """An edge's batches, each made when it is asked for.

    Unless they are given, the edge is one that no other chain has, and alone in its region: what it has shipped can be
    told apart, whatever else there is in a ledger (`Collector.counted`).
    """

    def __init__(self, edge: str | None = None, region: str | None = None, since: int = NOON) -> None:
        self.edge = edge or f"edge-of-chain-{next(_numbers)}"
        self.region = region or f"region-of-{self.edge}"
        self.since = since
        self.prev: str = FIRST
        self.made: list[Batch] = []

    def next(self, *rows: Row, seconds: int = 5, gap: Gap | None = None) -> Batch:
        """The next batch, by default of ROWS."""
        seq = self.made[-1].last + 1 if self.made else 1
        counted = () if gap is not None else tuple(sorted(rows or ROWS))
        batch = Batch(self.edge, self.region, seq, self.since, self.since + seconds, self.prev, counted, gap)
        self.prev = compute_digest(format_batch(batch))
        self.since += seconds
        self.made.append(batch)
        return batch

    @property
    def total(self) -> int:
        """Of all values."""
        return sum(row[3] for batch in self.made for row in batch.rows)
