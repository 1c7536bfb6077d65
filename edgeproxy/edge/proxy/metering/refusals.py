"""Meters of refusals by limits, counted by customer and route like usage, if a meter counts them.

A request that passes pays nothing for it. A refused one pays for a look-up in a small dictionary.
"""

from collections.abc import Callable

from edgeproxy.config import dimensions
from edgeproxy.config.dimensions import OTHER, VALUE
from edgeproxy.config.meters import CERTAIN, LIMIT
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.metering.meters import Countable


class RefusalMeters:
    """The refusals of a customer on a route."""

    __slots__ = ("_counter", "_counters")

    def __init__(self, counter: Callable[[str], tuple[Countable, ...]]) -> None:
        """`counter` returns the counters for dimensions as text."""
        self._counter = counter
        self._counters: dict[tuple[str, bool], tuple[Countable, ...]] = {}

    def record_refusal(self, limit: str, *, certain: bool) -> None:
        """Count a refusal by this limit. `certain`: the edge knew everything that counts for it.

        If the table is busy, the refusal is not counted: the client must still get the refusal and no other error.
        """
        counters = self._counters.get((limit, certain))
        if counters is None:
            value = limit if VALUE.fullmatch(limit) else OTHER
            try:
                counters = self._counter(
                    dimensions.format_dimensions({LIMIT: value, CERTAIN: "yes" if certain else "no"})
                )
            except RejectedError:
                return
            self._counters[limit, certain] = counters
        for counter in counters:
            counter.add(1)
