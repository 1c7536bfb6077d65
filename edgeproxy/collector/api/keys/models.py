"""Queries of keys."""

from typing import Literal

from edgeproxy.collector.api.endpoint import Query
from edgeproxy.collector.api.field_types import Cursor, PageLimit, Truth


class KeysQuery(Query):
    """The page of keys."""

    limit: PageLimit = 100
    """The number of keys on the page, at most."""
    cursor: Cursor | None = None
    """The `next` of the page before; by default the first page."""
    sort: Literal["created_at", "-created_at", "name", "-name", "last_used_on", "-last_used_on"] = "created_at"
    """The order of keys; with `-` the other way round. Keys without a name or a use are before all others."""
    due: Truth = False
    """True lists the keys alone that are to be rotated: those of which the customer is alerted."""
