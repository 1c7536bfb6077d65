"""What the endpoints of quotas and holdings take and give."""

from typing import Annotated, NotRequired

from pydantic import BeforeValidator
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.models import Body, Span
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.ledger_models import DIRECTORY_WAIT_SECONDS_MAX, PageLimit, Printed, in_query
from edgeproxy.collector.quotas.quota_status import QuotaStatus
from edgeproxy.config.units import Whole


class QuotaList(TypedDict):
    """The quotas of a customer, and what is used of them."""

    customer: str
    quotas: list[QuotaStatus]


class HoldingTaken(Body):
    """How a place is taken."""

    ttl: Span | None = None
    """After which time it is given back by itself; by default never."""


class Allocation(TypedDict):
    """A place that is taken."""

    item: str
    taken_at: str
    expires_at: str | None


class AllocationResult(Allocation):
    """A place that is taken, and how many are; `allowed` is null where there may be any number."""

    customer: str
    meter: str
    used: int
    allowed: int | None


class AllocationList(TypedDict):
    """A page of the places that are taken, in the order of their items."""

    holdings: list[Allocation]
    used: int
    allowed: int | None
    next: NotRequired[str]


class HoldingsQuery(Query):
    """Which page."""

    limit: PageLimit = 100
    cursor: Printed | None = None


SEQ_MAX = (1 << 53) - 1


class QuotaNewsQuery(Query):
    """What of the counts of quotas is asked for."""

    after: Annotated[int, BeforeValidator(Whole(0, SEQ_MAX)), in_query(0, SEQ_MAX)] = 0
    """The number of the change up to which all are known."""
    wait: Annotated[int, BeforeValidator(Whole(0, DIRECTORY_WAIT_SECONDS_MAX)), in_query(0, 30)] = 0
    """Seconds to wait until there is another."""


class QuotaCountEntry(TypedDict):
    """What the ledger has counted of a quota in a day or a month of its time zone."""

    seq: int
    customer: str
    meter: str
    per: str
    timezone: str
    period: int
    used: int


class QuotaCounts(TypedDict):
    """What is new of quotas that are nearly used up, oldest first; `newest` is the number of the latest change."""

    newest: int
    quotas: list[QuotaCountEntry]
