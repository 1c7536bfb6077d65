"""A client's connection: bytes in, requests out of them one after another, answers back in order.

It decides nothing about requests (exchange.py does). It finds where one ends and the next begins, and keeps what a
client may cost within bounds. Below it are what is read during an exchange (client_input.py), and the stream of bytes,
with the ways in which it ends (client_transport.py).
"""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final

from edgeproxy.edge.errors import EdgeError, RejectedError
from edgeproxy.edge.http1.request import PLAIN
from edgeproxy.edge.http1.request_line import check_unfinished
from edgeproxy.edge.proxy import client_certificate
from edgeproxy.edge.proxy.body import SizedBody
from edgeproxy.edge.proxy.client_input import BLANK, ClientInput
from edgeproxy.edge.proxy.client_states import CLOSED, LAST, LINGERING, RESETTING
from edgeproxy.edge.proxy.deadlines import NEVER
from edgeproxy.edge.proxy.exchange import Exchange
from edgeproxy.edge.proxy.exchange_states import AWAITS_BODY, FORWARDED, WAITING
from edgeproxy.edge.proxy.forwarding import Forwarding, Refusal
from edgeproxy.edge.proxy.probe_schedule import ProbeSchedule
from edgeproxy.edge.proxy.reset import was_reset
from edgeproxy.edge.proxy.tls_transport import TlsTransport
from edgeproxy.edge.proxy.turns import PIECE_BYTES, PIECE_BYTES_MAX, STEPS, InputBacklog

if TYPE_CHECKING:
    from edgeproxy.edge.http1.changing_lines import Changing
    from edgeproxy.edge.http1.request import RequestHead
    from edgeproxy.edge.proxy.address import Address
    from edgeproxy.edge.proxy.client_certificate import ClientCertificate
    from edgeproxy.edge.proxy.runtime import Runtime
    from edgeproxy.edge.proxy.tunnel import Tunnel

SCHEMES: Final = (b"http", b"https")
"""The schemes of a connection without TLS, and of one with it."""

CRLF: Final = b"\r\n"

LAST_REQUEST_SECONDS: Final = 1.0
"""Seconds that an idle connection of a draining worker stays open: closed at once, it would lose the requests that
are on their way, and the client could not know whether they were served."""


class Client(ClientInput):
    """A connection of a client, and the requests that come over it."""

    exchange_type: type[Exchange] = Exchange
    """The class of its requests."""
    piece_bytes_max = PIECE_BYTES_MAX

    __slots__ = (
        "_certificate",
        "_probes",
        "address",
        "changing",
        "expects_new_head",
        "forwarded_lines",
        "heads_read",
        "is_outdated",
        "peer",
        "secure",
        "subject",
        "trusted",
    )

    trusted: bool
    """Whether the peer is a trusted proxy."""
    address: "Address"
    """The limits of the address that asks."""
    forwarded_lines: bytes
    """The X-Forwarded lines that the upstream gets, and the name of X-Request-Id."""

    def __init__(self, runtime: "Runtime", peer: str, subject: bytes, *, secure: bool = False) -> None:
        """`peer`: the address of the other end. `subject`: what the connection counts for (connection_limits.py).
        `secure`: it came over TLS."""
        super().__init__(runtime)
        self.peer = peer
        self.subject = subject
        self.secure = secure
        self.expects_new_head = False
        """Whether the head that was read last is not expected to come again: it has a trace, or another line that
        changes with each request."""
        self.changing: Changing | None = None
        """Those lines, once they are known."""
        self.heads_read = 0
        """Heads of which the meaning had to be read as a whole."""
        self.is_outdated = False
        """Whether `update_configuration` has to wait for the end of the exchange under way."""
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
        """Take from the configuration whether this peer is trusted, what holds it, and what upstreams are told."""
        addresses = self.runtime.snapshot.addresses
        self.trusted = addresses.trusts(self.peer)
        self.address = addresses.get_address(self.peer)
        lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Request-Id: "
        self.forwarded_lines = lines % (self.peer.encode(), SCHEMES[self.secure])

    def update_configuration(self) -> None:
        """Take over another configuration, which holds from the next request on."""
        if self.exchange is not None and self.trusted:
            # Until it is over it remains the request of the one that the proxy asks for.
            self.is_outdated = True
            return
        self._apply_configuration()
        if not (self.address.admitted or self.trusted):
            self.serve_no_more()
            if self.exchange is None:
                self.close()

    def apply_forwarded(self, head: "RequestHead") -> None:
        """Take `address` and `forwarded_lines` from what a trusted proxy says of its client."""
        addresses = self.runtime.snapshot.addresses
        client, self.forwarded_lines = addresses.resolve_forwarded(self.peer, head, SCHEMES[self.secure])
        self.address = addresses.get_address(client)

    def get_certificate(self) -> "ClientCertificate":
        """Return the client's certificate; that of a trusted proxy says who the proxy is, and not for whom it asks."""
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
            # A whole head that was seen before has one blank line, at its end.
            is_known = not self.expects_new_head and data.endswith(BLANK) and data in snapshot.whole_heads[self.trusted]
            end = len(data) - 4 if is_known else data.find(BLANK)
            if end < 0 or end > snapshot.head_limits.head:
                self._keep_partial_head(data, deadline)
                return
            exchange = self.exchange = self.exchange_type(self, self.runtime)
            outcome = exchange.begin(data, end)
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
            # The head that was late is dealt with; the next has a deadline of its own.
            data, deadline = rest, 0.0

    def _get_backlog(self) -> InputBacklog:
        if self.backlog is None:
            self.backlog = InputBacklog(self.runtime.turns, self)
        return self.backlog

    def take_in_slices(self, data: bytes) -> bool:
        """Process input in slices; False where it is one, or no matter of slices."""
        return self._get_backlog().receive(data)

    def describe(self) -> tuple[str, str]:
        """Return the kind of the connection, and the address of its peer."""
        return "client" if self.tunnel is None else "client's tunnel", self.peer

    @property
    def takes_bulk(self) -> bool:
        """Whether the client's next bytes are only passed on or dropped."""
        if self.state > LAST or isinstance(self.body, SizedBody):
            return True
        tunnel = self.tunnel
        return tunnel is not None and tunnel.is_opaque

    def release_backlog(self) -> bytes:
        """Return the input that waits, which nobody here will process."""
        backlog, self.backlog = self.backlog, None
        return b"" if backlog is None else backlog.close()

    def hold_input(self) -> None:
        """Read nothing until the input that waits has had its turn."""
        if self.state <= LAST:
            self.pause_reading()
        elif not self.transport.is_closing():
            self.transport.pause_reading()
        self.update_held()

    def on_backlog_done(self) -> None:
        """Read on, or close a connection whose client has closed its side."""
        if self.holding is not None:
            self.update_held()
        if self.state > LAST:
            if self.state != LINGERING and not self.transport.is_closing():
                self.transport.resume_reading()
            return
        self.resume_reading()
        if self.half_closed:
            self._close_when_served()

    def reject(self, exchange: Forwarding, refusal: Refusal, data: bytes, end: int) -> bytes:
        """Answer a request that is not forwarded; return what follows it, nothing where that cannot be told."""
        head = exchange.head
        after = end + 4 + exchange.length
        if not exchange.path:
            if self.hand_over(data):
                return b""
            exchange.request_line = data  # It may still tell what was asked for.
        plain = head is PLAIN  # Its class says all of it, and is slow to look into.
        unclear = len(data) < after or (not plain and (head.chunked or head.expect))
        # A client that has offered another protocol may send what is no request.
        close = unclear or self.state >= LAST or (not plain and bool(head.close or head.upgrade))
        close = close or (isinstance(refusal, RejectedError) and refusal.close)
        self.respond(exchange.format_own_response(refusal, close=close), close=close)
        return b"" if close or len(data) == after else data[after:]

    def hand_over(self, data: bytes) -> bool:
        """Return whether a client of another protocol goes on with data that begin with no request line."""
        return False

    def _keep_partial_head(self, data: bytes, deadline: float) -> None:
        """Keep a head that is not whole yet; refuse it now where nothing that could follow would make it one."""
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
        """Write an answer of the edge's own, which ends the exchange; `close` ends the connection as well."""
        if self.exchange is not None:
            self.exchange.release()
            self.exchange = None
        self.write(answer)
        self.deadline = monotonic() + self.runtime.snapshot.keepalive_idle
        if close:
            self.close(linger=True)

    def serve_next(self) -> None:
        """Go on to the next request: the exchange is over."""
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
            self._close_when_served()

    def _close_when_served(self) -> None:
        """Close a connection whose client has closed its side, once all that it has sent is served."""
        if self.exchange is None and not self.buffer and not self.has_backlog:
            self.close()

    # ---- deadlines

    def on_timeout(self) -> None:
        """End a request, or the connection, whose deadline has passed."""
        exchange = self.exchange
        self.deadline = NEVER
        if self.state > LAST:
            self.time_out_end()
        elif self.write_paused and self._has_taken_enough():
            # It is slow, but it takes what it is sent.
            self.deadline = monotonic() + self.runtime.snapshot.body_idle
        elif exchange is not None:
            self.time_out_exchange(exchange)
        elif self.backlog is not None and self.backlog.is_queued:
            self.deadline = monotonic() + self.runtime.snapshot.header_timeout  # The client waits for its turn.
        elif self.buffer and not self.write_paused:
            self._reject_partial_head(RejectedError(408, "The request's head did not arrive in time"), self.buffer)
        else:
            # Idle as far as requests go; the last answer may still be on its way out.
            self.close()

    def limit_duration(self, exchange: Forwarding, until: float) -> None:
        """End the exchange by `until` (monotonic seconds), even while data flows."""
        self.runtime.connections.request_deadlines[self] = exchange, until

    def list_exchanges(self) -> "tuple[Forwarding, ...]":
        """List the requests under way: one at most."""
        return () if self.exchange is None else (self.exchange,)

    def end_overdue_request(self) -> None:
        """End a request that takes longer than its route allows, whatever moves. A tunnel is no request any more."""
        exchange = self.exchange
        if exchange is not None and self.state <= LAST and (exchange.server is None or exchange.server.tunnel is None):
            self.time_out_exchange(exchange, is_overdue=True)

    # ---- drains

    def drain(self) -> None:
        """Serve no request after the one under way. An idle connection has a moment for one that is on its way."""
        self.serve_no_more()
        if self.exchange is None:
            self.deadline = min(self.deadline, monotonic() + LAST_REQUEST_SECONDS)

    @property
    def tunnel(self) -> "Tunnel | None":
        """The tunnel that it is a part of once it has switched protocols."""
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
        """Whether the answer under way is a stream of events."""
        exchange = self.exchange
        return exchange is not None and self.state <= LAST and exchange.streams_events

    def end_event_stream(self) -> None:
        """End the stream of events under way, if it is one, as if the upstream had ended it."""
        exchange = self.exchange
        if exchange is not None and exchange.server is not None and self.is_event_stream:
            exchange.server.end_event_stream()

    # ---- the client's end

    def eof_received(self) -> bool:
        if was_reset(self.transport):
            return False
        self.half_closed = True
        if self.state == RESETTING:
            return True  # Closed now, a broken answer would have a clean end.
        exchange = self.exchange
        if exchange is None or self.state > LAST:
            return False
        if exchange.server is not None and exchange.server.tunnel:
            exchange.server.tunnel.on_client_closed()
            return not exchange.server.half_closed
        if self.secure or self.body is not None or exchange.state is AWAITS_BODY:
            # Under TLS that is how clients leave, and TLS 1.2 knows no other meaning (RFC 5246 section 7.2.1).
            return self._abandon_exchange(exchange)
        if exchange.head.upgrade and exchange.server is not None and not self.buffer:
            exchange.server.half_close()  # What follows a 101 has ended before it, and there is nothing of it.
        # A client that has sent its whole request may close its side and still gets the answer.
        now = monotonic()
        probes = self._probes = ProbeSchedule(exchange.started, now)
        self.runtime.connections.watch_half_closed(self)
        if probes.due > now:
            asyncio.get_running_loop().call_later(probes.due - now, self._send_first_probe)
        else:
            self.send_probe(now)
        self._close_when_served()
        return True

    def _abandon_exchange(self, exchange: Forwarding) -> bool:
        """Give up an answer whose client has left; returns what `eof_received` is to return."""
        if not exchange.has_begun_response:
            return False
        exchange.abandon()
        self.exchange = None
        self.reset_when_sent()
        return not self.transport.is_closing()

    def _send_first_probe(self) -> None:
        """Send the first probe, which is not to wait for the sweep. The loop's clock may be a moment early."""
        if self._probes is not None and not self._probes.count:
            self.send_probe(max(monotonic(), self._probes.due))

    def send_probe(self, now: float) -> None:
        """Send something to a client that has closed its side, where that is due; called twice a second."""
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
