"""Bounds on connections: of the whole edge, and from one address, counted over all workers.

A connection counts from accept to its end. The bounds are never exceeded. If two workers see the last free place at
once, both may refuse. An address is an IPv4 address, or a /64 of IPv6. A trusted proxy has no bound of its own, because
it carries the connections of many clients.
"""

from typing import TYPE_CHECKING

from edgeproxy.base import log

if TYPE_CHECKING:
    from edgeproxy.edge.counters.occupancy import Occupancy
    from edgeproxy.edge.proxy.exchange.snapshot import Snapshot
    from edgeproxy.edge.proxy.metering.worker_metrics import WorkerMetrics
    from edgeproxy.edge.proxy.transport.address import Address
    from edgeproxy.edge.proxy.transport.deadlines import Timed

UNBOUNDED = 1 << 62

EXEMPT = b""
"""The subject of an address without a bound."""

LINGERING_MAX = 256
"""Refused connections that are read for a moment, so that no reset destroys their answer. Further ones are closed at
once.
"""

LOG_SECONDS = 10.0
"""Seconds between two log lines about one kind of refusal."""


class TooManyConnectionsError(Exception):
    """An excess connection. `reason` is the metric's label; `status` and `detail` are for an answer."""

    def __init__(self, reason: str, status: int, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.detail = detail


class ConnectionLimits:
    """The connections that one worker admits."""

    def __init__(self, metrics: "WorkerMetrics", connected: "Occupancy") -> None:
        """`connected`: the connections of each address, in all workers."""
        self._metrics = metrics
        self._connected = metrics.clients()
        self._by_address = connected
        self._log = log.RateLimitedLog(LOG_SECONDS)
        self.lingering: set[Timed] = set()
        """The refused connections that have yet to take their answer."""

    def admit(self, peer: str, snapshot: "Snapshot", now: float) -> bytes:
        """Count one more connection of this peer at edge time `now`. Return the subject to pass to `release` at its
        end.

        Raises TooManyConnectionsError, after counting the refusal.
        """
        subject = EXEMPT
        if not snapshot.addresses.trusts(peer):
            address = snapshot.addresses.get_address(peer)
            subject = address.subject
            self._check_address(address, now)
        if not self._connected.claim(snapshot.max_connections):
            self._record_refusal("total", "all addresses", snapshot.max_connections)
            raise TooManyConnectionsError("total", 503, "This edge has as many connections as it takes")
        # It is counted even without a bound, because a reload may introduce one.
        if subject and not self._by_address.claim(subject, snapshot.max_connections_per_ip or UNBOUNDED):
            self._connected.add(-1)
            self._record_refusal("address", peer, snapshot.max_connections_per_ip or UNBOUNDED)
            raise TooManyConnectionsError("address", 429, "This address has as many connections as one may have")
        return subject

    def _check_address(self, address: "Address", now: float) -> None:
        """Raise TooManyConnectionsError if an address is not allowed, or connects too often."""
        if not address.admitted:
            self._metrics.count_refused_connection("network")
            raise TooManyConnectionsError("network", 403, "This address may not come here")
        rate = address.connections
        if rate is not None:
            if rate.left(now) < 1:
                self._record_refusal("rate", address.text, rate.limit)
                raise TooManyConnectionsError("rate", 429, "This address connects too often")
            rate.charge()

    def _record_refusal(self, reason: str, about: str, most: int) -> None:
        self._metrics.count_refused_connection(reason)
        self._log.error("connections refused", about, most=most)

    def release(self, subject: bytes) -> None:
        """Release the place of a connection; `subject` is the result of `admit`."""
        self._connected.add(-1)
        if subject:
            self._by_address.release(subject)

    def record_untrusted_proxy(self, peer: str) -> None:
        """Count a connection that has a header of the PROXY protocol and no trusted proxy sent."""
        self._metrics.count_refused_connection("network")
        self._log.error("connection refused, only trusted_proxies may state a client", peer)

    def record_invalid_proxy_header(self, why: str) -> None:
        """Count a trusted proxy's connection that cannot be used."""
        self._metrics.count_refused_connection("proxy_header")
        self._log.error("connection refused", why)

    def record_handshake_failure(self, why: str) -> None:
        """Count a failed TLS handshake."""
        self._metrics.count_failed_handshake()
        self._log.error("TLS handshake failed", why)
