"""A client's connection: it splits input into requests one after another, and sends answers in order.

It makes no decision about requests (exchange.py does). It finds the end of one and the start of the next, and bounds
the cost of a client. The layers below it are input during an exchange (client_input.py), and the stream of bytes with
the end of the connection (client_transport.py).
"""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from edgeproxy.edge.errors import EdgeError, RejectedError
from edgeproxy.edge.http1.request import PLAIN
from edgeproxy.edge.http1.request_line import check_unfinished
from edgeproxy.edge.proxy.connections.client_input import BLANK, ClientInput
from edgeproxy.edge.proxy.connections.client_states import CLOSED, LAST, LINGERING, RESETTING
from edgeproxy.edge.proxy.connections.probe_schedule import ProbeSchedule
from edgeproxy.edge.proxy.exchange.exchange import Exchange
from edgeproxy.edge.proxy.exchange.forwarding import Forwarding, Refusal
from edgeproxy.edge.proxy.observation.exchange_states import AWAITS_BODY, FORWARDED, WAITING
from edgeproxy.edge.proxy.transport import client_certificate
from edgeproxy.edge.proxy.transport.body import SizedBody
from edgeproxy.edge.proxy.transport.deadlines import NEVER
from edgeproxy.edge.proxy.transport.reset import was_reset
from edgeproxy.edge.proxy.transport.tls import TlsTransport
from edgeproxy.edge.proxy.transport.turns import PIECE_BYTES, PIECE_BYTES_MAX, STEPS, InputBacklog

if TYPE_CHECKING:
    from edgeproxy.edge.http1.request import RequestHead
    from edgeproxy.edge.proxy.exchange.runtime import Runtime
    from edgeproxy.edge.proxy.exchange.tunnel import Tunnel
    from edgeproxy.edge.proxy.transport.client_certificate import ClientCertificate

SCHEMES: Final = (b"http", b"https")
"""The schemes of a connection without TLS, and of one with it."""

CRLF: Final = b"\r\n"

LAST_REQUEST_SECONDS: Final = 1.0
"""Seconds that an idle connection of a draining worker stays open. An immediate close would lose requests on their way,
and the client could not know whether they were served.
"""


class Client(ClientInput):
    """A client's connection, and the requests that come over it."""

    exchange_type: type[Exchange] = Exchange
    """The class of its requests."""
    piece_bytes_max = PIECE_BYTES_MAX

    __slots__ = ("_certificate", "_probes", "peer", "subject")

    def __init__(self, runtime: "Runtime", peer: str, subject: bytes, *, secure: bool = False) -> None:
        """`peer`: the address of the other end.

        `subject`: the key that counts the connection (connection_limits.py). `secure`: the client uses TLS.
        """
        super().__init__(runtime)
        self.peer = peer
        self.subject = subject
        self.secure = secure
        self.expects_new_head = self.is_outdated = False
        self.changing = self.key_place = None
        self.heads_read = 0
        self._probes: ProbeSchedule | None = None
        self._certificate: ClientCertificate | None = None
        self.backlog = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        runtime = self.runtime
        self._apply_configuration()
        self.deadline = monotonic() + runtime.snapshot.header_timeout
        runtime.connections.add_client(self)
        runtime.overload.check_clients()

    def _apply_configuration(self) -> None:
        """Read from the configuration whether this peer is trusted, its address limits, and the lines for upstreams."""
        addresses = self.runtime.snapshot.addresses
        self.trusted = addresses.trusts(self.peer)
        self.key_place = None
        self.address = addresses.get_address(self.peer)
        lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Request-Id: "
        self.forwarded_lines = lines % (self.peer.encode(), SCHEMES[self.secure])

    def update_configuration(self) -> None:
        """Take over another configuration, which applies from the next request on."""
        if self.exchange is not None and self.trusted:
            # The current request remains the request of the proxy's client.
            self.is_outdated = True
            return
        self._apply_configuration()
        if not (self.address.admitted or self.trusted):
            self.serve_no_more()
            if self.exchange is None:
                self.close()

    def apply_forwarded(self, head: "RequestHead") -> None:
        """Set `address` and `forwarded_lines` from a trusted proxy's fields about its client."""
        addresses = self.runtime.snapshot.addresses
        client, self.forwarded_lines = addresses.resolve_forwarded(self.peer, head, SCHEMES[self.secure])
        self.address = addresses.get_address(client)

    def get_certificate(self) -> "ClientCertificate":
        """Return the client's certificate.

        A trusted proxy's certificate identifies the proxy, not its client, so it yields none.
        """
        if self.trusted:
            return client_certificate.NO_CERTIFICATE
        if self._certificate is None:
            transport = self.transport
            der = transport.peer_certificate() if isinstance(transport, TlsTransport) else None
            self._certificate = client_certificate.parse_certificate(der)
        return self._certificate

    # ---- requests

    def data_received(self, data: bytes) -> None:
        if len(data) > PIECE_BYTES and self.take_in_slices(data):
            return
        if self.exchange is not None or self.state > LAST:
            self.receive_during_exchange(data)
        elif self.buffer:
            data, self.buffer = self.buffer + data, b""
            self._serve(data, self.deadline)
        else:
            self._serve(data)

    def _serve(self, data: bytes, deadline: float = 0.0, served: int = 0) -> None:
        """Serve the request that `data` begins with.

        `deadline` is the deadline of a head whose first part came earlier. `served` counts the requests of this read.
        """
        while True:
            snapshot = self.runtime.snapshot
            seen = None
            if data[-4:] == BLANK and not self.expects_new_head:
                seen = snapshot.whole_heads[self.trusted].get(data)
                if seen is None and self.key_place is not None:
                    seen = snapshot.recall_keyed_head(data, self.key_place)
            # A cached head has exactly one blank line, at its end.
            end = data.find(BLANK) if seen is None else len(data) - 4
            if end < 0 or end > snapshot.head_limits.head:
                self._keep_partial_head(data, deadline)
                return
            exchange = self.exchange = self.exchange_type(self, self.runtime)
            outcome = exchange.begin(data, end, seen)
            if outcome is FORWARDED or outcome is WAITING:
                return
            if isinstance(outcome, EdgeError) and data.startswith(CRLF):
                data = _remove_empty_lines(data)
                continue
            rest = self.reject(exchange, outcome, data, end)
            if not rest or self.write_paused:
                self.buffer = rest
                return
            turns = self.runtime.turns
            if not served:
                until = turns.open()
            served += 1
            if not until or (not served % STEPS and turns.clock() >= until):
                self.buffer = b""
                self._get_backlog().put_back(rest)
                return
            # The request with the late head is done; the next head has a deadline of its own.
            data, deadline = rest, 0.0

    def _get_backlog(self) -> InputBacklog:
        if self.backlog is None:
            self.backlog = InputBacklog(self.runtime.turns, self)
        return self.backlog

    def take_in_slices(self, data: bytes) -> bool:
        """Process input in slices. Return False if it is a single slice or need not be sliced."""
        return self._get_backlog().receive(data)

    def describe(self) -> tuple[str, str]:
        """Return the kind of the connection, and the address of its peer."""
        return "client" if self.tunnel is None else "client's tunnel", self.peer

    @property
    def takes_bulk(self) -> bool:
        """True if the client's next bytes are only passed on or dropped."""
        if self.state > LAST or isinstance(self.body, SizedBody):
            return True
        tunnel = self.tunnel
        return tunnel is not None and tunnel.is_opaque

    def release_backlog(self) -> bytes:
        """Return the waiting input, which this object will not process."""
        backlog, self.backlog = self.backlog, None
        return b"" if backlog is None else backlog.close()

    def hold_input(self) -> None:
        """Read nothing until the waiting input has had its turn."""
        if self.state <= LAST:
            self.pause_reading()
        elif not self.transport.is_closing():
            self.transport.pause_reading()
        self.update_held()

    def on_backlog_done(self) -> None:
        """Resume reading, or close a connection whose client has closed its side."""
        if self.holding is not None:
            self.update_held()
        if self.state > LAST:
            if self.state != LINGERING and not self.transport.is_closing():
                self.transport.resume_reading()
            return
        self.resume_reading()
        if self.half_closed:
            self._end_half_closed()

    def reject(self, exchange: Forwarding, refusal: Refusal, data: bytes, end: int) -> bytes:
        """Answer a request that is not forwarded. Return the bytes after it, or none if its end is unknown."""
        head = exchange.head
        after = end + 4 + exchange.length
        if not exchange.path:
            if self.hand_over(data):
                return b""
            exchange.request_line = data  # The log may still find the request's target in it.
        plain = head is PLAIN  # A plain head has none of these properties, and reading them is slow.
        unclear = len(data) < after or (not plain and (head.chunked or head.expect))
        # After the offer of another protocol the client may send bytes that are not a request.
        close = unclear or self.state >= LAST or (not plain and bool(head.close or head.upgrade))
        close = close or (isinstance(refusal, RejectedError) and refusal.close)
        self.respond(exchange.format_own_response(refusal, close=close), close=close)
        return b"" if close or len(data) == after else data[after:]

    def hand_over(self, data: bytes) -> bool:
        """Return whether a handler of another protocol takes over data that begin with no request line."""
        return False

    def _keep_partial_head(self, data: bytes, deadline: float) -> None:
        """Keep an incomplete head. Refuse it now if no further bytes could make it valid."""
        self.exchange = None
        if data.startswith(CRLF):
            data = _remove_empty_lines(data)
            if BLANK in data:
                self._serve(data, deadline)
                return
        try:
            check_unfinished(data, self.runtime.snapshot.head_limits)
        except RejectedError as error:
            self._reject_partial_head(error, data)
            return
        self.buffer = data
        if self.half_closed and not self.has_backlog:
            self.close()
        elif data:
            self.deadline = deadline or monotonic() + self.runtime.snapshot.header_timeout
            self.update_held()

    def _reject_partial_head(self, refusal: RejectedError, data: bytes) -> None:
        """Refuse data that will never be a request."""
        exchange = self.exchange = Exchange(self, self.runtime)
        exchange.request_line = data
        self.respond(exchange.format_own_response(refusal, close=True), close=True)

    def refuse_input(self, refusal: RejectedError) -> None:
        """Refuse the beginning of a request."""
        if self.buffer or self.has_backlog:
            self._reject_partial_head(refusal, self.buffer)

    def respond(self, answer: bytes, *, close: bool) -> None:
        """Write an answer of the edge's own, which ends the exchange. `close` ends the connection as well."""
        if self.exchange is not None:
            self.exchange.release()
            self.exchange = None
        self.write(answer)
        self.deadline = monotonic() + self.runtime.snapshot.keepalive_idle
        if close:
            self.close(linger=True)

    def serve_next(self) -> None:
        """Continue with the next request: the exchange is over."""
        self.exchange = None
        if self.is_outdated:
            self.is_outdated = False
            self._apply_configuration()
        if self.state > LAST:
            return
        if self.state == LAST:
            self.close(linger=self.body is not None or bool(self.buffer) or self.has_backlog)
            return
        if self.write_paused:
            self.pause_reading()
            return
        data, self.buffer = self.buffer, b""
        self.deadline = monotonic() + self.runtime.snapshot.keepalive_idle
        if data:
            self._serve(data)
        self.resume_reading()
        if self.half_closed:
            self._end_half_closed()

    def _end_half_closed(self) -> None:
        """End a connection whose client has closed its side, if no request is left or the last one is incomplete."""
        exchange = self.exchange
        if self.has_backlog:
            return
        if exchange is None:
            if not self.buffer:
                self.close()
        elif (self.body is not None or exchange.state is AWAITS_BODY) and not self._abandon_exchange(exchange):
            self.transport.close()

    # ---- deadlines

    def on_timeout(self) -> None:
        """End the request, or the connection, whose deadline has passed."""
        exchange = self.exchange
        self.deadline = NEVER
        if self.state > LAST:
            self.time_out_end()
        elif self.write_paused and self._has_taken_enough():
            # The client is slow, but it takes bytes.
            self.deadline = monotonic() + self.runtime.snapshot.body_idle
        elif exchange is not None:
            self.time_out_exchange(exchange)
        elif self.backlog is not None and self.backlog.is_queued:
            self.deadline = monotonic() + self.runtime.snapshot.header_timeout  # The client waits for its turn.
        elif self.buffer and not self.write_paused:
            self._reject_partial_head(RejectedError(408, "The request's head did not arrive in time"), self.buffer)
        else:
            # No request is active. The last answer may still be on its way out.
            self.close()

    def limit_duration(self, exchange: Forwarding, until: float) -> None:
        """End the exchange by `until` (monotonic seconds), even while data flows."""
        self.runtime.connections.request_deadlines[self] = exchange, until

    def list_exchanges(self) -> "tuple[Forwarding, ...]":
        """List the current requests: one at most."""
        return () if self.exchange is None else (self.exchange,)

    def end_overdue_request(self) -> None:
        """End a request that exceeds its route's total time, even while data flows. A tunnel is no longer a request."""
        exchange = self.exchange
        if exchange is not None and self.state <= LAST and (exchange.server is None or exchange.server.tunnel is None):
            self.time_out_exchange(exchange, is_overdue=True)

    # ---- drains

    def drain(self) -> None:
        """Serve no request after the current one. An idle connection stays open briefly for a request on its way."""
        self.serve_no_more()
        if self.exchange is None:
            self.deadline = min(self.deadline, monotonic() + LAST_REQUEST_SECONDS)

    @property
    def tunnel(self) -> "Tunnel | None":
        """The tunnel that it belongs to after a protocol switch."""
        exchange = self.exchange
        return None if exchange is None or exchange.server is None else exchange.server.tunnel

    def close_tunnel(self) -> None:
        """Tell both ends of the tunnel, if any, that the edge is closing."""
        if self.tunnel is not None:
            self.tunnel.send_close()

    def half_close(self) -> None:
        """Close the edge's side of a tunnel: the upstream has closed its own."""
        if not self.transport.is_closing():
            self.transport.write_eof()

    @property
    def is_event_stream(self) -> bool:
        """True if the current answer is an event stream."""
        exchange = self.exchange
        return exchange is not None and self.state <= LAST and exchange.streams_events

    def end_event_stream(self) -> None:
        """End the current event stream, if any, as if the upstream had ended it."""
        exchange = self.exchange
        if exchange is not None and exchange.server is not None and self.is_event_stream:
            exchange.server.end_event_stream()

    # ---- the client's end

    def eof_received(self) -> bool:
        if was_reset(self.transport):
            return False
        if self.half_closed:
            return True  # The transport reports the end again when its reading resumes.
        self.half_closed = True
        if self.state == RESETTING:
            return True  # A close now would give a broken answer a clean end.
        exchange = self.exchange
        if exchange is None or self.state > LAST:
            return False
        if exchange.server is not None and exchange.server.tunnel:
            exchange.server.tunnel.on_client_closed()
            return not exchange.server.half_closed
        if self.secure or self.body is not None or exchange.state is AWAITS_BODY:
            # Clients leave this way under TLS, and TLS 1.2 defines no other meaning (RFC 5246 section 7.2.1).
            return self._abandon_exchange(exchange)
        if exchange.head.upgrade and exchange.server is not None and not self.buffer:
            exchange.server.half_close()  # The bytes for the new protocol have ended before the 101: there are none.
        # A client that has sent its whole request may close its side and still gets the answer.
        now = monotonic()
        probes = self._probes = ProbeSchedule(exchange.started, now)
        self.runtime.connections.watch_half_closed(self)
        if probes.due > now:
            asyncio.get_running_loop().call_later(probes.due - now, self._send_first_probe)
        else:
            self.send_probe(now)
        return True

    def _abandon_exchange(self, exchange: Forwarding) -> bool:
        """Abandon an answer whose client has left. Return the result of `eof_received`."""
        if not exchange.has_begun_response:
            return False
        exchange.abandon()
        self.exchange = None
        self.reset_when_sent()
        return not self.transport.is_closing()

    def _send_first_probe(self) -> None:
        """Send the first probe without waiting for the sweep. The loop's clock may be slightly early."""
        if self._probes is not None and not self._probes.count:
            self.send_probe(max(monotonic(), self._probes.due))

    def send_probe(self, now: float) -> None:
        """Send a due probe to a client that has closed its side; called twice a second."""
        exchange, probes = self.exchange, self._probes
        if exchange is None or probes is None or self.state > LAST:
            return
        if probes.is_due(now) and not self.write_paused:
            probe = exchange.get_probe()
            if probe:
                self.write(probe)
                probes.record_probe(now)

    def connection_lost(self, exc: Exception | None) -> None:
        ended_by_edge, self.state = self.state > LAST, CLOSED
        self.runtime.connections.remove_client(self)
        self.release_backlog()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.abandon(ended_by_edge=ended_by_edge)
        if self.holding is not None:
            self.runtime.held.hold(self, 0)


def _remove_empty_lines(data: bytes) -> bytes:
    """Remove the empty lines before a request line, which are ignored (RFC 9112 section 2.2)."""
    start = 0
    while data.startswith(CRLF, start):
        start += 2
    return data[start:]
