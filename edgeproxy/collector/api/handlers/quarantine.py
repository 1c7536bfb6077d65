"""Batches that nobody could read."""

from collections.abc import Mapping

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.base import log
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.api.endpoint import BYTES, Call, Nothing, Query
from edgeproxy.collector.api.ledger_models import QuarantineQuery
from edgeproxy.collector.api.request_reader import content_of
from edgeproxy.collector.api.responses import ProblemError, answer, problem
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.ledger import quarantine
from edgeproxy.collector.ledger.chain import Verdict
from edgeproxy.collector.ledger.names import Names
from edgeproxy.collector.ledger.received_batch import SEQ, inflate
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.meters import Meter
from edgeproxy.wire.batch import NUMBER_MAX, InvalidBatchError

NOT_THERE = "there is no such batch in quarantine"


class QuarantineHandlers:
    """Tells of them, and counts them after all."""

    def __init__(self, database: Database, names: Names, metrics: Metrics) -> None:
        self._database = database
        self._names = names
        self._metrics = metrics
        self._meters: Mapping[str, Meter] = {}

    def use(self, settings: CollectorSettings) -> None:
        """Hold dimensions to the bounds that these say."""
        self._meters = settings.meters

    async def listing(self, call: Call[QuarantineQuery, Nothing]) -> web.Response:
        """List what is in quarantine."""
        async with self._database.reading(whole=True) as connection:
            return answer(200, await quarantine.list_batches(connection, call.query.edge))

    async def shown(self, call: Call[Query, Nothing]) -> web.Response:
        """Tell what is known of a batch there."""
        async with self._database.reading(whole=True) as connection:
            batch = await quarantine.find_batch(connection, *parse_batch_path(call))
        return problem(404, NOT_THERE) if batch is None else answer(200, batch)

    async def body(self, call: Call[Query, Nothing]) -> web.Response:
        """Send its body, uncompressed where that can be done, else as it came."""
        async with self._database.reading() as connection:
            body = await quarantine.find_body(connection, *parse_batch_path(call))
        if body is None:
            return problem(404, NOT_THERE)
        return web.Response(body=body, content_type=BYTES)

    async def replay(self, call: Call[Query, Nothing]) -> web.Response:
        """Count it after all, by its own body or by the one that is sent."""
        edge, seq = parse_batch_path(call)
        given = await content_of(call)

        async def record(connection: AsyncConnection, done: quarantine.ReplayResult) -> None:
            after = {**done.to_response(), "own_body": not given}
            await audit.append_entry(
                connection, call.caller, AuditEntry("quarantine.replay", f"{edge}/{seq}", None, after)
            )

        try:
            if given:
                given = inflate(given, call.request.headers.get("Content-Encoding", "identity").strip().lower())
            done = await quarantine.replay_batch(
                self._database, edge, seq, given or None, record=record, meters=self._meters
            )
        except InvalidBatchError as error:
            return problem(422, f"the body {error}")
        except quarantine.ReplayRejectedError as error:
            return problem(error.status, str(error))
        if not done.again:
            self._metrics.batches.labels(Verdict.MEND.value).inc()
            self._metrics.rows.inc(done.rows)
            await self._names.record_names(
                (customer for customer, *_ in done.begun), (meter for _, meter, *_ in done.begun)
            )
            log.get_logger().info("a batch was replayed", edge=edge, seq=seq, rows=done.rows, total=done.total)
        return answer(200, done.to_response())


def parse_batch_path(call: Call[Query, Nothing]) -> tuple[str, int]:
    """Return the batch that a path names; raises ProblemError."""
    edge, seq = call.path("edge"), call.path("seq")
    if not SEQ.fullmatch(seq) or int(seq) > NUMBER_MAX:
        raise ProblemError(400, f"{seq[:20]!r} is no seq, a whole number from 1")
    return edge, int(seq)
