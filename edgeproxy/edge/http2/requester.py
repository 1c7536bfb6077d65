"""The client's role on a connection to an upstream (RFC 9113): streams are opened here, and answers read.

Frames, windows and their bounds come from Http2Connection. Here a stream sends its request. So in the states of
stream.py, `response_ended` says that all of the request was given to the sender, and `request_ended` that the answer
has come.
"""

from collections.abc import Callable
from time import monotonic
from typing import Final

from edgeproxy.edge.http1.grammar import HeadLimits
from edgeproxy.edge.http2.answer import encode_field
from edgeproxy.edge.http2.connection import Http2Connection
from edgeproxy.edge.http2.errors import ErrorCode, Http2StreamError, create_malformed_error, create_protocol_error
from edgeproxy.edge.http2.frames import (
    ACK,
    DEFAULT_WINDOW,
    END_STREAM,
    FRAME_BYTES_MAX,
    PREFACE,
    SETTING,
    STREAM_MASK,
    FrameType,
    Setting,
    format_settings,
    format_window_update,
    parse_word,
)
from edgeproxy.edge.http2.hpack import Block, HpackDecoder
from edgeproxy.edge.http2.lines import Line
from edgeproxy.edge.http2.request import get_trailers
from edgeproxy.edge.http2.reset_budget import ResetBudget
from edgeproxy.edge.http2.response import is_interim
from edgeproxy.edge.http2.sender import CONNECTION_WINDOW, STREAM_WINDOW
from edgeproxy.edge.http2.stream import Stream

STREAMS_MAX: Final = 100
"""Streams at a time, unless the upstream allows fewer."""

BLOCK_EXCESS: Final = 16
"""A field block may be this many times as long as a head. The number is larger than for clients, as many clients share
the connection that a longer block ends.
"""

TRUST: Final = 1 << 62
"""The patience with an upstream: if it resets streams, or pings, that is not an attack."""


class AnsweredStream(Stream):
    """A stream of the edge's own, whose answer is still to come.

    Answer frames that come after its request still count.
    """

    reads_on = True
    has_head = False
    """The head of the final answer has come."""
    opened_at = 0.0
    """When it was opened, in seconds of the connection's clock."""

    def on_response(self, lines: list[Line], *, ended: bool) -> None:
        """Take the head of an answer, interim or final; sets `has_head`. Raises Http2StreamError."""


class UnreadStream(AnsweredStream):
    """A stream whose answer is not needed any more, but which no reset is left for.

    Its bytes are dropped when they come, as far as its window goes.
    """

    def __init__(self, stream: AnsweredStream, code: ErrorCode) -> None:
        super().__init__(stream.number, stream.send_window, stream.receive_window)
        self.code, self.opened_at, self.has_head = code, stream.opened_at, stream.has_head
        self.request_ended, self.body_left = stream.request_ended, stream.body_left
        self.response_ended = stream.response_ended and not stream.waiting

    def on_response(self, lines: list[Line], *, ended: bool) -> None:
        self.has_head = ended or not is_interim(lines)


class Requester(Http2Connection):
    """One connection to an upstream. `clock` returns seconds of a monotonic clock."""

    __slots__ = (
        "_clock",
        "_decoder",
        "_limits",
        "_resets",
        "_send_window_max",
        "goaway_code",
        "has_announced",
        "is_leaving",
        "streams_max",
        "unread",
    )

    block_excess = BLOCK_EXCESS

    def __init__(
        self,
        write: Callable[[bytes], None],
        write_many: Callable[[list[bytes | memoryview]], None],
        limits: HeadLimits,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__(write, write_many, Stream, limits)  # No upstream begins a stream.
        self._clock, self._resets = clock, ResetBudget(clock())
        self._send_window_max = self.send_window
        """The largest that the window of the connection was."""
        self.unread: dict[int, UnreadStream] = {}
        """Streams that would be reset if there were resets left, the oldest first."""
        self._decoder, self._limits = HpackDecoder(limits.fields, limits.head), limits
        self._has_settings = True
        self.is_leaving = False
        """The upstream takes no further streams (section 6.8)."""
        self.goaway_code: int | None = None
        """The error code of the upstream's last GOAWAY."""
        self.has_announced = False
        """The upstream's first SETTINGS have come."""
        self.streams_max = 1
        """Streams at a time. One until the first SETTINGS: a service may refuse most streams of a burst."""
        self.patience.frames = self.patience.resets = TRUST

    def _format_preface(self, limits: HeadLimits) -> bytes:
        settings = {
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_HEADER_LIST_SIZE: limits.head,
        }
        return PREFACE + format_settings(settings) + format_window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW)

    @property
    def has_room(self) -> bool:
        """True if one more stream may be opened without harm: it would not wait for the windows of others."""
        return self.has_places and not self._is_stalled and not self._is_unread_full

    @property
    def has_places(self) -> bool:
        """True if the upstream allows one more stream."""
        return not (self.is_over or self.is_leaving) and len(self.streams) < self.streams_max

    @property
    def _is_stalled(self) -> bool:
        """True if a request waits for a window, and much of the connection's window is used.

        Many services open it again once half of it was taken. So if the upstream does not read a request, that request
        may hold only a part of this half.
        """
        return bool(self.blocked) and self.send_window * 8 < self._send_window_max * 5

    @property
    def _is_unread_full(self) -> bool:
        return 2 * len(self.unread) >= max(2, self.streams_max)

    @property
    def is_abandoned(self) -> bool:
        """True if it has become useless: it has many streams, and no request waits for any of them."""
        return self._is_unread_full and len(self.unread) == len(self.streams)

    def open(self, stream: AnsweredStream, block: bytes, *, ended: bool) -> None:
        """Open a stream with the head of its request as a field block. `ended`: no body follows."""
        self.last_stream = number = self.last_stream + 2 if self.last_stream else 1
        if number >= STREAM_MASK - 2:
            self.is_leaving = True
        stream.number, stream.send_window, stream.receive_window = number, self.initial_window, STREAM_WINDOW
        self.streams[number] = stream
        stream.opened_at = self._clock()
        self._resets.count_opened()
        self.send_head(stream, block, ended=ended)

    def _get_room(self, stream: Stream) -> int:
        free = self.send_window
        if len(self.streams) > 1:
            # Beside others a request holds no more of the connection's window than it leaves, and a frame, as services
            # open it again at half.
            held = max(self.initial_window, stream.send_window_max) - stream.send_window
            free = min(free, (free + FRAME_BYTES_MAX - held) // 2)
        return min(stream.send_window, free)

    # ---- streams that no request waits for

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """Reset a stream, at once or once a reset is left for it. Its `on_reset` is not called."""
        if stream.closed or isinstance(stream, UnreadStream):
            return
        assert isinstance(stream, AnsweredStream)
        if self._resets.spend(self._clock(), stream.opened_at):
            super().reset(stream, code)
            return
        unread = UnreadStream(stream, code)
        self._close_stream(stream)
        self.streams[stream.number] = self.unread[stream.number] = unread

    def reset_unread(self) -> None:
        """Reset the unread streams, as far as resets are left."""
        for stream in tuple(self.unread.values()):
            if not self._resets.spend(self._clock(), stream.opened_at):
                return
            super().reset(stream, stream.code)

    def _close_stream(self, stream: Stream) -> None:
        self.unread.pop(stream.number, None)
        super()._close_stream(stream)

    # ---- answers

    def _skip_part(self, part: bytes, *, begins: bool) -> bytes:
        return self._decoder.skip(part, begins=begins)

    def _read_block(self, number: int, flags: int, block: Block) -> None:
        ended = flags & END_STREAM != 0
        lines = self._decoder.decode(block)
        if number > self.last_stream or not number & 1:
            raise create_protocol_error("HEADERS of a stream that was not begun", "5.1")
        stream = self.streams.get(number)
        if stream is None:
            return  # The stream has ended: its answer is useless by now.
        assert isinstance(stream, AnsweredStream)
        if stream.request_ended:
            raise Http2StreamError(ErrorCode.STREAM_CLOSED, "HEADERS behind the end of an answer", "5.1")
        if stream.has_head and not ended:
            raise create_malformed_error("trailers that do not end their answer", "8.1")
        stream.request_ended = ended
        if not stream.has_head:
            stream.on_response(lines, ended=ended)
        elif (trailers := get_trailers(lines, self._limits)) is None:
            stream.on_oversized_trailers()
        else:
            stream.on_trailers(trailers)
        if ended:
            self._close_if_over(stream)

    def _read_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        super()._read_frame(kind, flags, number, payload)
        if kind == FrameType.SETTINGS and not flags & ACK:
            self._apply_settings(payload)
        elif kind == FrameType.GOAWAY:
            self.goaway_code = int.from_bytes(payload[4:8], "big")
            self._leave(parse_word(payload))
        elif kind == FrameType.WINDOW_UPDATE and self.send_window > self._send_window_max:
            self._send_window_max = self.send_window

    def announce_defaults(self) -> None:
        """Assume the default settings of the upstream, unless it has sent its own."""
        if not self.has_announced:
            self.has_announced, self.streams_max = True, STREAMS_MAX

    def _apply_settings(self, payload: bytes) -> None:
        self.announce_defaults()
        for setting, value in SETTING.iter_unpack(payload):
            if setting == Setting.MAX_CONCURRENT_STREAMS:
                self.streams_max = min(value, STREAMS_MAX)

    def _leave(self, last: int) -> None:
        """Open no further streams; nothing was done for those above the last one (section 8.7)."""
        self.is_leaving = True
        for stream in [stream for stream in self.streams.values() if stream.number > last]:
            self._close_stream(stream)
            stream.on_reset(ErrorCode.REFUSED_STREAM)


PSEUDO: Final = {
    (method, scheme): encode_field(b":method", method) + encode_field(b":scheme", scheme)
    for method in (b"GET", b"POST")
    for scheme in (b"http", b"https")
}


def encode_pseudo_fields(method: bytes, scheme: bytes, path: bytes, authority: bytes) -> bytes:
    """Encode the pseudo-header fields of a request."""
    first = PSEUDO.get((method, scheme)) or encode_field(b":method", method) + encode_field(b":scheme", scheme)
    return first + encode_field(b":path", path) + encode_field(b":authority", authority)
