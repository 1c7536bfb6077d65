"""A request on its way to an upstream: choice of an endpoint, its connection, retries and the fallback.

The edge sends a request again, over another connection or to another endpoint, only while it still has the whole
request, no byte of an answer has come, and a repetition does no harm. If retries are not allowed or do not help, a
route may have a fallback: another upstream. Any other fault becomes an answer of the edge's own. Once a part of an
answer has gone out, the edge ends the connection instead, so that no client takes the part for the whole.
"""

from time import monotonic
from typing import TYPE_CHECKING, Final

from edgeproxy.edge.body_usage.stream_options import REQUEST_BYTES_MAX
from edgeproxy.edge.errors import EdgeError, RejectedError, UpstreamError
from edgeproxy.edge.http1 import message
from edgeproxy.edge.http1.grammar import IDEMPOTENT
from edgeproxy.edge.http1.host import replace_host
from edgeproxy.edge.http1.request import PLAIN
from edgeproxy.edge.limits.limit_set import LimitSet
from edgeproxy.edge.proxy.exchange import own_response, upstream_request
from edgeproxy.edge.proxy.exchange.buffered_body import BufferedBody
from edgeproxy.edge.proxy.exchange.response_relay import ALTERED, ResponseRelay
from edgeproxy.edge.proxy.metering import stream_usage
from edgeproxy.edge.proxy.observation.exchange_states import (
    AWAITS_BODY,
    AWAITS_CLAIMS,
    AWAITS_KEY,
    CONNECTING,
    GATHERING,
    SENT,
)
from edgeproxy.edge.proxy.observation.request_span import create_span_id
from edgeproxy.edge.proxy.transport.held_budget import UNCOUNTED_BYTES
from edgeproxy.edge.proxy.transport.socket_input import is_readable

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.exchange.sides import UpstreamSide
    from edgeproxy.edge.proxy.routing.binding import RouteBinding
    from edgeproxy.edge.proxy.upstreams.pool import Endpoint

UNREACHED: Final = frozenset(("connection_refused", "connection_timeout"))
"""Faults that may pass in a moment, so a retry may help. A failed TLS negotiation stays and is not among them."""

REFUSALS_MAX: Final = 3
"""Up to this number of refused streams, the edge still sends a request again."""

KEPT_BYTES_MAX: Final = 64 << 10
"""The largest request, in bytes, that is kept while its body streams to a service that may still refuse the stream."""

ENDED_BY_EDGE: Final = "The edge ended the connection: nothing moved for too long, or a drain was over"

Refusal = EdgeError | LimitSet
"""The reason why a request is not forwarded: an error, or a limit set with at least one exhausted limit."""


class Forwarding(ResponseRelay):
    """The request's half of an exchange, from admission on."""

    __slots__ = ()

    # ---- to an endpoint

    def select(self) -> None:
        """Select the endpoint of the request. Raises UpstreamError if none is available."""
        binding = self.binding
        assert binding is not None
        service, region = binding.route.service, binding.terms.prefer
        may_lead = binding.terms.fallback is not None and not (self.message or self.head.upgrade)
        if may_lead and binding.is_ejected():
            binding = self._lead_to_fallback("ejected")
            service, may_lead = binding.route.service, False
        try:
            if service.affinity is not None:
                endpoint = service.select_for(service.affinity.find_value(self, binding.customer), region)
            else:
                endpoint = service.select() if region is None else service.select_in(region)
            self.endpoint = endpoint
        except UpstreamError as error:
            self.runtime.metrics.count_upstream_error(service.name, error.error)
            if not may_lead:
                raise
            self._lead_to_fallback(error.error)
            self.select()
            return
        endpoint.outstanding += 1

    def send(self) -> None:
        """Send the request over an idle connection, else over a new one."""
        endpoint = self.endpoint
        assert endpoint is not None
        assert self.binding is not None
        idle = endpoint.idle
        while idle:
            server: UpstreamSide[Forwarding] = idle.pop()
            # A connection that was reset in this turn of the loop reports it in the next, and a write until then is
            # lost.
            can_repeat = self.method == b"GET" and self.accepts_whole
            if not server.transport.is_closing() and (can_repeat or self._is_safe_on(server)):
                self.server = server
                server.exchange = self
                server.write(self.message)
                self.state = SENT
                self.sent_at = now = monotonic()
                self.client.deadline = now + self.binding.route.head_timeout
                if self.client.write_paused:
                    server.pause_reading()
                return
        self._connect()

    def forget_message(self) -> bool:
        """Drop the kept bytes of a sent request to save memory. The request cannot be sent again then, and the bytes
        collected for an estimate are lost.

        Return False if there is nothing large enough to drop.
        """
        body, collected = self.buffered_body, self.collected
        is_collected = collected is not None and len(collected) > UNCOUNTED_BYTES
        if is_collected:
            self.collected = None
        if self.server is None or len(self.message) <= UNCOUNTED_BYTES or (body is not None and body.is_on_disk):
            return is_collected
        self.message, self.streamed_body = self.request_line, True
        return True

    def keep_piece(self, data: bytes) -> None:
        """Keep a piece of the body sent upstream while the request is small and the stream may still be refused, so
        that the edge can send the request again.
        """
        if self.streamed_body:
            return
        assert self.binding is not None
        size = len(self.message) + len(data)
        if not self.binding.route.service.speaks_http2:
            self.streamed_body = True
        elif self.has_begun_response or size > KEPT_BYTES_MAX or self.client.is_pressed():
            self.streamed_body, self.message = True, self.request_line
            self.client.update_held()
        else:
            self.message += data
            if size > UNCOUNTED_BYTES:
                self.client.update_held()

    def _is_safe_on(self, server: "UpstreamSide[Forwarding]") -> bool:
        """Return whether a kept connection may carry this request, which might not be repeatable after a loss."""
        on_disk = self.buffered_body is not None and self.buffered_body.is_on_disk
        if self.method in IDEMPOTENT and self.client.body is None and not on_disk:
            return True
        assert self.endpoint is not None
        if monotonic() - server.idle_since > self.endpoint.idle_lifetime.trusted_seconds:
            # The upstream may be closing it at this moment. The other idle connections are older still.
            server.close()
            return False
        if is_readable(server.transport):
            # Input without a request means that the upstream is closing the connection, or that it is useless.
            server.abort()
            return False
        return True

    def _connect(self) -> None:
        """Open a connection to the endpoint. The connector then calls `on_connected` or `on_unreachable`."""
        self.state = CONNECTING
        self.runtime.connector.connect(self)

    def on_connected(self, server: "UpstreamSide[Forwarding]") -> None:
        """Send the received part of the request over a new connection.

        If the client has left, keep the connection idle.
        """
        client = self.client
        if client.exchange is not self:
            # The connection is good, and the next request saves its handshake.
            server.release(monotonic())
        elif server.transport.is_closing():
            # Nothing was written, so any request may be retried.
            fault = UpstreamError("connection_terminated", "The upstream closed the connection at once")
            if self._select_retry(fault, same=True):
                self._connect()
            else:
                self.fail(fault)
        else:
            assert self.endpoint is not None
            assert self.binding is not None
            self.server, server.exchange = server, self
            server.write(self.message)
            if self.head.upgrade and client.half_closed and not client.buffer:
                server.half_close()
            self.state = SENT
            self.sent_at = now = monotonic()
            # This time counts as the upstream's, not as the edge's own.
            self.waiting_seconds += now - self.waiting_since
            head_timeout = self.binding.route.head_timeout
            client.deadline = now + (head_timeout if client.body is None else self.snapshot.body_idle)
            self._send_from_disk(server)
            if len(self.message) > UNCOUNTED_BYTES:
                client.update_held()
            client.resume_reading()
            if client.write_paused:
                server.pause_reading()

    def on_unreachable(self, fault: UpstreamError) -> bool:
        """Retry at another endpoint, or once more at this one: it was unreachable, so nothing was sent.

        Return whether the caller should connect to the endpoint that the request has now.
        """
        if self._select_retry(fault, same=fault.error in UNREACHED):
            return True
        self.fail(fault)
        return False

    def on_upstream_lost(self, *, fresh: bool, begun: bool, fault: UpstreamError | None = None) -> None:
        """Handle the loss of the upstream connection during an exchange.

        `begun`: some of the answer's head had come. `fault`: the reason of the loss, or None if the upstream closed.
        Before any byte of the answer, the request is sent once more over a new connection if a repetition does no harm
        (RFC 9110 section 9.2.2) and all of it is still here. If the connection is not `fresh`, the upstream has
        probably closed it as idle while the request was on its way. That is not an endpoint's fault, so none is charged
        for it (RFC 9112 section 9.3.1).
        """
        if fault is None:
            error = "http_response_incomplete" if self.has_begun_response else "connection_terminated"
            fault = UpstreamError(error, "The upstream closed the connection before its answer was complete")
        self.server = None
        silent = not (begun or self.has_begun_response or self.interim_count)
        repeatable = self.method in IDEMPOTENT and self.client.body is None and not self.streamed_body
        if silent and repeatable and not fresh:
            assert self.endpoint is not None
            self.runtime.metrics.count_stale_connection(self.endpoint.service.name)
            if self.span is not None:
                span_id = create_span_id()
                self.message = self.span.retry(fault.error, span_id, self.endpoint, monotonic(), self.message)
            self._connect()
        elif silent and repeatable and self._select_retry(fault, same=True):
            self._connect()
        else:
            self.fail(fault)

    def on_upstream_refused(self) -> None:
        """Send the request once more after the upstream refused its stream.

        The upstream states that it processed nothing (RFC 9113 section 8.7), so a request with any method may be sent
        again if all of it is still here. The refusal counts neither as an attempt nor as the endpoint's fault.
        """
        detail = "The upstream refused the request's stream, and has begun nothing of it"
        fault = UpstreamError("destination_unavailable", detail, status=503, is_local=True)
        endpoint, self.server = self.endpoint, None
        assert endpoint is not None
        on_disk = self.buffered_body is not None and self.buffered_body.is_on_disk
        if (on_disk or not self.streamed_body) and self.refusals < REFUSALS_MAX:
            self.refusals += 1
            other = endpoint.service.select_other((*self.tried_endpoints, endpoint)) or endpoint
            self._move(fault, other, self.tried_endpoints)
            self._connect()
        else:
            self.fail(fault)

    def _select_retry(self, fault: UpstreamError, *, same: bool) -> bool:
        """Select the endpoint for one more attempt. Return False if a retry is not allowed or no endpoint is left.

        Prefers another endpoint; the last one is taken only if `same` allows it. `fault` is charged to the last
        endpoint. The caller has checked that a repetition does no harm.
        """
        endpoint = self.endpoint
        assert endpoint is not None
        service = endpoint.service
        tried = (*self.tried_endpoints, endpoint)
        other = service.select_other(tried) or (endpoint if same else None)
        if other is None or len(tried) >= service.attempts or not service.budget.spend():
            return False
        self._move(fault, other, tried)
        return True

    def _move(self, fault: UpstreamError, other: "Endpoint", tried: "tuple[Endpoint, ...]") -> None:
        """Move the request to `other`, which may be the last endpoint itself, and record the last one's fault."""
        endpoint, metrics = self.endpoint, self.runtime.metrics
        assert endpoint is not None
        metrics.count_upstream_error(endpoint.service.name, fault.error)
        if not fault.is_local:
            endpoint.record_failure(monotonic())
        metrics.count_retry(endpoint.service.name)
        endpoint.outstanding -= 1
        other.outstanding += 1
        # Endpoints of one upstream may have hosts of their own.
        if other.sent_host is not None and other.sent_host != endpoint.sent_host:
            self.message = replace_host(self.message, other.sent_host)
        if self.span is not None:
            self.message = self.span.retry(fault.error, create_span_id(), other, monotonic(), self.message)
        self.endpoint, self.tried_endpoints, self.server = other, tried, None

    # ---- to another upstream

    def _lead_to_fallback(self, reason: str) -> "RouteBinding":
        """Switch the rest of the request to the fallback. Return the customer's binding to it."""
        assert self.binding is not None
        fallback = self.binding.fallback
        assert fallback is not None
        self.runtime.metrics.count_fallback(fallback.route.label, reason)
        self.binding, self.route = fallback, fallback.route
        return fallback

    def fall_back(self, reason: str) -> bool:
        """Send the request to the fallback of its route. Return False if there is none, or it cannot take the request.

        The whole request must be here, and no byte of an answer may have gone out. `reason` is the first upstream's
        fault, as the metric names it. The caller ends the connection to the first upstream.
        """
        binding, endpoint = self.binding, self.endpoint
        if binding is None or binding.fallback is None or not upstream_request.is_repeatable(self):
            return False
        service, region = binding.fallback.route.service, binding.terms.prefer
        try:
            value = None if service.affinity is None else service.affinity.find_value(self, binding.customer)
            other = service.select_for(value, region)
        except UpstreamError as error:
            self.runtime.metrics.count_upstream_error(service.name, error.error)
            return False
        now = monotonic()
        # The first upstream's time does not count as the edge's own.
        self.waiting_seconds += now - (self.sent_at if self.state is SENT else self.waiting_since)
        if endpoint is not None:
            self.release_endpoint()
        fallback = self._lead_to_fallback(reason)
        self.endpoint, self.tried_endpoints, self.server, self.streamed_body = other, (), None, False
        other.outstanding += 1
        self.message = upstream_request.rewrite_message(self, fallback)
        if self.span is not None:
            self.message = self.span.retry(reason, create_span_id(), other, now, self.message)
        self.send()
        if self.server is not None:
            self._send_from_disk(self.server)
            self.client.resume_reading()
        return True

    def time_out(self, *, is_overdue: bool) -> None:
        """Handle a request without an answer in time. `is_overdue`: its total time is over.

        A route's fallback is tried earlier than other requests time out. If it cannot take the request, the wait goes
        on.
        """
        error = UpstreamError("http_response_timeout", "The upstream did not answer in time", status=504)
        binding, route = self.binding, self.route
        is_early = binding is not None and binding.fallback is not None and self.state is SENT and not self.is_patient
        if not is_early or is_overdue or route is None or not route.patience:
            self.fail(error, is_overdue=is_overdue)
        elif not self._fall_back_from(error):
            self.is_patient = True
            self.client.deadline = monotonic() + route.patience

    def _fall_back_from(self, fault: UpstreamError) -> bool:
        """Send the request to its fallback, end the connection to the failed upstream, and charge its endpoint.

        Return False if the fallback cannot take the request.
        """
        endpoint, server = self.endpoint, self.server
        if not self.fall_back(fault.error):
            return False
        if endpoint is not None:
            self._charge(endpoint, fault)
        if server is not None:
            server.abort()
        return True

    def _charge(self, endpoint: "Endpoint", fault: UpstreamError) -> None:
        """Count a fault and charge it to the endpoint, unless the status of its answer was charged already."""
        self.runtime.metrics.count_upstream_error(endpoint.service.name, fault.error)
        if not fault.is_local and not (self.has_begun_response and self.status >= 500):
            endpoint.record_failure(monotonic())

    # ---- requests that the upstream gets whole

    def start_buffering(self, max_bytes: int) -> bool:
        """Start to read the whole body first, up to `max_bytes`. Return False if it is all here already.

        Raises RejectedError(413) if it is larger.
        """
        if max(self.length, self.bytes_in) > max_bytes:
            raise RejectedError(413, "The body is larger than this service accepts")
        client = self.client
        if client.body is None:
            return False
        self.release_endpoint()
        self.buffered_body = BufferedBody(self, max_bytes)
        self.state = GATHERING
        self.waiting_since = now = monotonic()
        client.deadline = now + self.snapshot.body_idle
        if self.head.expect and self.minor:
            # The upstream does not see the request yet, so it cannot send 100 Continue.
            client.write(message.CONTINUE)
        self.buffered_body.move_to_disk()
        return True

    def take_whole_body(self) -> bool:
        """Read the whole body first if the fallback needs it, or if the edge must ask for a stream's usage.

        The edge can add its question only to a complete body. Return False if the body passes on in pieces, or is
        complete.
        """
        binding = self.binding
        assert binding is not None
        asks = binding.asks_for_usage and stream_usage.may_request_usage(self)
        if self.client.body is not None:
            most = upstream_request.get_bytes_held(self, binding, REQUEST_BYTES_MAX if asks else 0)
            return bool(most) and self.start_buffering(most)
        if asks:
            self._ask_for_usage()
        return False

    def _ask_for_usage(self) -> None:
        assert self.binding is not None
        stream_usage.ask(self, refuses=self.binding.refuses_unasked)
        if self.usage_requested and self.head is PLAIN:
            self.head = ALTERED

    def send_buffered(self) -> None:
        """Send a request after its whole body has come."""
        assert self.buffered_body is not None
        assert self.binding is not None
        if self.binding.asks_for_usage and not self.buffered_body.is_on_disk and stream_usage.may_request_usage(self):
            try:
                self._ask_for_usage()
            except RejectedError as error:
                self.fail(error)
                return
        now = monotonic()
        self.waiting_seconds += now - self.waiting_since
        self.waiting_since = now
        try:
            self.select()
        except UpstreamError as error:
            self.fail(error.with_traceback(None))
            return
        assert self.endpoint is not None
        if self.endpoint.sent_host is not None:
            self.message = replace_host(self.message, self.endpoint.sent_host)
        self.accepts_whole = self.head is PLAIN and not self.buffered_body.is_on_disk and self.method != b"HEAD"
        self.send()
        if self.server is not None:
            self._send_from_disk(self.server)
        self.client.resume_reading()

    def _send_from_disk(self, server: "UpstreamSide[Forwarding]") -> None:
        """Send the part of the body that is on disk, after the part in memory."""
        body = self.buffered_body
        if body is None or not body.is_on_disk:
            return
        self.streamed_body = True

        def write(piece: bytes) -> bool:
            if self.server is not server:
                return True
            server.write(piece)
            if not self.has_begun_response:
                assert self.route is not None
                self.client.deadline = monotonic() + self.route.head_timeout
            return not server.write_paused

        body.send(write)

    # ---- ends

    def format_own_response(self, reason: Refusal, *, close: bool) -> bytes:
        """Format the edge's own answer, and count and log it. `close` ends the connection as well."""
        if isinstance(reason, LimitSet):
            return own_response.format_refusal(self, reason, close)
        return own_response.format_error(self, reason, close=close)

    def fail(self, error: EdgeError, *, is_overdue: bool = False) -> None:
        """End the exchange with an answer of the edge's own, or with a reset if another answer has begun.

        If the request is not overdue and its route's fallback can take it, the exchange goes on there instead.
        """
        client, endpoint = self.client, self.endpoint
        if isinstance(error, UpstreamError):
            if not is_overdue and self._fall_back_from(error):
                return
            if endpoint is not None:
                self._charge(endpoint, error)
                if self.span is not None:
                    self.span.attempts[-1].error = error.error
        server = self.server
        if server is not None:
            server.abort()
        if self.has_begun_response:
            self.log_end(error.error if isinstance(error, UpstreamError) else error.detail)
            self.release()
            client.exchange = None
            client.reset_when_sent()
            return
        # A client that waits for 100 may or may not send its body now, so the start of the next request is unknown. It
        # is also unknown while the bytes after the head have not been read.
        unclear = client.body is not None or self.head.expect or self.state in (AWAITS_CLAIMS, AWAITS_BODY)
        close = client.is_last or unclear
        client.respond(self.format_own_response(error, close=close), close=close)
        client.serve_next()

    def abandon(self, *, ended_by_edge: bool = False) -> None:
        """End the exchange of a client that left. The upstream has nothing more to do for it."""
        server = self.server
        if self.state in (AWAITS_KEY, AWAITS_CLAIMS, AWAITS_BODY):
            self.get_request_id()  # A waiting request had no id yet.
        tunnel_is_over = server is not None and server.tunnel is not None and self.client.half_closed
        if ended_by_edge:
            self.log_end(ENDED_BY_EDGE)
        else:
            self.log_end(aborted=not tunnel_is_over)
            self.record_success()
        self.release()
        if server is None:
            return
        if tunnel_is_over:
            server.close()  # Both sides have closed the tunnel, so the last bytes go out first.
        elif ended_by_edge or not server.read_on():
            server.abort()
