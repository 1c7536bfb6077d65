"""Unreadable batches."""

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.api.endpoint import ADMIN, BYTES, AnyCall, Call, Nothing, Query, get, post
from edgeproxy.collector.api.group import NUMBER_SCHEMA, Group, Handlers, PathParameter
from edgeproxy.collector.api.request_reader import read_content
from edgeproxy.collector.api.responses import ProblemError
from edgeproxy.collector.ledger import quarantine
from edgeproxy.collector.ledger.chain import Verdict
from edgeproxy.collector.ledger.quarantine import BatchReplayResult, QuarantinedBatch, QuarantineList
from edgeproxy.collector.ledger.received_batch import SEQ, inflate
from edgeproxy.collector.problems import operation_codes, request_codes
from edgeproxy.wire.batch import NUMBER_MAX, InvalidBatchError


class QuarantineQuery(Query):
    """The edge whose batches are listed."""

    edge: str | None = None
    """Only batches of this edge, by id."""


NOT_FOUND = "there is no such batch in quarantine"


class QuarantineHandlers(Handlers):
    """Handlers of batches in quarantine."""

    @get("/v1/quarantine")
    async def list_batches(self, call: Call[QuarantineQuery, Nothing]) -> QuarantineList:
        """List the batches in quarantine."""
        async with self._database.reading(whole=True) as connection:
            return await quarantine.list_batches(connection, call.query.edge)

    @get("/v1/quarantine/{edge}/{seq}")
    async def fetch_batch(self, call: Call[Query, Nothing]) -> QuarantinedBatch:
        """Fetch a batch in quarantine, without its body."""
        async with self._database.reading(whole=True) as connection:
            batch = await quarantine.find_batch(connection, *parse_batch_path(call))
        if batch is None:
            raise ProblemError(operation_codes.BATCH_NOT_FOUND, NOT_FOUND)
        return batch

    @get("/v1/quarantine/{edge}/{seq}/body", response_media=(BYTES,))
    async def fetch_body(self, call: Call[Query, Nothing]) -> web.Response:
        """Download the body of a batch in quarantine."""
        async with self._database.reading() as connection:
            body = await quarantine.find_body(connection, *parse_batch_path(call))
        if body is None:
            raise ProblemError(operation_codes.BATCH_NOT_FOUND, NOT_FOUND)
        return web.Response(body=body, content_type=BYTES)

    @post(
        "/v1/quarantine/{edge}/{seq}/replay",
        request_media={BYTES: bytes},
        errors={409: "The batch cannot be counted with this body.", 422: "The body cannot be read."},
    )
    async def replay_batch(self, call: Call[Query, Nothing]) -> BatchReplayResult:
        """Count a batch in quarantine now, from its own body or from the body in the request."""
        edge, seq = parse_batch_path(call)
        body = await read_content(call)

        async def record(connection: AsyncConnection, result: quarantine.ReplayResult) -> None:
            after = {**result.to_response(), "own_body": not body}
            entry = AuditEntry("quarantine.replay", f"{edge}/{seq}", None, after)
            await audit.append_entry(connection, call.caller, entry)

        try:
            if body:
                body = inflate(body, call.request.headers.get("Content-Encoding", "identity").strip().lower())
            result = await quarantine.replay_batch(
                self._database, edge, seq, body or None, record=record, meters=self._settings.meters
            )
        except InvalidBatchError as error:
            raise ProblemError(operation_codes.BATCH_INVALID, f"the body {error}") from None
        except quarantine.ReplayRejectedError as error:
            raise ProblemError(error.code, error.why) from None
        if not result.again:
            self._metrics.batches.labels(Verdict.MEND.value).inc()
            self._metrics.rows.inc(result.rows)
            await self._resources.names.record_names(
                (customer for customer, *_ in result.begun), (meter for _, meter, *_ in result.begun)
            )
            log.get_logger().info("a batch was replayed", edge=edge, seq=seq, rows=result.rows, total=result.total)
        return result.to_response()


def parse_batch_path(call: AnyCall) -> tuple[str, int]:
    """Return the edge and the seq in a path. Raises ProblemError."""
    edge, seq = call.path("edge"), call.path("seq")
    if not SEQ.fullmatch(seq) or int(seq) > NUMBER_MAX:
        raise ProblemError(request_codes.QUERY_INVALID, f"{seq[:20]!r} is no seq, a whole number from 1")
    return edge, int(seq)


GROUP = Group(
    "quarantine",
    "Batches that could not be read. They can be counted later.",
    QuarantineHandlers,
    roles=ADMIN,
    parameters={
        "edge": PathParameter("The id of the edge."),
        "seq": PathParameter("The number of the batch.", NUMBER_SCHEMA),
    },
)
