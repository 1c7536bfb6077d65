"""Verdict on an arriving batch, from the state of its edge. Pure.

seq              state                                  verdict
-------------    -----------------------------------    -------------------------
any              the edge is bound to another token     FOREIGN: refused, nothing is written
                 the region of the batch or its token   FOREIGN
                 is not that of its edge
                 the batch begins a chain with a gap    UNANNOUNCED: refused until an operator consents
                 beyond the consented one
above the next   any                                    EXPECTED: the batches between are missing
the next         the batch is unreadable, or of a       QUARANTINE: stored, and the watermark moves; or FULL
                 time to come or long past             if its token has too many of these: nothing is
                                                       written until an operator acts (batch_writer.py)
                 its prev is another hash               CHAIN
                 the batch is a gap                     GAP: the watermark moves to its end
                 else                                   COUNT
                 any of these, of an edge that is not   TOO_MANY_EDGES if its token has as many as it may
                 registered yet                         have: nothing is written (batch_writer.py)
settled          with another hash, or given up         FORK
                 dropped for its age                    FORK: the hashes can no longer be compared
                 quarantined, and readable now          MEND: counted after all
                 the same, a gap, nothing behind it     GAP: the watermark moves to its end
                 quarantined, and still unreadable      UNREADABLE
                 else                                   AGAIN: it was counted, once
"""

from enum import Enum
from typing import NamedTuple

from edgeproxy.collector.database.schema import QUARANTINED
from edgeproxy.collector.ledger.received_batch import ReceivedBatch
from edgeproxy.wire.batch import FIRST


class Verdict(Enum):
    """Verdict on a batch (table above)."""

    COUNT = "counted"
    GAP = "gap"
    MEND = "mended"
    AGAIN = "again"
    QUARANTINE = "quarantined"
    UNREADABLE = "unreadable"
    EXPECTED = "expected"
    FORK = "fork"
    CHAIN = "chain"
    FOREIGN = "foreign"
    UNANNOUNCED = "unannounced"
    FULL = "full"
    TOO_MANY_EDGES = "too_many_edges"


class Watermark(NamedTuple):
    """Progress of an edge: the last settled seq and the hash of its body; None if the hash is unknown.

    `token` and `region` are the edge's binding, None until its first batch. A chain may begin with a gap up to `gap_to`
    if an operator consented to it.
    """

    seq: int = 0
    hash: str | None = FIRST
    token: str | None = None
    region: str | None = None
    gap_to: int = 0


class Shipper(NamedTuple):
    """Sender of a batch: its token's name and the region the token is bound to, if any."""

    token: str
    region: str | None = None


class SettledBatch(NamedTuple):
    """A batch stored earlier."""

    hash: str
    state: str


def find_refusal(mark: Watermark, shipper: Shipper, arrival: ReceivedBatch) -> str | None:
    """Return the reason why the shipper may not ship this as its edge, or None."""
    if mark.token not in (None, shipper.token):
        return f"the edge {arrival.edge} is bound to another token than {shipper.token}"
    regions = [region for region in (mark.region, shipper.region) if region is not None]
    if arrival.batch is not None:
        regions.append(arrival.batch.region)
    if len(set(regions)) > 1:
        bound = mark.region or shipper.region
        return f"the edge {arrival.edge} is bound to region {bound}, not to {regions[-1]}"
    return None


def judge_batch(mark: Watermark, settled: SettledBatch | None, arrival: ReceivedBatch, shipper: Shipper) -> Verdict:
    """Return the verdict on an arrival; `settled` is stored at its edge and seq."""
    if find_refusal(mark, shipper, arrival) is not None:
        return Verdict.FOREIGN
    gap = arrival.batch.gap if arrival.batch is not None else None
    if gap is not None and mark.seq == 0 and gap.to_seq > mark.gap_to:
        return Verdict.UNANNOUNCED
    if arrival.seq > mark.seq + 1:
        return Verdict.EXPECTED
    if arrival.seq <= mark.seq:
        if settled is None or settled.hash != arrival.hash:
            return Verdict.FORK
        if settled.state != QUARANTINED:
            return Verdict.AGAIN
        if arrival.batch is None:
            return Verdict.UNREADABLE
        if arrival.batch.gap is None:
            return Verdict.MEND
        # Behind later batches a gap is impossible: the next batch would have to name the gap's hash, which its edge
        # never does.
        return Verdict.GAP if arrival.seq == mark.seq else Verdict.UNREADABLE
    if arrival.batch is None:
        return Verdict.QUARANTINE
    known = mark.hash is None or arrival.batch.prev == mark.hash
    if not known and (gap is None or arrival.batch.prev != FIRST):
        return Verdict.CHAIN
    return Verdict.COUNT if gap is None else Verdict.GAP


def advance_watermark(mark: Watermark, verdict: Verdict, arrival: ReceivedBatch, shipper: Shipper) -> Watermark:
    """Return the watermark after this batch. A batch that advances it also binds an unbound edge."""
    region = mark.region or shipper.region or (arrival.batch.region if arrival.batch is not None else None)
    bound = mark._replace(token=mark.token or shipper.token, region=region)
    if verdict is Verdict.GAP:
        assert arrival.batch is not None
        return bound._replace(seq=arrival.batch.last, hash=None)
    if verdict in (Verdict.COUNT, Verdict.QUARANTINE):
        return bound._replace(seq=arrival.seq, hash=arrival.hash)
    return mark
