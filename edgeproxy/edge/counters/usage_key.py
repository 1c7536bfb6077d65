"""The key of a row of the usage table.

It consists of customer, meter and route, and a part such as `model=m1` for each dimension, in the order of their names.
A customer of another residency than the edge's own has that before the name: `us:acme`. So each row belongs to one
chain of batches for ever (edge/usage/chains.py).
"""

from edgeproxy.config import dimensions
from edgeproxy.edge.counters import layout as at
from edgeproxy.edge.counters.tallies import names, tally_key

UsageKeyParts = tuple[str, str, str, str]
"""Customer, meter, route and the text of the dimensions, empty where there are none."""
UsageTotal = tuple[str, str, str, int] | tuple[str, str, str, int, str]
"""Customer, meter, route, total, and the text of the dimensions where there are any."""


RESIDENCY_MARK = ":"
"""Stands between a residency and the name of a customer; no name has it."""


def qualify_customer(customer: str, residency: str) -> str:
    """Return the name under which the usage of a customer is counted; `residency` is empty for the edge's own."""
    return f"{residency}{RESIDENCY_MARK}{customer}" if residency else customer


def split_customer(counted_as: str) -> tuple[str, str]:
    """Return the residency of a customer, empty for the edge's own, and the name, of a name in the usage table."""
    residency, mark, customer = counted_as.partition(RESIDENCY_MARK)
    return (residency, customer) if mark else ("", counted_as)


def usage_key(counted: UsageKeyParts) -> bytes:
    """Return the key of a count. Without dimensions it may be cut, as all keys, to what a row has room for."""
    customer, meter, route, split = counted
    if not split:
        return tally_key(customer, meter, route)
    parts = [f"{name}={value}" for name, value in sorted(dimensions.parse_dimensions(split).items())]
    return "\0".join([customer, meter, route, *parts]).encode()


def has_room(key: bytes) -> bool:
    """Return whether a row has room for this key."""
    return len(key) <= at.TALLY_KEY_BYTES


def parse_usage_key(key: bytes) -> UsageKeyParts:
    """Parse the key of a row of usage; raises ValueError where it is another kind of key."""
    customer, meter, route, *parts = names(key)
    pairs = [part.partition("=") for part in parts]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError(f"{key!r} counts no usage")
    return customer, meter, route, dimensions.format_dimensions({name: value for name, _, value in pairs})
