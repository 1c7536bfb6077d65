"""Usage that services report themselves, and what of it was rejected."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from edgeproxy.base import log
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import AuditEntry
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.ledger_models import DeadLettersQuery, WhyQuery
from edgeproxy.collector.api.request_reader import body_of, content_of
from edgeproxy.collector.api.responses import ProblemError, answer, problem
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.events import dead_letters
from edgeproxy.collector.events.body import parse_body
from edgeproxy.collector.events.dead_letters import DeadLetter
from edgeproxy.collector.events.event import (
    BODY_BYTES_MAX,
    InvalidEventBodyError,
    InvalidEventError,
    parse_event,
    parse_objects,
)
from edgeproxy.collector.events.event_writer import EventRequest, EventWriter, Receipt
from edgeproxy.collector.ledger.received_batch import inflate
from edgeproxy.collector.metrics import Metrics
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.meters import Meter
from edgeproxy.wire.batch import InvalidBatchError

IN_A_THREAD_BYTES = 64 << 10
"""Bytes of a body from which on it is read in a thread, as others must not wait that long."""
NOT_THERE = "there is no such dead letter"


class EventHandlers:
    """Takes events, and tells of those that were rejected."""

    def __init__(self, database: Database, intake: EventWriter, metrics: Metrics) -> None:
        self._database = database
        self._intake = intake
        self._metrics = metrics
        self._meters: Mapping[str, Meter] = {}

    def use(self, settings: CollectorSettings) -> None:
        """Take events of the meters that these say."""
        self._meters = {name: meter for name, meter in settings.meters.items() if meter.count == "events"}

    async def take(self, call: Call[Query, Nothing]) -> web.Response:
        """Take events; the answer comes once they are on disk."""
        request = call.request
        if not self._intake.has_room():
            return self._busy()
        sent = await body_of(request, BODY_BYTES_MAX)
        coding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if len(sent) < IN_A_THREAD_BYTES and coding == "identity":
            read_ = self._read(sent, coding, call.holder.label)
        else:
            read_ = await asyncio.to_thread(self._read, sent, coding, call.holder.label)
        receipt = await self._intake.settle(read_)
        rejected = [{"index": one.position, "error": one.error} for one in receipt.rejected]
        return answer(202, {"accepted": receipt.accepted, "duplicates": receipt.duplicates, "rejected": rejected})

    def _busy(self) -> web.Response:
        self._metrics.busy.inc()
        return problem(429, "more events are waiting than can be held", {"Retry-After": "1"})

    def _read(self, sent: bytes, coding: str, token: str) -> EventRequest:
        """The events in a body; raises ProblemError."""
        try:
            plain = sent if coding == "identity" else inflate(sent, coding)
            events, rejected = parse_body(plain, self._meters, time.time())
        except InvalidBatchError as error:
            raise ProblemError(415 if "unknown coding" in str(error) else 400, f"the body {error}") from None
        except InvalidEventBodyError as error:
            raise ProblemError(413 if len(sent) > BODY_BYTES_MAX else 400, str(error)) from None
        return EventRequest(token, events, rejected)

    async def letters(self, call: Call[DeadLettersQuery, Nothing]) -> web.Response:
        """List events that were rejected, oldest first."""
        limit = call.query.limit
        async with self._database.reading() as connection:
            rows = await dead_letters.list_letters(connection, call.query.cursor, limit + 1)
        more = {"next": rows[limit - 1].id} if len(rows) > limit else {}
        return answer(200, {"dead_letters": [letter_to_response(letter) for letter in rows[:limit]], **more})

    async def letter(self, call: Call[Query, Nothing]) -> web.Response:
        """Tell of one."""
        return answer(200, letter_to_response(await self._get_letter(call.path("letter"))))

    async def replay(self, call: Call[Query, Nothing]) -> web.Response:
        """Count it after all, as it is or as it is sent now."""
        letter = await self._get_letter(call.path("letter"))
        given = await content_of(call, BODY_BYTES_MAX)
        try:
            (event_body,) = parse_objects(given) if given else [letter.event]
            event = parse_event(event_body, self._meters, time.time())
        except (InvalidEventBodyError, InvalidEventError) as error:
            raise ProblemError(422, f"the event {error}") from None
        except ValueError:
            raise ProblemError(422, "send one event") from None
        receipt = await self._intake.settle(EventRequest(call.holder.label, [(0, event)], (), is_replay=True))
        if receipt.rejected:
            raise ProblemError(409, f"the event {receipt.rejected[0].error}")
        await self._remove_letter(
            call, letter, "dead_letter.replay", {"event": event_body, "again": not receipt.accepted}
        )
        return answer(200, _result(receipt))

    async def discard(self, call: Call[WhyQuery, Nothing]) -> web.Response:
        """Take it out for good."""
        letter = await self._get_letter(call.path("letter"))
        await self._remove_letter(call, letter, "dead_letter.discard", {"why": call.query.why})
        return web.Response(status=204)

    async def _get_letter(self, id_: str) -> DeadLetter:
        async with self._database.reading() as connection:
            letter = await dead_letters.find_letter(connection, id_) if id_.isascii() and id_.isprintable() else None
        if letter is None:
            raise ProblemError(404, NOT_THERE)
        return letter

    async def _remove_letter(
        self, call: Call[Any, Nothing], letter: DeadLetter, action: str, after: dict[str, Any]
    ) -> None:
        async with self._database.writing() as connection:
            if await dead_letters.delete_letter(connection, letter.id):
                before = {"event": letter.event, "error": letter.error}
                await audit.append_entry(connection, call.caller, AuditEntry(action, letter.id, before, after))
        log.get_logger().info("dead letter put away", letter=letter.id, action=action, by=call.holder.label)


def letter_to_response(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter, as it is told."""
    response = letter._asdict()
    return {**response, "received": format_timestamp(letter.received)}


def _result(receipt: Receipt) -> dict[str, Any]:
    return {"accepted": receipt.accepted, "duplicates": receipt.duplicates, "rejected": []}
