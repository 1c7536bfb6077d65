"""Handlers of customers' webhooks."""

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import webhook_endpoints
from edgeproxy.collector.accounts.webhook_endpoints import EndpointRow
from edgeproxy.collector.accounts.webhook_models import CreateWebhookEndpointRequest, UpdateWebhookEndpointRequest
from edgeproxy.collector.api.changes import ChangeHandlers, ChangeResult, answer_with_etag, parse_if_match
from edgeproxy.collector.api.endpoint import AnyCall, Call, Nothing, Query
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.responses import ProblemError, answer, answer_page
from edgeproxy.collector.api.webhook_endpoints.models import MessagesQuery
from edgeproxy.config.collector.webhooks import Webhooks


class WebhookEndpointHandlers(ChangeHandlers):
    """Handlers of endpoints of customers' webhooks, and of messages to them."""

    def _get_webhooks(self) -> Webhooks:
        """Return the configuration of webhooks. Raises ProblemError if there is none."""
        if self._settings.webhooks is None:
            raise ProblemError(404, "customers have no webhooks here: there is no webhooks in the collector's file")
        return self._settings.webhooks

    async def _get_row(self, connection: AsyncConnection, call: AnyCall, *, lock: bool = True) -> EndpointRow:
        return await webhook_endpoints.get_row(connection, call.path("customer"), call.path("endpoint"), lock=lock)

    async def list_endpoints(self, call: Call[Query, Nothing]) -> web.Response:
        """List the endpoints of a customer."""
        self._get_webhooks()
        async with self._database.reading() as connection:
            endpoints = await webhook_endpoints.list_endpoints(connection, call.path("customer"))
        return answer(200, {"endpoints": endpoints})

    async def create_endpoint(self, call: Call[ChangeQuery, CreateWebhookEndpointRequest]) -> web.Response:
        """Create an endpoint of a customer."""
        settings = self._get_webhooks()

        async def make(connection: AsyncConnection) -> ChangeResult:
            customer = call.path("customer")
            return ChangeResult(
                201,
                await webhook_endpoints.create_endpoint(connection, call.caller, customer, call.body, settings),
                1,
            )

        return await self._change(call, make, creates=True, hides="secret")

    async def fetch_endpoint(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch an endpoint."""
        self._get_webhooks()
        async with self._database.reading() as connection:
            row = await self._get_row(connection, call, lock=False)
        return answer_with_etag(200, webhook_endpoints.to_response(row), row.version)

    async def update_endpoint(self, call: Call[ChangeQuery, UpdateWebhookEndpointRequest]) -> web.Response:
        """Update an endpoint."""
        settings, match = self._get_webhooks(), parse_if_match(call.request)

        async def make(connection: AsyncConnection) -> ChangeResult:
            row = await self._get_row(connection, call)
            return ChangeResult(
                200, *await webhook_endpoints.update_endpoint(connection, call.caller, row, call.body, settings, match)
            )

        return await self._change(call, make)

    async def delete_endpoint(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Delete an endpoint."""
        self._get_webhooks()

        async def make(connection: AsyncConnection) -> ChangeResult:
            row = await self._get_row(connection, call)
            return ChangeResult(200, await webhook_endpoints.delete_endpoint(connection, call.caller, row))

        return await self._change(call, make)

    async def rotate_secret(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Give an endpoint a new secret."""
        settings = self._get_webhooks()

        async def make(connection: AsyncConnection) -> ChangeResult:
            row = await self._get_row(connection, call)
            rotated = await webhook_endpoints.rotate_secret(connection, call.caller, row, settings)
            return ChangeResult(201, rotated, row.version + 1)

        return await self._change(call, make, creates=True, hides="secret")

    async def send_test(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Send a test message to an endpoint."""
        self._get_webhooks()

        async def make(connection: AsyncConnection) -> ChangeResult:
            row = await self._get_row(connection, call)
            return ChangeResult(202, await webhook_endpoints.send_test(connection, call.caller, row))

        return await self._change(call, make)

    async def list_messages(self, call: Call[MessagesQuery, Nothing]) -> web.Response:
        """List the messages to an endpoint."""
        self._get_webhooks()
        query = call.query
        async with self._database.reading() as connection:
            row = await self._get_row(connection, call, lock=False)
            messages = await webhook_endpoints.list_messages(connection, row, query.cursor, query.limit)
        return answer_page("messages", messages, messages.next)

    async def redeliver_message(self, call: Call[ChangeQuery, Nothing]) -> web.Response:
        """Send a message to an endpoint again."""
        self._get_webhooks()

        async def make(connection: AsyncConnection) -> ChangeResult:
            row, message = await self._get_row(connection, call), call.path("message")
            return ChangeResult(202, await webhook_endpoints.redeliver_message(connection, call.caller, row, message))

        return await self._change(call, make)
