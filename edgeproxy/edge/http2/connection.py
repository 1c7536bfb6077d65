"""A client's HTTP/2 connection (RFC 9113), without I/O: bytes in, streams out of them.

The costs that a peer may cause are bounded here. The requests of an address and the bytes of bodies are not.
"""

from collections.abc import Callable
from typing import Final

from edgeproxy.edge.http1.grammar import HeadLimits
from edgeproxy.edge.http2.errors import (
    CompressionError,
    ErrorCode,
    Http2ConnectionError,
    Http2StreamError,
    create_calm_error,
    create_malformed_error,
    create_protocol_error,
    create_size_error,
    create_window_error,
)
from edgeproxy.edge.http2.frames import (
    ACK,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    HEADER,
    HEADER_BYTES,
    HEADERS,
    PREFACE,
    PRIORITY,
    SETTING,
    STREAM_MASK,
    WINDOW_MAX,
    FrameType,
    Setting,
    check_dependency,
    format_frame,
    format_settings,
    format_window_update,
    parse_word,
    read_settings,
    remove_padding,
)
from edgeproxy.edge.http2.head_reader import HeadReader
from edgeproxy.edge.http2.hpack import Block
from edgeproxy.edge.http2.request import OVERSIZED_LENGTH
from edgeproxy.edge.http2.sender import CONNECTION_WINDOW, STREAM_WINDOW, Sender
from edgeproxy.edge.http2.stream import Stream

STREAMS_MAX: Final = 100
"""Streams at a time. A stream counts until its exchange is over, whichever side has reset it (CVE-2023-44487,
CVE-2025-8671).
"""

BLOCK_EXCESS: Final = 4
"""A field block may be this many times as long as a head. A block that is longer than a head fails its stream alone
(RFC 9113 section 10.5.1), one beyond this bound ends the connection (CVE-2024-27316, VU#421644).
"""

CONTINUATIONS_MAX: Final = 8
CONTINUATION_BYTES: Final = 1024
"""CONTINUATION frames that a block may have whatever their size. Further ones must have this many bytes on average."""

SLICE_BYTES: Final = 256
"""A slice reads the frames that begin in this many bytes: at most 28 empty frames, or 18 requests of 14 bytes each."""

SETTINGS_MAX: Final = 32
"""Settings in a frame."""

CreateStream = Callable[[int, int, int], Stream]
"""Creates a stream of its number, its window for sending, and its window for receiving."""


class Http2Connection(Sender):
    """One connection of a client."""

    __slots__ = (
        "_block_bytes",
        "_block_frames",
        "_block_parts",
        "_block_start",
        "_create_stream",
        "_has_settings",
        "_head_bytes_max",
        "_is_block_oversized",
        "_reader",
        "_rest",
        "_websockets",
        "breach",
    )

    block_excess = BLOCK_EXCESS

    def __init__(
        self,
        write: Callable[[bytes], None],
        write_many: Callable[[list[bytes | memoryview]], None],
        create_stream: CreateStream,
        limits: HeadLimits,
        *,
        websockets: bool = False,
    ) -> None:
        """`websockets`: extended CONNECT is offered (RFC 8441)."""
        super().__init__(write, write_many)
        self._create_stream = create_stream
        self._reader = HeadReader(limits, websockets=websockets)
        self._websockets = websockets
        self._rest = b""
        """The beginning of a frame that has not come whole."""
        self._block_start = (0, 0)
        self._block_parts: list[bytes] = []
        """The stream and the flags of the unfinished field block, and its parts; no parts without one."""
        self._block_bytes = self._block_frames = 0
        self._is_block_oversized = False
        """Its bytes and frames so far, and whether it is too long for any head."""
        self._head_bytes_max = limits.head
        self.breach: Http2ConnectionError | None = None
        """The error of the peer that ended the connection."""
        self._has_settings = False
        """True once the peer's preface was read; its SETTINGS follow."""
        write(self._format_preface(limits))

    def _format_preface(self, limits: HeadLimits) -> bytes:
        """Format the edge's first frames."""
        settings = {
            Setting.MAX_CONCURRENT_STREAMS: STREAMS_MAX,
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_HEADER_LIST_SIZE: limits.head,
        }
        if self._websockets:
            settings[Setting.ENABLE_CONNECT_PROTOCOL] = 1
        return format_settings(settings) + format_window_update(0, CONNECTION_WINDOW - DEFAULT_WINDOW)

    @property
    def has_settings(self) -> bool:
        """True if the client has begun correctly, with its preface and SETTINGS."""
        return self._has_settings

    @property
    def stored_bytes(self) -> int:
        """The stored bytes from the peer, without bodies."""
        return self.partial_bytes + self._reader.stored_bytes

    @property
    def partial_bytes(self) -> int:
        """The bytes of a frame or of a field block that has not come whole."""
        return len(self._rest) + sum(map(len, self._block_parts))

    @property
    def partial_block(self) -> int:
        """The stream of a field block that has not come whole; 0 if there is none."""
        return self._block_start[0] if self._block_parts else 0

    # ---- frames

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer, which may begin and end anywhere."""
        while data:
            data = self.receive_slice(data)

    def receive_slice(self, data: bytes) -> bytes:
        """Read the frames that begin in the first SLICE_BYTES of the peer's bytes. Return the bytes behind them."""
        if self.is_over:
            return b""
        if self._rest:
            data, self._rest = self._rest + data, b""
        try:
            position = 0 if self._has_settings else self._read_preface(data)
            if position or self._has_settings:
                stop = position + SLICE_BYTES
                position = self._read_frames(data, position, stop)
                if position > stop:
                    return data[position:]
            self._rest = data[position:]
        except Http2ConnectionError as error:
            self.breach = error.with_traceback(None)
            self.close(error.code, f"{error.detail} ({error.section})")
        return b""

    def _read_preface(self, data: bytes) -> int:
        """Read the preface and the header of the SETTINGS behind it (section 3.4); return the start of that header, 0
        while some of it is missing.
        """
        if not data.startswith(PREFACE[: len(data)]):
            raise create_protocol_error("this is not the preface of HTTP/2", "3.4")
        if len(data) < len(PREFACE) + HEADER_BYTES:
            return 0
        _, _, kind, flags, _ = HEADER.unpack_from(data, len(PREFACE))
        if kind != FrameType.SETTINGS or flags & ACK:
            raise create_protocol_error("no SETTINGS follow the preface", "3.4")
        self._has_settings = True
        return len(PREFACE)

    def _read_frames(self, data: bytes, position: int, stop: int) -> int:
        """Read whole frames that begin at most at `stop`. Return the position of the next frame."""
        end = len(data)
        last = end - HEADER_BYTES
        if last > stop:
            last = stop
        while position <= last and not self.is_over:
            high, length, kind, flags, number = HEADER.unpack_from(data, position)
            if high or length > FRAME_BYTES_MAX:
                raise create_size_error("a frame is longer than SETTINGS_MAX_FRAME_SIZE", "4.2")
            start = position + HEADER_BYTES
            if start + length > end:
                break
            position = start + length
            payload = data[start:position]
            # The highest bit is reserved, and ignored (RFC 9113 section 4.1).
            number &= STREAM_MASK
            try:
                if kind == HEADERS and flags & ~END_STREAM == END_HEADERS and not self._block_parts:
                    self._read_block(number, flags, payload)
                else:
                    self._read_frame(kind, flags, number, payload)
            except Http2StreamError as error:
                self._end_stream(number, error)
        return position

    def _read_frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        """Read any frame but a whole field block without padding and priority."""
        if self._block_parts and (kind != FrameType.CONTINUATION or number != self._block_start[0]):
            raise create_protocol_error("another frame stands within a field block", "6.10")
        if kind < len(READERS):
            READERS[kind](self, flags, number, payload)
        else:
            self.patience.spend()  # Section 5.5: a type that is not known is ignored.

    def _end_stream(self, number: int, error: Http2StreamError) -> None:
        """Reset a stream for an error, which costs as much as a reset of the peer's own."""
        self.patience.spend_reset()
        if number > self.last_stream or not number & 1:
            # One that is idle cannot be reset (section 6.4); a stream error may be one of the connection (5.4.1).
            raise Http2ConnectionError(error.code, error.detail, error.section)
        stream = self.streams.get(number)
        if stream is None:
            self._write_reset(number, error.code)
        else:
            self.reset(stream, error.code)
            stream.on_error(error)

    # ---- requests

    def _read_headers(self, flags: int, number: int, payload: bytes) -> None:
        block = remove_padding(flags, payload)
        if flags & PRIORITY:
            if len(block) < 5:
                raise create_size_error("HEADERS without room for the priority", "6.2")
            check_dependency(number, block)
            block = block[5:]
        if flags & END_HEADERS:
            self._read_block(number, flags, block)
        else:
            self._block_start, self._block_parts = (number, flags), [block]
            self._block_bytes, self._block_frames, self._is_block_oversized = len(block), 0, False

    def _read_continuation(self, flags: int, number: int, payload: bytes) -> None:
        parts = self._block_parts
        if not parts:
            raise create_protocol_error("CONTINUATION without a field block", "6.10")
        parts.append(payload)
        self._block_frames += 1
        self._block_bytes += len(payload)
        size, frames_max = self._block_bytes, CONTINUATIONS_MAX + self._block_bytes // CONTINUATION_BYTES
        if self._block_frames > frames_max or size > self.block_excess * self._head_bytes_max:
            raise create_calm_error("a field block does not end", "10.5.1")
        if size > 2 * self._head_bytes_max + FRAME_BYTES_MAX:
            # Some encoders use the Huffman code even if it makes a string longer: "~" has 13 bits. A block of this
            # length fails its stream, whatever follows. The table must know all of it, so its parts are read at once.
            self._block_parts = [self._skip_part(b"".join(parts), begins=not self._is_block_oversized)]
            self._is_block_oversized = True
        if flags & END_HEADERS:
            block = b"".join(self._block_parts)
            self._block_parts = []
            if self._is_block_oversized and block:
                raise CompressionError("a block ends within a field", "2.3.3")
            self._read_block(number, self._block_start[1], None if self._is_block_oversized else block)

    def _skip_part(self, part: bytes, *, begins: bool) -> bytes:
        """Read a part of a block that is too long, as `HpackDecoder.skip` does."""
        return self._reader.skip_part(part, begins=begins)

    def _read_block(self, number: int, flags: int, block: Block) -> None:
        """Read a whole field block, even if its stream fails: it may change the table."""
        ended = flags & END_STREAM != 0
        if number <= self.last_stream or not number & 1:
            self._read_late_block(number, block, ended=ended)
            return
        self.last_stream = number
        # `last_stream` is set before this: a stream whose head fails has begun, and can be reset.
        head, length = self._reader.read_head(block, ended=ended)
        # The GOAWAY named the last served stream. REFUSED_STREAM tells the client that it may send the request again
        # elsewhere (section 8.7).
        if number > self.last_served:
            self.patience.spend()
            self._write_reset(number, ErrorCode.REFUSED_STREAM)
            return
        # Not PROTOCOL_ERROR: after REFUSED_STREAM the client may try the request again (section 5.1.2).
        if len(self.streams) >= STREAMS_MAX:
            raise Http2StreamError(ErrorCode.REFUSED_STREAM, "more streams than were allowed", "5.1.2")
        stream = self.streams[number] = self._create_stream(number, self.initial_window, STREAM_WINDOW)
        if ended:
            stream.request_ended = True
        else:
            stream.body_left = length
        if length == OVERSIZED_LENGTH:
            stream.body_left = -1
            stream.on_oversized_request(head)
            self.patience.spend_reset()  # Such a request costs its client nothing else.
        else:
            stream.on_request(head)

    def _read_late_block(self, number: int, block: Block, *, ended: bool) -> None:
        """Read trailers, or fields of a stream that takes none."""
        if not number & 1:
            raise create_protocol_error("no stream of a client has this number", "5.1.1")
        stream = self.streams.get(number)
        if stream is None:
            self._reader.skip(block)
            if number not in self.reset_streams:
                raise Http2ConnectionError(ErrorCode.STREAM_CLOSED, "HEADERS of a closed stream", "5.1")
            self.patience.spend()
            return
        if stream.request_ended:
            self._reader.skip(block)
            raise Http2StreamError(ErrorCode.STREAM_CLOSED, "HEADERS behind the end of a request", "5.1")
        trailers = self._reader.read_trailers(block)
        if not ended or stream.body_left > 0:
            raise create_malformed_error("trailers do not end their request, or end it early", "8.1")
        stream.request_ended = True
        if stream.response_ended:
            self._close_if_over(stream)
        elif trailers is None:
            self.patience.spend_reset()  # Such a request costs its client nothing else.
            stream.on_oversized_trailers()
        else:
            stream.on_trailers(trailers)

    def _read_data(self, flags: int, number: int, payload: bytes) -> None:
        if number > self.last_stream or not number & 1:
            raise create_protocol_error("DATA of a stream that was not begun", "5.1")
        size = len(payload)
        # Padding counts, and so do frames of closed streams (sections 6.1 and 6.9). Otherwise the windows of both sides
        # would differ.
        self._return_window(size)
        body = remove_padding(flags, payload)
        ended = flags & END_STREAM != 0
        stream = self.streams.get(number)
        if stream is None or stream.request_ended:
            if number not in self.reset_streams:
                raise Http2StreamError(ErrorCode.STREAM_CLOSED, "DATA behind the end of a request", "6.1")
            self.patience.spend()
            return
        self._count_data(stream, size, len(body), ended=ended)
        if not stream.response_ended or stream.reads_on:
            stream.on_data(body)
        else:
            self.consume(stream, len(body))
        if ended:
            self._close_if_over(stream)

    def _count_data(self, stream: Stream, size: int, body_size: int, *, ended: bool) -> None:
        """Count a DATA frame against its stream's window, and the length of its body."""
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise Http2StreamError(ErrorCode.FLOW_CONTROL_ERROR, "more than the window of the stream", "6.9.1")
        # An empty frame costs work and moves nothing (CVE-2019-9518).
        if not body_size and not ended:
            self.patience.spend()
        if stream.body_left >= 0:
            stream.body_left -= body_size
            if stream.body_left < 0 or (ended and stream.body_left):
                raise create_malformed_error("the body has another length than its Content-Length", "8.1.1")
        stream.request_ended = ended
        # The padding has no reader, so its part of the window is returned at once.
        if size > body_size:
            self.consume(stream, size - body_size)

    def _read_reset(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise create_size_error("RST_STREAM is not of 4 bytes", "6.4")
        if number > self.last_stream or not number & 1:
            raise create_protocol_error("RST_STREAM of a stream that was not begun", "6.4")
        self.patience.spend_reset()
        stream = self.streams.get(number)
        if stream is not None:
            self._close_stream(stream)
            stream.on_reset(int.from_bytes(payload, "big"))

    # ---- frames about frames

    def _read_priority(self, flags: int, number: int, payload: bytes) -> None:
        self.patience.spend()
        if not number:
            raise create_protocol_error("PRIORITY of no stream", "6.3")
        if len(payload) != 5:
            raise Http2StreamError(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY is not of 5 bytes", "6.3")
        check_dependency(number, payload)

    def _read_settings(self, flags: int, number: int, payload: bytes) -> None:
        self.patience.spend()
        if number:
            raise create_protocol_error("SETTINGS of a stream", "6.5")
        if len(payload) % SETTING.size or (flags & ACK and payload):
            raise create_size_error("SETTINGS have half a setting, or acknowledge with some", "6.5")
        if flags & ACK:
            return
        if len(payload) > SETTING.size * SETTINGS_MAX:
            raise create_calm_error("too many settings in a frame")
        self._change_initial_window(read_settings(payload, self.initial_window))
        self.write(format_frame(FrameType.SETTINGS, ACK, 0))

    def _change_initial_window(self, window: int) -> None:
        """Change the windows of all streams (section 6.9.2)."""
        # A window may become negative by this. The stream then waits until the peer opens it (section 6.9.2).
        increment, self.initial_window = window - self.initial_window, window
        if not increment:
            return
        for stream in self.streams.values():
            stream.send_window += increment
            if stream.send_window > WINDOW_MAX:
                raise create_window_error("SETTINGS_INITIAL_WINDOW_SIZE makes a window too large", "6.9.2")
        self.send_blocked()

    def _read_push_promise(self, flags: int, number: int, payload: bytes) -> None:
        raise create_protocol_error("PUSH_PROMISE of a client", "8.4")

    def _read_ping(self, flags: int, number: int, payload: bytes) -> None:
        self.patience.spend()
        if number:
            raise create_protocol_error("PING of a stream", "6.7")
        if len(payload) != 8:
            raise create_size_error("PING is not of 8 bytes", "6.7")
        if not flags & ACK:
            self.write(format_frame(FrameType.PING, ACK, 0, payload))

    def _read_goaway(self, flags: int, number: int, payload: bytes) -> None:
        self.patience.spend()
        if number:
            raise create_protocol_error("GOAWAY of a stream", "6.8")
        # Nothing else follows: a client that leaves opens no streams, and its open ones are served (section 6.8).
        if len(payload) < 8:
            raise create_size_error("GOAWAY is of less than 8 bytes", "6.8")

    def _read_window_update(self, flags: int, number: int, payload: bytes) -> None:
        self.patience.spend()
        if len(payload) != 4:
            raise create_size_error("WINDOW_UPDATE is not of 4 bytes", "6.9")
        increment = parse_word(payload)
        if not number:
            self._open_window(increment)
        elif number > self.last_stream or not number & 1:
            raise create_protocol_error("WINDOW_UPDATE of a stream that was not begun", "5.1")
        elif (stream := self.streams.get(number)) is not None:
            if not increment:
                raise Http2StreamError(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by nothing", "6.9")
            stream.send_window += increment
            if stream.send_window > WINDOW_MAX:
                raise Http2StreamError(ErrorCode.FLOW_CONTROL_ERROR, "the window of a stream is too large", "6.9.1")
            if stream.send_window > stream.send_window_max:
                stream.send_window_max = stream.send_window
            if stream.waiting:
                self.resume_stream(stream)

    def _open_window(self, increment: int) -> None:
        """Open the window of the connection."""
        if not increment:
            raise create_protocol_error("WINDOW_UPDATE by nothing", "6.9")
        self.send_window += increment
        if self.send_window > WINDOW_MAX:
            raise create_window_error("the window of the connection is too large", "6.9.1")
        self.send_blocked()


READERS: Final[tuple[Callable[[Http2Connection, int, int, bytes], None], ...]] = (
    Http2Connection._read_data,
    Http2Connection._read_headers,
    Http2Connection._read_priority,
    Http2Connection._read_reset,
    Http2Connection._read_settings,
    Http2Connection._read_push_promise,
    Http2Connection._read_ping,
    Http2Connection._read_goaway,
    Http2Connection._read_window_update,
    Http2Connection._read_continuation,
)
"""The method that reads a frame, by its type."""
