"""Meters of refusals by limits, counted by customer and route as usage is, where a meter asks for it.

Nothing is paid for it by a request that passes. One that is refused pays for a look into a small dictionary.
"""

from collections.abc import Callable

from edgeproxy.config import dimensions
from edgeproxy.config.dimensions import OTHER, VALUE
from edgeproxy.config.meters import CERTAIN, LIMIT
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.proxy.metering import Countable


class RefusalMeters:
    """The refusals of a customer on a route."""

    __slots__ = ("_counter", "_counters")

    def __init__(self, counter: Callable[[str], tuple[Countable, ...]]) -> None:
        """`counter`: the counters of dimensions as text."""
        self._counter = counter
        self._counters: dict[tuple[str, bool], tuple[Countable, ...]] = {}

    def record_refusal(self, limit: str, *, certain: bool) -> None:
        """Count a refusal by this limit. `certain`: whether the edge knew of all that counts for it.

        Where the table is busy it is not counted: whoever is refused need not be told something else for that.
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
