"""A collector without a database, with the real verdicts and answers; and functions that fill a spool."""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from edgeproxy.collector.api.edges import GAP_SEQ_MAX, answer_outcome
from edgeproxy.collector.ledger.batch_writer import STATES, BatchOutcome
from edgeproxy.collector.ledger.chain import SettledBatch, Shipper, Verdict, Watermark, advance_watermark, judge_batch
from edgeproxy.collector.ledger.received_batch import BatchHeaders, ReceivedBatch, decode_batch
from edgeproxy.edge.usage.answer import Reply
from edgeproxy.edge.usage.segment import Mark as RowMark
from edgeproxy.edge.usage.spool import Spool
from edgeproxy.wire.batch import FIRST, Batch, Row, compute_digest, format_batch
from loadtest.testbed.sealing import NOW

EDGE = "edge-1"
MARKS = (RowMark(1, 0, 0, 1),)

T = TypeVar("T")


SHIPPER = Shipper("edge")
"""The shipper, as the collector knows it: one token without a region."""


def append(spool: Spool, times: int = 1, rows: tuple[Row, ...] | None = None) -> list[bytes]:
    """Append `times` batches and return their bodies. By default, the value of each batch is its number."""
    bodies = []
    for _ in range(times):
        seq, prev = (1, FIRST) if spool.last is None else (spool.last.seq + 1, spool.last.digest)
        since = int(NOW) + seq
        mine = (("acme", "requests", "v1", seq),) if rows is None else rows
        batch = Batch(EDGE, "here", seq, since, since + 1, prev, mine)
        spool.append(batch, format_batch(batch), MARKS)
        bodies.append(format_batch(batch))
    return bodies


async def inline(work: Callable[..., T], *given: object) -> T:
    """Do the work in the event loop instead of a thread, so that a seed always leads to one sequence of events."""
    return work(*given)


class Kept(NamedTuple):
    """A backup of a collector."""

    mark: Watermark
    settled: dict[int, SettledBatch]
    bodies: dict[int, bytes]
    values: Counter[int]


class Peer:
    """A collector. `has` holds the accepted bodies, and `values` the counted values, both by batch number."""

    def __init__(self) -> None:
        self.mark = Watermark(gap_to=GAP_SEQ_MAX)
        self.settled: dict[int, SettledBatch] = {}
        self.has: dict[int, bytes] = {}
        self.values: Counter[int] = Counter()
        self.unreadable: Counter[int] = Counter()
        """For each batch number, how many more times it counts as unreadable."""
        self.asked: list[int] = []
        """The numbers of all batches sent to it, in order."""

    def take(self, batch: Batch, sent: bytes) -> Reply:
        """Settle a batch and return the answer."""
        self.asked.append(batch.seq)
        arrival = decode_batch(BatchHeaders(batch.edge, batch.seq, compute_digest(sent)), sent, "identity")
        if self.unreadable[batch.seq]:
            self.unreadable[batch.seq] -= 1
            arrival = arrival._replace(batch=None, why="cannot be read")
        return self._settle(arrival)

    def _settle(self, arrival: ReceivedBatch) -> Reply:
        verdict = judge_batch(self.mark, self.settled.get(arrival.seq), arrival, SHIPPER)
        self.mark = advance_watermark(self.mark, verdict, arrival, SHIPPER)
        if verdict in STATES:
            self.settled[arrival.seq] = SettledBatch(arrival.hash, STATES[verdict])
            self.has[arrival.seq] = arrival.body
        if verdict in (Verdict.COUNT, Verdict.MEND):
            assert arrival.batch is not None
            self.values[arrival.seq] += sum(value for *_, value in arrival.batch.rows)
        answer = answer_outcome(BatchOutcome(verdict, self.mark.seq, arrival.why))
        assert isinstance(answer.body, bytes)
        return Reply(answer.status, answer.body)

    async def send(self, batch: Batch, sent: bytes) -> Reply:
        """Deliver a batch without failures, as a `Send`."""
        return self.take(batch, sent)

    def backup(self) -> Kept:
        """Return a backup of the present state."""
        return Kept(self.mark, dict(self.settled), dict(self.has), Counter(self.values))

    def restore(self, kept: Kept) -> None:
        """Return to the state of a backup."""
        self.mark, self.settled, self.has = kept.mark, dict(kept.settled), dict(kept.bodies)
        self.values = Counter(kept.values)
