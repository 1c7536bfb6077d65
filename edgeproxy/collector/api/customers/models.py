"""Queries of customers."""

from typing import Literal

from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import Cursor, PageLimit, Printed


class CustomersQuery(Query):
    """Filters of customers, and the page."""

    limit: PageLimit = 100
    """The number of customers on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""
    name: Printed | None = None
    """Only the customer of this name."""
    ref: Printed | None = None
    """Only customers with this name, pseudonym, id or external id, on one page. There are two if one customer's name is
    another one's external id.
    """
    tier: Printed | None = None
    """Only customers of this tier."""
    external_id: Printed | None = None
    """Only the customer with this id in another system."""
    sort: Literal["created_at", "-created_at", "name", "-name", "tier", "-tier"] = "created_at"
    """The order of customers; `-` reverses it. `created_at` has the oldest first."""
    search: Printed | None = None
    """A part of a name or external id, the start of a key, an id, an address or its domain. All matches are on one
    page.
    """
