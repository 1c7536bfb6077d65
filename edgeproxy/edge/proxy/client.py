"""A client's connection: bytes in, requests out of them one after another, answers back in order.

It decides nothing about requests (exchange.py does). It finds where one ends and the next begins, moves bodies,
and keeps what a client may cost within bounds: deadlines, read-ahead, and no reading while nobody takes the bytes.
"""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from edgeproxy.edge.errors import EdgeError, RejectedError, UpstreamError
from edgeproxy.edge.http1.request import PLAIN
from edgeproxy.edge.http1.request_line import check_unfinished
from edgeproxy.edge.proxy import client_certificate
from edgeproxy.edge.proxy.body import ChunkedBody, RequestBody, SizedBody
from edgeproxy.edge.proxy.deadlines import NEVER
from edgeproxy.edge.proxy.exchange import Exchange, Refusal
from edgeproxy.edge.proxy.reset import count_unacknowledged, reset_connection, was_reset
from edgeproxy.edge.proxy.states import FORWARDED, GATHERING, PARKED
from edgeproxy.edge.proxy.tls_transport import TlsTransport

if TYPE_CHECKING:
    from edgeproxy.edge.http1.request import RequestHead
    from edgeproxy.edge.proxy.client_certificate import ClientCertificate
    from edgeproxy.edge.proxy.runtime import Runtime
    from edgeproxy.edge.proxy.tunnel import Tunnel

SCHEMES = (b"http", b"https")
"""Of a connection without TLS, and of one with it."""

BLANK = b"\r\n\r\n"
CRLF = b"\r\n"

READ_AHEAD_BYTES = 64 << 10
"""Bytes held for later: requests sent before the one under way is answered, a body before its upstream is there."""

LINGER_SECONDS = 2.0
"""Seconds for which a closing connection still takes, and drops, what its client sends (RFC 9112 section 9.6)."""

LINGER_SECONDS_MAX = 30.0
"""As long as it sends: who is in the middle of an upload reads the answer only after that."""

PROBE_SECONDS = (0.1, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before a client that has closed its side is probed, each time; the first are of the request's own time. Who
closes that soon has been told to, as by `nc -N`, and mostly waits."""

LAST_REQUEST_SECONDS = 1.0
"""Seconds that an idle connection of a draining worker stays open: closed at once, it would lose the requests that
are on their way, and the client could not know whether they were served."""


class Client(asyncio.Protocol):
    """One connection of a client."""

    exchange_type = Exchange
    """What its requests become."""

    __slots__ = (
        "address",
        "body",
        "buffer",
        "choked",
        "cut_by",
        "deadline",
        "due",
        "ended",
        "exchange",
        "forwarded",
        "gone",
        "last",
        "linger_until",
        "peer",
        "probe_at",
        "probes",
        "reading",
        "runtime",
        "secure",
        "shown",
        "stale",
        "subject",
        "taken_by",
        "traces",
        "transport",
        "trusted",
        "unsent",
        "write",
        "writelines",
    )

    def __init__(self, runtime: "Runtime", peer: str, subject: bytes, *, secure: bool = False) -> None:
        self.runtime = runtime
        self.peer = peer
        self.subject = subject
        """What it counts for among the connections of its address; see connection_limits.py."""
        self.exchange: Exchange | None = None
        self.body: RequestBody | None = None
        """The body of the request under way, while some of it is still to come."""
        self.buffer = b""
        """What was read and belongs to no request yet."""
        self.last = False
        """No request after this one is served."""
        self.gone = False
        """Nothing more is written: closed, or about to be."""
        self.ended = False
        """The client has closed its side."""
        self.choked = False
        """The client does not take what is written to it."""
        self.unsent = 0
        """Bytes that waited for it when that was last looked at; kept while it is choked or closing."""
        self.due = 0
        """How large the body has to be for its deadline to be put off."""
        self.linger_until = 0.0
        """Until when a closing connection is read at most."""
        self.taken_by = 0.0
        """Until when a closing connection may take nothing of what is on its way."""
        self.cut_by = 0.0
        """When the connection is reset at the latest, once that is only put off."""
        self.reading = True
        self.traces = False
        """The head that was read last has a trace, as those do that are to come."""
        self.stale = False
        """Whom it asks for is to be found out anew once the exchange under way is over."""
        self.probes, self.probe_at = 0, NEVER
        """How often it was probed since it closed its side, and when it is to be the next time."""
        self.secure = secure
        """Whether it came over TLS."""
        self.shown: ClientCertificate | None = None
        """The certificate that it has shown, once somebody has asked for it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # Typed as what it does: uvloop's transports have no asyncio class among their bases.
        self.transport, self.write, self.writelines = transport, transport.write, transport.writelines
        runtime = self.runtime
        self.apply_configuration()
        self.deadline = monotonic() + runtime.snapshot.header_timeout
        runtime.connections.joined(self)
        runtime.overload.joined()

    def apply_configuration(self) -> None:
        """What the configuration makes of this peer: whether it is believed, what holds it, what upstreams are told."""
        addresses = self.runtime.snapshot.addresses
        self.trusted = addresses.trusts(self.peer)
        self.address = addresses.of(self.peer)
        lines = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Request-Id: "
        self.forwarded = lines % (self.peer.encode(), SCHEMES[self.secure])

    def certificate(self) -> "ClientCertificate":
        """What the client has shown. A trusted proxy's certificate says who the proxy is, and not for whom it asks."""
        if self.trusted:
            return client_certificate.NONE
        if self.shown is None:
            transport = self.transport
            der = transport.peer_certificate() if isinstance(transport, TlsTransport) else None
            self.shown = client_certificate.parse_certificate(der)
        return self.shown

    def configuration_changed(self) -> None:
        """Another configuration is served now: it holds from the next request on."""
        if self.exchange is not None and self.trusted:
            # Until it is over it remains the request of the one that the proxy asks for.
            self.stale = True
        else:
            self.apply_configuration()
            if not (self.address.admitted or self.trusted):
                self.leave_soon()

    def leave_soon(self) -> None:
        """It may not come any more: what has begun is finished, and nothing more is served."""
        self.last = True
        if self.exchange is None:
            self.close()

    # ---- requests

    def data_received(self, data: bytes) -> None:
        if self.exchange is not None or self.gone:
            self.more(data)
        elif self.buffer:
            data, self.buffer = self.buffer + data, b""
            self.begin(data, self.deadline)
        else:
            self.begin(data)

    def begin(self, data: bytes, deadline: float = 0.0) -> None:
        """Serve the request that `data` begins with; `deadline` is that of a head whose first part came earlier."""
        while True:
            end = data.find(BLANK)
            if end < 0 or end > self.runtime.snapshot.sizes.head:
                self.incomplete(data, deadline)
                return
            exchange = self.exchange = self.exchange_type(self, self.runtime)
            outcome = exchange.begin(data, end)
            if outcome is FORWARDED or outcome is PARKED:
                return
            if isinstance(outcome, EdgeError) and data.startswith(CRLF):
                data = remove_empty_lines(data)
                continue
            rest = self.turn_away(exchange, outcome, data, end)
            if not rest or self.choked:
                self.buffer = rest
                return
            # The head that was late is dealt with; the next has a deadline of its own.
            data, deadline = rest, 0.0

    def turn_away(self, exchange: Exchange, refusal: Refusal, data: bytes, end: int) -> bytes:
        """Answer a request that is not forwarded; returns what follows it, nothing where that cannot be told."""
        head = exchange.head
        after = end + 4 + exchange.length
        if not exchange.path:
            exchange.first = data  # Its line may still tell what was asked for.
        plain = head is PLAIN  # Its class says all of it, and is slow to look into.
        unclear = len(data) < after or (not plain and (head.chunked or head.expect))
        close = unclear or self.last or (not plain and head.close)
        close = close or (isinstance(refusal, RejectedError) and refusal.close)
        self.answer(exchange.own_answer(refusal, close=close), close=close)
        return b"" if close or len(data) == after else data[after:]

    def incomplete(self, data: bytes, deadline: float) -> None:
        """The head is not whole yet; refuse it now where nothing that could follow would make it one."""
        self.exchange = None
        if data.startswith(CRLF):
            data = remove_empty_lines(data)
            if BLANK in data:
                self.begin(data, deadline)
                return
        try:
            check_unfinished(data, self.runtime.snapshot.sizes)
        except RejectedError as error:
            self.refuse(error, data)
            return
        self.buffer = data
        if self.ended:
            self.close()
        elif data:
            self.deadline = deadline or monotonic() + self.runtime.snapshot.header_timeout

    def refuse(self, refusal: RejectedError, data: bytes) -> None:
        """Answer what has not become a request, and will not."""
        exchange = self.exchange = Exchange(self, self.runtime)
        exchange.first = data
        self.answer(exchange.own_answer(refusal, close=True), close=True)

    def next(self) -> None:
        """The exchange is over: what comes after it?"""
        self.exchange = None
        if self.stale:
            self.stale = False
            self.apply_configuration()
        if self.gone:
            return
        if self.last:
            self.close(linger=self.body is not None or bool(self.buffer))
            return
        if self.choked:
            self.pause()
            return
        data, self.buffer = self.buffer, b""
        self.deadline = monotonic() + self.runtime.snapshot.keepalive_idle
        if data:
            self.begin(data)
        self.resume()
        if self.ended:
            self.serve_out()

    def serve_out(self) -> None:
        """The client has closed its side: what it has sent is served, then the connection ends."""
        if self.exchange is None and not self.buffer:
            self.close()

    def on_behalf(self, head: "RequestHead") -> None:
        """A trusted proxy is the peer: take from it for whom it asks."""
        addresses = self.runtime.snapshot.addresses
        client, self.forwarded = addresses.on_behalf(self.peer, head, SCHEMES[self.secure])
        self.address = addresses.of(client)

    # ---- bodies

    def begin_body(self, exchange: Exchange, data: bytes) -> None:
        """`data` follows the head: the body, or the part of it that is there, goes with the head in one write."""
        head = exchange.head
        if head.close:
            self.last = True
        if head.chunked:
            self.body = ChunkedBody(exchange.snapshot.longest_body, exchange.snapshot.lines.names)
        elif exchange.length:
            self.body = SizedBody(exchange.length)
        else:
            self.buffer = data
            return
        self.due = exchange.snapshot.body_idle_bytes
        exchange.message += self.take(data)

    def take(self, data: bytes) -> bytes:
        """The client's bytes of a body as the upstream is to get them."""
        body = self.body
        assert body is not None
        taken = body.feed(data)
        exchange = self.exchange
        if exchange is not None:
            for counter in exchange.inward:
                counter.add(body.size - exchange.bytes_in)
            exchange.bytes_in = body.size
        if body.done:
            self.body = None
            self.buffer = body.rest
        return taken

    def more(self, data: bytes) -> None:
        """Bytes while an exchange is under way: its body, its tunnel, or requests to come."""
        exchange = self.exchange
        if exchange is None or self.gone:
            if self.linger_until:
                self.deadline = max(self.deadline, min(monotonic() + LINGER_SECONDS, self.linger_until))
            return
        server = exchange.server
        if server is not None and server.tunnel:
            server.tunnel.up(data)
        elif self.body is not None:
            try:
                data = self.take(data)
            except RejectedError as error:
                exchange.fail(error)
                return
            if server is not None:
                exchange.streamed = True
                server.write(data)
                self.put_off(exchange)
            elif exchange.state is GATHERING:
                self.put_off(exchange)
                exchange.gather_more(data)
            else:
                exchange.message += data
                if len(exchange.message) > READ_AHEAD_BYTES:
                    self.pause()
        else:
            self.buffer += data
            if self.enough():
                self.pause()

    def put_off(self, exchange: Exchange) -> None:
        """A piece of the body has come."""
        if self.body is None:
            assert exchange.route is not None
            self.deadline = monotonic() + (exchange.idle_timeout if exchange.answered else exchange.route.head_timeout)
        elif self.body.size >= self.due:
            # Not for each piece: one byte now and then would hold the upstream for ever.
            self.due = self.body.size + exchange.snapshot.body_idle_bytes
            self.deadline = monotonic() + exchange.snapshot.body_idle

    def enough(self) -> bool:
        """Whether what waits behind the request under way is as much as is read ahead, in bytes or in requests."""
        held = self.buffer
        # Counted are the ends of heads. One within a body only stops the reading earlier, until that request's turn.
        return len(held) > READ_AHEAD_BYTES or held.count(BLANK) >= self.runtime.snapshot.pipelined

    # ---- flow control

    def pause(self) -> None:
        """Read no more for now."""
        if self.reading and not self.gone:
            self.reading = False
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on, unless what is held is enough, or whoever is to take it takes no more."""
        if self.reading or self.gone:
            return
        exchange = self.exchange
        if exchange is None:
            # What is held may be a head that is not whole, which has a bound of its own.
            taken = not self.choked
        elif self.enough():
            taken = False
        elif exchange.server is None:
            taken = len(exchange.message) <= READ_AHEAD_BYTES or exchange.state is GATHERING
        else:
            taken = not exchange.server.full
        if taken:
            self.reading = True
            self.transport.resume_reading()

    def check(self) -> None:
        """Twice a second while it is not read: a reset is reported to who reads or writes, and to nobody else."""
        if was_reset(self.transport):
            self.transport.abort()

    def pause_writing(self) -> None:
        self.choked = True
        self.unsent = self.underway()
        exchange = self.exchange
        if exchange is None:
            self.pause()
        elif exchange.server is not None:
            if exchange.answered and (self.deadline == NEVER or exchange.server.tunnel is None):
                # How long the answer may be silent is one thing, how long its reader another.
                self.deadline = monotonic() + self.runtime.snapshot.body_idle
            exchange.server.pause()

    def resume_writing(self) -> None:
        self.choked = False
        exchange = self.exchange
        if exchange is None:
            self.next()
        elif exchange.server is not None:
            if exchange.answered and exchange.server.tunnel is None:
                self.deadline = monotonic() + exchange.idle_timeout
            exchange.server.resume()

    # ---- answers of the edge's own, and ends

    def answer(self, answer: bytes, *, close: bool) -> None:
        """Write an answer of the edge's own, which ends the exchange; `close` ends the connection as well."""
        if self.exchange is not None:
            self.exchange.release()
            self.exchange = None
        self.write(answer)
        self.deadline = monotonic() + self.runtime.snapshot.keepalive_idle
        if close:
            self.close(linger=True)

    def close(self, *, linger: bool = False) -> None:
        """Close once everything written has gone.

        With `linger` the client's side is read, and dropped, for a while: a connection closed over unread input
        is reset, and the reset may destroy the answer before the client has read it (RFC 9112 section 9.6).
        """
        if self.gone:
            return
        now = monotonic()
        self.unsent = self.underway()
        # What was written just now is still on its way whoever the client is: that is looked at in a while.
        self.deadline = now + LINGER_SECONDS
        self.taken_by = now + self.runtime.snapshot.body_idle
        self.buffer, self.body = b"", None
        if linger and not self.ended and self.transport.can_write_eof():
            if not self.reading:
                self.transport.resume_reading()
            self.linger_until = now + LINGER_SECONDS_MAX
            self.gone = True
            self.transport.write_eof()
        else:
            self.gone = True
            self.transport.close()

    def cut(self) -> None:
        """Reset the connection within an answer, once what was written before has arrived.

        A reset at once would destroy what is still on its way, and that may be whole answers to requests before.
        """
        self.gone = True
        self.buffer, self.body = b"", None
        self.unsent = self.underway()
        self.cut_by = monotonic() + self.runtime.snapshot.body_idle
        self.cut_on()

    def cut_on(self) -> None:
        """Go on with it: at every sweep, as long as the client takes something of what is on its way."""
        now = monotonic()
        before, self.unsent = self.unsent, self.underway()
        if self.unsent < before:
            self.cut_by = now + self.runtime.snapshot.body_idle
        if not self.unsent or now > self.cut_by:
            self.abort()
        else:
            self.deadline = now

    def underway(self) -> int:
        """Bytes that were written, and that the client's host has not taken yet."""
        return self.transport.get_write_buffer_size() + count_unacknowledged(self.transport)

    def abort(self) -> None:
        """Reset the connection: what was sent so far must not look whole, not even where only its end tells that."""
        self.gone = True
        reset_connection(self.transport)

    def drain(self) -> None:
        """Serve no request after the one under way. An idle connection has a moment for one that is on its way."""
        self.last = True
        if self.exchange is None:
            self.deadline = min(self.deadline, monotonic() + LAST_REQUEST_SECONDS)

    @property
    def tunnel(self) -> "Tunnel | None":
        """What it is a part of once it has switched protocols."""
        exchange = self.exchange
        return None if exchange is None or exchange.server is None else exchange.server.tunnel

    def leave_tunnel(self) -> None:
        """Tell both ends of its tunnel, if it has one, that the edge goes away."""
        if self.tunnel is not None:
            self.tunnel.leave()

    @property
    def is_event_stream(self) -> bool:
        """Whether the answer under way is a stream of events."""
        exchange = self.exchange
        return exchange is not None and not self.gone and exchange.streams_events

    def end_event_stream(self) -> None:
        """End the stream of events under way, if it is one, as if the upstream had ended it."""
        exchange = self.exchange
        if exchange is not None and exchange.server is not None and self.is_event_stream:
            exchange.server.end_answer()

    def timed_out(self) -> None:
        exchange = self.exchange
        self.deadline = NEVER
        if self.cut_by:
            self.cut_on()
        elif self.gone and monotonic() < self.taken_by and self.underway():
            self.deadline = self.taken_by
        elif (self.gone or self.choked) and self.takes():
            # It is slow, but it takes what it is sent.
            self.deadline = monotonic() + self.runtime.snapshot.body_idle
        elif self.gone and not self.transport.get_write_buffer_size():
            self.transport.abort()
        elif self.gone:
            self.abort()
        elif exchange is None and self.buffer and not self.choked:
            late = RejectedError(408, "The request's head did not arrive in time")
            self.refuse(late, self.buffer)
        elif exchange is None:
            # Idle as far as requests go; the last answer may still be on its way out.
            self.close()
        else:
            self.expire(exchange)

    def bound(self, exchange: Exchange, until: float) -> None:
        """Have the exchange over by then, whatever moves; seconds of the monotonic clock."""
        self.runtime.connections.bounded[self] = exchange, until

    def overdue(self) -> None:
        """The request under way takes longer than its route allows, whatever moves. A tunnel is no request any more."""
        exchange = self.exchange
        if exchange is not None and not self.gone and (exchange.server is None or exchange.server.tunnel is None):
            self.expire(exchange)

    def expire(self, exchange: Exchange) -> None:
        """There will be no answer, or no more of it."""
        if exchange.answered:
            self.abort()
        elif self.body is not None and self.reading:
            exchange.fail(RejectedError(408, "The request's body did not arrive in time"))
        else:
            exchange.fail(UpstreamError("http_response_timeout", "The upstream did not answer in time", status=504))

    def takes(self) -> bool:
        """Whether the client has taken enough of what is on its way since this was last asked."""
        before, self.unsent = self.unsent, self.underway()
        return 0 < self.unsent <= before - self.runtime.snapshot.body_idle_bytes

    def eof_received(self) -> bool:
        if was_reset(self.transport):
            return False
        self.ended = True
        if self.cut_by:
            return True  # Closed now, a broken answer would have a clean end.
        exchange = self.exchange
        if exchange is None or self.gone:
            return False
        if exchange.server is not None and exchange.server.tunnel:
            exchange.server.end()
            return not exchange.server.ended
        if self.secure or self.body is not None:
            # Under TLS that is how clients leave, and TLS 1.2 knows no other meaning (RFC 5246 section 7.2.1).
            return self.leave(exchange)
        if exchange.head.upgrade and exchange.server is not None and not self.buffer:
            exchange.server.end()  # What follows a 101 has ended before it, and there is nothing of it.
        # A client that has sent its whole request may close its side and still gets the answer.
        now = monotonic()
        self.probes, self.probe_at = 0, max(now, exchange.started + PROBE_SECONDS[0])
        self.runtime.connections.half_closes(self)
        if self.probe_at > now:
            asyncio.get_running_loop().call_later(self.probe_at - now, self.probe_now)
        else:
            self.probe(now)
        self.serve_out()
        return True

    @property
    def descriptor(self) -> int:
        """Its socket's."""
        descriptor: int = self.transport.get_extra_info("socket").fileno()
        return descriptor

    def leave(self, exchange: Exchange) -> bool:
        """The client has left: nobody waits for the rest of an answer. What `eof_received` is to return."""
        if not exchange.answered:
            return False
        exchange.abandon()
        self.exchange = None
        self.cut()
        return not self.transport.is_closing()

    def probe_now(self) -> None:
        """The first time, which is not to wait for the sweep. The loop's clock may be a moment early."""
        if not self.probes:
            self.probe(max(monotonic(), self.probe_at))

    def probe(self, now: float) -> None:
        """Twice a second, once the client has closed its side: does it still wait, or has it closed altogether?

        Both look the same until something is sent. Where a connection is gone, the answer to that is a reset, of which
        reset_watcher.py tells.
        """
        exchange = self.exchange
        if exchange is None or self.gone:
            return
        if now >= self.probe_at and self.probes < len(PROBE_SECONDS) and not self.choked:
            probe = exchange.probe()
            if probe:
                self.write(probe)
                self.probes += 1
                self.probe_at = now + (*PROBE_SECONDS, NEVER)[self.probes]

    def connection_lost(self, exc: Exception | None) -> None:
        cut, self.gone = self.gone, True
        self.runtime.connections.left(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.abandon(cut=cut)


def remove_empty_lines(data: bytes) -> bytes:
    """Empty lines before a request line are ignored (RFC 9112 section 2.2)."""
    start = 0
    while data.startswith(CRLF, start):
        start += 2
    return data[start:]
