"""The audit log."""

from typing import Annotated, Literal, NotRequired, cast

from pydantic import BeforeValidator, Field, JsonValue, WithJsonSchema
from typing_extensions import TypedDict

from edgeproxy.collector.accounts import audit
from edgeproxy.collector.accounts.audit import PAGE_ENTRIES_MAX, EntryTimes
from edgeproxy.collector.accounts.fields import parse_end
from edgeproxy.collector.api.endpoint import ADMIN, Call, Nothing, Query, get
from edgeproxy.collector.api.field_types import A_MOMENT, SEQ_MAX, Printed, in_query
from edgeproxy.collector.api.group import Group, Handlers
from edgeproxy.collector.api.responses import next_page
from edgeproxy.config.units import Whole


class AuditQuery(Query):
    """Filters of entries of the audit log, and the page."""

    after: Annotated[int, BeforeValidator(Whole(0, SEQ_MAX)), in_query(0, SEQ_MAX)] = 0
    """Start the page after the entry with this number; by default 0."""
    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_ENTRIES_MAX)), in_query(1, PAGE_ENTRIES_MAX)] = 100
    """The number of entries on the page, at most."""
    order: Literal["oldest", "newest"] = "oldest"
    """`oldest` starts with the oldest entry; `newest` goes back from the latest, or from `after`."""
    since: Annotated[int, BeforeValidator(parse_end), WithJsonSchema(A_MOMENT)] | None = Field(
        default=None, alias="from"
    )
    """Only entries from this time on, in UTC."""
    until: Annotated[int, BeforeValidator(parse_end), WithJsonSchema(A_MOMENT)] | None = Field(default=None, alias="to")
    """Only entries before this time, in UTC."""
    actor: Printed | None = None
    """Only entries of this token or operator."""
    action: Printed | None = None
    """Only entries of this action, for example `customer.change`."""
    target: Printed | None = None
    """Only entries about this target, for example a customer's name."""


class AuditLogEntry(TypedDict):
    """A change, or a request that was denied."""

    seq: int
    """The number of the entry, from 1."""
    at: str
    """The time of the change."""
    actor: str
    """The token, operator or contact that made the change; `unknown` if the caller was not identified."""
    origin: str
    """The address of the caller; empty for changes by the collector itself."""
    action: str
    """The action, for example `customer.change`."""
    target: str
    """The object of the change, for example a customer's name."""
    before: dict[str, JsonValue] | None
    """The values before the change, without secrets; null if there were none."""
    after: dict[str, JsonValue] | None
    """The values after the change, without secrets; null if there are none."""
    request_id: str
    """The id of the request; empty for changes by the collector itself."""
    hash: str
    """The hash over this entry and the previous entry's hash, in hex digits."""


class AuditPage(TypedDict):
    """A page of the audit log, oldest first."""

    entries: list[AuditLogEntry]
    """The entries of this page, oldest first, or newest first if the query asks for that order."""
    next: NotRequired[int]
    """The `after` of the next page; missing on the last one."""


class AuditActors(TypedDict):
    """The actors of recent changes."""

    actors: list[str]
    """The tokens, operators and contacts of the latest 1,000 entries, by name."""


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
