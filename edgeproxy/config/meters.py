"""What a meter may count: a row for each `count` that may be written."""

from collections.abc import Callable
from typing import Final, Literal, NamedTuple

CountName = Literal["requests", "bytes_in", "bytes_out", "cost", "response_header", "response_trailer"]


class Counted(NamedTuple):
    """One thing that a meter may count."""

    per_request: Callable[[int], int] | None = None
    """What a request counts for on a route of this `cost`; None: that is known later (proxy/metering.py)."""
    is_reported: bool = False
    """Upstreams report it in a field, which the meter names."""


COUNTED: Final[dict[CountName, Counted]] = {
    "requests": Counted(per_request=lambda cost: 1),
    "cost": Counted(per_request=lambda cost: cost),
    "bytes_in": Counted(),
    "bytes_out": Counted(),
    "response_header": Counted(is_reported=True),
    "response_trailer": Counted(is_reported=True),
}


def per_request(count: CountName, cost: int) -> int:
    """What a request counts for by this, on a route of this `cost`; 0 where that is known later."""
    amount = COUNTED[count].per_request
    return 0 if amount is None else amount(cost)
