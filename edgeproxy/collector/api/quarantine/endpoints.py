"""The table of endpoints: quarantine."""

from edgeproxy.collector.api.endpoint import ADMIN, BYTES, Endpoint
from edgeproxy.collector.api.group import NUMBER_SCHEMA, Group, PathParameter
from edgeproxy.collector.api.quarantine.handlers import QuarantineHandlers
from edgeproxy.collector.api.quarantine.models import (
    BatchReplayResult,
    QuarantinedBatch,
    QuarantineList,
    QuarantineQuery,
)

GROUP = Group(
    "quarantine",
    "Batches that could not be read. They can be counted later.",
    QuarantineHandlers,
    (
        Endpoint(
            "GET",
            "/v1/quarantine",
            QuarantineHandlers.list_batches,
            "List the batches in quarantine.",
            roles=ADMIN,
            query=QuarantineQuery,
            response=QuarantineList,
        ),
        Endpoint(
            "GET",
            "/v1/quarantine/{edge}/{seq}",
            QuarantineHandlers.fetch_batch,
            "Fetch a batch in quarantine, without its body.",
            roles=ADMIN,
            response=QuarantinedBatch,
        ),
        Endpoint(
            "GET",
            "/v1/quarantine/{edge}/{seq}/body",
            QuarantineHandlers.fetch_body,
            "Download the body of a batch in quarantine.",
            roles=ADMIN,
            response_media=(BYTES,),
        ),
        Endpoint(
            "POST",
            "/v1/quarantine/{edge}/{seq}/replay",
            QuarantineHandlers.replay_batch,
            "Count a batch in quarantine now, from its own body or from the body in the request.",
            roles=ADMIN,
            response=BatchReplayResult,
            request_media={BYTES: bytes},
            errors={409: "The batch cannot be counted with this body.", 422: "The body cannot be read."},
        ),
    ),
    parameters={
        "edge": PathParameter("The id of the edge."),
        "seq": PathParameter("The number of the batch.", NUMBER_SCHEMA),
    },
)
