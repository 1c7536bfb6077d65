"""Usage events and dead letters as the API shows them."""

from typing import Annotated, Literal, NotRequired

from pydantic import BeforeValidator, Field, JsonValue
from typing_extensions import TypedDict

from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import Printed, in_query
from edgeproxy.collector.events.dead_letters import PAGE_LETTERS_MAX
from edgeproxy.collector.events.event import CHARACTERS_MAX, VALUE_MAX
from edgeproxy.config.units import Whole


class Event(TypedDict):
    """Usage that a service reports."""

    id: Annotated[str, Field(min_length=1, max_length=CHARACTERS_MAX)]
    """The id of the event, unique for its source. Events with the same id count once."""
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
    """The id that another company's API, such as a model provider's, gave to that request."""
    replaces: NotRequired[str | None]
    """The id of an earlier event of the same source that this one replaces; the token needs `sensitive: true`."""


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
    """The id that another company's API, such as a model provider's, gave to that request."""
    replaces: NotRequired[str | None]
    """The id of an earlier event of the same source that this one replaces; the token needs `sensitive: true`."""


class CloudEvent(TypedDict):
    """Usage that a service reports, as a CloudEvent 1.0. Further attributes are ignored."""

    specversion: Literal["1.0"]
    """The version of CloudEvents."""
    id: Annotated[str, Field(min_length=1, max_length=CHARACTERS_MAX)]
    """The id of the event, unique for its source. Events with the same id count once."""
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
