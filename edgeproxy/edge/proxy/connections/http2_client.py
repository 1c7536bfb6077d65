"""A client's HTTP/2 connection: it splits input into streams, each with its own exchange (http2_stream.py).

edge/http2/ has the protocol, without I/O. This module has the socket, the state shared by all streams, and the end of
the connection.
"""

import asyncio
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http2.connection import Http2Connection
from edgeproxy.edge.http2.errors import ErrorCode, format_code
from edgeproxy.edge.http2.frames import STREAM_MASK
from edgeproxy.edge.http2.patience import TRUSTED_SCALE
from edgeproxy.edge.http2.stream import Stream
from edgeproxy.edge.proxy.connections.client import LAST_REQUEST_SECONDS, SCHEMES, Client
from edgeproxy.edge.proxy.connections.client_states import LAST
from edgeproxy.edge.proxy.connections.frame_writer import FrameWriter
from edgeproxy.edge.proxy.connections.http2_input import Http2Input
from edgeproxy.edge.proxy.connections.http2_stream import Http2Stream
from edgeproxy.edge.proxy.exchange.lost_streams import STREAMS_AT_ONCE, LostStreams
from edgeproxy.edge.proxy.transport.deadlines import NEVER
from edgeproxy.edge.proxy.transport.held_budget import Account
from edgeproxy.edge.proxy.transport.reset import was_reset
from edgeproxy.edge.proxy.transport.turns import SMALL_BYTES

if TYPE_CHECKING:
    from edgeproxy.edge.http1.request import RequestHead
    from edgeproxy.edge.proxy.exchange.forwarding import Forwarding
    from edgeproxy.edge.proxy.exchange.runtime import Runtime
    from edgeproxy.edge.proxy.exchange.tunnel import Tunnel
    from edgeproxy.edge.proxy.transport.address import Address

HELD_BYTES_MAX: Final = 1 << 20
"""Bytes of all answers of a connection that may wait for windows. Beyond this each stream has only a small share:
otherwise a hundred streams would hold a hundred times the bound of one (CVE-2019-9517).
"""

STREAM_BYTES_MAX: Final = 64 << 10
"""Bytes of an answer that may wait for a window before its upstream is paused."""

STREAM_SHARE_BYTES: Final = 16 << 10
"""The same bound while all answers together hold much. A stream whose client reads still makes progress."""

UNSENT_BYTES_MAX: Final = 256 << 10
"""Bytes that the socket may hold before the client is not read any more: heads and answers to pings have no window."""

AHEAD_MAX: Final = 16
"""Maximum number of requests ahead while turns are long. A request is ahead when it is complete and its answer has not
begun, for at most half a second. A service answers many requests at once, and these answers would delay other clients.
"""


class ClientHttp2Connection(Http2Connection):
    """The protocol of one client's connection, which reports its actions to the Http2Client."""

    __slots__ = ("client",)
    client: "Http2Client | None"

    def detach(self) -> None:
        """Forget the client. The two refer to each other, so otherwise only the garbage collector would free them."""
        self.client = None
        self._create_stream = Stream

    def on_reset_sent(self, code: int) -> None:
        if self.client is not None:
            self.client.runtime.metrics.count_http2_reset("edge", format_code(code))

    def on_goaway_sent(self, code: int) -> None:
        if self.client is not None:
            self.client.runtime.metrics.count_http2_goaway(format_code(code))

    def on_abandoned(self, streams: list[Stream]) -> None:
        if self.client is None or len(streams) <= STREAMS_AT_ONCE or not self.client.end_later(streams):
            super().on_abandoned(streams)

    def on_closed(self, code: ErrorCode, detail: str) -> None:
        if self.client is not None:
            self.client.on_connection_error(code, detail)


class Http2Client(Client):
    """A connection of a client that speaks HTTP/2."""

    __slots__ = ("_account", "_last_swept", "_late_block", "_new_streams", "_writer", "http2")

    http2: ClientHttp2Connection
    _writer: FrameWriter

    def __init__(self, runtime: "Runtime", peer: str, subject: bytes, *, secure: bool = False) -> None:
        super().__init__(runtime, peer, subject, secure=secure)
        self._new_streams = 0
        """Streams that have begun since the last count."""
        self._last_swept = 0
        """The latest stream at the last sweep."""
        self._account = Account()
        self._late_block = 0, NEVER
        """The stream of an incomplete field block, and the deadline of the block."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        writer = self._writer = FrameWriter(transport)
        http2 = self.http2 = ClientHttp2Connection(
            writer.write,
            writer.write_many,
            partial(Http2Stream, self),
            self.runtime.snapshot.head_limits,
            websockets=True,
        )
        http2.client = self
        writer.streams = http2.streams
        self.runtime.connections.http2_clients.add(self)
        super().connection_made(transport)

    def _apply_configuration(self) -> None:
        super()._apply_configuration()
        self.http2.patience.set_scale(TRUSTED_SCALE if self.trusted else 1)

    def resolve_forwarded(self, head: "RequestHead") -> "tuple[Address, bytes]":
        """Return the limits of a trusted proxy's client, and the X-Forwarded lines for its upstream."""
        addresses = self.runtime.snapshot.addresses
        client, lines = addresses.resolve_forwarded(self.peer, head, SCHEMES[self.secure])
        return addresses.get_address(client), lines

    def update_configuration(self) -> None:
        """Take over another configuration, which applies from the next stream on."""
        self._apply_configuration()
        if not (self.address.admitted or self.trusted):
            self._shut_down()

    @property
    def held_account(self) -> Account | None:
        """The account of its streams in the memory budget; None for a trusted proxy, which carries many clients."""
        return None if self.trusted else self._account

    # ---- bytes

    def data_received(self, data: bytes) -> None:
        if self.state > LAST:
            self.linger_on()
            return
        if (self.backlog is not None or len(data) > SMALL_BYTES) and self.take_in_slices(data):
            return
        self._writer.is_held = True
        rest = self.http2.receive_slice(data)
        if rest:
            rest = self.runtime.turns.repeat(self.http2.receive_slice, rest)
            if rest and self.state <= LAST:
                self._get_backlog().put_back(rest)
        self._writer.flush()
        if (self.write_paused or len(self.http2.streams) > AHEAD_MAX) and not self.has_room_for_input():
            self.pause_reading()

    @property
    def takes_bulk(self) -> bool:
        """True if the client's next bytes are only dropped."""
        return self.state > LAST

    def describe(self) -> tuple[str, str]:
        """Return the kind of the connection, and the address of its peer."""
        return "client over HTTP/2", self.peer

    def has_room_for_input(self) -> bool:
        """Return whether more frames may be read.

        The socket's buffer bounds the output that frames cause. The number of requests ahead is bounded while turns are
        long.
        """
        if self.write_paused and self.transport.get_write_buffer_size() > UNSENT_BYTES_MAX:
            return False
        if len(self.http2.streams) <= AHEAD_MAX or self.trusted or not self.runtime.turns.is_crowded():
            return True
        return sum(stream.is_ahead for stream in self._list_streams() if stream.number > self._last_swept) <= AHEAD_MAX

    def pause_writing(self) -> None:
        self.write_paused = self.http2.write_paused = True
        self.update_held()

    def resume_writing(self) -> None:
        self.write_paused = self.http2.write_paused = False
        self.update_held()
        self._writer.is_held = True
        self.http2.send_blocked()
        self._writer.flush()
        self.resume_reading()

    @property
    def held_bytes_max(self) -> int:
        """Bytes of an answer that may wait now before its upstream is paused."""
        return STREAM_BYTES_MAX if self.http2.waiting_bytes <= HELD_BYTES_MAX else STREAM_SHARE_BYTES

    # ---- streams

    def _list_streams(self) -> list[Http2Stream]:
        return [stream for stream in self.http2.streams.values() if isinstance(stream, Http2Stream)]

    def on_stream(self, stream: Http2Input) -> None:
        """Record a stream that begins."""
        self._new_streams += 1
        self.runtime.connections.streams += 1
        self.runtime.overload.check_clients()
        self.deadline = NEVER

    def on_answer(self) -> None:
        """Resume reading if enough requests are answered: the answer of one has begun, or its stream is closed."""
        if not (self.reading or (self.backlog is not None and self.backlog.is_queued)):
            self.resume_reading()

    def end_later(self, streams: list[Stream]) -> bool:
        """End the requests of these streams in slices. Return False if they must end at once."""
        runtime = self.runtime
        return runtime.connections.add_lost(LostStreams(runtime.turns, runtime.connections.lost, streams, self.peer))

    def on_stream_reset(self, stream: Http2Input, code: int) -> None:
        """Count a stream that the client reset before its answer ended."""
        if not self.http2.is_over and stream.number not in self.http2.reset_streams:
            self.runtime.metrics.count_http2_reset("client", format_code(code))

    def on_stream_closed(self, stream: Http2Input) -> None:
        """Record a stream that is closed."""
        self.runtime.connections.streams -= 1
        if not self.reading:
            self.on_answer()
        if not self.http2.streams and self.state <= LAST:
            self.deadline = monotonic() + self.runtime.snapshot.keepalive_idle
            if self.http2.last_served != STREAM_MASK:
                # Not before the stream's last frame is written, which comes next.
                asyncio.get_running_loop().call_soon(self._close_when_empty)

    def sweep(self) -> None:
        """End streams whose deadline has passed, restore patience, and count new streams; called twice a second."""
        now = monotonic()
        for late in [stream for stream in self._list_streams() if stream.deadline < now]:
            late.on_timeout()
        self.http2.sweep()
        # Services that take longer do not answer all requests at once.
        self._last_swept = self.http2.last_stream
        if not self.reading and self.state <= LAST:
            self.resume_reading()
        if self.http2.partial_bytes or self.holding is not None:
            self._check_partial_block()
        if self._new_streams:
            self.runtime.metrics.count_http2_streams(self._new_streams)
            self._new_streams = 0

    def _check_partial_block(self) -> None:
        """Count the bytes of an incomplete frame or field block. End the connection if the block takes too long.

        A head over HTTP/1.1 has such a timeout as well. Nothing else can come meanwhile (RFC 9113 section 4.3).
        """
        number, now = self.http2.partial_block, monotonic()
        if number != self._late_block[0]:
            self._late_block = number, now + self.runtime.snapshot.header_timeout
        elif number and now >= self._late_block[1] and not self.http2.is_over:
            self.http2.close(ErrorCode.ENHANCE_YOUR_CALM, "a field block did not arrive in time")
        self.update_held()

    def count_held(self) -> int:
        """Return the bytes that are held for the connection, without the bytes of its streams."""
        return super().count_held() + (0 if self.http2.is_over else self.http2.partial_bytes)

    def refuse_input(self, refusal: RejectedError) -> None:
        """End a connection that holds too much beside its streams."""
        self.http2.close(ErrorCode.ENHANCE_YOUR_CALM, refusal.detail)

    def list_exchanges(self) -> "tuple[Forwarding, ...]":
        """List the current requests."""
        return tuple([stream.exchange for stream in self._list_streams() if stream.exchange is not None])

    def _list_tunnels(self) -> "list[Tunnel]":
        servers = [exchange.server for exchange in self.list_exchanges()]
        return [server.tunnel for server in servers if server is not None and server.tunnel is not None]

    @property
    def tunnel(self) -> "Tunnel | None":
        """A tunnel of one of its streams."""
        tunnels = self._list_tunnels()
        return tunnels[0] if tunnels else None

    def close_tunnel(self) -> None:
        """Tell both ends of all its tunnels that the edge is closing."""
        for tunnel in self._list_tunnels():
            tunnel.send_close()

    @property
    def is_event_stream(self) -> bool:
        """True if one of the current answers is an event stream."""
        return any(exchange.streams_events for exchange in self.list_exchanges())

    def end_event_stream(self) -> None:
        """End the current event streams as if the upstream had ended them."""
        for exchange in self.list_exchanges():
            if exchange.streams_events and exchange.server is not None:
                exchange.server.end_event_stream()

    # ---- ends

    @property
    def has_ended(self) -> bool:
        """True if the edge has ended the connection."""
        return self.state > LAST

    def drain(self) -> None:
        """Announce the end. A second later serve only streams that have begun (RFC 9113 section 6.8)."""
        if self.http2.last_served == STREAM_MASK:
            self.http2.announce_shutdown()
            asyncio.get_running_loop().call_later(LAST_REQUEST_SECONDS, self._shut_down)

    def _shut_down(self) -> None:
        self.http2.shut_down()
        self._close_when_empty()

    def _close_when_empty(self) -> None:
        if not self.http2.streams and self.state <= LAST:
            self._writer.flush()
            self.close(linger=True)

    def on_timeout(self) -> None:
        """End a connection without streams whose deadline has passed."""
        if self.state > LAST:
            self.time_out_end()
            return
        self.deadline = NEVER
        self._shut_down()

    def on_connection_error(self, code: ErrorCode, detail: str) -> None:
        """Close a connection that has broken the rules, once its GOAWAY has gone."""
        if code == ErrorCode.ENHANCE_YOUR_CALM:
            self.runtime.endpoint_log.info("a client's HTTP/2 connection was ended", self.peer, why=detail)
        self._writer.flush()
        self.close(linger=True)

    def eof_received(self) -> bool:
        # Clients do not half-close an HTTP/2 connection, so this one leaves.
        self.half_closed = not was_reset(self.transport)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.http2.abandon()
        self._writer.drop()
        self.sweep()
        self.runtime.connections.http2_clients.discard(self)
        super().connection_lost(exc)
        self.http2.detach()
