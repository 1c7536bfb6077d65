"""Edges and the batches of counts that they ship."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from aiohttp import web

from edgeproxy.base import log
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.api import auth
from edgeproxy.collector.api.edges.models import UpdateEdgeRequest
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.group import Handlers, Resources
from edgeproxy.collector.api.listener import LISTENER
from edgeproxy.collector.api.request_reader import read_body
from edgeproxy.collector.api.responses import ProblemError, answer, problem
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
from edgeproxy.wire.batch import BODY_BYTES_MAX, NAME
from edgeproxy.wire.edge_report import RESIDENCY_FIELD, parse_fields
from edgeproxy.wire.key_uses import FIELD, parse_field

READERS = 2
"""Large batches that are parsed concurrently."""
FULL_RETRY = {"Retry-After": "60"}


class EdgeHandlers(Handlers):
    """Handlers of edges and batches."""

    def __init__(self, resources: Resources) -> None:
        super().__init__(resources)
        self._batches = resources.batches
        self._readers = ThreadPoolExecutor(READERS, "read a batch")

    async def ingest_batch(self, call: Call[Query, Nothing]) -> web.Response:
        """Accept a batch. The answer is sent once the batch is on disk."""
        request, holder = call.request, call.holder
        has_certificate = request.transport and request.transport.get_extra_info("peercert")
        if request.app[LISTENER].asks_for_certificates and not has_certificate:
            raise auth.DeniedError(403, "show a certificate that tls.client_ca of the collector vouches for")
        headers = parse_headers(request.headers)
        if isinstance(headers, str):
            return answer(422, {"error": "headers", "detail": headers})
        auth.require_edge(holder, headers.edge)
        self._refuse_other_residency(request)
        # A body without declared length reserves the maximum.
        size = min(request.content_length if request.content_length is not None else BODY_BYTES_MAX, BODY_BYTES_MAX)
        if not self._batches.reserve_bytes(size):
            return self._answer_busy()
        try:
            body = await read_body(request)
            coding = request.headers.get("Content-Encoding", "identity").strip().lower()
            batch = await self._read_batch(headers, body, coding)
            more = max(0, len(batch.body) - size)
            if more and not self._batches.reserve_bytes(more, already=size):
                return self._answer_busy()
            size += more
            # The batch is processed even if its sender leaves, because a part of a transaction cannot be undone.
            shipper, report = Shipper(holder.label, holder.region), parse_fields(request.headers)
            outcome = await self._batches.settle_batch(batch, shipper, report)
        finally:
            self._batches.release_bytes(size)
        if outcome.verdict in REFUSED:
            raise auth.DeniedError(403, outcome.why)
        if outcome.verdict in (Verdict.FULL, Verdict.TOO_MANY_EDGES):
            raise auth.DeniedError(429, outcome.why, FULL_RETRY)
        self._resources.last_used.record(*parse_field(request.headers.get(FIELD)))
        return answer_outcome(outcome)

    def _refuse_other_residency(self, request: web.Request) -> None:
        """Raise DeniedError for a batch of another residency, before its body is read."""
        residency, own = request.headers.get(RESIDENCY_FIELD), self._resources.settings.residency
        if residency is not None and residency != own:
            why = "has none: write residency in collector.yaml" if own is None else f"is of {own}"
            raise auth.DeniedError(403, f"the batch is of the residency {residency[:16]!r}, and this collector {why}")

    async def _read_batch(self, headers: BatchHeaders, body: bytes, coding: str) -> ReceivedBatch:
        """Parse a batch, in a thread if it is large."""
        parts = headers, body, coding, time.time()
        if is_small(body, coding):
            return decode_batch(*parts)
        return await asyncio.get_running_loop().run_in_executor(self._readers, decode_batch, *parts)

    def _answer_busy(self) -> web.Response:
        self._metrics.busy.inc()
        later = {"Retry-After": str(self._batches.estimate_retry_seconds())}
        return problem(429, "more batches are waiting than can be held", later)

    async def list_edges(self, _: Call[Query, Nothing]) -> web.Response:
        """List all edges."""
        async with self._database.reading(whole=True) as connection:
            return answer(200, {"edges": await edges.list_edges(connection, time.time())})

    async def update_edge(self, call: Call[Query, UpdateEdgeRequest]) -> web.Response:
        """Change an edge in one of the forms of UpdateEdgeRequest."""
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
                    raise ProblemError(409, f"the chain of {edge} has begun already")
            if watermark is not None:
                before = binding and {name: binding[name] for name in fields}
                await audit.append_entry(connection, call.caller, AuditEntry("edge.change", edge, before, fields))
        if watermark is None:
            raise ProblemError(404, f"there is no edge {edge[:64]!r}")
        log.get_logger().info("edge changed", edge=edge, watermark=watermark, by=call.holder.label, **fields)
        return answer(200, {"edge": edge, "watermark": watermark, **fields})


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
