"""The stamps: fields that only the edge may set on what it sends upstream.

This table is all there is of them. What route bindings put upstream is made of it, and the fields that are dropped from
clients' requests, in every spelling (fields.py), are its names: a stamp that is made here cannot be forged. Fields that
trusted proxies may set too, such as X-Forwarded-For, have rules of their own in fields.py.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

from edgeproxy.edge.http1.grammar import parse_field_name


class StampValues(NamedTuple):
    """The values of stamps: the edge's region, and the customer and the tier of who asks; None where there is none."""

    region: str
    customer: str | None
    tier: str | None


Value = Callable[[StampValues], str | None]
"""The value of a stamp; None where there is to be no such field."""

STAMPS: Final[dict[bytes, Value | None]] = {
    b"X-Edge-Region": lambda binding: binding.region,
    b"X-Customer-Id": lambda binding: binding.customer,
    b"X-Customer-Tier": lambda binding: binding.tier,
    b"X-Edge-Signature": None,
}
"""Each stamp, and how its value is made; None: anew for each request, of which `format_opening` makes the beginning."""


def format_lines(binding: StampValues) -> bytes:
    """Format the lines of all stamps that are the same for each request of a route binding, each with its CRLF."""
    values = [(name, value(binding)) for name, value in STAMPS.items() if value is not None]
    return b"".join([b"%b: %b\r\n" % (name, value.encode()) for name, value in values if value is not None])


@lru_cache(maxsize=4096)
def append_empty(block: bytes) -> bytes:
    """Append an empty line for each stamp that `format_lines` left out of this block: who overwrites fields with what
    stands here overwrites a client's too."""
    present = {parse_field_name(line) for line in block.split(b"\r\n")}
    missing = [name for name, value in STAMPS.items() if value is not None and name.lower() not in present]
    return block + b"".join([b"%b: \r\n" % name for name in missing])


def format_opening(name: bytes) -> bytes:
    """Format the line of a stamp up to its value. Raises ValueError where clients could send this field too."""
    if name not in STAMPS:
        raise ValueError(f"{name.decode()} is no stamp: clients could send it too")
    return name + b": "
