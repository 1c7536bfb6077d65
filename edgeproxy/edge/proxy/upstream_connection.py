"""A connection to an upstream: answers out of bytes, relayed as they come.

It serves one exchange at a time and is kept for the next where the answer's end was unmistakable.
"""

import asyncio
import ssl
from time import monotonic
from typing import TYPE_CHECKING, Literal

from edgeproxy.base.client_tls import format_tls_error
from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.http1.chunked import ChunkedDecoder, create_response_error, encode_chunk, encode_last_chunk
from edgeproxy.edge.http1.keep_alive import parse_idle_timeout
from edgeproxy.edge.http1.response import (
    NOT_PLAIN,
    PlainResponse,
    ResponseHead,
    check_unfinished,
    read_plain_response,
    read_response,
)
from edgeproxy.edge.proxy.bounded_cache import store_bytes
from edgeproxy.edge.proxy.deadlines import NEVER, SWEEP_SECONDS
from edgeproxy.edge.proxy.exchange import COPIED_BYTES_MAX, Exchange
from edgeproxy.edge.proxy.reset import was_reset
from edgeproxy.edge.proxy.server_tls import classify_tls_error
from edgeproxy.edge.proxy.socket_input import read_remaining
from edgeproxy.edge.proxy.tunnel import Tunnel

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.compression import Compressor
    from edgeproxy.edge.proxy.pool import Endpoint
    from edgeproxy.edge.proxy.runtime import Runtime

BLANK = b"\r\n\r\n"
LINE_ENDS = (b"\r", b"\n")
DROPPED = "its connection is closed"
PLAIN_HEAD_BYTES_MAX = 16 << 10
"""Bytes of a head that may be plain. No service may send less, so its own bound is looked at where a head is longer."""

ANSWERS: dict[bytes, PlainResponse] = {}
"""Heads of answers seen before, which mean what their bytes say and nothing else."""

UNDATED: dict[bytes, PlainResponse] = {}
"""Those without Date, to which the time is still to be added at which they came."""

# What the bytes from an upstream are. Zero is where an ordinary answer never leaves.
WAITING, SIZED, CHUNKED, UNTIL_CLOSE, TUNNEL, COMPRESSED = range(6)


class UpstreamConnection(asyncio.Protocol):
    """One connection to an endpoint of a service."""

    __slots__ = (
        "_decoder",
        "_head",
        "_left",
        "_paused",
        "_rechunk",
        "_state",
        "buffer",
        "compressor",
        "deadline",
        "ended",
        "endpoint",
        "exchange",
        "full",
        "idle",
        "reusable",
        "reused",
        "runtime",
        "transport",
        "tunnel",
        "write",
    )

    def __init__(self, runtime: "Runtime", endpoint: "Endpoint") -> None:
        self.runtime = runtime
        self.endpoint = endpoint
        self.exchange: Exchange | None = None
        self.buffer = b""
        self.reusable = True
        self.reused = False
        """It has answered before."""
        self.idle = endpoint.service.idle_timeout
        """Seconds for which it is kept idle."""
        self.ended = False
        self.tunnel: Tunnel | None = None
        """What it is a part of once it has left HTTP behind."""
        self.deadline = NEVER
        self._state = WAITING
        self.full = self._paused = self._rechunk = False
        self._head = b""
        """Of the answer under way, for the client, while it waits for the piece of the body that came with it."""
        self.compressor: Compressor | None = None
        """What compresses the content of the answer under way, if it is compressed."""

    @property
    def rechunks(self) -> bool:
        """Whether an answer is under way that the client gets in chunks, each written whole."""
        return self._rechunk and self._state in (CHUNKED, UNTIL_CLOSE, COMPRESSED)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # Typed as what it does: uvloop's transports have no asyncio class among their bases.
        self.transport, self.write = transport, transport.write
        self.runtime.connections.upstream_opened(self)

    # ---- answers

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if self._state or exchange is None or self.buffer:
            self.more(data)
            return
        end = data.find(BLANK)
        if end < 0:
            self.incomplete(data)
            return
        block = data[: end + 2]
        plain = ANSWERS.get(block)
        if plain is None:
            plain = parse_head(block, self.runtime.date)
        if exchange.whole and end + 4 + plain[1] == len(data):
            client = exchange.client
            # An answer in one piece does not say that the connection ends, and does not come by `Client.next`, where
            # the end of the client's side, another configuration and a client that is not read are seen to.
            if not (client.last or client.ended or client.stale or self.full):
                exchange.respond_whole(self, plain, data, end)
                return
        self.begin_answer(data, end)

    def begin_answer(self, data: bytes, end: int) -> None:
        """An answer that did not come whole in one read, or whose head needs care."""
        exchange = self.exchange
        assert exchange is not None
        if self.reused and data.startswith(LINE_ENDS):
            self.skip_line_ends(data)
            return
        try:
            while True:
                if end > self.endpoint.service.head:
                    raise create_head_too_long_error()
                head = read_response(data[: end + 2])
                rest = data[end + 4 :]
                if head.status == 101:
                    self.switch(head, rest)
                    return
                if head.status >= 200:
                    break
                exchange.interim(head)
                data = rest
                end = data.find(BLANK)
                if end < 0:
                    self.incomplete(data)
                    return
        except UpstreamError as error:
            exchange.fail(error)
            return
        if not self.reused:
            self.learn(data[: end + 2])
        # Servers hand a connection on which an upgrade was asked for to somebody else, who answers once.
        self.reusable = self.reusable and not (head.close or exchange.head.upgrade)
        self._head, self._rechunk = exchange.respond(self, head)
        if exchange.bodiless(head.status):
            self.pass_on(exchange)
            # One that says of no body where it would end may be about to send it, against the rules, until it closes.
            framed = head.bodiless or head.chunked or head.length >= 0
            self.reusable = self.reusable and framed
            if rest:
                self.note_surplus(len(rest))
            self.finished()
        else:
            self.begin_body(exchange, head, rest)

    def begin_body(self, exchange: Exchange, head: ResponseHead, data: bytes) -> None:
        """How the answer's body ends (RFC 9112 section 6.3), and the part of it that came with the head."""
        if head.chunked:
            self._state, self._decoder = CHUNKED, ChunkedDecoder(create_response_error)
        elif head.length >= 0:
            self._state, self._left = SIZED, head.length
            if not head.length:
                self.pass_on(exchange)
                if data:
                    self.note_surplus(len(data))
                self.finished()
                return
            if self.compressor is not None:
                self._state = COMPRESSED
        else:
            self._state, self.reusable = UNTIL_CLOSE, False
        if data:
            self.more(data)
        if self._head:
            self.pass_on(exchange)

    def incomplete(self, data: bytes) -> None:
        """The answer's head is not whole yet; it fails now where nothing that could follow would make it one."""
        exchange = self.exchange
        assert exchange is not None
        if self.reused and data.startswith(LINE_ENDS):
            self.skip_line_ends(data)
            return
        try:
            if len(data) > self.endpoint.service.head:
                raise create_head_too_long_error()
            check_unfinished(data)
        except UpstreamError as error:
            exchange.fail(error)
        else:
            self.buffer = data

    def more(self, data: bytes) -> None:
        """Bytes that are not the first of an answer."""
        exchange = self.exchange
        if exchange is None:
            # Nobody asked: whatever this is, it must not be taken for the next request's answer.
            if self.endpoint.forget(self):
                self.note_surplus(len(data), came="idle")
            self.transport.abort()
        elif self._state == WAITING:
            data, self.buffer = self.buffer + data, b""
            self.data_received(data)
        else:
            exchange.client.deadline = monotonic() + exchange.idle_timeout
            RELAY[self._state](self, exchange, data)

    def pass_on(self, exchange: Exchange, data: bytes = b"") -> None:
        """Write a piece of the answer, behind its head where that has not gone out yet."""
        head, self._head = self._head, b""
        if head and len(data) > COPIED_BYTES_MAX:
            exchange.client.writelines((head, data))
        else:
            exchange.client.write(head + data)  # No copy where there is no head.

    def relay_sized(self, exchange: Exchange, data: bytes) -> None:
        """A piece of a body of known length."""
        if len(data) > self._left:
            data = self.cut_surplus(data)
        self._left -= len(data)
        exchange.bytes_out += len(data)
        for counter in exchange.outward:
            counter.add(len(data))
        self.pass_on(exchange, data)
        if not self._left:
            self.finished()

    def relay_compressed(self, exchange: Exchange, data: bytes) -> None:
        """A piece of a body of known length, of which nobody knows how long it is once it is compressed."""
        compressor = self.compressor
        assert compressor is not None
        if len(data) > self._left:
            data = self.cut_surplus(data)
        self._left -= len(data)
        self.write_packed(exchange, compressor.feed([data], last=not self._left), last=not self._left)
        if not self._left:
            self.finished()

    def write_packed(self, exchange: Exchange, packed: bytes, *, last: bool) -> None:
        """A piece of a compressed body, counted as the client gets it."""
        exchange.bytes_out += len(packed)
        for counter in exchange.outward:
            counter.add(len(packed))
        if packed or last:
            self.pass_on(exchange, encode_chunk([packed]) + (encode_last_chunk() if last else b""))

    def relay_chunked(self, exchange: Exchange, data: bytes) -> None:
        """A piece of a chunked body: chunked again for the client, or bare for one that knows no chunks."""
        decoder = self._decoder
        try:
            parts = decoder.feed(data)
        except UpstreamError as error:
            self.pass_on(exchange)
            exchange.fail(error)
            return
        if decoder.rest:
            # The answer is whole. What follows it is nobody's.
            self.note_surplus(len(decoder.rest))
        if self.compressor is not None:
            parts = [self.compressor.feed(parts, last=decoder.done)]
        size = sum(map(len, parts))
        exchange.bytes_out += size
        for counter in exchange.outward:
            counter.add(size)
        trailers = exchange.read_trailers(decoder.trailers) if decoder.done else []
        if self._rechunk:
            end = encode_last_chunk(trailers) if decoder.done else b""
            if size or end:
                self.pass_on(exchange, encode_chunk(parts) + end)
        elif parts or self._head:
            self.pass_on(exchange, b"".join(parts))
        if decoder.done:
            self.finished()

    def relay_until_close(self, exchange: Exchange, data: bytes) -> None:
        """A piece of a body that ends with its connection."""
        if self.compressor is not None:
            self.write_packed(exchange, self.compressor.feed([data]), last=False)
            return
        exchange.bytes_out += len(data)
        for counter in exchange.outward:
            counter.add(len(data))
        self.pass_on(exchange, encode_chunk([data]) if self._rechunk else data)

    def relay_tunnel(self, exchange: Exchange, data: bytes) -> None:
        """Bytes of a protocol that is not ours."""
        assert self.tunnel is not None
        self.tunnel.down(data)

    # ---- what follows an answer

    def cut_surplus(self, data: bytes) -> bytes:
        """Return what of `data` belongs to the answer, which ends where its head says (RFC 9112 section 6.3)."""
        self.note_surplus(len(data) - self._left)
        return data[: self._left]

    def note_surplus(self, size: int, came: Literal["answer", "idle", "lent"] = "answer") -> None:
        """Report bytes that belong to no answer, and use this connection for no further request.

        They came with an answer, while the connection was idle, or after the next request was sent. The answer itself
        is whole: the service has done what was asked, and is not to blame for more than a length.
        """
        self.reusable = False
        endpoint, exchange, runtime = self.endpoint, self.exchange, self.runtime
        runtime.metrics.upstream_surplus(endpoint.service.name, came)
        about = f"{endpoint.host}:{endpoint.port}"
        if exchange is None:
            # Some servers say 408 before they close what is idle, which is no fault.
            runtime.endpoint_log.info("an upstream sent what nothing asked for", about, bytes=size, then=DROPPED)
        else:
            rid = exchange.request_id().decode()
            event = "an upstream sent more than its answer"
            runtime.endpoint_log.error(event, about, came=came, bytes=size, request_id=rid, then=DROPPED)

    def skip_line_ends(self, data: bytes) -> None:
        """Read an answer behind line ends: some servers end a body with one that its length does not count.

        They came after this request was sent, behind the answer before, and mean nothing (RFC 9112 section 2.2).
        """
        answer = data.lstrip(b"\r\n")
        self.note_surplus(len(data) - len(answer), came="lent")
        if answer:
            self.data_received(answer)

    def switch(self, head: ResponseHead, rest: bytes) -> None:
        """101: from here on the two connections are one tunnel (RFC 9110 section 7.8)."""
        exchange = self.exchange
        assert exchange is not None
        client = exchange.client
        protocols = exchange.protocols()
        if not protocols or (head.upgrade is not None and head.upgrade not in protocols) or client.body is not None:
            raise UpstreamError("http_upgrade_failed", "The upstream switched protocols unasked")
        self._state, self.reusable = TUNNEL, False
        spoken = protocols[0] if head.upgrade is None and len(protocols) == 1 else head.upgrade
        tunnel = self.tunnel = Tunnel(exchange, client, self, framed=spoken == b"websocket")
        self.runtime.connections.tunnels += 1
        exchange.switch(head)
        if client.buffer:
            tunnel.up(client.buffer)
            client.buffer = b""
        if client.ended:
            self.end()
        client.resume()
        if rest:
            tunnel.down(rest)
        if self.runtime.connections.draining:
            tunnel.leave()

    def finished(self) -> None:
        """The answer is complete: the connection is free for the next request, or closed."""
        exchange, self.exchange = self.exchange, None
        assert exchange is not None
        self._state = WAITING
        self.compressor = None  # The next answer may be another route's.
        self.resume()
        if self.full:
            # Answered before the request was taken: whoever came next would wait behind what is left of it.
            self.reusable = False
        self.idle_again(monotonic())
        exchange.complete()

    def learn(self, block: bytes) -> None:
        """The first answer's head, as bytes: for how long does this server keep a connection that is idle?"""
        self.reused = True
        self.keep_at_most(min(parse_idle_timeout(block), self.endpoint.idle_lifetime.seconds))

    def keep_at_most(self, seconds: float) -> None:
        """Keep it idle for no longer than this, from its last answer on."""
        if seconds < self.idle:
            self.deadline -= self.idle - seconds
            self.idle = seconds
        if self.idle <= SWEEP_SECONDS:
            # Nobody would look at it before it is over.
            self.reusable = False

    @property
    def idle_since(self) -> float:
        """When its last answer ended, in seconds of the monotonic clock."""
        return self.deadline - self.idle

    def idle_again(self, now: float) -> None:
        """Keep the connection for later where that is safe."""
        if self.reusable and not self.transport.is_closing() and self.endpoint.release(self):
            self.deadline = now + self.idle
        else:
            self.close()

    # ---- flow control

    def pause(self) -> None:
        """Read no more for now: the client does not take it."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        self.full = True
        if self.exchange is not None:
            self.exchange.client.pause()

    def resume_writing(self) -> None:
        self.full = False
        if self.exchange is not None:
            self.exchange.client.resume()
            if self.exchange.overflow is not None:
                self.exchange.overflow.room()

    # ---- ends

    def end(self) -> None:
        """The client has closed its side of a tunnel: so does this one."""
        if not self.transport.is_closing():
            self.transport.write_eof()

    def close(self) -> None:
        """Close once everything written has gone, or nobody has taken it for too long."""
        self.exchange = None
        self.deadline = monotonic() + self.endpoint.service.idle_timeout
        self.transport.close()

    def end_answer(self) -> None:
        """End the event stream under way, as if the upstream had. It has no length, and is never compressed."""
        exchange = self.exchange
        assert exchange is not None
        if self._rechunk:
            exchange.client.write(encode_last_chunk())
        self.abort()
        exchange.complete()

    def abort(self) -> None:
        """Close at once; nothing more is wanted of this connection."""
        self.exchange = None
        self.transport.abort()

    def timed_out(self) -> None:
        self.deadline = NEVER
        if self.exchange is None:
            self.endpoint.forget(self)
            self.transport.abort()  # Not closed: it may be closing already, and wait for what nobody takes.

    def eof_received(self) -> bool:
        exchange = self.exchange
        if exchange is None:
            # Between this and connection_lost nobody must be given a connection that is closing.
            self.left_idle()
        elif was_reset(self.transport):
            pass
        elif self._state == UNTIL_CLOSE:
            self.ended = True
        elif self._state == TUNNEL:
            self.ended = True
            exchange.client.transport.write_eof()
            return not exchange.client.ended
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if isinstance(exc, OSError) and self.exchange is not None and self.endpoint.scheme == "http":
            # What was to be sent could not be. An answer that had come by then is an answer all the same.
            last = read_remaining(self.transport)
            if last:
                self.data_received(last)
        self.runtime.connections.upstream_closed(self, tunnel=self.tunnel is not None)
        self.tunnel = None  # It knows both connections, and nobody should have to search for what holds itself.
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            self.left_idle()
        elif self._state == UNTIL_CLOSE and self.ended:
            if self.compressor is not None:
                self.write_packed(exchange, self.compressor.end(), last=True)
            elif self._rechunk:
                exchange.client.write(encode_last_chunk())
            exchange.complete()
        elif self._state == TUNNEL:
            exchange.end_tunnel()
        elif isinstance(exc, ssl.SSLError) and not self.reused:
            exchange.fail(self.tls_broke(exchange, exc))
        else:
            # Line ends that were skipped were perhaps to begin the answer.
            begun = bool(self.buffer) or not self.reusable
            if self.reused and not begun and self._state == WAITING:
                # It was lent about when it was closed.
                self.endpoint.closed_idle(self.idle_since, monotonic())
            exchange.lost(fresh=not self.reused, begun=begun)

    def left_idle(self) -> None:
        """The other side has closed it; if it was idle, that tells for how long it is kept."""
        if self.endpoint.forget(self):
            self.endpoint.closed_idle(self.idle_since, monotonic())

    def tls_broke(self, exchange: Exchange, failure: ssl.SSLError) -> UpstreamError:
        """TLS had been agreed on, and is of no use any more: what the request fails of.

        In TLS 1.3 that is also how an upstream refuses the edge's certificate.
        """
        about, request_id = f"{self.endpoint.host}:{self.endpoint.port}", exchange.request_id().decode()
        self.runtime.endpoint_log.error(
            "TLS with an upstream broke", about, why=format_tls_error(failure), request_id=request_id
        )
        return UpstreamError(classify_tls_error(failure), "TLS with the upstream broke")


def create_head_too_long_error() -> UpstreamError:
    """An answer's head is longer than any that is read."""
    return UpstreamError("http_response_header_section_size", "The upstream's answer has a head that is too long")


def parse_head(block: bytes, date: bytes) -> PlainResponse:
    """What the head of an answer means, where it is plain; remembered, but for the Date line that it gets if it has
    none: `date`, with its CRLF."""
    plain = UNDATED.get(block)
    if plain is None:
        if len(block) > PLAIN_HEAD_BYTES_MAX:
            return NOT_PLAIN
        try:
            plain = read_plain_response(block)
        except UpstreamError:
            # The reader that knows every rule will say so again, where there is somebody to hear it.
            return NOT_PLAIN
        if plain[5]:
            return store_bytes(ANSWERS, block, plain)
        store_bytes(UNDATED, block, plain)
    status, length, keep, rate, flags, _ = plain
    return status, length, keep + date, rate, flags, True


RELAY = {
    SIZED: UpstreamConnection.relay_sized,
    CHUNKED: UpstreamConnection.relay_chunked,
    UNTIL_CLOSE: UpstreamConnection.relay_until_close,
    TUNNEL: UpstreamConnection.relay_tunnel,
    COMPRESSED: UpstreamConnection.relay_compressed,
}
