"""Edges and the batches of counts that they ship."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, NotRequired, Self, cast

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema, model_validator
from typing_extensions import TypedDict

from edgeproxy.base import log
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.endpoint import ADMIN, BYTES, EDGE, READERS, Call, Header, Nothing, Query, get, patch, post
from edgeproxy.collector.api.field_types import Boolean, exact
from edgeproxy.collector.api.group import Group, Handlers, PathParameter, Resources
from edgeproxy.collector.api.listener import LISTENER
from edgeproxy.collector.api.request_reader import read_body
from edgeproxy.collector.api.responses import ProblemError, answer
from edgeproxy.collector.ledger import edges
from edgeproxy.collector.ledger.batch_writer import REFUSED, BatchOutcome
from edgeproxy.collector.ledger.chain import Shipper, Verdict
from edgeproxy.collector.ledger.received_batch import (
    BatchHeaders,
    ReceivedBatch,
    decode_batch,
    is_small,
    parse_headers,
)
from edgeproxy.collector.problems import operation_codes, request_codes
from edgeproxy.config.field_types import Name
from edgeproxy.config.units import value_error
from edgeproxy.wire.batch import BODY_BYTES_MAX, NAME
from edgeproxy.wire.edge_report import RESIDENCY_FIELD, parse_fields
from edgeproxy.wire.key_uses import FIELD, parse_field

GAP_SEQ_MAX = 100_000_000
"""The largest batch number that an initial gap may reach with consent: centuries of batches of an edge."""


EdgeLastBatch = TypedDict(
    "EdgeLastBatch",
    {
        "from": Annotated[str, Field(description="The start of the time that the batch covers.")],
        "to": Annotated[str, Field(description="The end of the time that the batch covers.")],
        "received": Annotated[str, Field(description="The time when the batch arrived.")],
    },
)


class EdgeGap(TypedDict):
    """Batches of an edge that are missing for good."""

    from_seq: int
    """The number of the first batch that is missing."""
    to_seq: int
    """The number of the last batch that is missing."""
    why: str | None
    """The reason that the edge gave; null if it gave none."""


class EdgeQuarantinedBatch(TypedDict):
    """A batch of an edge that could not be read."""

    seq: int
    """The number of the batch."""
    why: str
    """The reason why it could not be read."""


class Edge(TypedDict):
    """An edge, with the collector's knowledge of it."""

    edge: str
    """The id of the edge."""
    region: str | None
    """The region of the edge; null if no batch has named it."""
    token: str | None
    """The token that the edge is bound to, by name; null if it is bound to none."""
    watermark: int
    """The number of the last settled batch: all batches of the edge up to it are settled."""
    last: EdgeLastBatch | None
    """The last batch; null if none has arrived yet."""
    lag_s: int | None
    """The seconds from the end of the last batch until now; null if none has arrived yet."""
    retired: bool
    """True if the edge is retired. A retired edge raises no alert."""
    version: str | None
    """The version of edgeproxy on the edge; null if it has not reported one."""
    sync_age_s: int | None
    """The seconds since the edge last agreed with the hub on limits, as in its last report; null without a hub."""
    gaps: list[EdgeGap]
    """The missing batches, latest first."""
    quarantined: list[EdgeQuarantinedBatch]
    """The batches in quarantine, latest first."""


class EdgeList(TypedDict):
    """All edges."""

    edges: list[Edge]
    """The edges, by id."""


GapTo = Annotated[
    int,
    exact(int, f"a whole number from 0 to {GAP_SEQ_MAX}", 0, GAP_SEQ_MAX),
    WithJsonSchema({"type": "integer", "minimum": 0, "maximum": GAP_SEQ_MAX}),
]
FORMS_OF_CHANGE: tuple[list[JsonValue], ...] = (["retired"], ["region", "token"], ["gap_to"])
"""The combinations of fields that make a change of an edge."""


class UpdateEdgeRequest(BaseModel):
    """Retire an edge or restore it; bind it to another token and region; or accept a gap at its start."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"oneOf": [{"required": form} for form in FORMS_OF_CHANGE]},
    )

    retired: Boolean | None = None
    """True retires the edge, so that it raises no alert. False restores it."""
    token: Name | None = None
    """The token that the edge is bound to, by name; together with `region`."""
    region: Name | None = None
    """The region that the edge is bound to; together with `token`."""
    gap_to: GapTo | None = None
    """The number of the last batch that may be missing at the start of the edge's chain."""

    @model_validator(mode="after")
    def is_of_one_form(self) -> Self:
        """Raise an error unless these fields make one change."""
        given = self.model_dump(exclude_none=True)
        if sorted(given) not in FORMS_OF_CHANGE or given.keys() != self.model_fields_set:
            raise value_error(
                "is no change", 'send {"retired": true}, {"token": NAME, "region": REGION} or {"gap_to": SEQ}'
            )
        return self


class EdgeUpdateResult(TypedDict):
    """The watermark of an edge, and the fields that the request sent."""

    edge: str
    """The id of the edge."""
    watermark: int
    """The number of the last settled batch: all batches of the edge up to it are settled."""
    retired: NotRequired[bool]
    """True if the edge is retired; missing if the request did not change this."""
    token: NotRequired[str]
    """The token that the edge is bound to, by name; missing if the request did not change it."""
    region: NotRequired[str]
    """The region that the edge is bound to; missing if the request did not change it."""
    gap_to: NotRequired[int]
    """The number of the last batch that may be missing; missing if the request did not change it."""


class BatchReceipt(TypedDict):
    """The answer to a settled batch."""

    watermark: int
    """The number of the last settled batch: all batches of the edge up to it are settled."""


PARSERS = 2
"""Large batches that are parsed concurrently."""
FULL_RETRY = {"Retry-After": "60"}
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


class EdgeHandlers(Handlers):
    """Handlers of edges and batches."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        self._batches = resources.batches
        self._readers = ThreadPoolExecutor(PARSERS, "read a batch")

    @post(
        "/v1/batches",
        roles=EDGE,
        request_media={BYTES: bytes},
        headers=BATCH_HEADERS,
        errors={
            409: "The batch does not continue the edge's chain: a gap, a fork or another `prev`.",
            422: "The header fields are missing, or the body cannot be read and is now in quarantine.",
            429: "Too many batches are waiting, or the token has too many edges.",
        },
    )
    async def ingest_batch(self, call: Call[Query, Nothing]) -> BatchReceipt | web.Response:
        """Ingest a batch of an edge. The answer comes once the batch is on disk."""
        request, holder = call.request, call.holder
        has_certificate = request.transport and request.transport.get_extra_info("peercert")
        if request.app[LISTENER].asks_for_certificates and not has_certificate:
            raise auth.DeniedError(
                request_codes.CERTIFICATE_MISSING, "show a certificate that tls.client_ca of the collector vouches for"
            )
        headers = parse_headers(request.headers)
        if isinstance(headers, str):
            return answer(422, {"error": "headers", "detail": headers})
        auth.require_edge(holder, headers.edge)
        self._refuse_other_residency(request)
        # A body without declared length reserves the maximum.
        size = min(request.content_length if request.content_length is not None else BODY_BYTES_MAX, BODY_BYTES_MAX)
        if not self._batches.reserve_bytes(size):
            raise self._report_busy()
        try:
            body = await read_body(request)
            coding = request.headers.get("Content-Encoding", "identity").strip().lower()
            batch = await self._read_batch(headers, body, coding)
            more = max(0, len(batch.body) - size)
            if more and not self._batches.reserve_bytes(more, already=size):
                raise self._report_busy()
            size += more
            # The batch is processed even if its sender leaves, because a part of a transaction cannot be undone.
            shipper, report = Shipper(holder.label, holder.region), parse_fields(request.headers)
            outcome = await self._batches.settle_batch(batch, shipper, report)
        finally:
            self._batches.release_bytes(size)
        if outcome.verdict in REFUSED:
            raise auth.DeniedError(request_codes.OTHER_EDGE, outcome.why)
        if outcome.verdict in (Verdict.FULL, Verdict.TOO_MANY_EDGES):
            raise auth.DeniedError(request_codes.EDGES_FULL, outcome.why, FULL_RETRY)
        self._resources.last_used.record(*parse_field(request.headers.get(FIELD)))
        return answer_outcome(outcome)

    def _refuse_other_residency(self, request: web.Request) -> None:
        """Raise DeniedError for a batch of another residency, before its body is read."""
        residency, own = request.headers.get(RESIDENCY_FIELD), self._resources.settings.residency
        if residency is not None and residency != own:
            why = "has none: write residency in collector.yaml" if own is None else f"is of {own}"
            raise auth.DeniedError(
                request_codes.OTHER_RESIDENCY,
                f"the batch is of the residency {residency[:16]!r}, and this collector {why}",
            )

    async def _read_batch(self, headers: BatchHeaders, body: bytes, coding: str) -> ReceivedBatch:
        """Parse a batch, in a thread if it is large."""
        parts = headers, body, coding, time.time()
        if is_small(body, coding):
            return decode_batch(*parts)
        return await asyncio.get_running_loop().run_in_executor(self._readers, decode_batch, *parts)

    def _report_busy(self) -> ProblemError:
        self._metrics.busy.inc()
        later = {"Retry-After": str(self._batches.estimate_retry_seconds())}
        return ProblemError(request_codes.BATCHES_BUSY, "more batches are waiting than can be held", headers=later)

    @get("/v1/edges", roles=READERS)
    async def list_edges(self, _: Call[Query, Nothing]) -> EdgeList:
        """List edges with their watermarks, delays and gaps."""
        async with self._database.reading(whole=True) as connection:
            return {"edges": cast(list[Edge], await edges.list_edges(connection, time.time()))}

    @patch(
        "/v1/edges/{edge}",
        roles=ADMIN,
        example={"retired": True},
        errors={409: "The edge's chain has started already, so its first batches cannot be missing."},
    )
    async def update_edge(self, call: Call[Query, UpdateEdgeRequest]) -> EdgeUpdateResult:
        """Retire an edge or restore it, bind it to another token and region, or accept a gap."""
        change, edge = call.body, call.path("edge")
        fields = change.model_dump(exclude_unset=True)
        async with self._database.writing() as connection:
            binding = await edges.find_binding(connection, edge)
            if change.retired is not None:
                watermark = await edges.set_retired(connection, edge, retired=change.retired)
            elif change.token is not None and change.region is not None:
                watermark = await edges.rebind_edge(connection, edge, token=change.token, region=change.region)
            else:
                assert change.gap_to is not None
                watermark = await edges.allow_initial_gap(connection, self._database, edge, change.gap_to)
                if watermark is None and NAME.fullmatch(edge):
                    raise ProblemError(operation_codes.EDGE_CHAIN_BEGUN, f"the chain of {edge} has begun already")
            if watermark is not None:
                before = binding and {name: binding[name] for name in fields}
                await audit.append_entry(connection, call.caller, AuditEntry("edge.change", edge, before, fields))
        if watermark is None:
            raise ProblemError(operation_codes.EDGE_NOT_FOUND, f"there is no edge {edge[:64]!r}")
        log.get_logger().info("edge changed", edge=edge, watermark=watermark, by=call.holder.label, **fields)
        return cast(EdgeUpdateResult, {"edge": edge, "watermark": watermark, **fields})


def answer_outcome(outcome: BatchOutcome) -> web.Response:
    """Return the answer to a batch."""
    verdict, watermark, why = outcome
    if verdict is Verdict.EXPECTED:
        return answer(409, {"error": "gap", "expected": watermark + 1})
    if verdict is Verdict.FORK:
        detail = "this seq is settled, with another hash"
        return answer(409, {"error": "fork", "detail": detail, "watermark": watermark})
    if verdict is Verdict.CHAIN:
        detail = "prev is not the hash of the batch before"
        return answer(409, {"error": "chain", "detail": detail, "watermark": watermark})
    if verdict in (Verdict.QUARANTINE, Verdict.UNREADABLE):
        return answer(422, {"error": "unreadable", "detail": why, "watermark": watermark})
    return answer(200, {"watermark": watermark})


GROUP = Group(
    "edges",
    "Edges and their batches of counts.",
    EdgeHandlers,
    parameters={"edge": PathParameter("The id of the edge.")},
)
