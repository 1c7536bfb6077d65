"""Alerts about an edge's batches. Pure.

They report lost or unreadable batches, a token with too many edges, and responses that cost more than a request may.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from edgeproxy.collector.alerts.alert import Alert
from edgeproxy.collector.alerts.kinds import AlertKind
from edgeproxy.collector.ledger.chain import Verdict
from edgeproxy.collector.ledger.received_batch import ReceivedBatch
from edgeproxy.config.meters import OVER_CAP
from edgeproxy.wire.batch import ANONYMOUS, Batch

CUSTOMERS_MAX = 50
"""The most customers of a batch with an alert each.

An edge with wrong costs reports them for all, and each alert is a message.
"""
ALERTS_BY_VERDICT: dict[Verdict, tuple[AlertKind, str]] = {
    Verdict.GAP: (
        AlertKind.BATCHES_LOST,
        "edges of the token {} owned up to batches that are gone: what they counted is missing",
    ),
    Verdict.QUARANTINE: (
        AlertKind.BATCHES_QUARANTINED,
        "batches of edges of the token {} cannot be read and are in quarantine: what they count is missing so far",
    ),
    Verdict.TOO_MANY_EDGES: (
        AlertKind.TOKEN_EDGE_LIMIT_REACHED,
        "the token {} has as many edges as it may: batches of further ones are refused, and wait at these",
    ),
}
"""The kind of alert for each verdict on a batch, and its title, which names the token."""


def make_batch_alerts(settled: Iterable[tuple[ReceivedBatch, Verdict, str]], at: float) -> Iterator[Alert]:
    """Yield the alerts of batches with these verdicts, each with the token that sent it.

    There is one alert per token and UTC day, with the first batch of that day; others are counted in it. A token can
    invent edges, and each alert is a message to people. Refused batches are not counted.
    """
    for arrival, verdict, token in settled:
        if verdict not in ALERTS_BY_VERDICT:
            continue
        kind, title = ALERTS_BY_VERDICT[verdict]
        gap = None if arrival.batch is None else arrival.batch.gap
        details = {"token": token, "edge": arrival.edge, "seq": arrival.seq, "why": arrival.why}
        if gap is not None:
            details |= {"why": gap.why, "to_seq": gap.to_seq}
        yield Alert(
            key=f"{verdict.value}:{token}:{datetime.fromtimestamp(at, UTC):%Y-%m-%d}",
            kind=kind,
            title=title.format(token),
            details=details,
            gathered={} if verdict is Verdict.TOO_MANY_EDGES else {"batches": 1, "edges": [arrival.edge]},
            at=at,
        )


def make_cap_alerts(counted: Iterable[Batch]) -> Iterator[Alert]:
    """Yield the alerts of responses that cost more than their customers' caps allow for a request.

    There is one per customer and UTC day, with the first response of that day. If a batch has more than CUSTOMERS_MAX
    such customers, a further alert reports its edge.
    """
    for batch in counted:
        day = f"{datetime.fromtimestamp(batch.minute, UTC):%Y-%m-%d}"
        rows = {row[0]: row for row in reversed(batch.rows) if row[1] == OVER_CAP}
        for customer, (_, _, route, above, *_) in sorted(rows.items())[:CUSTOMERS_MAX]:
            yield Alert(
                key=f"request_cap:{customer}:{day}",
                kind=AlertKind.REQUEST_CAP_EXCEEDED,
                customer=None if customer == ANONYMOUS else customer,
                title=f"answers to {customer} on {route} have cost more than a request may, by {above} millicredits",
                details={"route": route, "above": above, "edge": batch.edge},
                at=batch.since,
            )
        if len(rows) > CUSTOMERS_MAX:
            yield Alert(
                key=f"request_caps:{batch.edge}:{day}",
                kind=AlertKind.REQUEST_CAP_EXCEEDED,
                title=f"answers to {len(rows)} customers of {batch.edge} have cost more than a request may",
                details={"edge": batch.edge, "customers": len(rows)},
                at=batch.since,
            )
