"""Batches, usage and edges."""

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from aiohttp import web

from edgeproxy.base import log
from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.accounts.last_used import LastUsedDays
from edgeproxy.collector.api import auth, usage_csv
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.ledger_models import UpdateEdgeRequest, UsageQuery
from edgeproxy.collector.api.listener import LISTENER
from edgeproxy.collector.api.request_reader import body_of
from edgeproxy.collector.api.responses import ProblemError, answer, problem
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.ledger import detail, edges, queries, readings
from edgeproxy.collector.ledger.batch_writer import REFUSED, BatchOutcome, BatchWriter
from edgeproxy.collector.ledger.chain import Shipper, Verdict
from edgeproxy.collector.ledger.names import Names
from edgeproxy.collector.ledger.queries import LedgerQuery
from edgeproxy.collector.ledger.received_batch import BatchHeaders, ReceivedBatch, decode_batch, is_small, parse_headers
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.customers import Customer
from edgeproxy.config.meters import AggregateName
from edgeproxy.config.tiers import Tier
from edgeproxy.wire.batch import BODY_BYTES_MAX, NAME
from edgeproxy.wire.edge_report import parse_fields
from edgeproxy.wire.key_uses import FIELD, parse_field

READERS = 2
"""Large batches that are read at once."""
FULL_RETRY = {"Retry-After": "60"}


class LedgerHandlers:
    """Takes batches, and tells what was counted."""

    def __init__(self, database: Database, ingest: BatchWriter, names: Names, metrics: Metrics) -> None:
        self._database = database
        self.last_used = LastUsedDays(database)
        """On which day keys were used last; somebody has to `write` it."""
        self._ingest = ingest
        self._names = names
        self._metrics = metrics
        self._exports = usage_csv.CsvExporter(database)
        self._dimensions: frozenset[str] = frozenset()
        self._aggregates: dict[str, AggregateName] = {}
        self._tiers: Mapping[str, Tier] = {}
        self._customers: Mapping[str, Customer] = {}
        self._readers = ThreadPoolExecutor(READERS, "read a batch")

    def use(self, settings: CollectorSettings) -> None:
        """Ask for what these say of those who ship."""
        self._dimensions = frozenset(name for meter in settings.meters.values() for name in meter.dimensions)
        self._tiers, self._customers = settings.tiers, settings.customers
        self._aggregates = {name: meter.aggregate for name, meter in settings.meters.items()}

    async def take(self, call: Call[Query, Nothing]) -> web.Response:
        """Take a batch; the answer comes once it is on disk."""
        request, token = call.request, call.holder
        has_certificate = request.transport and request.transport.get_extra_info("peercert")
        if request.app[LISTENER].asks_for_certificates and not has_certificate:
            raise auth.DeniedError(403, "show a certificate that tls.client_ca of the collector vouches for")
        names = parse_headers(request.headers)
        if isinstance(names, str):
            return answer(422, {"error": "headers", "detail": names})
        auth.require_edge(token, names.edge)
        # One that does not say how long its body is may take all there is.
        size = min(request.content_length if request.content_length is not None else BODY_BYTES_MAX, BODY_BYTES_MAX)
        if not self._ingest.reserve_bytes(size):
            return self._answer_busy()
        try:
            sent = await body_of(request)
            coding = request.headers.get("Content-Encoding", "identity").strip().lower()
            arrival = await self._read_batch(names, sent, coding)
            more = max(0, len(arrival.body) - size)
            if more and not self._ingest.reserve_bytes(more, already=size):
                return self._answer_busy()
            size += more
            # Settled whether its sender waits or not: half of a transaction cannot be taken back.
            shipper, about = Shipper(token.label, token.region), parse_fields(request.headers)
            outcome = await self._ingest.settle_batch(arrival, shipper, about)
        finally:
            self._ingest.release_bytes(size)
        if outcome.verdict in REFUSED:
            raise auth.DeniedError(403, outcome.why)
        if outcome.verdict in (Verdict.FULL, Verdict.TOO_MANY_EDGES):
            raise auth.DeniedError(429, outcome.why, FULL_RETRY)
        self.last_used.record(*parse_field(request.headers.get(FIELD)))
        return verdict_of(outcome)

    async def _read_batch(self, names: BatchHeaders, sent: bytes, coding: str) -> ReceivedBatch:
        """Read a batch, beside the event loop where that takes longer."""
        if is_small(sent, coding):
            return decode_batch(names, sent, coding)
        return await asyncio.get_running_loop().run_in_executor(self._readers, decode_batch, names, sent, coding)

    def _answer_busy(self) -> web.Response:
        self._metrics.busy.inc()
        later = {"Retry-After": str(self._ingest.estimate_retry_seconds())}
        return problem(429, "more batches are waiting than can be held", later)

    async def usage(self, call: Call[UsageQuery, Nothing]) -> web.StreamResponse:
        """Tell what was used: `{total, rows}`, `next` where there are more rows, and the names that nobody
        knows. Where there are several meters, whose units differ, `totals` by meter instead of a total. As CSV all rows
        at once, unless `limit` or `cursor` ask for a page.
        """
        customer = auth.customer_of(call.holder, call.query.customer)
        query = call.query.model_dump(by_alias=True, exclude_none=True)
        known = set(self._dimensions)
        if other := queries.list_dimension_names(query) - known:
            async with self._database.reading() as connection:
                known |= await queries.fetch_known_dimensions(connection, other)
        question = queries.parse_query({**query, **({"customer": customer} if customer else {})}, time.time(), known)
        if call.holder.customer is not None:
            detail.require_detail(question, await self._find_detail_seconds(call.holder.customer), time.time())
        if question.meter is None and not question.by:
            question = replace(question, by=("meter",))
        is_csv = usage_csv.accepts_csv(call.request)
        aggregate = self._aggregates.get(question.meter or "", "sum")
        if aggregate != "sum":
            async with self._database.reading(whole=True) as connection:
                report = await readings.fetch_usage(connection, question, aggregate, time.time())
            if is_csv:
                return usage_csv.render_page(call.request, question, report)
            return await self._answer_usage(question, report)
        if is_csv and question.limit is None and question.after is None:
            return await self._exports.send(call.request, question)
        async with self._database.reading(whole=True) as connection:
            if question.meter is None:
                report, totals = await queries.fetch_usage_by_meter(connection, question)
                if len(totals) > 1:
                    report |= {"total": None, "totals": totals}
            else:
                report = await queries.fetch_usage(connection, question)
        if is_csv:
            return usage_csv.render_page(call.request, question, report)
        return await self._answer_usage(question, report)

    async def _find_detail_seconds(self, customer: str) -> float | None:
        """For how many seconds a customer sees detail; None: for ever."""
        async with self._database.reading() as connection:
            tier = await customers.find_tier(connection, customer)
        if tier is None and customer in self._customers:
            tier = self._customers[customer].tier
        return self._tiers[tier].analytics if tier is not None and tier in self._tiers else None

    async def _answer_usage(self, question: LedgerQuery, report: dict[str, Any]) -> web.Response:
        unknown = await self._names.find_unknown(question, report["rows"])
        return answer(200, report | ({"unknown": unknown} if unknown else {}), {"Vary": "Accept"})

    async def edges(self, _: Call[Query, Nothing]) -> web.Response:
        """Tell how each edge is."""
        async with self._database.reading(whole=True) as connection:
            return answer(200, {"edges": await edges.list_edges(connection, time.time())})

    async def change_edge(self, call: Call[Query, UpdateEdgeRequest]) -> web.Response:
        """Change an edge in one of the forms of EdgeChange."""
        change, edge = call.body, call.path("edge")
        fields = change.model_dump(exclude_unset=True)
        async with self._database.writing() as connection:
            before = await edges.find_binding(connection, edge)
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
                previous = before and {name: before[name] for name in fields}
                await audit.append_entry(connection, call.caller, AuditEntry("edge.change", edge, previous, fields))
        if watermark is None:
            raise ProblemError(404, f"there is no edge {edge[:64]!r}")
        log.get_logger().info("edge changed", edge=edge, watermark=watermark, by=call.holder.label, **fields)
        return answer(200, {"edge": edge, "watermark": watermark, **fields})


def verdict_of(outcome: BatchOutcome) -> web.Response:
    """Make the answer that a sender gets."""
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
