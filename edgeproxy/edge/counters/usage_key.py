"""The key of a row of the usage table.

It consists of customer, meter and route, and a part for each dimension (`model=m1`), in the order of their names. If a
customer is of another residency than the edge's own, the residency comes before the name: `us:acme`. So each row
belongs to one chain of batches for ever (edge/usage/chains.py).
"""

from edgeproxy.config import dimensions
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.tallies import names, tally_key

UsageKeyParts = tuple[str, str, str, str]
"""Customer, meter, route and the text of the dimensions, empty without any."""
UsageTotal = tuple[str, str, str, int] | tuple[str, str, str, int, str]
"""Customer, meter, route, total, and the text of the dimensions if there are any."""


RESIDENCY_MARK = ":"
"""Separates a residency from the name of a customer; no name has it."""


def qualify_customer(customer: str, residency: str) -> str:
    """Return the counted name for the usage of a customer; `residency` is empty for the edge's own."""
    return f"{residency}{RESIDENCY_MARK}{customer}" if residency else customer


def split_customer(counted_as: str) -> tuple[str, str]:
    """Return the residency of a customer, empty for the edge's own, and the name, of a name in the usage table."""
    residency, mark, customer = counted_as.partition(RESIDENCY_MARK)
    return (residency, customer) if mark else ("", counted_as)


def usage_key(counted: UsageKeyParts) -> bytes:
    """Return the key of a count. Without dimensions it may be cut to the room of a row, like all keys."""
    customer, meter, route, split = counted
    if not split:
        return tally_key(customer, meter, route)
    parts = [f"{name}={value}" for name, value in sorted(dimensions.parse_dimensions(split).items())]
    return "\0".join([customer, meter, route, *parts]).encode()


def has_room(key: bytes) -> bool:
    """Return whether a row has room for this key."""
    return len(key) <= at.TALLY_KEY_BYTES


def parse_usage_key(key: bytes) -> UsageKeyParts:
    """Parse the key of a row of usage; raises ValueError if it is another kind of key."""
    customer, meter, route, *parts = names(key)
    pairs = [part.partition("=") for part in parts]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError(f"{key!r} counts no usage")
    return customer, meter, route, dimensions.format_dimensions({name: value for name, _, value in pairs})
