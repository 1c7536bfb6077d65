"""The record of a traced request in progress. Few requests are traced, so it is an object of its own."""

from random import getrandbits
from typing import TYPE_CHECKING, Protocol

from edgeproxy.edge.http1.field_values import find_value

if TYPE_CHECKING:
    from edgeproxy.edge.body_usage.statement import StatedCounts
    from edgeproxy.edge.http1.grammar import TraceParent
    from edgeproxy.edge.limits.policy import Policy
    from edgeproxy.edge.proxy.observation.exchange_states import State
    from edgeproxy.edge.proxy.observation.span_buffer import SpanBuffer
    from edgeproxy.edge.proxy.routing.binding import Route, RouteBinding
    from edgeproxy.edge.proxy.transport.address import Address
    from edgeproxy.edge.proxy.upstreams.pool import Endpoint

GRPC_STATUS = b"grpc-status"


class Attempt:
    """A request sent to an endpoint. Times are monotonic."""

    __slots__ = ("ended", "endpoint", "error", "span_id", "started")

    def __init__(self, span_id: bytes, endpoint: "Endpoint", started: float) -> None:
        self.span_id, self.endpoint, self.started = span_id, endpoint, started
        self.ended = 0.0
        """0 while it is active."""
        self.error: str | None = None
        """The reason of its failure."""


class RequestSpan:
    """The span of a request, and of the edge's attempts for it. Ids are hex digits."""

    __slots__ = ("attempts", "decided", "grpc_status", "parent_id", "span_id", "trace_id", "usage")

    def __init__(self, trace_id: bytes, span_id: bytes, parent_id: bytes) -> None:
        self.trace_id, self.span_id, self.parent_id = trace_id, span_id, parent_id
        self.decided = 0.0
        """When it was admitted; 0 if it was refused."""
        self.attempts: list[Attempt] = []
        self.usage: StatedCounts | None = None
        """The usage that a model's answer states."""
        self.grpc_status: bytes | None = None
        """The status of a gRPC call from its answer."""

    def retry(self, error: str, span_id: bytes, endpoint: "Endpoint", now: float, message: bytes) -> bytes:
        """End the failed attempt, and begin another. Return the request with the new attempt's span."""
        last = self.attempts[-1]
        last.ended, last.error = now, error
        self.attempts.append(Attempt(span_id, endpoint, now))
        return message.replace(last.span_id, span_id, 1)

    def read_fields(self, lines: bytes) -> None:
        """Read the status of a call from the head of an answer, or from its trailers."""
        self.grpc_status = find_value(lines, GRPC_STATUS) or self.grpc_status


def create_span_id() -> bytes:
    """Create the id of a span that is not sent to any upstream."""
    return b"%016x" % (getrandbits(64) or 1)


class PastWaits(Protocol):
    """The past waits of a request: the state during each, and when it began and ended."""

    periods: list[tuple["State", float, float]]


class TracedClient(Protocol):
    """The sender of a request."""

    @property
    def address(self) -> "Address": ...
    @property
    def trusted(self) -> bool: ...
    @property
    def is_http2(self) -> bool: ...


class TracedRuntime(Protocol):
    """The clock of a worker, and the buffer of its spans."""

    offset: float
    spans: "SpanBuffer"


class TracedExchange(Protocol):
    """The interface of a request to its spans, see `ExchangeRecord`."""

    @property
    def client(self) -> TracedClient: ...
    @property
    def runtime(self) -> TracedRuntime: ...
    @property
    def route(self) -> "Route | None": ...
    @property
    def binding(self) -> "RouteBinding | None": ...
    @property
    def endpoint(self) -> "Endpoint | None": ...
    @property
    def wait(self) -> PastWaits | None: ...

    span: RequestSpan | None
    trace: "TraceParent | None"
    state: "State"
    started: float
    waiting_since: float
    rid: bytes
    keep: bytes
    method: bytes
    path: bytes
    message: bytes
    minor: int
    status: int
    arrived: float

    @property
    def shown_policy(self) -> "Policy | None": ...

    def is_secure(self) -> bool:
        """Return whether the client uses TLS."""
