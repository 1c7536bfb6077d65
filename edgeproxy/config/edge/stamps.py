"""The stamps: fields that only the edge may set in requests to upstreams.

This table is complete. Route bindings make their upstream lines from it. Its names, in every spelling
(edge/http1/fields.py), are the fields that are dropped from clients' requests: a stamp that is made here cannot be
forged. No setting can use such a name for a key, a rule or a rewrite. Fields that trusted proxies may set too, for
example X-Forwarded-For, have rules of their own in edge/http1/fields.py.
"""

from collections.abc import Callable
from typing import Final, NamedTuple


class StampValues(NamedTuple):
    """The values of stamps: the edge's region, and the customer and the tier of the request; None if it has none."""

    region: str
    customer: str | None
    tier: str | None


Value = Callable[[StampValues], str | None]
"""The value of a stamp; None to leave the field out."""

STAMPS: Final[dict[bytes, Value | None]] = {
    b"X-Edge-Region": lambda binding: binding.region,
    b"X-Customer-Id": lambda binding: binding.customer,
    b"X-Customer-Tier": lambda binding: binding.tier,
    b"X-Edge-Signature": None,
}
"""Each stamp, and the function that makes its value; None: the value is new for each request, and `format_opening`
makes the part of the line before it.
"""

STAMP_FIELDS: Final = frozenset(name.decode().lower() for name in STAMPS)
"""The names of the stamps in lower case, for settings."""
