"""How long upstreams may take: in general, and on a route. In seconds."""

from typing import Annotated

from pydantic import BeforeValidator

from edgeproxy.config import units
from edgeproxy.config.part import Part

Duration = Annotated[float, BeforeValidator(units.read_duration)]


class Timeouts(Part):
    """How long an upstream may take, in seconds."""

    connect: Duration = 5.0
    """To accept a connection."""
    response_head: Duration = 60.0
    """From the request sent to the head of its answer."""
    idle: Duration = 60.0
    """Between two pieces of a body."""
    total: Duration | None = None
    """From a request's head to the end of its answer; by default any time."""


class RouteTimeouts(Part):
    """How long requests of a route may take, where that is not what holds for its upstream."""

    response_head: Duration | None = None
    """From the request sent to the head of its answer."""
    idle: Duration | None = None
    """Between two pieces of a body."""
    total: Duration | None = None
    """From a request's head to the end of its answer."""
