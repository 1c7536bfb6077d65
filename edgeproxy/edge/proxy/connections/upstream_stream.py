"""A stream to an upstream with the interface of a transport: HTTP/1.1 on one side, frames on the other.

An exchange and its UpstreamConnection speak HTTP/1.1 to every upstream. Here their bytes become frames, and the
answer's frames become bytes of HTTP/1.1. Each stream has one exchange, and is closed with it.
"""

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from edgeproxy.edge.errors import EdgeError, UpstreamError
from edgeproxy.edge.http1.chunked import (
    TRAILERS_TOO_LARGE,
    ChunkedDecoder,
    ChunkedFault,
    create_response_error,
    encode_chunk,
    encode_last_chunk,
)
from edgeproxy.edge.http1.grammar import HeadLimits, parse_field_name
from edgeproxy.edge.http2.answer import encode_lines
from edgeproxy.edge.http2.errors import (
    ErrorCode,
    Http2ConnectionError,
    Http2StreamError,
    create_malformed_error,
    format_code,
)
from edgeproxy.edge.http2.lines import OVERSIZED, Line
from edgeproxy.edge.http2.requester import AnsweredStream, Requester, encode_pseudo_fields
from edgeproxy.edge.http2.response import format_response_head
from edgeproxy.edge.proxy.connections.client_input import BLANK
from edgeproxy.edge.proxy.connections.upstream_body import create_head_too_long_error
from edgeproxy.edge.proxy.metering.messages import MessageMetering, MeteredTransport

if TYPE_CHECKING:
    from edgeproxy.edge.proxy.connections.upstream import UpstreamConnection

HELD_BYTES_MAX: Final = 64 << 10
"""Bytes of a request that may wait for a window before its client is paused."""

END_SECONDS: Final = 1.0
"""Seconds to wait for the frame that ends an answer after all of its bytes."""

UNBOUNDED: Final = HeadLimits(head=1 << 62, fields=1 << 62)
"""The limits of a request's trailers, which were checked on arrival."""

TE_TRAILERS: Final = b"te: trailers"
"""gRPC demands this in every request, so that trailers pass."""


class Multiplexed(Protocol):
    """The interface of the connection to its streams; see http2_upstream.py."""

    transport: asyncio.Transport

    @property
    def http2(self) -> Requester: ...

    def limit_idle(self) -> None:
        """Close the connection once it is unused; called when a stream is closed."""

    def doubt(self, since: float) -> None:
        """Open no further streams if nothing came since a stream without an answer was opened."""


class UpstreamStream(AnsweredStream, MeteredTransport):
    """One request on a connection to an upstream. It serves as the transport of an UpstreamConnection."""

    def __init__(self, connection: Multiplexed, scheme: bytes, server: "UpstreamConnection") -> None:
        super().__init__(0, 0, 0)
        self._connection, self._scheme, self._server = connection, scheme, server
        self._decoder: ChunkedDecoder | None = None
        """Extracts the request's body from its chunks."""
        self._left = 0
        """Bytes of a body of known length that are still to be sent."""
        self._is_closing = self._is_lost = False
        self._is_reading, self._is_full = True, False
        self._owed_bytes = 0
        """Bytes of the answer whose window was not returned to the upstream yet."""
        self._is_bodiless = False
        self._is_chunked = False
        self._end_timer: asyncio.TimerHandle | None = None
        server.reusable = False
        server.connection_made(self)  # type: ignore[arg-type]  # It has everything that a transport is asked for.

    # ---- the request, as a transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes of a request in HTTP/1.1: first its head with the beginning of the body."""
        if self._is_closing or self.closed or self._is_lost:
            return
        data = bytes(data)
        if not self.number:
            head, _, data = data.partition(BLANK)
            self._open(head)
        if data and not self.closed:
            self._send_body(data)

    def _open(self, head: bytes) -> None:
        request_line, *lines = head.split(b"\r\n")
        method, path, _ = request_line.split(b" ")
        authority, length = b"", 0
        fields = [TE_TRAILERS]
        for line in lines:
            name = parse_field_name(line)
            if name == b"host":
                authority = line.partition(b":")[2].strip()
            elif name == b"transfer-encoding":
                self._decoder = ChunkedDecoder(limits=UNBOUNDED)
            elif name != b"te":
                if name == b"content-length":
                    length = int(line.partition(b":")[2])
                fields.append(line)
        self._left, self._is_bodiless = length, method == b"HEAD"
        exchange = self._server.exchange
        if exchange is not None and exchange.binding is not None:
            metering = exchange.binding.metering
            if metering is not None and metering.counts_messages:
                self.messages = MessageMetering()
        block = encode_pseudo_fields(method, self._scheme, path, authority) + encode_lines(fields)
        self._connection.http2.open(self, block, ended=not length and self._decoder is None)

    def _send_body(self, data: bytes) -> None:
        http2, decoder = self._connection.http2, self._decoder
        messages = self.messages
        if decoder is None:
            self._left -= len(data)
            if messages is not None:
                messages.read_request(data)
            http2.send_data(self, data, ended=not self._left)
        else:
            pieces = decoder.feed(data)
            if messages is not None:
                messages.read_request(b"".join(pieces))
            if decoder.done and decoder.trailers:
                for piece in pieces:
                    http2.send_data(self, piece)
                http2.send_trailers(self, encode_lines(decoder.trailers))
            else:
                http2.send_data(self, b"".join(pieces), ended=decoder.done)
        if self.waiting_bytes > HELD_BYTES_MAX and not self._is_full:
            self._is_full = True
            self._server.pause_writing()

    def on_drained(self) -> None:
        if self._is_full:
            self._is_full = False
            self._server.resume_writing()

    # ---- the answer

    def on_response(self, lines: list[Line], *, ended: bool) -> None:
        if lines[-1:] == [OVERSIZED]:
            self._fail(create_head_too_long_error())
            return
        head = format_response_head(lines, ended=ended, bodiless=self._is_bodiless)
        self.has_head = not head.is_interim
        self._is_chunked = head.is_chunked
        self._server.data_received(head.head)
        if ended and not self._is_closing:
            self._lose()  # It gives a length, and no body follows.

    def on_data(self, data: bytes) -> None:
        if not self.has_head:
            raise create_malformed_error("DATA before an answer's head", "8.1")
        if data and self._is_closing:
            self._reset_unended()  # Its answer was complete.
            return
        if self.messages is not None:
            self.messages.read_answer(data)
        self._owed_bytes += len(data)
        if self._is_reading:
            self._return_window()
        if self._is_chunked:
            data = (encode_chunk([data]) if data else b"") + (encode_last_chunk() if self.request_ended else b"")
        if data and not self._is_closing:
            self._server.data_received(data)
        if self.request_ended and not self._is_closing:
            self._lose()  # It has a length, and ends before that.

    def on_oversized_trailers(self) -> None:
        self._fail(create_response_error(TRAILERS_TOO_LARGE, ChunkedFault.TRAILERS))

    def on_error(self, error: Http2StreamError) -> None:
        self._fail(UpstreamError("http_protocol_error", f"The upstream's answer is malformed: {error.detail}"))

    def _fail(self, error: EdgeError) -> None:
        """Fail the request because of its answer: it is malformed, or beyond a bound of the edge."""
        exchange = self._server.exchange
        if self._is_closing:
            return
        if exchange is None:
            self._lose()
        else:
            exchange.fail(error)

    def on_trailers(self, lines: list[bytes]) -> None:
        if self._is_closing:
            return
        if self._is_chunked:
            self._server.data_received(encode_last_chunk(lines))
        else:
            self._lose()

    # ---- flow control and ends, as a transport

    def pause_reading(self) -> None:
        """Return no window to the upstream for now."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Return the upstream's window."""
        self._is_reading = True
        self._return_window()

    def _return_window(self) -> None:
        owed, self._owed_bytes = self._owed_bytes, 0
        if owed:
            self._connection.http2.consume(self, owed)

    def is_closing(self) -> bool:
        """Return whether nothing more is sent."""
        return self._is_closing or self._is_lost or self._connection.http2.is_over

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return information from the connection's transport."""
        return self._connection.transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait for a window."""
        return self.waiting_bytes

    def can_write_eof(self) -> bool:
        """Return False: the end of a request is in its framing."""
        return False

    def close(self) -> None:
        """End the stream of a complete answer.

        Some servers end it with a separate frame. The edge waits for that, because many servers count resets and end
        connections with too many.
        """
        if self._is_closing:
            return
        if self.number and self.response_ended and not (self.closed or self.request_ended):
            loop = asyncio.get_running_loop()
            self._is_closing, self._end_timer = True, loop.call_later(END_SECONDS, self._reset_unended)
            loop.call_soon(self._lose)
        else:
            self.abort()

    def _reset_unended(self) -> None:
        self._connection.http2.reset(self, ErrorCode.CANCEL)

    def abort(self) -> None:
        """End the stream: its answer is no longer needed."""
        if self._is_closing:
            return
        self._is_closing = True
        if self.number and not self.has_head:
            self._connection.doubt(self.opened_at)
        if self.number and not (self.closed or (self.request_ended and self.response_ended)):
            code = ErrorCode.NO_ERROR if self.request_ended else ErrorCode.CANCEL
            self._connection.http2.reset(self, code)
        asyncio.get_running_loop().call_soon(self._lose)

    def on_reset(self, code: int) -> None:
        if code == ErrorCode.REFUSED_STREAM and not (self.has_head or self._is_closing):
            exchange, self._server.exchange = self._server.exchange, None
            self._lose()
            if exchange is not None:
                exchange.on_upstream_refused()
            return
        http2 = self._connection.http2
        error = "http_response_incomplete" if self.has_head else "connection_terminated"
        if not http2.is_over:
            self._lose(UpstreamError(error, f"The upstream reset the request's stream ({format_code(code)})"))
        elif http2.breach is not None:
            self._lose(create_breach_error(http2.breach))
        elif http2.goaway_code is not None:
            reason = format_code(http2.goaway_code)
            self._lose(UpstreamError(error, f"The upstream ended the HTTP/2 connection with GOAWAY ({reason})"))
        else:
            self._lose()

    def on_closed(self) -> None:
        if self._end_timer is not None:
            self._end_timer.cancel()
            self._end_timer = None
        # Its last frame is written after this.
        asyncio.get_running_loop().call_soon(self._connection.limit_idle)

    def _lose(self, fault: UpstreamError | None = None) -> None:
        """Report to the server, once, that its connection is gone, with the fault."""
        if not self._is_lost:
            self._is_lost = self._is_closing = True
            # True only if some of the answer had come; then the request is not sent again.
            self._server.reusable = not self.has_head
            self._server.connection_lost(fault)


def create_breach_error(breach: Http2ConnectionError) -> UpstreamError:
    """Return the error of the requests on a connection that the edge has ended."""
    if breach.code == ErrorCode.ENHANCE_YOUR_CALM:
        detail = f"The edge ended the HTTP/2 connection to the upstream at a bound of its own: {breach.detail}"
        is_block = breach.section.endswith(" 10.5.1")
        error = "http_response_header_section_size" if is_block else "http_protocol_error"
        return UpstreamError(error, detail, is_local=True)
    return UpstreamError("http_protocol_error", f"The upstream breaks HTTP/2: {breach.detail} ({breach.section})")
