"""The table of endpoints: edges."""

from edgeproxy.collector.api.edges.handlers import EdgeHandlers
from edgeproxy.collector.api.edges.models import BatchReceipt, EdgeList, EdgeUpdateResult, UpdateEdgeRequest
from edgeproxy.collector.api.endpoint import ADMIN, BYTES, EDGE, READERS, Endpoint, Header
from edgeproxy.collector.api.group import Group, PathParameter

BATCH_HEADERS = {
    "Edge-Id": Header({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"}, "The id of the edge.", True),
    "Edge-Seq": Header({"type": "string", "pattern": "^[1-9][0-9]{0,14}$"}, "The number of the batch.", True),
    "Edge-Hash": Header({"type": "string", "pattern": "^[0-9a-f]{64}$"}, "The SHA-256 of the body, in hex.", True),
    "Edge-Residency": Header(
        {"type": "string", "pattern": "^[a-z][a-z0-9]{0,15}$"},
        "The residency of the customers in the batch. A collector of another residency refuses it.",
        False,
    ),
}

GROUP = Group(
    "edges",
    "Edges and their batches of counts.",
    EdgeHandlers,
    (
        Endpoint(
            "POST",
            "/v1/batches",
            EdgeHandlers.ingest_batch,
            "Ingest a batch of an edge. The answer comes once the batch is on disk.",
            roles=EDGE,
            response=BatchReceipt,
            request_media={BYTES: bytes},
            headers=BATCH_HEADERS,
            errors={
                409: "The batch does not continue the edge's chain: a gap, a fork or another `prev`.",
                422: "The header fields are missing, or the body cannot be read and is now in quarantine.",
                429: "Too many batches are waiting, or the token has too many edges.",
            },
        ),
        Endpoint(
            "GET",
            "/v1/edges",
            EdgeHandlers.list_edges,
            "List edges with their watermarks, delays and gaps.",
            roles=READERS,
            response=EdgeList,
        ),
        Endpoint(
            "PATCH",
            "/v1/edges/{edge}",
            EdgeHandlers.update_edge,
            "Retire an edge or restore it, bind it to another token and region, or accept a gap.",
            roles=ADMIN,
            body=UpdateEdgeRequest,
            response=EdgeUpdateResult,
            errors={409: "The edge's chain has started already, so its first batches cannot be missing."},
            example={"retired": True},
        ),
    ),
    parameters={"edge": PathParameter("The id of the edge.")},
)
