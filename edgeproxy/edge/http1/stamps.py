"""The stamps: fields that only the edge may set in requests to upstreams.

This table is complete. Route bindings make their upstream lines from it. Its names, in every spelling (fields.py), are
the fields that are dropped from clients' requests: a stamp that is made here cannot be forged. Fields that trusted
proxies may set too, for example X-Forwarded-For, have rules of their own in fields.py.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from edgeproxy.edge.http1.grammar import parse_field_name


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


def format_lines(binding: StampValues) -> bytes:
    """Format the lines of all stamps that do not change between requests of a route binding, each with its CRLF."""
    values = [(name, value(binding)) for name, value in STAMPS.items() if value is not None]
    return b"".join([b"%b: %b\r\n" % (name, value.encode()) for name, value in values if value is not None])


@lru_cache(maxsize=4096)
def append_empty(block: bytes) -> bytes:
    """Append an empty line for each stamp that `format_lines` left out of this block: a server that overwrites fields
    with these lines then overwrites a client's too.
    """
    present = {parse_field_name(line) for line in block.split(b"\r\n")}
    missing = [name for name, value in STAMPS.items() if value is not None and name.lower() not in present]
    return block + b"".join([b"%b: \r\n" % name for name in missing])


def format_opening(name: bytes) -> bytes:
    """Format the line of a stamp up to its value. Raises ValueError if clients could send this field too."""
    if name not in STAMPS:
        raise ValueError(f"{name.decode()} is no stamp: clients could send it too")
    return name + b": "
