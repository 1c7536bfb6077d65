"""The circuit breaker: a slow upstream gets no more requests until some of its answers have come.

Waiting requests would only make its queue longer. A request that is refused at once can go elsewhere, or come back.
"""

from edgeproxy.edge.counters.meters import SharedGauge
from edgeproxy.edge.errors import UpstreamError


class CircuitBreaker:
    """A bound on the requests to one service without an answer's head, in all workers together."""

    __slots__ = ("_most", "_pending")

    def __init__(self, most: int, pending: SharedGauge) -> None:
        self._most = most
        self._pending = pending

    def enter(self) -> None:
        """Count a request that is about to be sent. Raises UpstreamError(503) if the maximum is pending."""
        if not self._pending.claim(self._most):
            raise UpstreamError("connection_limit_reached", "Too many requests wait for this upstream", status=503)

    def leave(self) -> None:
        """Stop counting it: its answer has begun, or none will come."""
        self._pending.add(-1)
