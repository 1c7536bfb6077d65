"""The audit log."""

from typing import cast

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import EntryTimes
from edgeproxy.collector.api.audit.models import AuditActors, AuditLogEntry, AuditPage, AuditQuery
from edgeproxy.collector.api.endpoint import ADMIN, Call, Nothing, Query, get
from edgeproxy.collector.api.group import Group, Handlers
from edgeproxy.collector.api.responses import next_page


class AuditHandlers(Handlers):
    """Handlers of the audit log."""

    @get("/v1/audit")
    async def list_entries(self, call: Call[AuditQuery, Nothing]) -> AuditPage:
        """List the audit log, oldest entry first."""
        query = call.query
        filters = query.model_dump(include={"actor", "action", "target"}, exclude_none=True)
        times = EntryTimes(query.since, query.until)
        newest_first = query.order == "newest"
        async with self._database.reading(whole=True) as connection:
            entries = await audit.list_entries(
                connection, query.after, query.limit, newest_first=newest_first, times=times, **filters
            )
        return {"entries": cast(list[AuditLogEntry], entries), **next_page(entries.next)}

    @get("/v1/audit/actors")
    async def list_actors(self, _: Call[Query, Nothing]) -> AuditActors:
        """List the actors of recent changes."""
        async with self._database.reading(whole=True) as connection:
            actors = await audit.list_actors(connection)
        return {"actors": actors}


GROUP = Group(
    "audit", "The audit log: each change, its actor, and the values before and after.", AuditHandlers, roles=ADMIN
)
