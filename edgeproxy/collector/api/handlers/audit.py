"""Who did what."""

from aiohttp import web

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.api.endpoint import Call, Nothing
from edgeproxy.collector.api.ledger_models import AuditQuery
from edgeproxy.collector.api.responses import answer
from edgeproxy.collector.database.database import Database


class AuditHandlers:
    """Tells what the audit log says."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, call: Call[AuditQuery, Nothing]) -> web.Response:
        """Send entries: `{entries, next}`; `next` is the `after` of the page that follows."""
        query = call.query
        only = query.model_dump(include={"actor", "action", "target"}, exclude_none=True)
        async with self._database.reading(whole=True) as connection:
            entries = await audit.list_entries(
                connection, query.after, query.limit, newest_first=query.order == "newest", **only
            )
        more = {"next": entries[-1]["seq"]} if len(entries) == query.limit else {}
        return answer(200, {"entries": entries, **more})
