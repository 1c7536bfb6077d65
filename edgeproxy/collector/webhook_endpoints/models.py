"""API models of customers' webhook endpoints and their messages."""

from typing import Annotated, Literal, NotRequired
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, JsonValue, WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.fields import Text
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.webhooks.deliveries import WebhookState
from edgeproxy.collector.webhooks.event_types import EventType
from edgeproxy.config.field_codes import NOT_A_URL, TOO_LONG
from edgeproxy.config.units import read_text, value_error

URL_CHARACTERS_MAX = 2000
URL_HINT = f"https://HOST/PATH, of {URL_CHARACTERS_MAX} characters at most, without a user and a fragment"
URL_SCHEMA = {
    "type": "string",
    "format": "uri",
    "pattern": "^https?://[!-~]+$",
    "maxLength": URL_CHARACTERS_MAX,
    "examples": ["https://hooks.acme.example/edge"],
}


def parse_url(value: object) -> str:
    """Parse a URL that messages can be posted to. Raises a value error, which does not contain the URL."""
    url = read_text(value, URL_HINT)
    try:
        parts = urlsplit(url)
        is_whole = bool(parts.hostname) and parts.port != 0 and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        is_whole = False
    if not is_whole or parts.scheme not in ("https", "http") or "@" in parts.netloc or parts.fragment:
        raise value_error("is not a URL to which messages can be sent", URL_HINT, NOT_A_URL)
    if len(url) > URL_CHARACTERS_MAX:
        raise value_error("is too long", URL_HINT, TOO_LONG, most=URL_CHARACTERS_MAX)
    return url


EndpointUrl = Annotated[str, BeforeValidator(parse_url), WithJsonSchema(URL_SCHEMA)]
EventTypes = Annotated[tuple[EventType, ...], Field(min_length=1, max_length=100)]
EndpointState = Literal["enabled", "disabled"]


class CreateWebhookEndpointRequest(Body):
    """A new endpoint."""

    url: EndpointUrl
    """The URL that receives messages by POST: `https://`."""
    description: Text | None = None
    """A text for people."""
    types: EventTypes | None = None
    """The types of events to send; null: all, including types added later."""


class UpdateWebhookEndpointRequest(Body):
    """The fields of an endpoint to change. A missing field stays unchanged."""

    url: EndpointUrl | None = None
    """The URL that receives messages by POST: `https://`."""
    description: Text | None = None
    """A text for people; null removes it."""
    types: EventTypes | None = None
    """The types of events to send; null: all, including types added later."""
    state: EndpointState | None = None
    """`disabled` sends nothing; `enabled` sends events from then on."""


class WebhookEndpoint(TypedDict):
    """An endpoint of a customer."""

    id: str
    """The id of the endpoint."""
    customer: str
    """The customer's name."""
    url: str
    """The URL that receives messages by POST."""
    description: str | None
    """A text for people."""
    types: list[EventType] | None
    """The types of events that are sent; null: all."""
    state: EndpointState
    """`enabled`, or `disabled` if nothing is sent."""
    disabled_why: str | None
    """The reason why it is disabled; null if it is enabled."""
    failing_since: str | None
    """The time of the first failure since the last accepted message; null if the last message was accepted."""
    old_secret_until: str | None
    """The time until which the previous secret signs too; null if there is only one secret."""
    created_at: str
    """The time when the endpoint was created."""


class WebhookEndpointWithSecret(WebhookEndpoint):
    """An endpoint with its secret. No other answer contains the secret."""

    secret: NotRequired[str]
    """The secret that signs messages, such as `whsec_…`; missing in a dry run."""


class WebhookEndpointList(TypedDict):
    """The endpoints of a customer, oldest first."""

    endpoints: list[WebhookEndpoint]
    """The endpoints, oldest first."""


class WebhookDelivery(TypedDict):
    """A message to an endpoint, and its delivery."""

    id: str
    """The id of the message, sent as `webhook-id` in all attempts."""
    type: str
    """The type of the event, such as `invoice.paid`."""
    at: str
    """The time of the event."""
    state: WebhookState
    """`due`, `sent`, or `dead` after the last attempt failed."""
    attempts: int
    """The number of attempts so far."""
    status: int | None
    """The status of the last response if it was not a success; null otherwise."""
    error: str | None
    """The reason why the last attempt failed; null if it did not."""
    attempted_at: str | None
    """The time of the last attempt; null if there was none."""
    next_at: str | None
    """The time of the next attempt; null if there is none."""
    data: dict[str, JsonValue]
    """The `data` of the body."""


class WebhookDeliveryList(TypedDict):
    """A page of messages to an endpoint, latest first."""

    messages: list[WebhookDelivery]
    """The messages of this page, the latest first."""
    next: NotRequired[str]
    """The `cursor` of the next page; missing on the last one."""
