"""Quotas, their counts for edges, and allocations of what exists."""

from typing import Annotated, Literal, NotRequired

from pydantic import BeforeValidator
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.fields import Span
from edgeproxy.collector.accounts.models import Body
from edgeproxy.collector.api.directory.models import DIRECTORY_WAIT_SECONDS_MAX
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import PageLimit, Printed, in_query
from edgeproxy.collector.quotas.quota_status import QuotaStatus
from edgeproxy.config.units import Whole


class HeldQuota(QuotaStatus):
    """A quota, what is used of it, and the requests that it holds."""

    routes: list[str]
    """The routes whose requests the quota holds: names, or patterns such as `chat-*`. By default those of its meter;
    where `scopes` is empty, too, all requests that feed the meter."""
    scopes: list[str]
    """The scopes by which the quota holds the requests of routes."""


class QuotaList(TypedDict):
    """The quotas of a customer, and what is used of them."""

    customer: str
    """The customer, by name."""
    quotas: list[HeldQuota]
    """The status of each quota."""


class AllocateItemRequest(Body):
    """The options of an allocation."""

    ttl: Span | None = None
    """The time after which the allocation is released by itself, such as 12h; by default never."""


class AllocationResponse(TypedDict):
    """A place that is taken."""

    item: str
    """The item that is allocated, by the name that the service gave it."""
    taken_at: str
    """The time of the allocation."""
    expires_at: str | None
    """The time at which the allocation is released by itself; null where it is not."""


class AllocatedItem(AllocationResponse):
    """A place that is taken, and how many are; `allowed` is null where there may be any number."""

    customer: str
    """The customer, by name."""
    meter: str
    """The meter of the quota."""
    used: int
    """The number of items allocated."""
    allowed: int | None
    """The number of items that the quota allows; null where it allows any number."""


class AllocationList(TypedDict):
    """A page of the places that are taken, in the order of their items."""

    holdings: list[AllocationResponse]
    """The allocations of this page, in the order of their items."""
    used: int
    """The number of items allocated."""
    allowed: int | None
    """The number of items that the quota allows; null where it allows any number."""
    next: NotRequired[str]
    """The `cursor` of the next page; missing on the last one."""


class AllocationsQuery(Query):
    """The page of allocations."""

    limit: PageLimit = 100
    """The number of allocations on the page, at most."""
    cursor: Printed | None = None
    """The `next` of the page before; by default the first page."""


SEQ_MAX = (1 << 53) - 1


class QuotaCountsQuery(Query):
    """The last change of quota counts that the edge has, and the seconds to wait for the next."""

    after: Annotated[int, BeforeValidator(Whole(0, SEQ_MAX)), in_query(0, SEQ_MAX)] = 0
    """The number of the last change that the edge has; by default all changes are sent."""
    wait: Annotated[int, BeforeValidator(Whole(0, DIRECTORY_WAIT_SECONDS_MAX)), in_query(0, 30)] = 0
    """The seconds to wait for a change where there is none yet."""


class QuotaCountEntry(TypedDict):
    """The count of a quota in the ledger for a day or a month of its time zone."""

    seq: int
    """The number of the change."""
    customer: str
    """The customer, by name."""
    meter: str
    """The meter of the quota."""
    per: Literal["day", "month"]
    """The period of the quota: `day` or `month`."""
    timezone: str
    """The time zone whose midnight begins a period, such as Europe/Berlin."""
    period: int
    """The number of the day or month that is counted."""
    used: int
    """The units that the ledger has counted in that period."""


class QuotaCounts(TypedDict):
    """The changes of quotas that are nearly used up, oldest first; `newest` is the number of the latest change."""

    newest: int
    """The number of the latest change."""
    quotas: list[QuotaCountEntry]
    """The changes after the one named in the query, oldest first."""
