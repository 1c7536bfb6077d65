"""Unreadable batches."""

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.api.endpoint import BYTES, AnyCall, Call, Nothing, Query
from edgeproxy.collector.api.group import Handlers
from edgeproxy.collector.api.quarantine.models import QuarantineQuery
from edgeproxy.collector.api.request_reader import read_content
from edgeproxy.collector.api.responses import ProblemError, answer, problem
from edgeproxy.collector.ledger import quarantine
from edgeproxy.collector.ledger.chain import Verdict
from edgeproxy.collector.ledger.received_batch import SEQ, inflate
from edgeproxy.wire.batch import NUMBER_MAX, InvalidBatchError

NOT_FOUND = "there is no such batch in quarantine"


class QuarantineHandlers(Handlers):
    """Handlers of batches in quarantine."""

    async def list_batches(self, call: Call[QuarantineQuery, Nothing]) -> web.Response:
        """List the batches in quarantine."""
        async with self._database.reading(whole=True) as connection:
            return answer(200, await quarantine.list_batches(connection, call.query.edge))

    async def fetch_batch(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch a batch, without its body."""
        async with self._database.reading(whole=True) as connection:
            batch = await quarantine.find_batch(connection, *parse_batch_path(call))
        return problem(404, NOT_FOUND) if batch is None else answer(200, batch)

    async def fetch_body(self, call: Call[Query, Nothing]) -> web.Response:
        """Send the body of a batch, uncompressed if possible, otherwise as received."""
        async with self._database.reading() as connection:
            body = await quarantine.find_body(connection, *parse_batch_path(call))
        return problem(404, NOT_FOUND) if body is None else web.Response(body=body, content_type=BYTES)

    async def replay_batch(self, call: Call[Query, Nothing]) -> web.Response:
        """Count a batch after all, with its own body or with the body of the request."""
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
            return problem(422, f"the body {error}")
        except quarantine.ReplayRejectedError as error:
            return problem(error.status, str(error))
        if not result.again:
            self._metrics.batches.labels(Verdict.MEND.value).inc()
            self._metrics.rows.inc(result.rows)
            await self._resources.names.record_names(
                (customer for customer, *_ in result.begun), (meter for _, meter, *_ in result.begun)
            )
            log.get_logger().info("a batch was replayed", edge=edge, seq=seq, rows=result.rows, total=result.total)
        return answer(200, result.to_response())


def parse_batch_path(call: AnyCall) -> tuple[str, int]:
    """Return the edge and the seq in a path. Raises ProblemError."""
    edge, seq = call.path("edge"), call.path("seq")
    if not SEQ.fullmatch(seq) or int(seq) > NUMBER_MAX:
        raise ProblemError(400, f"{seq[:20]!r} is no seq, a whole number from 1")
    return edge, int(seq)
