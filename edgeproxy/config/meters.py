"""Meters: what is counted for billing, with a row for each `count` that may be written."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BeforeValidator, Field, model_validator

from edgeproxy.config import parsers, units
from edgeproxy.config.dimensions import VALUES_MAX
from edgeproxy.config.field_types import DimensionName, FieldName, Switch
from edgeproxy.config.part import Part

CountName = Literal[
    "requests", "bytes_in", "bytes_out", "cost", "response_header", "response_trailer", "events", "holdings", "refusals"
]
AggregateName = Literal["sum", "max", "last", "average", "unique"]
"""What the events of a meter come to."""


class Measure(NamedTuple):
    """One thing that a meter may count."""

    per_request: Callable[[int], int] | None = None
    """What a request counts for on a route of this `cost`; None: that is known later (edge/proxy/metering.py)."""
    bytes_in: bool = False
    """The bytes of the request's body are counted, and those that the client sends through a tunnel."""
    bytes_out: bool = False
    """The bytes of the answer's body are counted, and those that the upstream sends through a tunnel."""
    in_head: bool = False
    """The number is counted that the upstream reports in the meter's field, in the head of its answer."""
    in_trailers: bool = False
    """The number is counted that the upstream reports there among the trailers of its answer."""
    is_of_refusals: bool = False
    """Counted are not requests that were served, but those that a limit refused, by REFUSAL_DIMENSIONS."""
    is_of_services: bool = False
    """Nothing is counted at the edge: services tell the collector, of what was used, or of what exists."""

    @property
    def is_reported(self) -> bool:
        """Whether upstreams report it in a field, which the meter names."""
        return self.in_head or self.in_trailers


MEASURES: Final[dict[CountName, Measure]] = {
    "requests": Measure(per_request=lambda cost: 1),
    "cost": Measure(per_request=lambda cost: cost),
    "bytes_in": Measure(bytes_in=True),
    "bytes_out": Measure(bytes_out=True),
    "response_header": Measure(in_head=True),
    "response_trailer": Measure(in_trailers=True),
    "events": Measure(is_of_services=True),
    "holdings": Measure(is_of_services=True),
    "refusals": Measure(is_of_refusals=True),
}
OVER_CAP: Final = "cost-over-cap"
"""The meter by which edges count by how much answers have cost more than a customer's `caps.request`, in millicredits.
Nobody configures it: the collector tells people of it."""
LIMIT, CERTAIN = "limit", "certain"
REFUSAL_DIMENSIONS: Final = {LIMIT: 100, CERTAIN: 2}
"""What refusals are split by, and how many values of each there may be: the limit that refused, and `yes` or `no` for
whether the edge knew of all that counts for it."""


def compute_request_amount(count: CountName, cost: int) -> int:
    """Return what a request counts for on a route of this `cost`; 0 where that is known later."""
    amount = MEASURES[count].per_request
    return 0 if amount is None else amount(cost)


def add_refusal_dimensions(meter: Any) -> Any:
    """Give a meter of refusals its dimensions, which nobody writes."""
    if isinstance(meter, Mapping) and meter.get("count") == "refusals":
        return {**meter, "dimensions": {name: {"values": most} for name, most in REFUSAL_DIMENSIONS.items()}}
    return meter


class Dimension(Part):
    """What the usage of a meter is split by, such as the model that was asked."""

    values: Annotated[int, BeforeValidator(units.Whole(1, VALUES_MAX))]
    """How many values of it a customer may have in a month; what is beyond them counts as `~other`."""
    header: FieldName | None = None
    """The field in the head of the upstream's answer that has the value; events say it themselves."""


class Meter(Part):
    """A named thing that is counted for billing."""

    count: CountName
    """What is counted: requests, the bytes of bodies and tunnels, costs of routes, what upstreams report, or the events
    that services report to the collector."""
    when: Literal["answered", "success", "admitted"] = "answered"
    """Which requests count: answered below 500, successful (2xx and 3xx), or all that were let through."""
    header: FieldName | None = None
    """The field in which the upstream reports a whole number, in the head or among the trailers of its answer."""
    pass_: Switch = Field(default=False, alias="pass")
    """Whether the client gets the fields in which the upstream reports."""
    aggregate: AggregateName = "sum"
    """What events come to: their sum, the highest level, the last one, the average over time, or how many differ. Of
    places that are billed, the highest number that is held at once, or the average."""
    dimensions: dict[DimensionName, Annotated[Dimension, BeforeValidator(parsers.read_dimension)]] = {}
    """What usage is split by beside customer and route; by default nothing."""

    _split = model_validator(mode="before")(add_refusal_dimensions)
