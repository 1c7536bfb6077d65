"""Meters that are split by values that upstreams report in the heads of their answers, for example model or agent.

A route binding without such meters has no SplitMetering, and its requests pay nothing for it. With such meters, the
values in an answer's head select its counters.
"""

from collections.abc import Callable
from time import time
from typing import TYPE_CHECKING, NamedTuple

from edgeproxy.config import dimensions
from edgeproxy.config.dimensions import OTHER, VALUE
from edgeproxy.config.meters import MEASURES, is_by_key
from edgeproxy.edge.proxy.metering.meters import Clock, Countable, Metered, Metering, RelayedExchange, compile_field

if TYPE_CHECKING:
    from edgeproxy.config.meters import Dimension, Meter

DAY_SECONDS = 86400


class DimensionValues:
    """The values of customers' dimensions that this worker has counted on the current day in UTC."""

    def __init__(self) -> None:
        self._counted: dict[tuple[str, str, str], set[str]] = {}
        self.day = 0
        """The current day. Caches compare it with their own."""

    def begin_day(self, day: int) -> None:
        """Forget the values of the previous day. The collector bounds a customer's values per month."""
        if day != self.day:
            self._counted.clear()
            self.day = day

    def count_value(self, customer: str, meter: str, name: str, reported: bytes | None, dimension: "Dimension") -> str:
        """Return the value to count: the value itself, `~other` if it is invalid or one too many, or "" if there is
        none.
        """
        if reported is None:
            return ""
        value = reported.decode("latin-1")
        if not VALUE.fullmatch(value):
            return OTHER
        counted = self._counted.setdefault((customer, meter, name), set())
        if value not in counted:
            # Named values have prices, so they keep their place in a flood of others.
            if len(counted) >= dimension.values and value not in dimension.named:
                return OTHER
            counted.add(value)
        return value


class DimensionSource(NamedTuple):
    """A dimension of a meter, and the field with its value."""

    meter: str
    name: str
    field: str
    settings: "Dimension"


class SplitMetering(Metering):
    """A route binding's meters, some of them split.

    The meters for each combination of values are created at first use.
    """

    def __init__(
        self,
        customer: str,
        meters: "dict[str, Meter]",
        counter: Callable[[str, str], Countable],
        unreadable: Callable[[str, bytes], None],
        values: DimensionValues,
    ) -> None:
        """`counter` returns the counter for a meter and its dimensions as text.

        Meters of requests are among the `meters`.
        """
        super().__init__(meters, lambda name: counter(name, ""), unreadable)
        self._customer, self._meters, self._counter, self._values = customer, meters, counter, values
        self._sources = [
            DimensionSource(meter, name, dimension.header.lower(), dimension)
            for meter, settings in meters.items()
            for name, dimension in settings.dimensions.items()
            if dimension.header is not None
        ]
        shown = {source.field for source in self._sources if meters[source.meter].pass_}
        self._fields = {
            source.field: (compile_field(source.field), source.field not in shown) for source in self._sources
        }
        """The pattern of each field with a value, and True if only the edge may see the field."""
        self._by_values: dict[tuple[str, ...], Metering] = {}
        self._day = 0

    def read_whole(self, status: int, head: bytes, inward: int, outward: int, metered: Metered, clock: Clock) -> bytes:
        """Count a complete answer."""
        own, head = self._select_metering(head)
        # A split request counts with its values, which only the answer has.
        for counter in own[status].requests.counters:
            counter.add(1)
        return own.read_whole(status, head, inward, outward, metered, clock)

    def read_head(self, exchange: RelayedExchange, status: int, head: bytes) -> bytes:
        """Count when the head of an answer has come. The selected meters also read its trailers."""
        own, head = self._select_metering(head)
        for counter in own[status].requests.counters:
            counter.add(1)
        return own.read_head(exchange, status, head)

    def remove_hidden_fields(self, lines: bytes) -> bytes:
        """Return lines of a head without the ones for the edge alone."""
        return self._read_values(super().remove_hidden_fields(lines))[1]

    def _read_values(self, lines: bytes) -> tuple[dict[str, bytes], bytes]:
        """Return the values in these lines by the name of the field, and the lines without the ones for the edge
        alone.
        """
        values = {}
        for name, (field, hidden) in self._fields.items():
            parts = field.split(lines)
            if len(parts) > 1:
                values[name] = b",".join(parts[1::2]).strip()
                if hidden:
                    lines = b"".join(parts[::2])
        return values, lines

    def _select_metering(self, head: bytes) -> tuple[Metering, bytes]:
        """Return the meters for an answer's values, and its head without lines for the edge alone."""
        reported, head = self._read_values(head)
        values = self._values
        values.begin_day(int(time()) // DAY_SECONDS)
        if self._day != values.day:
            self._by_values.clear()
            self._day = values.day
        key = tuple(
            [
                values.count_value(self._customer, meter, name, reported.get(field), dimension)
                for meter, name, field, dimension in self._sources
            ]
        )
        own = self._by_values.get(key)
        if own is None:
            own = self._by_values[key] = self._create_metering(key)
        return own, head

    def _create_metering(self, key: tuple[str, ...]) -> Metering:
        split: dict[str, dict[str, str]] = {name: {} for name in self._meters}
        for (meter, name, _, _), value in zip(self._sources, key, strict=True):
            if value:
                split[meter][name] = value
        return Metering(
            self._meters,
            lambda name: self._counter(name, dimensions.format_dimensions(split[name])),
            self.report_unreadable,
        )


def is_split(meter: "Meter") -> bool:
    """Return whether the counter of a meter depends on an answer's values."""
    waits = any(not is_by_key(name, dimension) for name, dimension in meter.dimensions.items())
    return waits and not MEASURES[meter.count].is_of_services
