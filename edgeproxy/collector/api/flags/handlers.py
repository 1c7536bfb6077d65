"""Feature flags."""

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import flags
from edgeproxy.collector.accounts.models import FlagRequest
from edgeproxy.collector.api.changes import ChangeHandlers, ChangeResult, answer_with_etag, parse_if_match
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.responses import answer


class FlagHandlers(ChangeHandlers):
    """Handlers of flags."""

    async def list_flags(self, _: Call[Query, Nothing]) -> web.Response:
        """List all flags."""
        async with self._database.reading() as connection:
            return answer(200, {"flags": await flags.list_flags(connection)})

    async def fetch_flag(self, call: Call[Query, Nothing]) -> web.Response:
        """Fetch a flag."""
        async with self._database.reading() as connection:
            row = await flags.get_row(connection, call.path("flag"))
        return answer_with_etag(200, flags.to_response(row), row.version)

    async def put_flag(self, call: Call[ChangeQuery, FlagRequest]) -> web.Response:
        """Set the holders of a flag."""

        async def make(connection: AsyncConnection) -> ChangeResult:
            name, match = call.path("flag"), parse_if_match(call.request)
            return ChangeResult(200, *await flags.put_flag(connection, call.caller, name, call.body, match=match))

        return await self._change(call, make)
