"""What of an edge's batches operators must hear of: that some are gone, or cannot be read. Pure."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from edgeproxy.alerts.alert import Alert, Severity
from edgeproxy.ledger.arrival import Arrival
from edgeproxy.ledger.chain import Verdict

ALARMS: dict[Verdict, tuple[Severity, str]] = {
    Verdict.GAP: ("page", "{} owned up to batches that are gone: what they counted is missing"),
    Verdict.QUARANTINE: (
        "warn",
        "a batch of {} cannot be read and is in quarantine: what it counts is missing so far",
    ),
}
"""By what became of a batch, how loud that is, and what is said of its edge."""


def alarms(settled: Iterable[tuple[Arrival, Verdict]], at: float) -> Iterator[Alert]:
    """The alerts of batches of which this has become: one for each edge and day of UTC, with the first of that day."""
    for arrival, verdict in settled:
        if verdict not in ALARMS:
            continue
        severity, title = ALARMS[verdict]
        gap = None if arrival.batch is None else arrival.batch.gap
        details = {"edge": arrival.edge, "seq": arrival.seq, "why": arrival.why if gap is None else gap.why}
        yield Alert(
            key=f"{verdict.value}:{arrival.edge}:{datetime.fromtimestamp(at, UTC):%Y-%m-%d}",
            kind=verdict.value,
            severity=severity,
            title=title.format(arrival.edge),
            details=details if gap is None else {**details, "to_seq": gap.to_seq},
            at=at,
        )
