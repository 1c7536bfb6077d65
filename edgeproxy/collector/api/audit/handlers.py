"""The audit log."""

from aiohttp import web

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import EntryTimes
from edgeproxy.collector.api.audit.models import AuditQuery
from edgeproxy.collector.api.endpoint import Call, Nothing, Query
from edgeproxy.collector.api.group import Handlers
from edgeproxy.collector.api.responses import answer, answer_page


class AuditHandlers(Handlers):
    """Handlers of the audit log."""

    async def list_entries(self, call: Call[AuditQuery, Nothing]) -> web.Response:
        """List a page of entries. `next` is the `after` of the next page."""
        query = call.query
        filters = query.model_dump(include={"actor", "action", "target"}, exclude_none=True)
        times = EntryTimes(query.since, query.until)
        newest_first = query.order == "newest"
        async with self._database.reading(whole=True) as connection:
            entries = await audit.list_entries(
                connection, query.after, query.limit, newest_first=newest_first, times=times, **filters
            )
        return answer_page("entries", entries, entries.next)

    async def list_actors(self, _: Call[Query, Nothing]) -> web.Response:
        """List the actors of recent changes."""
        async with self._database.reading(whole=True) as connection:
            actors = await audit.list_actors(connection)
        return answer(200, {"actors": actors})
