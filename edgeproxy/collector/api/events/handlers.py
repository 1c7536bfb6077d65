"""Usage events that services report, and rejected events."""

import asyncio
import time
from collections.abc import Mapping

from aiohttp import web

from edgeproxy.base import log
from edgeproxy.base.json_values import JsonObject, JsonValue
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.customers import has_pseudonyms
from edgeproxy.collector.accounts.end_users import is_hashing
from edgeproxy.collector.accounts.pseudonyms import resolve_names
from edgeproxy.collector.api.auth import DeniedError, require_consent
from edgeproxy.collector.api.endpoint import AnyCall, Call, Nothing, Query
from edgeproxy.collector.api.events.models import DeadLettersQuery, DiscardQuery
from edgeproxy.collector.api.group import Handlers
from edgeproxy.collector.api.request_reader import read_body, read_content
from edgeproxy.collector.api.responses import ProblemError, answer, answer_page, problem
from edgeproxy.collector.events import dead_letters
from edgeproxy.collector.events.body import parse_body
from edgeproxy.collector.events.dead_letters import DeadLetter
from edgeproxy.collector.events.end_users import hash_events, replace_people
from edgeproxy.collector.events.event import (
    BODY_BYTES_MAX,
    InvalidEventBodyError,
    InvalidEventError,
    Rejection,
    parse_event,
    parse_objects,
)
from edgeproxy.collector.events.event_writer import EventRequest
from edgeproxy.collector.ledger.received_batch import inflate
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.meters import Meter
from edgeproxy.wire.batch import ANONYMOUS, NAME, InvalidBatchError

UNKNOWN_CUSTOMER = "customer: is nobody who is known here"
IN_A_THREAD_BYTES = 64 << 10
"""Larger bodies are parsed in a thread, so that they do not delay other requests."""


class EventHandlers(Handlers):
    """Handlers of events and dead letters."""

    def apply_settings(self, settings: CollectorSettings) -> None:
        """Accept events for the meters of these settings."""
        self._meters: Mapping[str, Meter] = {
            name: meter for name, meter in settings.meters.items() if meter.count == "events"
        }

    async def ingest_events(self, call: Call[Query, Nothing]) -> web.Response:
        """Accept events. The answer is sent once they are on disk."""
        request = call.request
        if not self._resources.events.has_room(call.holder.label):
            self._metrics.busy.inc()
            return problem(429, "more events are waiting than can be held", {"Retry-After": "1"})
        body = await read_body(request, BODY_BYTES_MAX)
        coding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if len(body) < IN_A_THREAD_BYTES and coding == "identity":
            event_request = self._parse_events(body, coding, call.holder.label)
        else:
            event_request = await asyncio.to_thread(self._parse_events, body, coding, call.holder.label)
        event_request = event_request._replace(caller=find_correcting_caller(call))
        receipt = await self._resources.events.write_events(await self._replace_names(event_request))
        rejected = [{"index": rejection.position, "error": rejection.error} for rejection in receipt.rejected]
        return answer(202, {"accepted": receipt.accepted, "duplicates": receipt.duplicates, "rejected": rejected})

    def _parse_events(self, body: bytes, coding: str, token: str) -> EventRequest:
        """Return the events of a body. Raises ProblemError."""
        try:
            plain = body if coding == "identity" else inflate(body, coding)
            events, rejected = parse_body(plain, self._meters, time.time())
        except InvalidBatchError as error:
            raise ProblemError(415 if "unknown coding" in str(error) else 400, f"the body {error}") from None
        except InvalidEventBodyError as error:
            raise ProblemError(413 if len(body) > BODY_BYTES_MAX else 400, str(error)) from None
        return EventRequest(token, events, rejected)

    async def _replace_names(self, sent: EventRequest) -> EventRequest:
        """Return events for storage: names of customers and end users are replaced if the settings say so."""
        if has_pseudonyms(self._settings):
            sent = await self._resolve_customers(sent)
        events = await replace_people(self._database, self._meters, sent.events)
        if is_hashing(self._settings):
            events = await hash_events(self._database, events, is_replay=sent.is_replay)
        return sent._replace(events=events)

    async def _resolve_customers(self, sent: EventRequest) -> EventRequest:
        """Return accepted and rejected events with pseudonyms of the named customers."""
        named = (dead_letters.find_customer(rejection.document) for rejection in sent.rejected)
        names = {event.customer for _, event in sent.events} | {name for name in named if name and NAME.fullmatch(name)}
        async with self._database.reading() as connection:
            known_by = {name: name for name in await customers.filter_existing_names(connection, names)}
            known_by |= await resolve_names(connection, names)
        known_by |= {name: name for name in names & {*self._settings.customers, ANONYMOUS}}
        return name_by_pseudonyms(sent, known_by)

    # ---- dead letters

    async def list_letters(self, call: Call[DeadLettersQuery, Nothing]) -> web.Response:
        """List rejected events, oldest first."""
        async with self._database.reading() as connection:
            letters = await dead_letters.list_letters(connection, call.query.cursor, call.query.limit)
        return answer_page("dead_letters", [letter_to_response(letter) for letter in letters], letters.next)

    async def fetch_letter(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch a rejected event."""
        return answer(200, letter_to_response(await self._get_letter(call.path("letter"))))

    async def replay_letter(self, call: Call[Query, Nothing]) -> web.Response:
        """Count a rejected event now, unchanged or as in the request."""
        letter = await self._get_letter(call.path("letter"))
        body = await read_content(call, BODY_BYTES_MAX)
        try:
            (event_body,) = parse_objects(body) if body else [letter.event]
            event = parse_event(event_body, self._meters, time.time())
        except (InvalidEventBodyError, InvalidEventError) as error:
            raise ProblemError(422, f"the event {error}") from None
        except ValueError:
            raise ProblemError(422, "send one event") from None
        caller = find_correcting_caller(call)
        request = EventRequest(call.holder.label, [(0, event)], (), is_replay=True, caller=caller)
        receipt = await self._resources.events.write_events(await self._replace_names(request))
        if receipt.rejected:
            raise ProblemError(409, f"the event {receipt.rejected[0].error}")
        after: JsonObject = {**dead_letters.identify(event_body), "again": not receipt.accepted}
        await self._remove_letter(call, letter, "dead_letter.replay", after)
        return answer(200, {"accepted": receipt.accepted, "duplicates": receipt.duplicates, "rejected": []})

    async def discard_letter(self, call: Call[DiscardQuery, Nothing]) -> web.Response:
        """Delete a rejected event permanently."""
        letter = await self._get_letter(call.path("letter"))
        await self._remove_letter(call, letter, "dead_letter.discard", {"why": call.query.why})
        return web.Response(status=204)

    async def _get_letter(self, id_: str) -> DeadLetter:
        async with self._database.reading() as connection:
            letter = await dead_letters.find_letter(connection, id_) if id_.isascii() and id_.isprintable() else None
        if letter is None:
            raise ProblemError(404, "there is no such dead letter")
        return letter

    async def _remove_letter(self, call: AnyCall, letter: DeadLetter, action: str, after: dict[str, JsonValue]) -> None:
        async with self._database.writing() as connection:
            if await dead_letters.delete_letter(connection, letter.id):
                before = {**dead_letters.identify(letter.event), "error": letter.error}
                entry = AuditEntry(action, letter.id, before, after, dead_letters.find_customer(letter.event))
                await audit.append_entry(connection, call.caller, entry)
        log.get_logger().info("dead letter put away", letter=letter.id, action=action, by=call.holder.label)


def name_by_pseudonyms(sent: EventRequest, known_by: Mapping[str, str]) -> EventRequest:
    """Return events with their customers' names in the ledger. `known_by` maps known names to them.

    Events of unknown customers are refused and not stored, because the name may be an erased customer's. For that
    reason, rejected events that name no known customer are not stored either.
    """
    events, rejected = [], []
    for index, event in sent.events:
        if event.customer in known_by:
            events.append((index, event._replace(customer=known_by[event.customer])))
        else:
            rejected.append(Rejection(index, UNKNOWN_CUSTOMER, None, is_stored=False))
    for rejection in sent.rejected:
        document, name = rejection.document, dead_letters.find_customer(rejection.document)
        if isinstance(document, dict) and name is not None and name in known_by:
            field = "customer" if "customer" in document else "subject"
            rejected.append(rejection._replace(document={**document, field: known_by[name]}))
        else:
            rejected.append(rejection._replace(is_stored=False))
    return sent._replace(events=events, rejected=rejected)


def letter_to_response(letter: DeadLetter) -> dict[str, object]:
    """Return a rejected event in the API's form."""
    return {**letter._asdict(), "received": format_timestamp(letter.received)}


def find_correcting_caller(call: AnyCall) -> Caller | None:
    """Return the caller for the audit log if it may correct usage, which is sensitive; else None."""
    try:
        require_consent(call.holder, "take usage back", time.time())
    except DeniedError:
        return None
    return call.caller
