"""Unreadable batches."""

from typing import Literal, cast

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection
from typing_extensions import TypedDict

from edgeproxy.base import log
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.api.endpoint import ADMIN, BYTES, AnyCall, Call, Nothing, Query, get, post
from edgeproxy.collector.api.group import NUMBER_SCHEMA, Group, Handlers, PathParameter
from edgeproxy.collector.api.request_reader import read_content
from edgeproxy.collector.api.responses import ProblemError
from edgeproxy.collector.ledger import quarantine
from edgeproxy.collector.ledger.chain import Verdict
from edgeproxy.collector.ledger.received_batch import SEQ, inflate
from edgeproxy.collector.problems import operation_codes, request_codes
from edgeproxy.wire.batch import NUMBER_MAX, InvalidBatchError


class QuarantineQuery(Query):
    """The edge whose batches are listed."""

    edge: str | None = None
    """Only batches of this edge, by id."""


class QuarantineEntry(TypedDict):
    """A batch in quarantine, in the list of all."""

    edge: str
    """The id of the edge."""
    seq: int
    """The number of the batch."""
    received: str
    """The time when the batch arrived."""
    size: int
    """The size of the stored body in bytes."""
    coding: str
    """The content coding of the stored body, such as `zstd`."""
    why: str
    """The reason why it could not be read."""


class QuarantineList(TypedDict):
    """The batches in quarantine."""

    count: int
    """The number of batches in quarantine."""
    batches: list[QuarantineEntry]
    """The first of these batches, by edge and number."""


class QuarantinedBatch(TypedDict):
    """A batch in quarantine, with its details."""

    edge: str
    """The id of the edge."""
    seq: int
    """The number of the batch."""
    state: Literal["quarantined", "counted"]
    """`quarantined`, or `counted` after a replay."""
    why: str
    """The reason why it could not be read."""
    hash: str
    """The hash of the batch in the edge's chain, in hex digits."""
    sha256: str
    """The SHA-256 of the uncompressed body, in hex digits."""
    prev: str | None
    """The hash of the batch before it. A body sent for a replay must name it; null if any hash will do."""
    received: str
    """The time when the batch arrived."""
    coding: str
    """The content coding of the stored body, such as `zstd`."""
    size: int
    """The size of the stored body in bytes."""
    begins: str
    """The first bytes of the uncompressed body, as text."""


class BatchReplayResult(TypedDict):
    """The rows of a replayed batch."""

    rows: int
    """The number of rows counted."""
    total: int
    """The sum of the values of these rows, in the units of their meters."""
    minute: str
    """The start of the minute that the rows are counted in."""
    again: bool
    """True if the batch had been counted before, so that nothing changed."""


NOT_FOUND = "there is no such batch in quarantine"


class QuarantineHandlers(Handlers):
    """Handlers of batches in quarantine."""

    @get("/v1/quarantine")
    async def list_batches(self, call: Call[QuarantineQuery, Nothing]) -> QuarantineList:
        """List the batches in quarantine."""
        async with self._database.reading(whole=True) as connection:
            return cast(QuarantineList, await quarantine.list_batches(connection, call.query.edge))

    @get("/v1/quarantine/{edge}/{seq}")
    async def fetch_batch(self, call: Call[Query, Nothing]) -> QuarantinedBatch:
        """Fetch a batch in quarantine, without its body."""
        async with self._database.reading(whole=True) as connection:
            batch = await quarantine.find_batch(connection, *parse_batch_path(call))
        if batch is None:
            raise ProblemError(operation_codes.BATCH_NOT_FOUND, NOT_FOUND)
        return cast(QuarantinedBatch, batch)

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
        return cast(BatchReplayResult, result.to_response())


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
