"""Timeouts of upstreams and routes, in seconds."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from edgeproxy.config import units
from edgeproxy.config.part import Part

Duration = Annotated[float, BeforeValidator(units.read_duration)]


class Timeouts(Part):
    """Times that an upstream may take."""

    connect: Duration = Field(
        default=5.0,
        description="Until a connection is made. Not below `3s`: if the service's queue is full, a connection attempt "
        "is repeated after one second, then after two more.",
    )
    response_head: Duration = Field(
        default=60.0,
        description="From the request to the head of its answer; then 504. Set it above the time of the slowest call.",
    )
    idle: Duration = Field(
        default=60.0,
        description="Between two pieces of a body, and at most for an idle connection. A `text/event-stream` may be "
        "silent for longer: it ends when TCP finds that the other host is gone, within about 90 s.",
    )
    tunnel: Duration = Field(
        default=3600.0,
        description="Silence of a WebSocket, in both directions. Then both sides get a close frame (1001), and the "
        "connections end two seconds later. Pings count as well. A connection with another protocol of `upgrade` "
        "is cut.",
    )
    total: Duration | None = Field(
        default=None,
        description="From the head of a request to the end of its answer. Then 408 or 504, or the answer is cut. For "
        "services with few threads. Not for WebSockets. By default any time.",
    )


class RouteTimeouts(Part):
    """Timeouts of a route. Each replaces [the upstream's](#upstreamsnametimeouts)."""

    response_head: Duration | None = Field(
        default=None, description="From the request to the head of its answer. By default the upstream's time."
    )
    idle: Duration | None = Field(
        default=None, description="Between two pieces of a body. By default the upstream's time."
    )
    tunnel: Duration | None = Field(
        default=None, description="Silence of a WebSocket, in both directions. By default the upstream's time."
    )
    total: Duration | None = Field(
        default=None,
        description="From the head of a request to the end of its answer. By default the upstream's time.",
    )
