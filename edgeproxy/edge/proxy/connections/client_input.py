"""The client's bytes during an exchange: its body, its tunnel, and later requests.

All reading is bounded: a body by the bytes that its upstream takes, later requests by READ_AHEAD_BYTES and by the
configured number of pipelined requests.
"""

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from edgeproxy.edge.body_usage.collected_request import CollectedRequest
from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1.chunked import decode_chunk
from edgeproxy.edge.proxy.connections.client_states import CLOSED, LAST, SERVING
from edgeproxy.edge.proxy.connections.client_transport import ClientTransport
from edgeproxy.edge.proxy.observation.exchange_states import AWAITS_BODY, GATHERING, OVER
from edgeproxy.edge.proxy.transport.body import ChunkedBody, RequestBody, SizedBody
from edgeproxy.edge.proxy.transport.deadlines import NEVER
from edgeproxy.edge.proxy.transport.held_budget import UNCOUNTED_BYTES
from edgeproxy.edge.proxy.transport.turns import SMALL_BYTES, InputBacklog

if TYPE_CHECKING:
    from edgeproxy.edge.http1.changing_lines import Changing, KeyPlace
    from edgeproxy.edge.proxy.exchange.forwarding import Forwarding
    from edgeproxy.edge.proxy.exchange.runtime import Runtime
    from edgeproxy.edge.proxy.transport.address import Address
    from edgeproxy.edge.proxy.transport.held_budget import Account, Holding

BLANK: Final = b"\r\n\r\n"

READ_AHEAD_BYTES: Final = 64 << 10
"""Bytes that are read ahead: requests before the current one is answered, or a body before its upstream is
connected.
"""

HOLDERS: Final = {
    "connection": "This connection holds",
    "address": "This address holds",
    "worker": "The clients of this edge hold",
}
"""The beginning of a refusal, by the bound of the memory budget that is exhausted."""


class StreamsParent(Protocol):
    """The state that an HTTP/2 connection passes to its streams."""

    runtime: "Runtime"
    transport: asyncio.Transport
    trusted: bool
    secure: bool
    address: "Address"
    forwarded_lines: bytes


class ClientInput(ClientTransport):
    """The bytes after a request's head, and flow control between the client and its upstream."""

    __slots__ = (
        "_body_size_due",
        "address",
        "backlog",
        "body",
        "buffer",
        "changing",
        "exchange",
        "expects_new_head",
        "forwarded_lines",
        "heads_read",
        "holding",
        "is_outdated",
        "key_place",
        "secure",
        "trusted",
    )

    is_http2 = False
    """True if this is an HTTP/2 stream. Such a stream marks the end of a body itself."""

    address: "Address"
    """The limits of the client's address."""
    backlog: InputBacklog | None
    """Input after `buffer` that waits for slices. Always None for an HTTP/2 stream."""
    forwarded_lines: bytes
    """The X-Forwarded lines for the upstream, and the field name of X-Request-Id."""
    trusted: bool
    """True if the peer is a trusted proxy."""
    secure: bool
    """True if the client uses TLS."""
    is_outdated: bool
    """True if `update_configuration` must wait for the end of the current exchange. Always False for a stream."""
    expects_new_head: bool
    """True if the last head is not expected to come again, because it has a trace or another line that changes with
    each request.
    """
    changing: "Changing | None"
    """The lines that change with each request, once they are known."""
    key_place: "KeyPlace | None"
    """The place of the key in the last head that had one and shared its other lines with other customers."""
    heads_read: int
    """The number of heads that had to be parsed as a whole."""
    _body_size_due: int
    """The size that the body must reach before its deadline is put off."""

    def __init__(self, runtime: "Runtime") -> None:
        super().__init__(runtime)
        self.exchange: Forwarding | None = None
        """The current request."""
        self.body: RequestBody | None = None
        """The body of the current request, while some of it is still to come."""
        self.buffer = b""
        """Bytes that were read and belong to no request yet."""
        self.holding: Holding | None = None
        """Its entry in the worker's memory budget, while anything is held for it (held_budget.py)."""

    def begin_stream(self, connection: StreamsParent) -> None:
        """Set the initial state of a stream of this connection. This replaces `__init__`.

        Every request over HTTP/2 runs it, so it sets everything without further calls.
        """
        self.runtime, self.transport = connection.runtime, connection.transport
        self.trusted, self.secure = connection.trusted, connection.secure
        self.address, self.forwarded_lines = connection.address, connection.forwarded_lines
        self.is_outdated = self.half_closed = self.write_paused = False
        self.reading = True
        self.state = SERVING
        self.copied_bytes_max = -1
        self._unsent_bytes = 0
        self.deadline = NEVER
        self.exchange = self.body = self.holding = None
        self.buffer = b""

    def serve_next(self) -> None:
        """Continue with the next request: the exchange is over."""
        raise NotImplementedError

    def time_out_exchange(self, exchange: "Forwarding", *, is_overdue: bool = False) -> None:
        """End an exchange that gets no answer, or no more of one. `is_overdue`: its total time is over."""
        tunnel = None if exchange.server is None else exchange.server.tunnel
        if tunnel is not None and tunnel.end_idle():
            return
        if exchange.has_begun_response:
            self.abort()
        elif (self.body is not None and (self.reading or self.has_backlog)) or exchange.state is AWAITS_BODY:
            exchange.fail(RejectedError(408, "The request's body did not arrive in time"))
        else:
            exchange.time_out(is_overdue=is_overdue)

    def write_whole(self, keep: bytes, changing: bytes, opening: bytes, rid: bytes, data: bytes, start: int) -> None:
        """Write a whole answer whose head is in pieces (edge/http2/answer.py), for a protocol whose heads are not
        text. Its body begins at `start` in `data`.
        """

    def write_trailers(self, lines: list[bytes]) -> None:
        """Write an answer's trailers without chunked coding. Does nothing here: HTTP/1.0 has no trailers."""

    # ---- bodies

    def begin_body(self, exchange: "Forwarding", data: bytes) -> None:
        """Read the body from here on. `data` follows the head and goes upstream with it in one write."""
        head = exchange.head
        if head.close:
            self.serve_no_more()
        if head.chunked:
            snapshot = exchange.snapshot
            self.body = ChunkedBody(snapshot.max_body_bytes, snapshot.lines.names, snapshot.head_limits)
        elif exchange.length:
            self.body = SizedBody(exchange.length)
        else:
            self.buffer = data
            return
        self._body_size_due = exchange.snapshot.body_idle_bytes
        self.collect_body(exchange, is_whole=not head.chunked and len(data) >= exchange.length)
        rest = b""
        if head.chunked and len(data) > SMALL_BYTES and not self.runtime.turns.open():
            data, rest = data[:SMALL_BYTES], data[SMALL_BYTES:]
        exchange.message += self._read_body(data)
        if rest and self.body is None:
            self.buffer += rest
        elif rest:
            self.take_in_slices(rest)

    def collect_body(self, exchange: "Forwarding", *, is_whole: bool) -> None:
        """Collect an incomplete body as it passes, if its tokens may have to be estimated."""
        binding = exchange.binding
        if binding is not None and binding.body_metering is not None and binding.body_metering.is_estimated:
            exchange.collected = None if is_whole else CollectedRequest(exchange.keep)

    def add_collected(self, collected: CollectedRequest, data: bytes) -> None:
        """Collect a piece of the body."""
        collected.feed(data)
        if len(collected) > UNCOUNTED_BYTES:
            self.update_held()

    def _read_body(self, data: bytes) -> bytes:
        """Return the client's bytes of a body as the upstream gets them, and count them."""
        body = self.body
        assert body is not None
        framed = body.feed(data)
        exchange = self.exchange
        if exchange is not None:
            for counter in exchange.request_counters:
                counter.add(body.size - exchange.bytes_in)
            exchange.bytes_in = body.size
            if exchange.collected is not None:
                self.add_collected(exchange.collected, decode_chunk(framed) if exchange.head.chunked else framed)
        if body.done:
            self.body = None
            self.buffer = body.rest
        return framed

    @property
    def has_backlog(self) -> bool:
        """True if input waits for later turns."""
        return self.backlog is not None and len(self.backlog) > 0

    def take_in_slices(self, data: bytes) -> bool:
        """Process input in slices. Return False if it must be processed at once.

        A stream's frames must: they have already waited for their turn with their connection.
        """
        return False

    def receive_during_exchange(self, data: bytes) -> None:
        """Process bytes during an exchange: of its body, its tunnel, or later requests."""
        if len(data) > SMALL_BYTES and self.take_in_slices(data):
            return
        exchange = self.exchange
        if exchange is None or self.state > LAST:
            self.linger_on()
            return
        server = exchange.server
        if server is not None and server.tunnel:
            server.tunnel.relay_up(data)
        elif self.body is not None:
            try:
                data = self._read_body(data)
            except RejectedError as error:
                exchange.fail(error)
                return
            if server is not None:
                exchange.keep_piece(data)
                server.write(data)
                self._extend_body_deadline(exchange, data)
            elif exchange.state is GATHERING:
                assert exchange.buffered_body is not None
                self._extend_body_deadline(exchange, data)
                exchange.buffered_body.append(data)
            else:
                exchange.message += data
                if len(exchange.message) > READ_AHEAD_BYTES:
                    self.pause_reading()
                self.update_held()
        else:
            self.buffer += data
            if self._is_read_ahead_full():
                self.pause_reading()
            self.update_held()
            if exchange.state is AWAITS_BODY:
                assert exchange.wait is not None
                exchange.wait.on_input(len(self.buffer), exchange.length, is_full=self._is_read_ahead_full())

    def _extend_body_deadline(self, exchange: "Forwarding", data: bytes) -> None:
        """Put off the deadline for a piece of the body; `data` is empty if the piece was only framing."""
        if self.body is None:
            assert exchange.route is not None
            timeout = exchange.idle_timeout if exchange.has_begun_response else exchange.route.head_timeout
            # The whole body has come, but it may still be on its way to the disk.
            self.deadline = monotonic() + (exchange.snapshot.body_idle if exchange.state is GATHERING else timeout)
        elif exchange.head.chunked and exchange.is_streamed():
            # Any piece counts: a stream may send as little as it likes.
            if data:
                has_begun = exchange.has_begun_response
                seconds = exchange.idle_timeout if has_begun else exchange.snapshot.body_idle
                self.deadline = max(self.deadline if has_begun else 0.0, monotonic() + seconds)
        elif self.body.size >= self._body_size_due:
            # Not for each piece: otherwise one byte now and then would hold the upstream for ever.
            self._body_size_due = self.body.size + exchange.snapshot.body_idle_bytes
            self.deadline = monotonic() + exchange.snapshot.body_idle

    def drop_input(self) -> None:
        """Drop input that was read and not served."""
        self.buffer, self.body = b"", None
        if self.backlog is not None:
            self.backlog.take()

    # ---- flow control

    def _is_read_ahead_full(self) -> bool:
        """Return whether the read-ahead after the current request has reached its bound, in bytes or in requests."""
        buffer = self.buffer
        # The ends of heads are counted. A blank line within a body only stops the reading earlier, until that request's
        # turn.
        return len(buffer) > READ_AHEAD_BYTES or buffer.count(BLANK) >= self.runtime.snapshot.max_pipelined

    def resume_reading(self) -> None:
        """Resume reading, unless enough is read ahead or the receiver takes no more."""
        if not self.reading and self.state <= LAST and self.has_room_for_input():
            if self.backlog is not None and self.backlog.blocks_reading():
                return
            self.reading = True
            self.transport.resume_reading()

    def has_room_for_input(self) -> bool:
        """Return whether more of the client's bytes may be read."""
        exchange = self.exchange
        if exchange is None:
            # The buffer may have an incomplete head, which has a bound of its own.
            return not self.write_paused
        if self._is_read_ahead_full():
            return False
        if exchange.server is None:
            return len(exchange.message) <= READ_AHEAD_BYTES or exchange.state is GATHERING
        return not exchange.server.write_paused

    def pause_writing(self) -> None:
        self.write_paused = True
        self._unsent_bytes = self.count_unsent()
        self.update_held()
        exchange = self.exchange
        if exchange is None:
            self.pause_reading()
        elif exchange.server is not None:
            if exchange.has_begun_response and (self.deadline == NEVER or exchange.server.tunnel is None):
                # The upstream's idle timeout and the reader's are different: now the reader's applies.
                self.deadline = monotonic() + self.runtime.snapshot.body_idle
            exchange.server.pause_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        self.update_held()
        exchange = self.exchange
        if exchange is None:
            self.serve_next()
        elif exchange.server is not None:
            if exchange.has_begun_response and exchange.server.tunnel is None:
                self.deadline = monotonic() + exchange.idle_timeout
            exchange.server.resume_reading()

    # ---- the memory budget

    @property
    def held_account(self) -> "Account | None":
        """The account of an HTTP/2 connection in the memory budget."""
        return None

    def count_held(self) -> int:
        """Return the bytes that are held for this client: read and not passed on, or written and not taken."""
        held = len(self.buffer) + self.count_untaken()
        if self.backlog is not None:
            held += len(self.backlog)
        exchange = self.exchange
        if exchange is not None and exchange.state is not OVER:
            held += len(exchange.message)
            if exchange.collected is not None:
                held += len(exchange.collected)
            if exchange.wait is not None:
                held += len(exchange.wait.data)
            if exchange.buffered_body is not None:
                held += exchange.buffered_body.pending_bytes
            server = exchange.server
            if server is not None:
                if server.write_paused:
                    held += server.transport.get_write_buffer_size()
                if server.backlog is not None:
                    held += len(server.backlog)
        return held

    def count_untaken(self) -> int:
        """Return the bytes that were written and that the client does not take."""
        return self.transport.get_write_buffer_size() if self.write_paused else 0

    def update_held(self) -> None:
        """Report to the budget how many bytes are held. If memory is short, drop some of them first."""
        exchange = self.exchange
        if exchange is not None and exchange.server is not None and self.is_pressed():
            exchange.forget_message()
        self.runtime.held.hold(self, 0 if self.state == CLOSED else self.count_held())

    def is_pressed(self) -> bool:
        """Return whether the budget is so full that memory must be saved."""
        return self.runtime.held.is_pressed(self)

    def on_held_exhausted(self, share: str) -> None:
        """End the current work: with 503, or with a reset if the client does not read its answer."""
        exchange = self.exchange
        if exchange is not None and exchange.forget_message():
            self.update_held()
            return
        self.pause_reading()
        self.runtime.report_held_exhausted(share, self.address.text)
        # Not now: this client may be in the middle of a step, and so may the one that exceeded the budget.
        asyncio.get_running_loop().call_soon(self._end_held, share)

    def _end_held(self, share: str) -> None:
        exchange, refusal = self.exchange, create_held_error(share)
        if self.state == CLOSED:
            return
        is_unread = self.write_paused or self.state > LAST
        if exchange is not None:
            is_unread = is_unread or exchange.has_begun_response
            self.serve_no_more()  # The rest of its input is unclear, or more of this kind.
            exchange.fail(refusal)
        elif not is_unread:
            self.refuse_input(refusal)
        if is_unread:
            self.abort()

    def refuse_input(self, refusal: RejectedError) -> None:
        """Refuse the beginning of a request."""


def create_held_error(share: str) -> RejectedError:
    """Return the refusal of a client that holds too many bytes. `share` is the exhausted bound."""
    why = f"{HOLDERS[share]} as many bytes here as limits.held allows"
    return RejectedError(503, why, fields=b"Retry-After: 1\r\n")
