"""A connection to an upstream as a stream of bytes: flow control, the idle time, and the end.

It knows nothing of answers (upstream.py). It serves one exchange at a time, and is kept for the next if the
end of the answer was unmistakable.
"""

import asyncio
import ssl
from time import monotonic
from typing import TYPE_CHECKING, Final, Literal

from edgeproxy.base.trust import format_tls_error
from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.http1.keep_alive import parse_idle_timeout
from edgeproxy.edge.proxy.transport.deadlines import NEVER, SWEEP_SECONDS
from edgeproxy.edge.proxy.transport.server_tls import classify_tls_error
from edgeproxy.edge.proxy.transport.turns import InputBacklog

if TYPE_CHECKING:
    from edgeproxy.edge.http1.response import ResponseHead
    from edgeproxy.edge.proxy.exchange.forwarding import Forwarding
    from edgeproxy.edge.proxy.exchange.runtime import Runtime
    from edgeproxy.edge.proxy.upstreams.pool import Endpoint

DROPPED: Final = "its connection is closed"


class UpstreamTransport:
    """The stream below an upstream's answers; by its methods an asyncio.Protocol.

    `deadline` is in monotonic seconds.
    """

    __slots__ = (
        "_reading_paused",
        "backlog",
        "deadline",
        "endpoint",
        "exchange",
        "half_closed",
        "idle_seconds",
        "reusable",
        "reused",
        "runtime",
        "transport",
        "write",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, runtime: "Runtime", endpoint: "Endpoint") -> None:
        self.runtime = runtime
        self.endpoint = endpoint
        self.exchange: Forwarding | None = None
        """The exchange that it serves."""
        self.reusable = True
        """True if it may serve another exchange after this."""
        self.reused = False
        """True if it has answered before."""
        self.idle_seconds = endpoint.service.idle_timeout
        """Seconds that it may be idle."""
        self.half_closed = False
        """True if the upstream has closed its side."""
        self.write_paused = False
        """True if the upstream does not read the bytes that are written to it."""
        self._reading_paused = False
        self.backlog: InputBacklog | None = None
        """Input that waits for its turns."""
        self.deadline = NEVER

    def connection_made(self, transport: asyncio.Transport) -> None:
        # Set as attributes for their types: uvloop's transports have no asyncio base class.
        self.transport, self.write = transport, transport.write
        self.runtime.connections.add_upstream(self)

    # ---- between two answers

    def learn_idle_timeout(self, block: bytes) -> None:
        """Learn from the head of the first answer how long this server keeps an idle connection."""
        self.reused = True
        self.limit_idle(min(parse_idle_timeout(block), self.endpoint.idle_lifetime.seconds))

    def limit_idle(self, seconds: float) -> None:
        """Keep it idle for at most these seconds after its last answer."""
        if seconds < self.idle_seconds:
            self.deadline -= self.idle_seconds - seconds
            self.idle_seconds = seconds
        if self.idle_seconds <= SWEEP_SECONDS:
            # The sweep would find it only after its time.
            self.reusable = False

    @property
    def idle_since(self) -> float:
        """When its last answer ended, in seconds of the monotonic clock."""
        return self.deadline - self.idle_seconds

    def release(self, now: float) -> None:
        """Keep the connection for later if that is safe."""
        if self.reusable and not self.transport.is_closing() and self.endpoint.release(self):
            self.deadline = now + self.idle_seconds
        else:
            self.close()

    def hand_over(self, exchange: "Forwarding", head: "ResponseHead", block: bytes, size: int) -> bool:
        """Let the route's fallback answer if an answer with this status is not passed on. Return whether it does.

        `block` is the received head, and `size` is the number of bytes received after it. The connection is kept if the
        whole answer is here and the whole request has gone out: otherwise the next request would be taken for the rest
        of its body.
        """
        route, body = exchange.route, exchange.buffered_body
        if route is None or head.status not in route.fallback_statuses:
            return False
        # Asked before `fall_back`, which starts the sending again.
        is_taken = not self.write_paused and (body is None or body.is_sent)
        if not exchange.fall_back(str(head.status)):
            return False
        self.endpoint.record_failure(monotonic())
        self.exchange = None
        if not self.reused:
            self.learn_idle_timeout(block)
        if is_taken and size == head.length and not (head.close or head.chunked):
            self.resume_reading()
            self.release(monotonic())
        else:
            self.abort()
        return True

    def record_surplus(self, size: int, came: Literal["answer", "idle", "lent"] = "answer") -> None:
        """Report bytes that belong to no answer, and use this connection for no further request.

        They came with an answer, while the connection was idle, or after the next request was sent. The answer itself
        is complete: the service is at fault only for a wrong length.
        """
        self.reusable = False
        endpoint, exchange, runtime = self.endpoint, self.exchange, self.runtime
        runtime.metrics.count_surplus(endpoint.service.name, came)
        about = f"{endpoint.host}:{endpoint.port}"
        if exchange is None:
            # Some servers send 408 before they close an idle connection, and that is not a fault.
            runtime.endpoint_log.info("an upstream sent what nothing asked for", about, bytes=size, then=DROPPED)
        else:
            rid = exchange.get_request_id().decode()
            event = "an upstream sent more than its answer"
            runtime.endpoint_log.error(event, about, came=came, bytes=size, request_id=rid, then=DROPPED)

    # ---- flow control

    def pause_reading(self) -> None:
        """Stop reading for now: the client does not take it."""
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading."""
        if self._reading_paused:
            self._reading_paused = False
            if self.backlog is None or not self.backlog.blocks_reading():
                self.transport.resume_reading()

    def has_room_for_input(self) -> bool:
        """Return whether the client takes more of the answer."""
        return not self._reading_paused

    def hold_input(self) -> None:
        """Read nothing until the waiting input has had its turn."""
        if not self.transport.is_closing():
            self.transport.pause_reading()
        if self.exchange is not None:
            self.exchange.client.update_held()

    def on_backlog_done(self) -> None:
        """Resume reading."""
        if self.exchange is not None:
            self.exchange.client.update_held()
        if not self._reading_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        self.write_paused = True
        if self.exchange is not None:
            self.exchange.client.pause_reading()
            self.exchange.client.update_held()

    def resume_writing(self) -> None:
        self.write_paused = False
        if self.exchange is not None:
            self.exchange.client.update_held()
            self.exchange.client.resume_reading()
            if self.exchange.buffered_body is not None:
                self.exchange.buffered_body.resume_sending()

    # ---- ends

    def half_close(self) -> None:
        """Close the edge's side of a tunnel: the client has closed its own. An HTTP/2 stream has ended by then."""
        if not self.transport.is_closing() and self.transport.can_write_eof():
            self.transport.write_eof()

    def close(self) -> None:
        """Close once everything written has gone, or after the upstream has read nothing for too long."""
        self._drop_input()
        self.deadline = monotonic() + self.endpoint.service.idle_timeout
        self.transport.close()

    def abort(self) -> None:
        """Close at once; the connection is not needed any more."""
        self._drop_input()
        self.transport.abort()

    def _drop_input(self) -> None:
        """Detach the exchange, and drop its input."""
        self.exchange = None
        if self.backlog is not None:
            self.backlog.take()

    def on_timeout(self) -> None:
        self.deadline = NEVER
        if self.exchange is None:
            self.endpoint.forget(self)
            self.transport.abort()  # Not closed: it may be closing already, and wait for a peer that does not read.

    def on_idle_closed(self) -> None:
        """Remove a connection that the other side has closed, and learn the endpoint's idle timeout from it."""
        if self.endpoint.forget(self):
            self.endpoint.record_idle_close(self.idle_since, monotonic())

    def create_tls_error(self, exchange: "Forwarding", failure: ssl.SSLError) -> UpstreamError:
        """Return the error of a request whose TLS broke after the handshake, and log it.

        In TLS 1.3 an upstream also refuses the edge's certificate this way.
        """
        about, request_id = f"{self.endpoint.host}:{self.endpoint.port}", exchange.get_request_id().decode()
        self.runtime.endpoint_log.error(
            "TLS with an upstream broke", about, why=format_tls_error(failure), request_id=request_id
        )
        return UpstreamError(classify_tls_error(failure), "TLS with the upstream broke")
