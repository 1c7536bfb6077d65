"""All endpoints of the collector, a row each: of this table routing, the checks of who may call and of what is sent,
and `GET /v1/openapi.json` are made.
"""

from typing import Any, NamedTuple

from edgeproxy.collector import models
from edgeproxy.collector.endpoint import ADMIN, ANYONE, BYTES, CSV, EDGE, OWN, READERS, TEXT, Endpoint, HeadField
from edgeproxy.collector.handlers.audit import AuditHandlers
from edgeproxy.collector.handlers.ledger import LedgerHandlers
from edgeproxy.collector.handlers.quarantine import QuarantineHandlers
from edgeproxy.collector.handlers.standing import StandingHandlers


class Handlers(NamedTuple):
    """Who answers."""

    standing: StandingHandlers
    ledger: LedgerHandlers
    quarantine: QuarantineHandlers
    audit: AuditHandlers


BATCH_FIELDS = {
    name: HeadField({"type": "string", "pattern": pattern}, required=True)
    for name, pattern in (
        ("Edge-Id", "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"),
        ("Edge-Seq", "^[1-9][0-9]{0,14}$"),
        ("Edge-Hash", "^[0-9a-f]{64}$"),
    )
}
"""The fields of the head that say which batch it is."""
A_BATCH = "/v1/quarantine/{edge}/{seq}"


def endpoints(handlers: Handlers) -> tuple[Endpoint[Any, Any], ...]:
    """List all endpoints."""
    standing, ledger, quarantine, audit = handlers
    return (
        # The ledger: what edges have counted.
        Endpoint(
            *("POST", "/v1/batches", EDGE, ledger.take, "Take a batch of an edge; answered once it is on disk."),
            media=(BYTES,),
            answers=models.Watermark,
            fields=BATCH_FIELDS,
            refuses=(409, 422, 429),
        ),
        Endpoint(
            *("GET", "/v1/usage", READERS | OWN, ledger.usage, "What was used, by any of its dimensions."),
            query=models.UsageQuery,
            answers=models.Usage,
            gives=(CSV,),
            refuses=(429,),
            own="the handler asks for the customer's usage alone",
        ),
        Endpoint("GET", "/v1/edges", READERS, ledger.edges, "How each edge is.", answers=models.Edges),
        Endpoint(
            *("PATCH", "/v1/edges/{edge}", ADMIN, ledger.change_edge),
            "Retire an edge or take it back, bind it to another token and region, or consent to a gap.",
            sends=models.EdgeChange,
            answers=models.EdgeChanged,
            refuses=(409,),
        ),
        # What nobody could read.
        Endpoint(
            *("GET", "/v1/quarantine", ADMIN, quarantine.listing, "The batches in quarantine."),
            query=models.QuarantineQuery,
            answers=models.Quarantine,
        ),
        Endpoint("GET", A_BATCH, ADMIN, quarantine.shown, "A batch in quarantine.", answers=models.Quarantined),
        Endpoint("GET", f"{A_BATCH}/body", ADMIN, quarantine.body, "Its body.", gives=(BYTES,)),
        Endpoint(
            *("POST", f"{A_BATCH}/replay", ADMIN, quarantine.replay),
            "Count it after all, by its own body or by the one that is sent.",
            media=(BYTES,),
            answers=models.Replayed,
            refuses=(409, 422),
        ),
        # Who did what.
        Endpoint(
            *("GET", "/v1/audit", ADMIN, audit.page, "The audit log, oldest first."),
            query=models.AuditQuery,
            answers=models.Audit,
        ),
        # The collector itself.
        Endpoint("GET", "/healthz", ANYONE, standing.healthz, "Whether it is alive.", gives=(TEXT,)),
        Endpoint("GET", "/readyz", ANYONE, standing.readyz, "Whether it takes batches now.", answers=models.Ready),
        Endpoint("GET", "/metrics", ANYONE, standing.metrics, "Metrics for Prometheus.", gives=(TEXT,)),
        Endpoint("GET", "/v1/openapi.json", ANYONE, standing.openapi, "This description.", answers=dict[str, Any]),
    )
