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
    """A quota, its use, and the routes whose requests it may refuse."""

    routes: list[str]
    """The routes whose requests the quota may refuse: names, or patterns such as `chat-*`. By default the routes of its
    meter; if `scopes` is empty too, all requests that feed the meter.
    """
    scopes: list[str]
    """The scopes of further routes whose requests the quota may refuse."""


class QuotaList(TypedDict):
    """The quotas of a customer, and their use."""

    customer: str
    """The customer, by name."""
    quotas: list[HeldQuota]
    """The status of each quota."""


class AllocateItemRequest(Body):
    """The options of an allocation."""

    ttl: Span | None = None
    """The lifetime of the allocation, such as 12h. It is then released. By default it has no end."""


class AllocationResponse(TypedDict):
    """An allocated item."""

    item: str
    """The item, by the service's own name for it."""
    taken_at: str
    """The time of the allocation."""
    expires_at: str | None
    """The time when the allocation is released by itself; null if it is not."""


class AllocatedItem(AllocationResponse):
    """An allocated item, and the total number of items. `allowed` is null if the quota allows any number."""

    customer: str
    """The customer, by name."""
    meter: str
    """The meter of the quota."""
    used: int
    """The number of items allocated."""
    allowed: int | None
    """The number of items that the quota allows; null if it allows any number."""


class AllocationList(TypedDict):
    """A page of the allocated items, in the order of their names."""

    holdings: list[AllocationResponse]
    """The allocations of this page, in the order of their items' names."""
    used: int
    """The number of items allocated."""
    allowed: int | None
    """The number of items that the quota allows; null if it allows any number."""
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
    """The seconds to wait if there is no change yet."""


class QuotaCountEntry(TypedDict):
    """The count of a quota in the ledger, for a day or a month in its time zone."""

    seq: int
    """The number of the change."""
    customer: str
    """The customer, by name."""
    meter: str
    """The meter of the quota."""
    per: Literal["day", "month"]
    """The period of the quota: `day` or `month`."""
    timezone: str
    """The time zone whose midnight starts a period, such as Europe/Berlin."""
    period: int
    """The number of the counted day or month."""
    used: int
    """The units that the ledger has counted in that period."""


class QuotaCounts(TypedDict):
    """The changes of quotas that are nearly used up, oldest first. `newest` is the number of the latest change."""

    newest: int
    """The number of the latest change."""
    quotas: list[QuotaCountEntry]
    """The changes after the one named in the query, oldest first."""
