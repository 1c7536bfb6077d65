"""A connection to an upstream: parses answers and relays them as they come.

The framing of a body is the state of the connection: `RELAY` has the method for its bytes. Flow control and the idle
lifetime are in the layer below (upstream_transport.py).
"""

import ssl
from time import monotonic
from typing import TYPE_CHECKING

from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.http1.chunked import encode_chunk, encode_last_chunk
from edgeproxy.edge.http1.field_values import find_value
from edgeproxy.edge.http1.response import ResponseHead, check_unfinished, read_response
from edgeproxy.edge.proxy.connections.client_transport import COPIED_BYTES_MAX
from edgeproxy.edge.proxy.connections.plain_responses import PLAIN_RESPONSES, read_plain_head
from edgeproxy.edge.proxy.connections.upstream_body import (
    CHUNKED,
    FILTERED,
    READ_UNTIL_CLOSE,
    SIZED,
    TUNNEL,
    UNTIL_CLOSE,
    UNTIL_CLOSES,
    WAITING,
    UpstreamBody,
    create_head_too_long_error,
)
from edgeproxy.edge.proxy.exchange.forwarding import Forwarding
from edgeproxy.edge.proxy.exchange.tunnel import Tunnel
from edgeproxy.edge.proxy.transport.reset import was_reset
from edgeproxy.edge.proxy.transport.socket_input import read_remaining
from edgeproxy.edge.proxy.transport.turns import PACKED_PIECE_BYTES_MAX, PIECE_BYTES_MAX, SMALL_BYTES, InputBacklog

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.exchange.runtime import Runtime
    from edgeproxy.edge.proxy.upstreams.pool import Endpoint

BLANK = b"\r\n\r\n"
LINE_ENDS = (b"\r", b"\n")
DROPPED = "its connection is closed"


class UpstreamConnection(UpstreamBody):
    """A connection to an endpoint of a service, and the answers that come over it."""

    __slots__ = ("_head", "buffer", "tunnel")

    def __init__(self, runtime: "Runtime", endpoint: "Endpoint") -> None:
        super().__init__(runtime, endpoint)
        self.buffer = b""
        """An incomplete head."""
        self.tunnel: Tunnel | None = None
        """The tunnel that it belongs to after a protocol switch."""
        self._head = b""
        """The head of the current answer, for the client. It waits for the piece of the body that came with it."""

    # ---- answers

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if self._state or exchange is None or self.buffer:
            self.receive_more(data)
            return
        endpoint = self.endpoint
        if data.startswith(endpoint.latest_head):
            # Within one second most heads are equal, so neither the end nor the meaning must be computed.
            end, plain = len(endpoint.latest_head) - 4, endpoint.latest_meaning
        else:
            end = data.find(BLANK)
            if end < 0:
                self.keep_partial_head(data)
                return
            block = data[: end + 2]
            if (known := PLAIN_RESPONSES[block]) is None:
                plain = read_plain_head(block, self.runtime.date_line)
            else:
                plain = endpoint.latest_meaning = known
                endpoint.latest_head = data[: end + 4]
        if exchange.accepts_whole and end + 4 + plain[1] == len(data):
            client = exchange.client
            # `respond_whole` does not tell the client that the connection ends, and bypasses `Client.serve_next`. So it
            # is not used if the client's side is closed, if the configuration changes, or if the client is not read.
            if not (client.state or client.half_closed or client.is_outdated or self.write_paused):
                exchange.respond_whole(self, plain, data, end)
                return
        self.begin_answer(data, end)

    def begin_answer(self, data: bytes, end: int) -> None:
        """Begin an answer that did not come whole in one read, or whose head needs care."""
        exchange = self.exchange
        assert exchange is not None
        if self.reused and data.startswith(LINE_ENDS):
            self.skip_line_ends(data)
            return
        try:
            final = self._read_final_head(exchange, data, end)
        except UpstreamError as error:
            exchange.fail(error)
            return
        if final is None:
            return
        head, block, rest = final
        if not self.reused:
            self.learn_idle_timeout(block)
        # After a request to upgrade, some servers hand the connection to a handler that answers once.
        self.reusable = self.reusable and not (head.close or exchange.head.upgrade)
        self._head, self._rechunk = exchange.begin_response(self, head)
        if exchange.is_bodiless(head.status):
            self.write_to_client(exchange)
            # Without framing the upstream may be about to send a body until it closes, against the rules.
            framed = head.bodiless or head.chunked or head.length >= 0
            self.reusable = self.reusable and framed
            if rest:
                self.record_surplus(len(rest))
            self.finish_answer()
        else:
            self.begin_body(exchange, head, rest)

    def _read_final_head(self, exchange: Forwarding, data: bytes, end: int) -> tuple[ResponseHead, bytes, bytes] | None:
        """Return the head of the final answer, parsed and as bytes, and the bytes after it.

        Relays interim answers before it. Return None if the final head is incomplete or will not come. Raises
        UpstreamError.
        """
        while end >= 0:
            if end > self.endpoint.service.max_head_bytes:
                raise create_head_too_long_error()
            block, rest = data[: end + 2], data[end + 4 :]
            head = read_response(block)
            if self.endpoint.service.request_id_field is not None:
                exchange.upstream_request_id = find_value(block, self.endpoint.service.request_id_field)
            if head.status == 101:
                self.switch_protocols(head, rest)
                return None
            if head.status >= 200:
                exchange.check_websocket(head.status)
                if self.hand_over(exchange, head, block, len(rest)):
                    return None
                return head, block, rest
            exchange.relay_interim(head)
            data = rest
            end = data.find(BLANK)
        self.keep_partial_head(data)
        return None

    def begin_body(self, exchange: Forwarding, head: ResponseHead, data: bytes) -> None:
        """Begin the answer's body, with the part of it that came with the head."""
        self.frame_body(exchange, head)
        if not head.length and not head.chunked:
            self.write_to_client(exchange)
            if data:
                self.record_surplus(len(data))
            self.finish_answer()
            return
        if data:
            self.receive_more(data)
        if self._head:
            self.write_to_client(exchange)

    def keep_partial_head(self, data: bytes) -> None:
        """Keep an incomplete head. Fail now if no further bytes could make it valid."""
        exchange = self.exchange
        assert exchange is not None
        if self.reused and data.startswith(LINE_ENDS):
            self.skip_line_ends(data)
            return
        try:
            if len(data) > self.endpoint.service.max_head_bytes:
                raise create_head_too_long_error()
            check_unfinished(data)
        except UpstreamError as error:
            exchange.fail(error)
        else:
            self.buffer = data

    def receive_more(self, data: bytes) -> None:
        """Process bytes that are not the first of an answer."""
        if (len(data) > SMALL_BYTES or self.backlog) and self.take_in_slices(data):
            return
        exchange = self.exchange
        if exchange is None and self.usage is not None:
            self.read_rest(self.usage, data)
        elif exchange is None:
            # Bytes without a request must not be taken for the next request's answer.
            if self.endpoint.forget(self):
                self.record_surplus(len(data), came="idle")
            self.transport.abort()
        elif self._state == WAITING:
            data, self.buffer = self.buffer + data, b""
            self.data_received(data)
        else:
            exchange.client.deadline = monotonic() + exchange.idle_timeout
            RELAY[self._state](self, exchange, data)

    def take_in_slices(self, data: bytes) -> bool:
        """Process input in slices. Return False if it must be processed at once, as for a closing connection."""
        if self.transport.is_closing():
            return False
        if self.backlog is None:
            self.backlog = InputBacklog(self.runtime.turns, self)
        return self.backlog.receive(data)

    def describe(self) -> tuple[str, str]:
        """Return the kind of the connection, and the address of its peer."""
        kind = "upstream" if self.tunnel is None else "upstream's tunnel"
        return kind, f"{self.endpoint.host}:{self.endpoint.port}"

    @property
    def takes_bulk(self) -> bool:
        """True if the next bytes of the answer are only passed on."""
        state = self._state
        if state == TUNNEL:
            return self.tunnel is not None and self.tunnel.is_opaque
        return state == SIZED or (state == UNTIL_CLOSE and self.body_filter is None)

    @property
    def piece_bytes_max(self) -> int:
        """Bytes of the answer that are processed at a time."""
        return PACKED_PIECE_BYTES_MAX if self.usage is not None and self.usage.is_packed else PIECE_BYTES_MAX

    def write_to_client(self, exchange: Forwarding, data: bytes = b"") -> None:
        """Write a piece of the answer, after its head if that has not gone out yet."""
        head, self._head = self._head, b""
        if head and len(data) > COPIED_BYTES_MAX:
            exchange.client.writelines((head, data))
        else:
            exchange.client.write(head + data)  # Without a head this copies nothing.

    def relay_sized(self, exchange: Forwarding, data: bytes) -> None:
        """Relay a piece of a body of known length."""
        if len(data) > self._left:
            data = self.cut_surplus(data)
        self._left -= len(data)
        exchange.bytes_out += len(data)
        for counter in exchange.response_counters:
            counter.add(len(data))
        self.write_to_client(exchange, data)
        if not self._left:
            self.finish_answer()

    def relay_filtered(self, exchange: Forwarding, data: bytes) -> None:
        """Relay a piece of a body of known length through a filter; its length is unknown afterwards."""
        body_filter = self.body_filter
        assert body_filter is not None
        if len(data) > self._left:
            data = self.cut_surplus(data)
        self._left -= len(data)
        self.write_filtered(exchange, body_filter.feed([data], last=not self._left), last=not self._left)
        if not self._left:
            self.finish_answer()

    def write_filtered(self, exchange: Forwarding, packed: bytes, *, last: bool) -> None:
        """Write a piece of a filtered body. It counts with its filtered size."""
        exchange.bytes_out += len(packed)
        for counter in exchange.response_counters:
            counter.add(len(packed))
        if not self._rechunk:
            self.write_to_client(exchange, packed)
        elif packed or last:
            self.write_to_client(exchange, encode_chunk([packed]) + (encode_last_chunk() if last else b""))

    def relay_chunked(self, exchange: Forwarding, data: bytes) -> None:
        """Relay a piece of a chunked body: in new chunks, or without chunks for a client that does not support them."""
        decoder = self._decoder
        try:
            parts = decoder.feed(data)
        except UpstreamError as error:
            self.write_to_client(exchange)
            exchange.fail(error)
            return
        if decoder.rest:
            # The answer is complete. The bytes after it belong to no request.
            self.record_surplus(len(decoder.rest))
        if self.body_filter is not None:
            parts = [self.body_filter.feed(parts, last=decoder.done)]
        size = sum(map(len, parts))
        exchange.bytes_out += size
        for counter in exchange.response_counters:
            counter.add(size)
        trailers = exchange.read_trailers(decoder.trailers) if decoder.done else []
        if self._rechunk:
            end = encode_last_chunk(trailers) if decoder.done else b""
            if size or end:
                self.write_to_client(exchange, encode_chunk(parts) + end)
        elif parts or self._head:
            self.write_to_client(exchange, b"".join(parts))
        if decoder.done:
            if trailers and not self._rechunk:
                exchange.client.write_trailers(trailers)
            self.finish_answer()

    def relay_until_close(self, exchange: Forwarding, data: bytes) -> None:
        """Relay a piece of a body that ends with its connection."""
        if self.body_filter is not None:
            self.write_filtered(exchange, self.body_filter.feed([data]), last=False)
            return
        exchange.bytes_out += len(data)
        for counter in exchange.response_counters:
            counter.add(len(data))
        self.write_to_client(exchange, encode_chunk([data]) if self._rechunk else data)

    def relay_read_until_close(self, exchange: Forwarding, data: bytes) -> None:
        """Relay a piece of a body that ends with its connection, and read the usage that it states."""
        assert self.usage is not None
        self.usage.feed(data)
        self.relay_until_close(exchange, data)

    def relay_tunnel(self, exchange: Forwarding, data: bytes) -> None:
        """Relay bytes of a protocol other than HTTP."""
        assert self.tunnel is not None
        self.tunnel.relay_down(data)

    # ---- what follows an answer

    def skip_line_ends(self, data: bytes) -> None:
        """Skip line ends before an answer: some servers end a body with one that its length does not count.

        The line ends came after this request was sent and belong to the previous answer. They are ignored (RFC 9112
        section 2.2).
        """
        answer = data.lstrip(b"\r\n")
        self.record_surplus(len(data) - len(answer), came="lent")
        if answer:
            self.data_received(answer)

    def switch_protocols(self, head: ResponseHead, rest: bytes) -> None:
        """Join the two connections to a tunnel after an answer 101 (RFC 9110 section 7.8)."""
        exchange = self.exchange
        assert exchange is not None
        client = exchange.client
        protocols = exchange.list_protocols()
        if not protocols or (head.upgrade is not None and head.upgrade not in protocols) or client.body is not None:
            raise UpstreamError("http_upgrade_failed", "The upstream switched protocols unasked")
        self._state, self.reusable = TUNNEL, False
        spoken = protocols[0] if head.upgrade is None and len(protocols) == 1 else head.upgrade
        assert exchange.route is not None
        idle_seconds = exchange.route.tunnel_timeout
        tunnel = self.tunnel = Tunnel(exchange, client, self, idle_seconds, framed=spoken == b"websocket")
        assert exchange.binding is not None
        if exchange.binding.body_metering is not None and spoken == b"websocket":
            tunnel.messages = exchange.binding.body_metering.open_session(exchange, head.keep)
        self.runtime.connections.tunnels += 1
        exchange.switch_protocols(head)
        if client.buffer:
            tunnel.relay_up(client.buffer)
            client.buffer = b""
        if client.half_closed:
            tunnel.on_client_closed()
        client.resume_reading()
        if rest:
            tunnel.relay_down(rest)
        if self.runtime.connections.draining:
            tunnel.send_close()

    def finish_answer(self) -> None:
        """End a complete answer. The connection is free for the next request, or closed."""
        if self.backlog is not None and len(self.backlog):
            # These bytes belong to no request, and the next request must not get them.
            self.record_surplus(len(self.backlog.take()))
        exchange, self.exchange = self.exchange, None
        assert exchange is not None
        self._state = WAITING
        self.usage = None
        self.body_filter = None  # The next answer may belong to another route.
        self.resume_reading()
        if self.write_paused:
            # The answer came before the upstream took the whole request: a next request would wait behind the rest of
            # it.
            self.reusable = False
        self.release(monotonic())
        exchange.complete()

    # ---- ends

    def end_event_stream(self) -> None:
        """End the current event stream as if the upstream had ended it.

        Such a stream has no length and is never compressed.
        """
        exchange = self.exchange
        assert exchange is not None
        if self._rechunk:
            exchange.client.write(encode_last_chunk())
        self.abort()
        exchange.complete()

    def eof_received(self) -> bool:
        exchange = self.exchange
        if exchange is None:
            # No request may get this connection between now and connection_lost.
            self.half_closed = self.usage is not None
            self.on_idle_closed()
        elif was_reset(self.transport):
            pass
        elif self._state in UNTIL_CLOSES:
            self.half_closed = True
        elif self._state == TUNNEL:
            self.half_closed = True
            exchange.client.half_close()
            return not exchange.client.half_closed
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.backlog is not None:
            backlog, self.backlog = self.backlog, None
            last = backlog.close()
            if last:
                self.data_received(last)  # It came before the end.
        if isinstance(exc, OSError) and self.exchange is not None and self.endpoint.scheme == "http":
            # A write failed, but the upstream may have answered before it closed: read the rest of its answer.
            last = read_remaining(self.transport)
            if last:
                self.data_received(last)
        self.runtime.connections.remove_upstream(self, tunnel=self.tunnel is not None)
        # The tunnel refers to both connections; without this only the garbage collector would free them.
        self.tunnel = None
        exchange, self.exchange = self.exchange, None
        self.end_usage()
        if exchange is None:
            self.on_idle_closed()
        elif self._state in UNTIL_CLOSES and self.half_closed:
            if self.body_filter is not None:
                self.write_filtered(exchange, self.body_filter.end(), last=True)
            elif self._rechunk:
                exchange.client.write(encode_last_chunk())
            exchange.complete()
        elif self._state == TUNNEL:
            exchange.end_tunnel()
        elif isinstance(exc, ssl.SSLError) and not self.reused:
            exchange.fail(self.create_tls_error(exchange, exc))
        else:
            # Skipped line ends may have been the beginning of the answer.
            begun = bool(self.buffer) or not self.reusable
            if self.reused and not begun and self._state == WAITING:
                # The connection was taken from the pool about when the upstream closed it.
                self.endpoint.record_idle_close(self.idle_since, monotonic())
            fault = exc if isinstance(exc, UpstreamError) else None
            exchange.on_upstream_lost(fresh=not self.reused, begun=begun, fault=fault)


RELAY = {
    SIZED: UpstreamConnection.relay_sized,
    CHUNKED: UpstreamConnection.relay_chunked,
    UNTIL_CLOSE: UpstreamConnection.relay_until_close,
    READ_UNTIL_CLOSE: UpstreamConnection.relay_read_until_close,
    TUNNEL: UpstreamConnection.relay_tunnel,
    FILTERED: UpstreamConnection.relay_filtered,
}
