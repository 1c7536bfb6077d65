"""What becomes of a batch that arrives, decided on what is known of its edge. Pure.

seq              what is known                          verdict
-------------    -----------------------------------    -------------------------
above the next   whatever it says                       EXPECTED: what is between is missing
the next         it cannot be read                      QUARANTINE: kept, and the watermark moves
                 its prev is another hash               CHAIN
                 it is a gap                            GAP: the watermark moves to its end
                 else                                   COUNT
settled          with another hash, or given up         FORK
                 dropped for its age                    FORK: nobody knows any more whether it is the same
                 quarantined, and can be read now       MEND: counted after all
                 the same, a gap, nothing behind it     GAP: the watermark moves to its end
                 quarantined, and still cannot          UNREADABLE
                 else                                   AGAIN: it was counted, once
"""

from enum import Enum
from typing import NamedTuple

from edgeproxy.database.schema import QUARANTINED
from edgeproxy.ledger.arrival import Arrival
from edgeproxy.usage.batch import FIRST


class Verdict(Enum):
    """What becomes of it; the table above."""

    COUNT = "counted"
    GAP = "gap"
    MEND = "mended"
    AGAIN = "again"
    QUARANTINE = "quarantined"
    UNREADABLE = "unreadable"
    EXPECTED = "expected"
    FORK = "fork"
    CHAIN = "chain"


class Mark(NamedTuple):
    """How far an edge has come: the last seq that is settled, and the hash of its body; None where nobody knows it."""

    seq: int = 0
    hash: str | None = FIRST


class Settled(NamedTuple):
    """A batch that was there before."""

    hash: str
    state: str


def judge(mark: Mark, settled: Settled | None, arrival: Arrival) -> Verdict:
    """What becomes of an arrival; `settled` is what has its edge and seq already."""
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
        # Without it what follows would have to name the hash of a gap, which its edge never does.
        return Verdict.GAP if arrival.seq == mark.seq else Verdict.UNREADABLE
    if arrival.batch is None:
        return Verdict.QUARANTINE
    gap = arrival.batch.gap
    known = mark.hash is None or arrival.batch.prev == mark.hash
    if not known and (gap is None or arrival.batch.prev != FIRST):
        return Verdict.CHAIN
    return Verdict.COUNT if gap is None else Verdict.GAP


def moved(mark: Mark, verdict: Verdict, arrival: Arrival) -> Mark:
    """The mark after this."""
    if verdict is Verdict.GAP:
        assert arrival.batch is not None
        return Mark(arrival.batch.last, None)
    if verdict in (Verdict.COUNT, Verdict.QUARANTINE):
        return Mark(arrival.seq, arrival.hash)
    return mark
