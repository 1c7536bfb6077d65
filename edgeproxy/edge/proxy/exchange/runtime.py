"""The objects that one worker shares: the current configuration, clocks, counters, connections.

A connection or an exchange gets the Runtime, never the Worker, so it can touch only these objects.
"""

from email.utils import formatdate
from ssl import SSLContext
from typing import TYPE_CHECKING, Any, Protocol

from edgeproxy.base import log
from edgeproxy.base.tasks import Tasks
from edgeproxy.config import units
from edgeproxy.edge.proxy.exchange.body_file import BodySpace
from edgeproxy.edge.proxy.exchange.claim_waiter import ClaimWaiter
from edgeproxy.edge.proxy.exchange.connection_limits import ConnectionLimits
from edgeproxy.edge.proxy.exchange.open_connections import Connections
from edgeproxy.edge.proxy.metering.worker_metrics import WorkerMetrics
from edgeproxy.edge.proxy.observation.request_ids import IdGenerator
from edgeproxy.edge.proxy.observation.span_buffer import SpanBuffer
from edgeproxy.edge.proxy.routing.key_lookup import KeyLookup
from edgeproxy.edge.proxy.routing.password_verifier import PasswordVerifier
from edgeproxy.edge.proxy.transport.deadlines import Deadlines
from edgeproxy.edge.proxy.transport.held_budget import HeldBudget
from edgeproxy.edge.proxy.transport.turns import Turns
from edgeproxy.edge.proxy.transport.write_batching import WriteBatching

if TYPE_CHECKING:
    from edgeproxy.edge.counters.store import Store
    from edgeproxy.edge.proxy.exchange.overload import Overload
    from edgeproxy.edge.proxy.exchange.snapshot import Snapshot

ENDPOINT_LOG_SECONDS = 10.0
"""Seconds between two log lines about one unreachable endpoint."""

TURN_LOG_SECONDS = 10.0
"""Seconds between two log lines about long turns of the loop, by kind of connection."""


class Connector(Protocol):
    """Opens connections to upstreams; see connector.py."""

    def connect(self, exchange: Any) -> None:
        """Open one to the exchange's endpoint. Then call `on_connected`, or `on_unreachable` with the fault."""


class Runtime:
    """The shared objects of one worker. The worker sets `snapshot`, `overload` and `connector` before it listens."""

    __slots__ = (
        "_turn_log",
        "body_space",
        "challenges",
        "claim_waiter",
        "connections",
        "connector",
        "date_line",
        "deadlines",
        "endpoint_log",
        "folder",
        "held",
        "ids",
        "key_lookup",
        "metrics",
        "offset",
        "overload",
        "passwords",
        "snapshot",
        "spans",
        "tasks",
        "turns",
        "write_batching",
    )

    def __init__(self, store: "Store") -> None:
        self.snapshot: Snapshot
        """The configuration of new requests."""
        self.folder = store.state
        """The folder for temporary files."""
        self.body_space = BodySpace()
        self.held = HeldBudget(units.HELD_BYTES)
        """The memory budget: all bytes that are held for clients."""
        self.offset = store.offset
        """Edge time less monotonic time, in seconds."""
        self.date_line = format_date_field()
        """The Date line of the edge's own answers, and of upstreams' that have none (RFC 9110 section 6.6.1)."""
        self.challenges: SSLContext | None = None
        """TLS for an authority that checks a challenge of ACME; None while there is none."""
        self.metrics = WorkerMetrics(store)
        self.ids = IdGenerator()
        self.deadlines = Deadlines()
        self.tasks = Tasks()
        self._turn_log = log.RateLimitedLog(TURN_LOG_SECONDS)
        self.turns = Turns(observe=self.metrics.loop_turn_seconds().observe, report=self._log_long_turn)
        self.connections = Connections(ConnectionLimits(self.metrics, store.connected), self.deadlines)
        self.write_batching = WriteBatching(self.turns.record)
        self.overload: Overload
        self.connector: Connector
        self.claim_waiter = ClaimWaiter(lambda _: True)
        """Requests claims from the hub through the supervisor."""
        self.key_lookup = KeyLookup(lambda _: True)
        """Asks the supervisor for customers that are in no file."""
        self.passwords = PasswordVerifier()
        """Checks the passwords of users."""
        self.spans = SpanBuffer(lambda _: True)
        """Sends finished spans to the supervisor."""
        self.endpoint_log = log.RateLimitedLog(ENDPOINT_LOG_SECONDS)

    def serve_snapshot(self, snapshot: "Snapshot") -> None:
        """Use this configuration for new requests."""
        self.snapshot = snapshot
        self.held.bytes_max = snapshot.max_held_bytes
        tracer = snapshot.tracer
        self.ids.set_sample(1.0 if tracer is None else tracer.settings.sample)

    def _log_long_turn(self, seconds: float, kind: str, peer: str) -> None:
        """Log a turn that kept all connections waiting, with the connection whose input caused it."""
        self._turn_log.info("a turn of the loop was long", kind, seconds=round(seconds, 3), peer=peer)

    def report_held_exhausted(self, share: str, about: str) -> None:
        """Count and log a client that is ended for the bytes it holds; `share` is the exhausted bound."""
        self.metrics.count_held_exhausted(share)
        self.endpoint_log.error("a client is ended: it holds too many bytes", about, setting="limits.held", share=share)

    def tick(self, offset: float) -> None:
        """Take over the supervisor's clock offset, and update the date; called twice a second."""
        self.offset = offset
        self.date_line = format_date_field()


def format_date_field() -> bytes:
    """Format the Date line of this second, with its CRLF."""
    return f"Date: {formatdate(usegmt=True)}\r\n".encode()
