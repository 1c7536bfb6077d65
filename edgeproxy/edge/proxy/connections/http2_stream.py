"""A stream of an HTTP/2 connection: the client's side of one exchange. An HTTP/1.1 connection has this role for one
exchange at a time.

The exchange speaks HTTP/1.1 with it. The head of a request already has that form (edge/http2/request.py); answers
become frames here. Stream windows replace pausing of the socket.
"""

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha1
from os import urandom
from time import monotonic
from typing import TYPE_CHECKING, Final

from edgeproxy.edge.errors import DirectResponseError, RejectedError, UpstreamError
from edgeproxy.edge.http1 import grammar
from edgeproxy.edge.http1.field_values import find_value
from edgeproxy.edge.http2.answer import encode_head, encode_lines, encode_pieces
from edgeproxy.edge.http2.errors import ErrorCode
from edgeproxy.edge.http2.request import UPGRADE
from edgeproxy.edge.proxy.connections.client_input import BLANK
from edgeproxy.edge.proxy.connections.client_states import CLOSED
from edgeproxy.edge.proxy.connections.client_transport import COPIED_BYTES_MAX, LINGER_SECONDS, LINGER_SECONDS_MAX
from edgeproxy.edge.proxy.connections.http2_input import Http2Input, StreamsConnection
from edgeproxy.edge.proxy.exchange.exchange import Exchange
from edgeproxy.edge.proxy.observation.exchange_states import FORWARDED, WAITING
from edgeproxy.edge.proxy.transport import grpc_status
from edgeproxy.edge.proxy.transport.deadlines import NEVER

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.exchange.exchange import Outcome
    from edgeproxy.edge.proxy.exchange.forwarding import Forwarding, Refusal
    from edgeproxy.edge.proxy.exchange.snapshot import HeadMeaning

Data = bytes | memoryview

WEBSOCKET_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""The bytes that follow the key in the input of Sec-WebSocket-Accept's digest (RFC 6455 section 4.2.2)."""

ACCEPT: Final = b"sec-websocket-accept"


VIA_HTTP1: Final = b"1.1 edgeproxy\r\n"
VIA_HTTP2: Final = b"2.0 edgeproxy\r\n"
"""The end of a request's kept lines: its last station, with the protocol that the edge received (RFC 9110 section
7.6.3).
"""


class Http2Exchange(Exchange):
    """The exchange of a request that came over HTTP/2."""

    __slots__ = ()

    def read_request(self, data: bytes, end: int, seen: "HeadMeaning | None" = None) -> None:
        """Read the head, and state HTTP/2 in Via.

        The cached meaning of a block says HTTP/1.1, which may send an equal block.
        """
        if seen is None:
            Exchange.read_request(self, data, end)
        else:  # As there, without the call.
            self.method, self.path, self.request_line, fields = seen
            self.identity, self.site, self.credentials, self.keep, self.length, self.trace, self.head = fields
        self.keep = self.keep.removesuffix(VIA_HTTP1) + VIA_HTTP2


class Http2Stream(Http2Input):
    """A request over HTTP/2, and its answer."""

    # Defaults that most streams never change are class attributes.
    _begun = False
    """True once the head of an answer that comes piece by piece has gone to the sender."""
    _left = -1
    """Bytes of such an answer that are still to come; -1 if its head does not say."""
    _taken_by = NEVER
    """The client must have taken some of the waiting bytes by this time."""
    _sent_bytes = 0
    """Bytes of the answer that had left the stream at the last count."""
    _answer_bytes = 0
    """Bytes of the answer that were given to the sender."""
    _linger_until = NEVER
    _linger_window = 0

    def __init__(self, client: StreamsConnection, number: int, send_window: int, receive_window: int) -> None:
        # Every request runs this, so it sets everything of the bases itself. These defaults are set, too, because
        # reading an attribute of the class takes 200 instructions.
        self.number, self.send_window, self.receive_window = number, send_window, receive_window
        self.waiting, self.reads_on = (), False
        self.connection = client
        self.begin_stream(client)
        self.write, self.writelines = self._write_answer, self._write_pieces

    # ---- the request

    @property
    def is_ahead(self) -> bool:
        """True if the request is complete and its answer has not begun."""
        return self.request_ended and not self._begun

    def on_request(self, head: bytes) -> None:
        client, runtime = self.connection, self.runtime
        client.on_stream(self)
        exchange = self.exchange = Http2Exchange(self, runtime)
        if head.endswith(UPGRADE):
            if b"\r\nsec-websocket-key:" in head:
                # RFC 8441 section 5: HTTP/2 has no such field. With two of them it would be unclear which one counts.
                self.reject(exchange, RejectedError(400, "Sec-WebSocket-Key is of HTTP/1.1", close=False), head, 0)
                return
            self._websocket_key = b64encode(urandom(16))
            head = b"%bsec-websocket-key: %b\r\n\r\n" % (head[:-2], self._websocket_key)
        end = len(head) - len(BLANK)
        seen = None
        if not client.expects_new_head:
            snapshot = runtime.snapshot
            seen = snapshot.whole_heads[self.trusted].get(head)
            if seen is None and client.key_place is not None:
                seen = snapshot.recall_keyed_head(head, client.key_place)
        outcome = self._begin_new(exchange, head, end) if seen is None else exchange.begin(head, end, seen)
        if outcome is not FORWARDED and outcome is not WAITING:
            self.reject(exchange, outcome, head, end)

    def _begin_new(self, exchange: Exchange, head: bytes, end: int) -> "Outcome":
        """Begin a request whose head is not cached, with the state of the connection's earlier requests."""
        client = self.connection
        self.expects_new_head, self.changing = client.expects_new_head, client.changing
        self.heads_read, self.key_place = client.heads_read, client.key_place
        outcome = exchange.begin(head, end)
        client.expects_new_head, client.changing = self.expects_new_head, self.changing
        client.heads_read, client.key_place = self.heads_read, self.key_place
        return outcome

    def on_oversized_request(self, head: bytes) -> None:
        self.connection.on_stream(self)
        exchange = self.exchange = Http2Exchange(self, self.runtime)
        is_target = head.find(b"\r\n") > self.runtime.snapshot.head_limits.head
        status, what = (414, "request line is") if is_target else (431, "header fields are")
        self.reject(exchange, RejectedError(status, f"The {what} too long", close=False), head, 0)

    def reject(self, exchange: "Forwarding", refusal: "Refusal", data: bytes, end: int) -> bytes:
        """Answer a request that is not forwarded; nothing follows it on its stream."""
        if self._websocket_key and isinstance(refusal, DirectResponseError) and refusal.status < 300:
            refusal = RejectedError(400, "No WebSocket can be opened here", close=False)
        if not exchange.path:
            exchange.request_line = data
        self.respond(exchange.format_own_response(refusal, close=False), close=False)
        return b""

    # ---- the answer

    def _write_answer(self, data: Data) -> None:
        """Write bytes in the form of HTTP/1.1: a head and the beginning of the body, then pieces of the body."""
        if self._begun:
            self._send_body(data)
            return
        data = bytes(data)
        end = data.find(BLANK)
        self._write_head(data[: end + 2], data[end + 4 :])

    def _write_pieces(self, pieces: Iterable[Data]) -> None:
        """Write a head and a piece of the body. The blank line ends the first piece or begins the second."""
        first, second = pieces
        if self._begun:
            self._send_body(first)
            self._send_body(second)
        elif bytes(first[-4:]) == BLANK:
            self._write_head(bytes(first[:-2]), second)
        else:
            self._write_head(bytes(first) + BLANK[:2], memoryview(second)[4:])

    def write_whole(self, keep: bytes, changing: bytes, opening: bytes, rid: bytes, data: bytes, start: int) -> None:
        """Write an answer that came whole. The stream is open."""
        # A slice is cheaper than a view, but it copies.
        body = data[start:] if len(data) <= COPIED_BYTES_MAX else memoryview(data)[start:]
        self._send_whole(encode_pieces(keep, changing, opening, rid), body)

    def _write_head(self, head: bytes, body: Data) -> None:
        exchange = self.exchange
        if exchange is not None and exchange.has_begun_response:
            self._begin_answer(exchange, head, body)
        elif head[9:10] == b"1":
            self.connection.http2.send_head(self, encode_head(head))
        else:
            self._send_whole(encode_head(head), body)

    def _send_whole(self, block: bytes, body: Data) -> None:
        """Send a complete answer."""
        self._begun = True
        self._answer_bytes = len(body)
        self.connection.http2.respond(self, block, body)
        if self.waiting:
            self.connection.on_answer()
            # The caller then calls `serve_next`, which sets the deadline.
            self._hold_back()
            self.write_paused = True

    def _begin_answer(self, exchange: "Forwarding", head: bytes, body: Data) -> None:
        """Begin an answer that comes piece by piece."""
        self._begun = True
        self.connection.on_answer()
        http2 = self.connection.http2
        if exchange.status == 101:
            if not self._check_accept(exchange, head):
                return
            head = b"HTTP/1.1 200 \r\n" + head.partition(b"\r\n")[2]
            lines = [line for line in head.split(b"\r\n") if grammar.parse_field_name(line) != ACCEPT]
            http2.send_head(self, encode_head(b"\r\n".join(lines)))
            return
        length = find_value(head, b"content-length")
        self._left = -1 if length is None else int(length)
        if not self._left or exchange.is_bodiless(exchange.status):
            http2.send_head(self, encode_head(head), ended=True)
        elif body:
            http2.hold_head(self, encode_head(head))
            self._send_body(body)
        else:
            http2.send_head(self, encode_head(head))

    def _check_accept(self, exchange: "Forwarding", head: bytes) -> bool:
        """Check, in place of an HTTP/1.1 client, that the upstream accepted the key (RFC 6455 section 4.1)."""
        expected = b64encode(sha1(self._websocket_key + WEBSOCKET_GUID, usedforsecurity=False).digest())
        if find_value(head, ACCEPT) == expected:
            return True
        exchange.fail(UpstreamError("http_upgrade_failed", "The upstream's Sec-WebSocket-Accept is wrong"))
        return False

    def _send_body(self, data: Data) -> None:
        size = len(data)
        if not size or self.response_ended or self.closed:
            return
        self._answer_bytes += size
        if self._left > 0:
            self._left -= size
        self.connection.http2.send_data(self, data, ended=not self._left)
        if self.waiting:
            self._hold_back()

    def write_trailers(self, lines: list[bytes]) -> None:
        """Write an answer's trailers, which end it."""
        if lines and not self.response_ended and not self.closed:
            self.connection.http2.send_trailers(self, encode_lines(lines))

    def respond(self, answer: bytes, *, close: bool) -> None:
        """Write an answer of the edge's own, which ends the exchange."""
        exchange = self.exchange
        if exchange is not None:
            # Until its head is read, `request_line` holds the whole head.
            if grpc_status.is_grpc(exchange.keep if exchange.path else exchange.request_line):
                answer = grpc_status.format_refusal(answer)
            exchange.release()
            self.exchange = None
        if not self.closed:
            end = answer.find(BLANK)
            self._send_whole(encode_head(answer[: end + 2]), answer[end + 4 :])
            self._await_end()

    def serve_next(self) -> None:
        """End the answer: the exchange is over."""
        self.exchange = None
        if not self.closed:
            if not self.response_ended:
                self.connection.http2.send_data(self, b"", ended=True)
            self._await_end()

    def half_close(self) -> None:
        """Close the edge's side of a tunnel: the upstream has closed its own. The client may go on."""
        self.reads_on = True
        if not self.response_ended and not self.closed:
            self.connection.http2.send_data(self, b"", ended=True)

    def _await_end(self) -> None:
        """Set a deadline for the rest: the client reads the answer, and may be in the middle of its request."""
        if self.closed:
            return
        if self.waiting:
            self._hold_back()
        else:
            # After an immediate reset some clients would lose the answer: curl 7.88 does.
            now = monotonic()
            self._linger_window, self._linger_until = self.receive_window, now + LINGER_SECONDS_MAX
            self.deadline = now + LINGER_SECONDS

    # ---- flow control of the answer

    def _hold_back(self) -> None:
        """Pause the upstream if enough waits, and set the deadline for the client to take some of it."""
        if self._taken_by == NEVER:
            self._taken_by = monotonic() + self.runtime.snapshot.body_idle
            self._sent_bytes = self._answer_bytes - self.waiting_bytes
        self.deadline = self._taken_by
        if self.waiting_bytes > self.connection.held_bytes_max:
            self.pause_upstream()
        self.update_held()

    def pause_upstream(self) -> None:
        """Stop reading the upstream for now."""
        if not self.write_paused:
            self.write_paused = True
            if self.exchange is not None and self.exchange.server is not None:
                self.exchange.server.pause_reading()

    def resume_upstream(self) -> None:
        """Resume reading the upstream."""
        exchange = self.exchange
        if self.write_paused:
            self.write_paused = False
            if exchange is not None and exchange.server is not None:
                exchange.server.resume_reading()

    def on_drained(self) -> None:
        exchange = self.exchange
        self._taken_by = NEVER
        self.update_held()
        if exchange is None:
            self._await_end()
        elif exchange.has_begun_response and (exchange.server is None or exchange.server.tunnel is None):
            self.deadline = monotonic() + exchange.idle_timeout
        self.resume_upstream()

    def _has_taken_enough(self) -> bool:
        """Return whether the client has taken enough of the answer since the last call."""
        before, self._sent_bytes = self._sent_bytes, self._answer_bytes - self.waiting_bytes
        return self._sent_bytes - before >= max(1, self.runtime.snapshot.body_idle_bytes)

    # ---- ends

    def on_timeout(self) -> None:
        """End a request, or the rest of its stream, whose deadline has passed."""
        self.deadline = NEVER
        exchange, now = self.exchange, monotonic()
        if self.waiting and self._has_taken_enough():
            # The client is slow, but it takes bytes.
            self.deadline = self._taken_by = now + self.runtime.snapshot.body_idle
        elif exchange is not None:
            self.time_out_exchange(exchange)
        elif self.waiting:
            self.connection.http2.reset(self, ErrorCode.CANCEL)
        elif self.receive_window != self._linger_window and now < self._linger_until:
            self._linger_window, self.deadline = self.receive_window, now + LINGER_SECONDS
        else:
            self.connection.http2.reset(self, ErrorCode.NO_ERROR)

    def limit_duration(self, exchange: "Forwarding", until: float) -> None:
        """End the exchange by `until` (monotonic seconds), even while data flows."""
        self.runtime.connections.request_deadlines[self] = exchange, until

    def end_overdue_request(self) -> None:
        """End a request that exceeds its route's total time, even while data flows. A tunnel is no longer a request."""
        exchange = self.exchange
        if exchange is not None and (exchange.server is None or exchange.server.tunnel is None):
            self.time_out_exchange(exchange, is_overdue=True)

    def abort(self) -> None:
        """Reset the stream, and end its exchange."""
        self.connection.http2.reset(self, ErrorCode.CANCEL)
        self._abandon(ended_by_edge=True)

    def reset_when_sent(self) -> None:
        """Reset the stream within an answer, so that no client takes the part for the whole."""
        self.connection.http2.reset(self, ErrorCode.INTERNAL_ERROR)

    def on_reset(self, code: int) -> None:
        self.connection.on_stream_reset(self, code)
        self._abandon(ended_by_edge=self.connection.has_ended)

    def _abandon(self, *, ended_by_edge: bool) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.abandon(ended_by_edge=ended_by_edge)

    def on_closed(self) -> None:
        self.state = CLOSED
        if self.holding is not None:
            self.runtime.held.hold(self, 0)
        # The stream refers to itself through these methods, so only the garbage collector would free it.
        self.write = _drop
        self.writelines = _drop
        self.connection.on_stream_closed(self)
        if self.reads_on and self.request_ended:
            self._abandon(ended_by_edge=False)  # Both sides of the tunnel have closed.


def _drop(_: object) -> None:
    """Drop data for a closed stream."""
