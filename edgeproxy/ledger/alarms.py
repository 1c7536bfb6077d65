"""What of an edge's batches people must hear of: that some are gone, or cannot be read; that an answer has cost more
than a request may. Pure."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from edgeproxy.alerts.alert import Alert, Severity
from edgeproxy.config.meters import OVER_CAP
from edgeproxy.ledger.arrival import Arrival
from edgeproxy.ledger.chain import Verdict
from edgeproxy.usage.batch import ANONYMOUS, Batch

CUSTOMERS_MAX = 50
"""Customers of a batch who have an alert each: who reports wrong costs does so of all, and each is a message."""
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


def above_caps(counted: Iterable[Batch]) -> Iterator[Alert]:
    """The alerts of answers that have cost more than their customers' caps allow a request: one for each customer and
    day of UTC, with the first of that day. Of more customers than CUSTOMERS_MAX of a batch one tells of its edge.
    """
    for batch in counted:
        day = f"{datetime.fromtimestamp(batch.minute, UTC):%Y-%m-%d}"
        found = {row[0]: row for row in reversed(batch.rows) if row[1] == OVER_CAP}
        for customer, (_, _, route, above, *_) in sorted(found.items())[:CUSTOMERS_MAX]:
            yield Alert(
                key=f"request_cap:{customer}:{day}",
                kind="request_cap",
                severity="warn",
                customer=None if customer == ANONYMOUS else customer,
                title=f"answers to {customer} on {route} have cost more than a request may, by {above} millicredits",
                details={"route": route, "above": above, "edge": batch.edge},
                at=batch.since,
            )
        if len(found) > CUSTOMERS_MAX:
            yield Alert(
                key=f"request_caps:{batch.edge}:{day}",
                kind="request_cap",
                severity="warn",
                title=f"answers to {len(found)} customers of {batch.edge} have cost more than a request may",
                details={"edge": batch.edge, "customers": len(found)},
                at=batch.since,
            )
