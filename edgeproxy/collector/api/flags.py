"""Feature flags."""

from sqlalchemy.ext.asyncio import AsyncConnection

from edgeproxy.collector.accounts import flags
from edgeproxy.collector.accounts.models import FlagList, FlagRequest, FlagResponse
from edgeproxy.collector.api.changes import ChangeHandlers, parse_if_match
from edgeproxy.collector.api.endpoint import ADMIN, READERS, UPDATE, Call, Nothing, Query, get, put
from edgeproxy.collector.api.field_types import ChangeQuery
from edgeproxy.collector.api.group import Group, PathParameter
from edgeproxy.collector.api.responses import Result


class FlagHandlers(ChangeHandlers):
    """Handlers of flags."""

    @get("/v1/flags", roles=READERS)
    async def list_flags(self, _: Call[Query, Nothing]) -> FlagList:
        """List all flags."""
        async with self._database.reading() as connection:
            return {"flags": await flags.list_flags(connection)}

    @get("/v1/flags/{flag}", roles=READERS, response_headers=("ETag",))
    async def fetch_flag(self, call: Call[Query, Nothing]) -> Result[FlagResponse]:
        """Fetch a flag."""
        async with self._database.reading() as connection:
            row = await flags.get_row(connection, call.path("flag"))
        return Result(flags.to_response(row), row.version)

    @put("/v1/flags/{flag}", roles=ADMIN, example={"percent": 10, "tiers": ["standard"]}, change=UPDATE)
    async def put_flag(self, call: Call[ChangeQuery, FlagRequest], connection: AsyncConnection) -> Result[FlagResponse]:
        """Set the customers that have a flag. If an edge's own files set the flag, those files apply there."""
        name, match = call.path("flag"), parse_if_match(call.request)
        return Result(*await flags.put_flag(connection, call.caller, name, call.body, match=match))


GROUP = Group(
    "flags",
    "Feature flags and the customers that have them.",
    FlagHandlers,
    parameters={"flag": PathParameter("The name of the flag.")},
)
