"""Usage events that services report, and rejected events."""

import asyncio
import time
from collections.abc import Mapping
from typing import Annotated, Literal, NotRequired

from aiohttp import web
from pydantic import BeforeValidator, Field, JsonValue
from typing_extensions import TypedDict

from edgeproxy.base import log
from edgeproxy.base.json_values import JsonObject
from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit, customers
from edgeproxy.collector.accounts.audit import AuditEntry, Caller
from edgeproxy.collector.accounts.customers import has_pseudonyms
from edgeproxy.collector.accounts.end_users import is_hashing
from edgeproxy.collector.accounts.pseudonyms import resolve_names
from edgeproxy.collector.api.auth import DeniedError, require_consent
from edgeproxy.collector.api.endpoint import (
    ADMIN,
    JSON,
    JSON_LINES,
    SERVICE,
    AnyCall,
    Call,
    Nothing,
    Query,
    delete,
    get,
    post,
)
from edgeproxy.collector.api.field_types import Printed, in_query
from edgeproxy.collector.api.group import Group, Handlers, PathParameter
from edgeproxy.collector.api.request_reader import read_body, read_content
from edgeproxy.collector.api.responses import ProblemError, next_page
from edgeproxy.collector.events import dead_letters
from edgeproxy.collector.events.body import parse_body
from edgeproxy.collector.events.dead_letters import PAGE_LETTERS_MAX, DeadLetter
from edgeproxy.collector.events.end_users import hash_events, replace_people
from edgeproxy.collector.events.event import (
    BODY_BYTES_MAX,
    CHARACTERS_MAX,
    VALUE_MAX,
    InvalidEventBodyError,
    InvalidEventError,
    Rejection,
    parse_event,
    parse_objects,
)
from edgeproxy.collector.events.event_writer import EventRequest
from edgeproxy.collector.ledger.received_batch import inflate
from edgeproxy.collector.problems import operation_codes, request_codes
from edgeproxy.config.collector.settings import CollectorSettings
from edgeproxy.config.meters import Meter
from edgeproxy.config.units import Whole
from edgeproxy.wire.batch import ANONYMOUS, NAME, InvalidBatchError


class Event(TypedDict):
    """Usage that a service reports."""

    id: Annotated[str, Field(min_length=1, max_length=CHARACTERS_MAX)]
    """The id of the event, unique for its source. An event with a known id is not counted again."""
    source: Annotated[str, Field(min_length=1, max_length=CHARACTERS_MAX)]
    """The service that reports."""
    customer: str
    """The customer, by name."""
    meter: str
    """The meter, one with `count: events`."""
    value: NotRequired[Annotated[int, Field(ge=-VALUE_MAX, le=VALUE_MAX)] | str]
    """The units used, in the meter's own unit; a negative number takes units back. For a meter with `aggregate:
    unique`, the text to count.
    """
    time: NotRequired[str | None]
    """The time of the usage (RFC 3339); by default now."""
    dimensions: NotRequired[dict[str, str] | None]
    """The values of the meter's dimensions, by their names."""
    request_id: NotRequired[str | None]
    """The id of the request that caused the usage."""
    upstream_request_id: NotRequired[str | None]
    """The id that another company's API, for example a model provider's, gave to that request."""
    replaces: NotRequired[str | None]
    """The id of an earlier event of this source that this one replaces; the token needs `sensitive: true`."""


class CloudEventData(TypedDict):
    """The data of a CloudEvent."""

    value: NotRequired[Annotated[int, Field(ge=-VALUE_MAX, le=VALUE_MAX)] | str]
    """The units used, in the meter's own unit; a negative number takes units back. For a meter with `aggregate:
    unique`, the text to count.
    """
    dimensions: NotRequired[dict[str, str] | None]
    """The values of the meter's dimensions, by their names."""
    request_id: NotRequired[str | None]
    """The id of the request that caused the usage."""
    upstream_request_id: NotRequired[str | None]
    """The id that another company's API, for example a model provider's, gave to that request."""
    replaces: NotRequired[str | None]
    """The id of an earlier event of this source that this one replaces; the token needs `sensitive: true`."""


class CloudEvent(TypedDict):
    """Usage that a service reports, as a CloudEvent 1.0. Further attributes are ignored."""

    specversion: Literal["1.0"]
    """The version of CloudEvents."""
    id: Annotated[str, Field(min_length=1, max_length=CHARACTERS_MAX)]
    """The id of the event, unique for its source. An event with a known id is not counted again."""
    source: Annotated[str, Field(min_length=1, max_length=CHARACTERS_MAX)]
    """The service that reports."""
    type: str
    """The meter, one with `count: events`."""
    subject: str
    """The customer, by name."""
    time: NotRequired[str | None]
    """The time of the usage (RFC 3339); by default now."""
    data: CloudEventData
    """The usage that the event reports."""


class EventRejected(TypedDict):
    """An event that was not counted: its position in the request, from 0, and the reason."""

    index: int
    """The position of the event in the request, from 0."""
    error: str
    """The reason why it was rejected."""


class EventsResult(TypedDict):
    """The outcome of a request with events."""

    accepted: int
    """The number of events counted."""
    duplicates: int
    """The number of events that had been counted before."""
    rejected: list[EventRejected]
    """The events that were not counted. They are stored as dead letters, except events that a hard cap refuses."""


class DeadLettersQuery(Query):
    """Filters of dead letters, and the page."""

    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_LETTERS_MAX)), in_query(1, PAGE_LETTERS_MAX)] = 100
    """The number of dead letters on the page, at most."""
    cursor: Printed = ""
    """The `next` of the page before; by default the first page."""


class DiscardQuery(Query):
    """The reason of a change."""

    why: Printed
    """The reason, for the audit log."""


class DeadLetterResponse(TypedDict):
    """An event that was rejected."""

    id: str
    """The id of the dead letter."""
    received: str
    """The time when the event arrived."""
    token: str
    """The name of the token that sent the event."""
    error: str
    """The reason why it was rejected."""
    event: JsonValue
    """The event as received."""


class DeadLetterList(TypedDict):
    """Rejected events, oldest first."""

    dead_letters: list[DeadLetterResponse]
    """The dead letters of this page, oldest first."""
    next: NotRequired[str]
    """The `cursor` of the next page; missing on the last one."""


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

    @post(
        "/v1/events",
        roles=SERVICE,
        example=[{"id": "1", "source": "worker", "customer": "acme", "meter": "llm_tokens", "value": 1200}],
        status=202,
        request_media={
            JSON: Event | list[Event],
            JSON_LINES: bytes,
            "application/cloudevents+json": CloudEvent,
            "application/cloudevents-batch+json": list[CloudEvent],
        },
        errors={
            413: "The body is too large.",
            415: "The content coding of the body is unknown.",
            429: "Too many events are waiting.",
        },
    )
    async def ingest_events(self, call: Call[Query, Nothing]) -> EventsResult:
        """Ingest usage events. The answer comes once they are on disk."""
        request = call.request
        if not self._resources.events.has_room(call.holder.label):
            self._metrics.busy.inc()
            raise ProblemError(
                request_codes.EVENTS_BUSY, "more events are waiting than can be held", headers={"Retry-After": "1"}
            )
        body = await read_body(request, BODY_BYTES_MAX)
        coding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if len(body) < IN_A_THREAD_BYTES and coding == "identity":
            event_request = self._parse_events(body, coding, call.holder.label)
        else:
            event_request = await asyncio.to_thread(self._parse_events, body, coding, call.holder.label)
        event_request = event_request._replace(caller=find_correcting_caller(call))
        receipt = await self._resources.events.write_events(await self._replace_names(event_request))
        rejected: list[EventRejected] = [
            {"index": rejection.position, "error": rejection.error} for rejection in receipt.rejected
        ]
        return {"accepted": receipt.accepted, "duplicates": receipt.duplicates, "rejected": rejected}

    def _parse_events(self, body: bytes, coding: str, token: str) -> EventRequest:
        """Return the events of a body. Raises ProblemError."""
        try:
            plain = body if coding == "identity" else inflate(body, coding)
            events, rejected = parse_body(plain, self._meters, time.time())
        except InvalidBatchError as error:
            is_unknown = "unknown coding" in str(error)
            code = request_codes.MEDIA_TYPE_UNSUPPORTED if is_unknown else request_codes.BODY_UNREADABLE
            raise ProblemError(code, f"the body {error}") from None
        except InvalidEventBodyError as error:
            is_large = len(body) > BODY_BYTES_MAX
            code = request_codes.BODY_TOO_LARGE if is_large else request_codes.BODY_UNREADABLE
            raise ProblemError(code, str(error)) from None
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

    @get("/v1/dead-letters")
    async def list_letters(self, call: Call[DeadLettersQuery, Nothing]) -> DeadLetterList:
        """List the rejected events, oldest first."""
        async with self._database.reading() as connection:
            letters = await dead_letters.list_letters(connection, call.query.cursor, call.query.limit)
        return {"dead_letters": [letter_to_response(letter) for letter in letters], **next_page(letters.next)}

    @get("/v1/dead-letters/{letter}")
    async def fetch_letter(self, call: Call[Query, Nothing]) -> DeadLetterResponse:
        """Fetch a rejected event."""
        return letter_to_response(await self._get_letter(call.path("letter")))

    @post(
        "/v1/dead-letters/{letter}/replay",
        example={"id": "2", "source": "worker", "customer": "acme", "meter": "llm_tokens", "value": 1200},
        request_media={JSON: Event | CloudEvent},
        errors={409: "The event was rejected again.", 422: "The event cannot be read."},
    )
    async def replay_letter(self, call: Call[Query, Nothing]) -> EventsResult:
        """Count a rejected event now, unchanged or as in the request."""
        letter = await self._get_letter(call.path("letter"))
        body = await read_content(call, BODY_BYTES_MAX)
        try:
            (event_body,) = parse_objects(body) if body else [letter.event]
            event = parse_event(event_body, self._meters, time.time())
        except (InvalidEventBodyError, InvalidEventError) as error:
            raise ProblemError(operation_codes.EVENT_INVALID, f"the event {error}") from None
        except ValueError:
            raise ProblemError(operation_codes.EVENT_INVALID, "send one event") from None
        caller = find_correcting_caller(call)
        request = EventRequest(call.holder.label, [(0, event)], (), is_replay=True, caller=caller)
        receipt = await self._resources.events.write_events(await self._replace_names(request))
        if receipt.rejected:
            raise ProblemError(operation_codes.EVENT_REJECTED, f"the event {receipt.rejected[0].error}")
        after: JsonObject = {**dead_letters.identify(event_body), "again": not receipt.accepted}
        await self._remove_letter(call, letter, "dead_letter.replay", after)
        return {"accepted": receipt.accepted, "duplicates": receipt.duplicates, "rejected": []}

    @delete("/v1/dead-letters/{letter}", status=204)
    async def discard_letter(self, call: Call[DiscardQuery, Nothing]) -> web.Response:
        """Delete a rejected event for good."""
        letter = await self._get_letter(call.path("letter"))
        await self._remove_letter(call, letter, "dead_letter.discard", {"why": call.query.why})
        return web.Response(status=204)

    async def _get_letter(self, id_: str) -> DeadLetter:
        async with self._database.reading() as connection:
            letter = await dead_letters.find_letter(connection, id_) if id_.isascii() and id_.isprintable() else None
        if letter is None:
            raise ProblemError(operation_codes.DEAD_LETTER_NOT_FOUND, "there is no such dead letter")
        return letter

    async def _remove_letter(self, call: AnyCall, letter: DeadLetter, action: str, after: JsonObject) -> None:
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


def letter_to_response(letter: DeadLetter) -> DeadLetterResponse:
    """Return a rejected event in the API's form."""
    return {
        "id": letter.id,
        "received": format_timestamp(letter.received),
        "token": letter.token,
        "error": letter.error,
        "event": letter.event,
    }


def find_correcting_caller(call: AnyCall) -> Caller | None:
    """Return the caller for the audit log if it may correct usage, which is sensitive; else None."""
    try:
        require_consent(call.holder, "take usage back", time.time())
    except DeniedError:
        return None
    return call.caller


GROUP = Group(
    "events",
    "Usage events that services report, and rejected events.",
    EventHandlers,
    roles=ADMIN,
    parameters={"letter": PathParameter("The id of the dead letter.")},
)
