"""Queries of keys."""

from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import Cursor, PageLimit, Truth


class KeysQuery(Query):
    """The page of keys."""

    limit: PageLimit = 100
    """The number of keys on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""
    due: Truth = False
    """True lists the keys alone that are to be rotated: those of which the customer is alerted."""
