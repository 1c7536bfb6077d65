"""Customers' webhooks: endpoints that receive events, and the messages to them."""

import re
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.api.changes import ChangeHandlers, parse_if_match
from edgeproxy.collector.api.endpoint import (
    CREATE,
    OWN,
    READERS,
    SUPPORT,
    UPDATE,
    AnyCall,
    Call,
    Nothing,
    Query,
    delete,
    get,
    patch,
    post,
)
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.responses import ProblemError, Result, next_page
from edgeproxy.collector.problems import request_codes
from edgeproxy.collector.webhook_endpoints import endpoints
from edgeproxy.collector.webhook_endpoints.endpoints import EndpointRow
from edgeproxy.collector.webhook_endpoints.models import (
    CreateWebhookEndpointRequest,
    UpdateWebhookEndpointRequest,
    WebhookDelivery,
    WebhookDeliveryList,
    WebhookEndpoint,
    WebhookEndpointList,
    WebhookEndpointWithSecret,
)
from edgeproxy.config.collector.webhooks import Webhooks
from edgeproxy.config.units import Whole, value_error

MESSAGE_PATTERN = "^msg_[0-9a-f]{32}$"
MESSAGES_MAX = 100
"""Messages of a page."""


def read_message_cursor(value: object) -> str:
    """Read the end of the previous page: the id of a message."""
    if not re.fullmatch(MESSAGE_PATTERN, str(value)):
        raise value_error("is none that was given here as next", "send next of the page before")
    return str(value)


class MessagesQuery(Query):
    """The page of messages."""

    limit: Annotated[
        int,
        BeforeValidator(Whole(1, MESSAGES_MAX)),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MESSAGES_MAX}),
    ] = 20
    """The number of messages on the page, at most."""
    cursor: (
        Annotated[
            str,
            BeforeValidator(read_message_cursor),
            WithJsonSchema({"type": "string", "pattern": MESSAGE_PATTERN}),
        ]
        | None
    ) = None
    """The `next` of the page before; by default the first page."""


class WebhookEndpointHandlers(ChangeHandlers):
    """Handlers of endpoints of customers' webhooks, and of messages to them."""

    def _get_webhooks(self) -> Webhooks:
        """Return the configuration of webhooks. Raises ProblemError if there is none."""
        if self._settings.webhooks is None:
            raise ProblemError(
                request_codes.NOT_CONFIGURED,
                "customers have no webhooks here: there is no webhooks in the collector's file",
            )
        return self._settings.webhooks

    def check(self, call: AnyCall) -> None:
        """Raise ProblemError if customers have no webhooks here."""
        self._get_webhooks()

    async def _get_row(self, connection: AsyncConnection, call: AnyCall, *, lock: bool = True) -> EndpointRow:
        return await endpoints.get_row(connection, call.path("customer"), call.path("endpoint"), lock=lock)

    @get("/v1/customers/{customer}/webhook-endpoints", roles=READERS | OWN)
    async def list_endpoints(self, call: Call[Query, Nothing]) -> WebhookEndpointList:
        """List the webhook endpoints of a customer, without secrets."""
        async with self._database.reading() as connection:
            rows = await endpoints.list_endpoints(connection, call.path("customer"))
        return {"endpoints": rows}

    @post(
        "/v1/customers/{customer}/webhook-endpoints",
        example={"url": "https://hooks.acme.example/edge", "types": ["invoice.paid", "usage.threshold_reached"]},
        status=201,
        change=CREATE,
        hides="secret",
    )
    async def create_endpoint(
        self, call: Call[ChangeQuery, CreateWebhookEndpointRequest], connection: AsyncConnection
    ) -> Result[WebhookEndpointWithSecret]:
        """Create a webhook endpoint. Only this answer contains its secret."""
        settings = self._get_webhooks()
        customer = call.path("customer")
        return Result(await endpoints.create_endpoint(connection, call.caller, customer, call.body, settings), 1)

    @get("/v1/customers/{customer}/webhook-endpoints/{endpoint}", roles=READERS | OWN, response_headers=("ETag",))
    async def fetch_endpoint(self, call: Call[Query, Nothing]) -> Result[WebhookEndpoint]:
        """Fetch a webhook endpoint, without its secret."""
        async with self._database.reading() as connection:
            row = await self._get_row(connection, call, lock=False)
        return Result(endpoints.to_response(row), row.version)

    @patch(
        "/v1/customers/{customer}/webhook-endpoints/{endpoint}",
        example={"types": ["invoice.paid", "payment.failed"]},
        change=UPDATE,
    )
    async def update_endpoint(
        self, call: Call[ChangeQuery, UpdateWebhookEndpointRequest], connection: AsyncConnection
    ) -> Result[WebhookEndpoint]:
        """Update a webhook endpoint, or disable or enable it."""
        settings, match = self._get_webhooks(), parse_if_match(call.request)
        row = await self._get_row(connection, call)
        return Result(*await endpoints.update_endpoint(connection, call.caller, row, call.body, settings, match))

    @delete("/v1/customers/{customer}/webhook-endpoints/{endpoint}")
    async def delete_endpoint(self, call: Call[ChangeQuery, Nothing], connection: AsyncConnection) -> WebhookEndpoint:
        """Delete a webhook endpoint, and the messages on their way to it."""
        row = await self._get_row(connection, call)
        return await endpoints.delete_endpoint(connection, call.caller, row)

    @post("/v1/customers/{customer}/webhook-endpoints/{endpoint}/secret", status=201, change=CREATE, hides="secret")
    async def rotate_secret(
        self, call: Call[ChangeQuery, Nothing], connection: AsyncConnection
    ) -> Result[WebhookEndpointWithSecret]:
        """Give a webhook endpoint a new secret. The old one signs too for 24 hours."""
        settings = self._get_webhooks()
        row = await self._get_row(connection, call)
        rotated = await endpoints.rotate_secret(connection, call.caller, row, settings)
        return Result(rotated, row.version + 1)

    @post(
        "/v1/customers/{customer}/webhook-endpoints/{endpoint}/test",
        status=202,
        errors={409: "The endpoint is disabled, or the message is on its way already."},
    )
    async def send_test(self, call: Call[ChangeQuery, Nothing], connection: AsyncConnection) -> WebhookDelivery:
        """Send a message of the type `webhook.test`."""
        row = await self._get_row(connection, call)
        return await endpoints.send_test(connection, call.caller, row)

    @get("/v1/customers/{customer}/webhook-endpoints/{endpoint}/messages", roles=READERS | OWN)
    async def list_messages(self, call: Call[MessagesQuery, Nothing]) -> WebhookDeliveryList:
        """List the messages to a webhook endpoint in the last 30 days, latest first."""
        query = call.query
        async with self._database.reading() as connection:
            row = await self._get_row(connection, call, lock=False)
            messages = await endpoints.list_messages(connection, row, query.cursor, query.limit)
        return {"messages": messages, **next_page(messages.next)}

    @post(
        "/v1/customers/{customer}/webhook-endpoints/{endpoint}/messages/{message}/redeliver",
        status=202,
        errors={409: "The endpoint is disabled, or the message is on its way already."},
    )
    async def redeliver_message(self, call: Call[ChangeQuery, Nothing], connection: AsyncConnection) -> WebhookDelivery:
        """Send a message again, even if it was accepted before."""
        row, message = await self._get_row(connection, call), call.path("message")
        return await endpoints.redeliver_message(connection, call.caller, row, message)


GROUP = Group(
    "webhook-endpoints",
    "Customers' own webhooks: endpoints that receive events, and the messages to them.",
    WebhookEndpointHandlers,
    roles=SUPPORT | OWN,
    parameters={
        "endpoint": PathParameter("The id of the webhook endpoint, such as `we_…`."),
        "message": PathParameter("The id of the message, such as `msg_…`."),
    },
)
