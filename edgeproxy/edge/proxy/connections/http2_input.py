"""The request over an HTTP/2 stream: its body, and its windows, which replace pausing of the socket."""

from typing import TYPE_CHECKING, Protocol

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1 import grammar
from edgeproxy.edge.http1.chunked import (
    TRAILERS_TOO_LARGE,
    ChunkedFault,
    create_request_error,
    encode_chunk,
    encode_last_chunk,
)
from edgeproxy.edge.http1.fields import FieldKind
from edgeproxy.edge.http2.connection import Http2Connection
from edgeproxy.edge.http2.stream import Stream
from edgeproxy.edge.proxy.connections.client_input import ClientInput, StreamsParent
from edgeproxy.edge.proxy.transport.body import StreamBody

if TYPE_CHECKING:
    from edgeproxy.edge.http1.changing_lines import Changing, KeyPlace
    from edgeproxy.edge.http1.request import RequestHead
    from edgeproxy.edge.proxy.exchange.forwarding import Forwarding
    from edgeproxy.edge.proxy.transport.address import Address
    from edgeproxy.edge.proxy.transport.client_certificate import ClientCertificate
    from edgeproxy.edge.proxy.transport.held_budget import Account


class StreamsConnection(StreamsParent, Protocol):
    """The interface of the connection to its streams; see http2_client.py."""

    peer: str
    changing: "Changing | None"
    expects_new_head: bool
    key_place: "KeyPlace | None"
    heads_read: int

    @property
    def held_account(self) -> "Account | None":
        """The account of all its streams in the memory budget."""

    @property
    def http2(self) -> Http2Connection: ...
    @property
    def has_ended(self) -> bool: ...

    def get_certificate(self) -> "ClientCertificate":
        """Return the client's certificate."""

    def resolve_forwarded(self, head: "RequestHead") -> "tuple[Address, bytes]":
        """Return the limits of a trusted proxy's client, and the X-Forwarded lines for its upstream."""

    @property
    def held_bytes_max(self) -> int:
        """Bytes of an answer that may wait now before its upstream is paused."""

    def on_stream(self, stream: "Http2Input") -> None:
        """Record a stream that begins."""

    def on_answer(self) -> None:
        """Record that the answer of a request has begun."""

    def on_stream_reset(self, stream: "Http2Input", code: int) -> None:
        """Record a stream that was reset before its answer ended, by either side."""

    def on_stream_closed(self, stream: "Http2Input") -> None:
        """Record a stream that is closed."""


class Http2Input(Stream, ClientInput):
    """The receiving side of a stream."""

    is_http2 = True

    # Defaults that most streams never change are class attributes.
    _owed_bytes = 0
    """Bytes of the body whose window was not returned to the client yet."""
    _trailers: tuple[bytes, ...] = ()
    _has_oversized_trailers = False
    _websocket_key = b""
    backlog = None

    connection: StreamsConnection

    # ---- the client

    @property
    def peer(self) -> str:
        """The address of the connection's other end."""
        return self.connection.peer

    def get_certificate(self) -> "ClientCertificate":
        """Return the client's certificate."""
        return self.connection.get_certificate()

    def apply_forwarded(self, head: "RequestHead") -> None:
        """Set `address` and `forwarded_lines` from a trusted proxy's fields about this request's client."""
        self.address, self.forwarded_lines = self.connection.resolve_forwarded(head)

    def serve_no_more(self) -> None:
        """Do nothing: a stream serves one request in any case."""

    @property
    def held_account(self) -> "Account | None":
        """The account of its connection in the memory budget."""
        return self.connection.held_account

    def count_untaken(self) -> int:
        """Return the bytes of the answer that wait for a window."""
        return self.waiting_bytes

    # ---- the body

    def begin_body(self, exchange: "Forwarding", data: bytes) -> None:
        """Read the body from here on; `data` came while the request waited."""
        head = exchange.head
        if head.upgrade or not (head.chunked or exchange.length):
            self.buffer = data
            return
        self.body = StreamBody()
        self._body_size_due = exchange.snapshot.body_idle_bytes
        self.collect_body(exchange, is_whole=not head.chunked and len(data) >= exchange.length)
        exchange.message += self._read_body(data)

    def _read_body(self, data: bytes) -> bytes:
        exchange, body = self.exchange, self.body
        assert exchange is not None
        assert body is not None
        body.feed(data)
        if body.size > exchange.snapshot.max_body_bytes:
            raise RejectedError(413, "The body is larger than this edge accepts")
        for counter in exchange.request_counters:
            counter.add(len(data))
        exchange.bytes_in = body.size
        if exchange.collected is not None:
            self.add_collected(exchange.collected, data)
        if self.request_ended:
            if self._has_oversized_trailers:
                raise create_request_error(TRAILERS_TOO_LARGE, ChunkedFault.TRAILERS)
            self.body = None
        if not exchange.head.chunked:
            return data
        framed = encode_chunk([data])
        if not self.request_ended:
            return framed
        names = exchange.snapshot.lines.names
        trailers = [line for line in self._trailers if names[grammar.parse_field_name(line)] is FieldKind.PASS]
        return framed + encode_last_chunk(trailers)

    def on_data(self, data: bytes) -> None:
        self._owed_bytes += len(data)
        self.receive_during_exchange(data)
        if self.request_ended and self._websocket_key and self.exchange is not None:
            self.half_closed = True
            server = self.exchange.server
            if server is not None and server.tunnel is not None:
                server.tunnel.on_client_closed()
            elif server is not None and not self.buffer:
                server.half_close()
        if self.reading:
            self._return_window()

    def on_trailers(self, lines: list[bytes]) -> None:
        self._trailers = tuple(lines)
        self.on_data(b"")

    def on_oversized_trailers(self) -> None:
        self._has_oversized_trailers = True
        self.on_data(b"")

    # ---- flow control of the request

    def pause_reading(self) -> None:
        """Return no window to the client for now."""
        self.reading = False

    def resume_reading(self) -> None:
        """Return the client's window, unless enough is read ahead or the receiver takes no more."""
        if not self.reading and not self.closed and self.has_room_for_input():
            self.reading = True
            self._return_window()

    def _return_window(self) -> None:
        owed, self._owed_bytes = self._owed_bytes, 0
        if owed:
            self.connection.http2.consume(self, owed)
