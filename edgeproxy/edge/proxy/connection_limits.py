"""Bounds on connections: of the whole edge, and from one address, counted in all workers together.

A connection counts from accept to its end. Both bounds are never passed; two workers that see the last place free at
the same moment may both refuse it. An address is one of IPv4, or a /64 of IPv6; a trusted proxy has no bound of its
own, since it carries the connections of many.
"""

from typing import TYPE_CHECKING

from edgeproxy.base import log

if TYPE_CHECKING:
    from edgeproxy.edge.counters.occupancy import Occupancy
    from edgeproxy.edge.proxy.address import Address
    from edgeproxy.edge.proxy.deadlines import Timed
    from edgeproxy.edge.proxy.snapshot import Snapshot
    from edgeproxy.edge.proxy.worker_metrics import WorkerMetrics

UNBOUNDED = 1 << 62

EXEMPT = b""
"""The subject of an address that has no bound."""

LINGERING_MAX = 256
"""Connections turned away that are read on for a moment, lest a reset destroy their answer; more are closed at once."""

LOG_SECONDS = 10.0
"""Seconds between two log lines about one kind of refusal."""


class TooManyConnectionsError(Exception):
    """A connection that is one too many; `reason` is the metric's, `status` and `detail` are for an answer."""

    def __init__(self, reason: str, status: int, detail: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.detail = detail


class ConnectionLimits:
    """The connections that one worker lets in."""

    def __init__(self, metrics: "WorkerMetrics", connected: "Occupancy") -> None:
        """`connected`: the connections of each address, in all workers."""
        self._metrics = metrics
        self._connected = metrics.clients()
        self._by_address = connected
        self._log = log.RateLimitedLog(LOG_SECONDS)
        self.lingering: set[Timed] = set()
        """The connections that were turned away and have still to take their answer."""

    def admit(self, peer: str, snapshot: "Snapshot", now: float) -> bytes:
        """Count one more connection of this peer at edge time `now`; returns what it counts for, which `release` is to
        be given at its end.

        Raises TooManyConnectionsError, and has counted that.
        """
        subject = EXEMPT
        if not snapshot.addresses.trusts(peer):
            address = snapshot.addresses.get_address(peer)
            subject = address.subject
            self._check_address(address, now)
        if not self._connected.claim(snapshot.max_connections):
            self._record_refusal("total", "all addresses", snapshot.max_connections)
            raise TooManyConnectionsError("total", 503, "This edge has as many connections as it takes")
        # Counted where nothing bounds them too: a reload may bring a bound.
        if subject and not self._by_address.claim(subject, snapshot.max_connections_per_ip or UNBOUNDED):
            self._connected.add(-1)
            self._record_refusal("address", peer, snapshot.max_connections_per_ip or UNBOUNDED)
            raise TooManyConnectionsError("address", 429, "This address has as many connections as one may have")
        return subject

    def _check_address(self, address: "Address", now: float) -> None:
        """Raise TooManyConnectionsError where an address may not come, or comes too often."""
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
        """Release the place of a connection that `admit` returned this for."""
        self._connected.add(-1)
        if subject:
            self._by_address.release(subject)

    def record_handshake_failure(self, why: str) -> None:
        """Count a TLS handshake that came to nothing."""
        self._metrics.count_failed_handshake()
        self._log.error("TLS handshake failed", why)
