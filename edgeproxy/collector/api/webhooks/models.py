"""Events of Stripe as the API shows them."""

from typing import Annotated, Literal

from pydantic import BeforeValidator
from typing_extensions import TypedDict

from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import in_query
from edgeproxy.collector.billing.webhooks.receiver import LISTED_MAX, EventState
from edgeproxy.config.units import Whole

MILLISECONDS_MAX = 10**15


class WebhooksQuery(Query):
    """Filters of events."""

    state: EventState | None = None
    """Only events in this state."""
    before: Annotated[int | None, BeforeValidator(Whole(0, MILLISECONDS_MAX)), in_query(0, MILLISECONDS_MAX)] = None
    """Only events received before this time, in Unix milliseconds."""
    limit: Annotated[int, BeforeValidator(Whole(1, LISTED_MAX)), in_query(1, LISTED_MAX)] = LISTED_MAX
    """The number of events, at most."""


class WebhookEvent(TypedDict):
    """An event from Stripe."""

    id: str
    """The id of the event at Stripe."""
    type: str
    """The type of the event, such as `invoice.paid`."""
    object: str
    """The id of the object that the event is about."""
    state: EventState
    """`waiting`, `applied`, `ignored`, `other_mode` or `dead`."""
    source: str
    """The channel that delivered the event."""
    attempts: int
    """The number of attempts to apply the event."""
    error: str | None
    """The error of the last attempt; null if there was none."""
    livemode: bool
    """True if the event comes from Stripe's live mode."""
    created: str
    """The time when Stripe created the event."""
    received: str
    """The time when the collector received the event."""
    applied: str | None
    """The time when the event was applied; null until then."""


class WebhookEventList(TypedDict):
    """Events from Stripe, and the number of events in each state."""

    events: list[WebhookEvent]
    """The events, latest first."""
    states: dict[str, int]
    """The number of events in each state."""


class WebhookReceipt(TypedDict):
    """An event that was stored."""

    received: str
    """The id of the event that was stored."""


class WebhookReplayResult(TypedDict):
    """An event that will be applied again."""

    event: str
    """The id of the event."""
    state: Literal["waiting"]
    """The state of the event: `waiting` to be applied again."""
