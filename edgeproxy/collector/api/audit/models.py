"""The audit log as the API shows it."""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import BeforeValidator
from typing_extensions import TypedDict

from edgeproxy.collector.accounts.audit import PAGE_ENTRIES_MAX
from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import SEQ_MAX, Printed, in_query
from edgeproxy.config.units import Whole


class AuditQuery(Query):
    """Which entries."""

    after: Annotated[int, BeforeValidator(Whole(0, SEQ_MAX)), in_query(0, SEQ_MAX)] = 0
    """The number of the entry after which the page begins; by default 0."""
    limit: Annotated[int, BeforeValidator(Whole(1, PAGE_ENTRIES_MAX)), in_query(1, PAGE_ENTRIES_MAX)] = 100
    """The number of entries on the page, at most."""
    order: Literal["oldest", "newest"] = "oldest"
    """`oldest` begins with the oldest entry; `newest` goes back from the latest, or from `after`."""
    actor: Printed | None = None
    """Only entries of this token or operator."""
    action: Printed | None = None
    """Only entries of this action, such as `customer.change`."""
    target: Printed | None = None
    """Only entries about this target, such as a customer's name."""


class AuditPage(TypedDict):
    """A page of the audit log, oldest first."""

    entries: list[dict[str, Any]]
    """Each with `seq`, `at`, `actor`, `origin`, `action`, `target`, its values `before` and `after`, `request_id`
    and `hash`."""
    next: NotRequired[int]
    """The `after` of the next page; missing on the last one."""
