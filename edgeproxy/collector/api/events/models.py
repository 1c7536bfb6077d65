"""Usage events and dead letters as the API shows them."""

from typing import Annotated, Any, NotRequired

from pydantic import BeforeValidator
from typing_extensions import TypedDict

from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import Printed, in_query
from edgeproxy.collector.events.dead_letters import PAGE_LETTERS_MAX
from edgeproxy.config.units import Whole


class EventRejected(TypedDict):
    """An event that was not counted: its place in the request, from 0, and why."""

    index: int
    """The place of the event in the request, from 0."""
    error: str
    """The reason why it was rejected."""


class EventsResult(TypedDict):
    """What became of events."""

    accepted: int
    """The number of events counted."""
    duplicates: int
    """The number of events that had been counted before."""
    rejected: list[EventRejected]
    """The events that were not counted; they are stored as dead letters."""


class DeadLettersQuery(Query):
    """Which dead letters."""

    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_LETTERS_MAX)), in_query(1, PAGE_LETTERS_MAX)] = 100
    """The number of dead letters on the page, at most."""
    cursor: Printed = ""
    """The `next` of the page before; by default the first page."""


class DiscardQuery(Query):
    """Why something is done."""

    why: Printed
    """The reason, for the audit log."""


class DeadLetter(TypedDict):
    """An event that was rejected."""

    id: str
    """The id of the dead letter."""
    received: str
    """The time at which the event came."""
    token: str
    """The name of the token by which it came."""
    error: str
    """The reason why it was rejected."""
    event: Any
    """The event as it came."""


class DeadLetterList(TypedDict):
    """Events that were rejected, oldest first."""

    dead_letters: list[DeadLetter]
    """The dead letters of this page, oldest first."""
    next: NotRequired[str]
    """The `cursor` of the next page; missing on the last one."""
