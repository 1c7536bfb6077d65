"""The batch writer. Batches that arrive during one transaction are settled together in the next.

One transaction writes a batch, its ledger rows and the edge's watermark. The sender gets its answer only after the
commit. A sender without an answer sends the batch again; the collector then finds it settled, or settles it.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import sqlalchemy as sa
import zstandard
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.alerts.alert import raise_alerts
from edgeproxy.collector.database.database import CONNECTION_ERRORS, Database, format_reason
from edgeproxy.collector.database.group_commit import GroupCommit
from edgeproxy.collector.database.schema import COUNTED, GAP, PLAIN, QUARANTINED, ZSTD, batches, edges
from edgeproxy.collector.ledger.batch_alerts import make_batch_alerts, make_cap_alerts
from edgeproxy.collector.ledger.chain import (
    SettledBatch,
    Shipper,
    Verdict,
    Watermark,
    advance_watermark,
    find_refusal,
    judge_batch,
)
from edgeproxy.collector.ledger.chain_audit import find_previous_hash
from edgeproxy.collector.ledger.dimension_values import DimensionValues
from edgeproxy.collector.ledger.edge_capacity import EdgeCapacity
from edgeproxy.collector.ledger.known_names import KnownNames
from edgeproxy.collector.ledger.ledger_writer import LedgerWriter, is_too_large
from edgeproxy.collector.ledger.quarantine_capacity import QuarantineCapacity
from edgeproxy.collector.ledger.received_batch import ReceivedBatch
from edgeproxy.config.collector.settings import Edges
from edgeproxy.wire.edge_report import EdgeReport

TRANSACTION_ROWS_MAX = 50_000
"""The most rows of one transaction, unless a single batch has more."""
WAITING_BYTES_MAX = 32 << 20
"""The most bytes of waiting batches. Beyond it senders are asked to retry later. A byte takes about ten in memory."""
RETRY_SECONDS_MIN = 1.0
"""Senders are asked to retry after at least this many seconds."""
RETRY_SECONDS_MAX = 30.0
"""Senders are asked to retry after at most this many seconds."""


EMPTY_REPORT = EdgeReport()


class BatchOutcome(NamedTuple):
    """The outcome of a batch. `watermark` is the edge's watermark afterwards; a refusal leaves it unchanged."""

    verdict: Verdict
    watermark: int
    why: str = ""


class DatabaseUnavailableError(Exception):
    """The database is unavailable. The batch may have been settled or not."""


class ShippedBatch(NamedTuple):
    """A batch that waits for its transaction."""

    arrival: ReceivedBatch
    shipper: Shipper
    about: EdgeReport


class BatchMetrics(Protocol):
    """The metrics that ingest reports."""

    def queued(self, batches: int) -> None:
        """Report how many batches wait for a transaction."""

    def committed(self, seconds: float) -> None:
        """Report the duration of a transaction."""

    def failed(self) -> None:
        """Report that a transaction failed."""

    def settled(self, verdict: Verdict, rows: int) -> None:
        """Report that a batch was settled, and how many of its rows were counted."""


class BatchWriter:
    """The queue of batches for the database. `run` serves it until `end`."""

    def __init__(
        self,
        database: Database,
        names: KnownNames,
        metrics: BatchMetrics,
        on_counted: Callable[[Iterable[tuple[str, str]]], None] = lambda _: None,
    ) -> None:
        """`on_counted` is called with the (customer, meter) pairs that have new counts."""
        self._on_counted = on_counted
        self._database = database
        self._names = names
        self._metrics = metrics
        self._ledger = LedgerWriter(database)
        self.values = DimensionValues(database, {})
        """The values of dimensions that customers use."""
        self.edges_per_token = Edges().per_token
        """The number of edges that a token may introduce."""
        self._log = log.get_logger()
        self._squeeze = zstandard.ZstdCompressor(level=1)
        self._commits = GroupCommit(
            self._commit_group,
            cost_max=TRANSACTION_ROWS_MAX,
            compute_cost=lambda one: estimate_rows(one.arrival),
            is_item_fault=is_too_large,
            replace=_replace_too_large,
            fail=self._fail_group,
            on_queued=metrics.queued,
        )
        self._held = 0
        self._speed = 0.0
        """Bytes settled per second, as a recent average."""
        self._failed: tuple[float, str] | None = None
        """Time and reason of the failure of the last transaction; None if it succeeded."""

    # ---- the bytes of waiting batches

    def reserve_bytes(self, size: int, *, already: int = 0) -> bool:
        """Reserve bytes for a batch until `release_bytes`. Return False if there is no room.

        `already` are the caller's own reserved bytes. If no other caller holds any, the reservation always succeeds, so
        one batch always fits.
        """
        if self._held > already and self._held + size > WAITING_BYTES_MAX:
            return False
        self._held += size
        return True

    def release_bytes(self, size: int) -> None:
        """Release bytes that `reserve_bytes` reserved."""
        self._held -= size

    def estimate_retry_seconds(self) -> int:
        """Estimate the seconds until there is room again."""
        seconds = self._held / self._speed if self._speed else RETRY_SECONDS_MIN
        return math.ceil(min(max(seconds, RETRY_SECONDS_MIN), RETRY_SECONDS_MAX))

    def find_failure(self) -> str | None:
        """Return the known reason why batches cannot be settled now, or None.

        Only the next batch can show that the failure is over. An old failure is therefore ignored.
        """
        if self._failed is None or time.monotonic() - self._failed[0] > RETRY_SECONDS_MAX:
            return None
        return self._failed[1]

    # ---- the queue

    async def settle_batch(
        self, arrival: ReceivedBatch, shipper: Shipper, about: EdgeReport = EMPTY_REPORT
    ) -> BatchOutcome:
        """Settle a batch and return its outcome once it is on disk. Raises DatabaseUnavailableError.

        `about` is the edge's report about itself.
        """
        return await self._commits.submit(ShippedBatch(arrival, shipper, about))

    async def run(self) -> None:
        """Settle queued batches until `end` was called and the queue is empty."""
        await self._commits.run()

    def end(self) -> None:
        """Let `run` return once the queue is empty."""
        self._commits.end()

    # ---- a transaction

    async def _commit_group(self, group: Sequence[ShippedBatch]) -> list[BatchOutcome]:
        """Settle these batches in one transaction, and report the outcome of each."""
        began = time.monotonic()
        try:
            outcomes = await self._write_group(group)
        except Exception:
            self._ledger.forget(batch.arrival.edge for batch in group)
            self.values.forget()
            raise
        self._failed = None
        took = time.monotonic() - began
        size = sum(len(batch.arrival.body) for batch in group)
        self._speed = (self._speed + size / max(took, 0.001)) / 2
        self._metrics.committed(took)
        for batch, outcome in zip(group, outcomes, strict=True):
            self._report_outcome(batch.arrival, outcome)
        return outcomes

    def _fail_group(self, group: Sequence[ShippedBatch], error: Exception) -> DatabaseUnavailableError:
        """Log the failure of a transaction. Return the error that asks senders to retry."""
        self._log.error("batches could not be settled", batches=len(group), why=format_reason(error))
        if not isinstance(error, CONNECTION_ERRORS):
            self._log.error("a fault in the collector", exc_info=error)
        self._metrics.failed()
        self._failed = time.monotonic(), format_reason(error)
        return DatabaseUnavailableError()

    def _report_outcome(self, arrival: ReceivedBatch, outcome: BatchOutcome) -> None:
        """Count the outcome, and log a warning if an operator must act."""
        counted = outcome.verdict in (Verdict.COUNT, Verdict.MEND) and arrival.batch is not None
        self._metrics.settled(outcome.verdict, len(arrival.batch.rows) if counted and arrival.batch else 0)
        if outcome.verdict not in (Verdict.COUNT, Verdict.MEND, Verdict.AGAIN):
            about = {"edge": arrival.edge, "seq": arrival.seq, "watermark": outcome.watermark}
            gap = arrival.batch.gap if arrival.batch is not None else None
            why = outcome.why or (gap.why if gap is not None else "")
            self._log.warning("a batch was not counted", what=outcome.verdict.value, why=why, **about)

    async def _write_group(self, group: Sequence[ShippedBatch]) -> list[BatchOutcome]:
        """Judge these batches in order, and write the results in one transaction."""
        arrivals = [waiting.arrival for waiting in group]
        now = round(time.time() * 1000)
        async with self._database.writing() as connection:
            marks, excess = await self._lock_watermarks(connection, group, now)
            settled = await self._fetch_settled(
                connection, [arrival for arrival in arrivals if arrival.seq <= marks[arrival.edge].seq]
            )
            room = await QuarantineCapacity.fetch(
                connection, [batch.shipper.token for batch in group if not batch.arrival.batch]
            )
            outcomes: list[BatchOutcome] = []
            new: list[dict[str, object]] = []
            mended: list[dict[str, object]] = []
            last: dict[str, ShippedBatch] = {}
            for waiting in group:
                arrival, shipper = waiting.arrival, waiting.shipper
                mark, key = marks[arrival.edge], (arrival.edge, arrival.seq)
                verdict, why = judge_batch(mark, settled.get(key), arrival, shipper), arrival.why
                if verdict in REFUSED:
                    why = find_refusal(mark, shipper, arrival) or UNANNOUNCED.format(arrival.edge)
                if verdict in BEGINS and (arrival.edge, shipper.token) in excess:
                    verdict, why = Verdict.TOO_MANY_EDGES, NO_MORE_EDGES.format(shipper.token, self.edges_per_token)
                if verdict is Verdict.QUARANTINE and not room.admit(shipper.token, len(arrival.body)):
                    verdict, why = Verdict.FULL, NO_ROOM.format(shipper.token)
                if verdict is Verdict.MEND and not await self._follows_previous(connection, settled, arrival):
                    verdict, why = Verdict.UNREADABLE, NOT_NEXT
                marks[arrival.edge] = advance_watermark(mark, verdict, arrival, shipper)
                outcomes.append(BatchOutcome(verdict, marks[arrival.edge].seq, why))
                if verdict in STATES:
                    (mended if key in settled else new).append(self._build_row(arrival, STATES[verdict], now))
                    settled[key] = SettledBatch(arrival.hash, STATES[verdict])
                    if verdict is not Verdict.MEND:
                        last[arrival.edge] = waiting
            counted = zip(arrivals, outcomes, strict=True)
            some = [one.batch for one, outcome in counted if outcome.verdict in (Verdict.COUNT, Verdict.MEND)]
            as_sent = [batch for batch in some if batch is not None]
            as_counted, notes, passed = await self.values.fold_batches(connection, as_sent)
            begun = await self._ledger.add_batches(connection, as_counted)
            folded: dict[tuple[object, object], str] = {
                (batch.edge, batch.seq): note for batch, note in zip(as_sent, notes, strict=True) if note is not None
            }
            for row in (*new, *mended):
                row["folded"] = folded.get((row["edge"], row["seq"])) if row["state"] == COUNTED else None
            # A batch that arrives damaged and then intact in the same transaction is in both lists.
            if new:
                await connection.execute(sa.insert(batches), new)
            for row in mended:
                key_of = (batches.c.edge == row["edge"]) & (batches.c.seq == row["seq"])
                await connection.execute(sa.update(batches).where(key_of).values(row))
            await self._update_watermarks(connection, marks, last, now)
            if any(outcome.verdict is Verdict.FULL for outcome in outcomes):
                await _delete_idle_edges(connection, [edge for edge, mark in marks.items() if mark == Watermark()])
            judged = [
                (waiting.arrival, outcome.verdict, waiting.shipper.token)
                for waiting, outcome in zip(group, outcomes, strict=True)
            ]
            await raise_alerts(connection, [*make_batch_alerts(judged, now / 1000), *make_cap_alerts(as_sent), *passed])
        self._on_counted({row[:2] for batch in some if batch is not None for row in batch.rows})
        await self._names.record_names((customer for customer, *_ in begun), (meter for _, meter, *_ in begun))
        return outcomes

    async def _lock_watermarks(
        self, connection: AsyncConnection, group: Sequence[ShippedBatch], now: int
    ) -> tuple[dict[str, Watermark], set[tuple[str, str]]]:
        """Lock and return the watermarks of these edges, and the (edge, token) pairs beyond a token's number of edges.

        The locks last until the transaction ends. New edges get a row, unless nothing will be written for them.
        """
        names = sorted({waiting.arrival.edge for waiting in group})
        columns = edges.c
        statement = (
            sa.select(columns.edge, columns.seq, columns.hash, columns.token, columns.region, columns.gap_to)
            .where(edges.c.edge.in_(names))
            .order_by(edges.c.edge)  # The order prevents a deadlock of two collectors.
            .with_for_update()
        )
        watermarks = {edge: Watermark(*mark) for edge, *mark in await connection.execute(statement)}
        start = Watermark()
        begun = {
            (one.arrival.edge, one.shipper.token): None
            for one in group
            if one.arrival.edge not in watermarks and judge_batch(start, None, one.arrival, one.shipper) in BEGINS
        }
        if not begun:
            return dict.fromkeys(names, start) | watermarks, set()
        room = await EdgeCapacity.fetch(self._database, connection, [token for _, token in begun], self.edges_per_token)
        admitted = {(edge, token) for edge, token in begun if room.admit(token)}
        fresh = sorted({edge for edge, _ in admitted})
        if fresh:
            rows = [{"edge": name, "seq": start.seq, "hash": start.hash, "received": now} for name in fresh]
            await self._database.ledger.insert_edges(connection, rows)
            watermarks = {edge: Watermark(*mark) for edge, *mark in await connection.execute(statement)}
        return dict.fromkeys(names, start) | watermarks, begun.keys() - admitted

    async def _follows_previous(
        self, connection: AsyncConnection, settled: Mapping[tuple[str, int], SettledBatch], arrival: ReceivedBatch
    ) -> bool:
        """Return whether a batch that first arrived damaged names the batch before it.

        That could not be checked while the batch was unreadable.
        """
        assert arrival.batch is not None
        before = settled.get((arrival.edge, arrival.seq - 1))
        if before is None:
            expected = await find_previous_hash(connection, arrival.edge, arrival.seq)
        else:
            expected = before.hash if before.state != GAP else None
        return expected in (None, arrival.batch.prev)

    async def _fetch_settled(
        self, connection: AsyncConnection, some: Sequence[ReceivedBatch]
    ) -> dict[tuple[str, int], SettledBatch]:
        """Return the stored batches with the edge and seq of these batches."""
        if not some:
            return {}
        keys = sorted({(arrival.edge, arrival.seq) for arrival in some})
        columns = batches.c
        rows = await connection.execute(
            sa.select(columns.edge, columns.seq, columns.hash, columns.state).where(
                sa.tuple_(columns.edge, columns.seq).in_(keys)
            )
        )
        return {(edge, seq): SettledBatch(digest, state) for edge, seq, digest, state in rows}

    def _build_row(self, arrival: ReceivedBatch, state: str, now: int) -> dict[str, object]:
        """Build the row of a batch."""
        batch = arrival.batch
        if batch is None:
            own: dict[str, object] = {"last": arrival.seq, "rows": 0, "since": None, "until": None, "why": arrival.why}
            own |= {"coding": arrival.coding, "body": arrival.body}
        else:
            why = batch.gap.why if batch.gap is not None else None
            own = {"last": batch.last, "rows": len(batch.rows), "since": batch.since, "until": batch.until, "why": why}
            small = self._squeeze.compress(arrival.body)
            packed = len(small) < len(arrival.body)
            own |= {"coding": ZSTD if packed else PLAIN, "body": small if packed else arrival.body}
        return {"edge": arrival.edge, "seq": arrival.seq, "hash": arrival.hash, "state": state, "received": now, **own}

    async def _update_watermarks(
        self, connection: AsyncConnection, marks: dict[str, Watermark], last: dict[str, ShippedBatch], now: int
    ) -> None:
        """Write the watermarks of the edges that have newly settled batches."""
        readable = [(edge, batch.arrival.batch) for edge, batch in last.items() if batch.arrival.batch is not None]
        if last:
            rows = [
                {
                    "of": edge,
                    "seq": mark.seq,
                    "hash": mark.hash,
                    "token": mark.token,
                    "received": now,
                    **about._asdict(),
                }
                for edge, mark, about in ((edge, marks[edge], batch.about) for edge, batch in last.items())
            ]
            await connection.execute(sa.update(edges).where(edges.c.edge == sa.bindparam("of")), rows)
        if readable:
            rows = [
                {"of": edge, "region": marks[edge].region, "since": batch.since, "until": batch.until}
                for edge, batch in readable
            ]
            await connection.execute(sa.update(edges).where(edges.c.edge == sa.bindparam("of")), rows)


STATES = {
    Verdict.COUNT: COUNTED,
    Verdict.MEND: COUNTED,
    Verdict.GAP: GAP,
    Verdict.QUARANTINE: QUARANTINED,
}
"""The stored batch state by verdict."""
BEGINS = frozenset({Verdict.COUNT, Verdict.GAP, Verdict.QUARANTINE})
"""Verdicts that introduce a new edge."""
REFUSED = (Verdict.FOREIGN, Verdict.UNANNOUNCED)
"""Verdicts that write nothing."""
UNANNOUNCED = "the chain of {0} begins with a gap, to which an admin has to consent: PATCH /v1/edges/{0} with gap_to"
NO_ROOM = "the edges of {} have as much in quarantine as may be kept: replay what is there, or set it aside"
NO_MORE_EDGES = (
    "{} has introduced {} edges, as many as it may (edges.per_token): retire those that are gone, or raise the bound"
)
NOT_NEXT = "has a prev that is not the hash of the batch before"
TOO_LARGE = "makes a sum that is more than the ledger can hold"


async def _delete_idle_edges(connection: AsyncConnection, names: Sequence[str]) -> None:
    """Delete the empty rows of edges, so that refused batches do not fill the table."""
    columns = edges.c
    await connection.execute(sa.delete(edges).where(columns.edge.in_(names), columns.token.is_(None), columns.seq == 0))


def _replace_too_large(batch: ShippedBatch, _: Exception) -> ShippedBatch | None:
    """Return the batch marked as unreadable, or None if it already was."""
    if batch.arrival.batch is None:
        return None
    return batch._replace(arrival=mark_unreadable(batch.arrival, TOO_LARGE))


def estimate_rows(arrival: ReceivedBatch) -> int:
    """Estimate the rows that a batch costs. An empty batch costs 50, so that their number is bounded, too."""
    return 50 + (len(arrival.batch.rows) if arrival.batch is not None else 0)


def mark_unreadable(arrival: ReceivedBatch, why: str) -> ReceivedBatch:
    """Return a batch that is treated as unreadable."""
    return arrival._replace(batch=None, why=why)
