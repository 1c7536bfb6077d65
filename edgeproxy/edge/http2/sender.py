"""The sending half of a connection: answers in frames, within the windows, and the ends of streams.

An answer is sent at once as far as the windows let it (RFC 9113 section 5.2); the rest waits at its stream. Streams
that wait are served in turn, a frame each.
"""

from collections.abc import Callable
from typing import Final

from edgeproxy.edge.http2.errors import ErrorCode
from edgeproxy.edge.http2.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    HEADER,
    HEADERS,
    STREAM_MASK,
    WINDOW_MAX,
    format_block,
    format_goaway,
    format_reset,
    format_window_update,
)
from edgeproxy.edge.http2.patience import ANSWER, ANSWER_RESETS, DATA_FRAME, Patience
from edgeproxy.edge.http2.stream import Stream

STREAM_WINDOW: Final = 64 << 10
"""Bytes of one body that may come before any of them were taken (section 6.9)."""

CONNECTION_WINDOW: Final = 1 << 20
"""Bytes of all bodies that may be on their way. The window opens again as bytes arrive: an unread body must not keep
others waiting, so the windows of streams bound the held bytes (section 5.2).
"""

RESET_STREAMS_MAX: Final = 100
"""Streams that are remembered as reset by the edge: their frames may still be on their way (section 5.1)."""

USEFUL_BYTES: Final = 1024
"""A DATA frame of this many bytes is useful even if a window has cut it short (CVE-2019-9511)."""

TABLE_OF_NOTHING: Final = b"\x20"
"""The first words of the first field block: a table of 0 bytes (RFC 7541 section 6.3), so the peer need keep none."""


class Sender:
    """The frames that a connection sends. `write` and `write_many` take frames, in order."""

    __slots__ = (
        "_has_sent_block",
        "_returnable_bytes",
        "blocked",
        "initial_window",
        "is_over",
        "last_served",
        "last_stream",
        "patience",
        "reset_streams",
        "send_window",
        "streams",
        "waiting_bytes",
        "write",
        "write_many",
        "write_paused",
    )

    def __init__(self, write: Callable[[bytes], None], write_many: Callable[[list[bytes | memoryview]], None]) -> None:
        self.write, self.write_many = write, write_many
        self.streams: dict[int, Stream] = {}
        """The streams that are not closed."""
        self.blocked: dict[int, Stream] = {}
        """The streams whose answers wait for a window; the last one served is last."""
        self.reset_streams: dict[int, None] = {}
        """The streams that the edge has reset lately."""
        self.last_stream = 0
        """The highest stream that the peer has begun."""
        self.last_served = STREAM_MASK
        """The highest stream that is served (section 6.8)."""
        self.send_window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        """The window of a stream that begins now."""
        self._returnable_bytes = 0
        """Bytes of bodies that have come, but were not yet returned to the peer's window."""
        self.waiting_bytes = 0
        """Bytes of all answers that wait."""
        self.write_paused = False
        """True if the transport takes no more for now: then no part of a body is written."""
        self.is_over = False
        """True if nothing more is read or written."""
        self.patience = Patience()
        self._has_sent_block = False

    # ---- answers

    def respond(self, stream: Stream, block: bytes, body: bytes | memoryview) -> None:
        """Send a whole answer: its head as a field block, and its body."""
        size = len(body)
        # The quick way takes one write for head and body. Other answers wait for a window, or have a long head.
        if size > self.send_window or size > stream.send_window or self.write_paused or len(block) >= FRAME_BYTES_MAX:
            self.hold_head(stream, block)
            self.send_data(stream, body, ended=True)
            return
        if not self._has_sent_block:
            block = self._begin_blocks(block)
        number, pack = stream.number, HEADER.pack
        if size:
            self.send_window -= size
            stream.send_window -= size
            head = pack(0, len(block), HEADERS, END_HEADERS, number)
            if size > FRAME_BYTES_MAX:
                self._write_frames(number, head + block, memoryview(body))
            else:
                self.write(b"".join((head, block, pack(0, size, DATA, END_STREAM, number), body)))
        else:
            self.write(pack(0, len(block), HEADERS, END_HEADERS | END_STREAM, number) + block)
        self._end_response(stream)

    def _write_frames(self, number: int, head: bytes, body: memoryview) -> None:
        """Write an answer's head and its long body, for which the windows have room."""
        last = (len(body) - 1) // FRAME_BYTES_MAX * FRAME_BYTES_MAX
        header = HEADER.pack(0, FRAME_BYTES_MAX, DATA, 0, number)
        frames: list[bytes | memoryview] = [head]
        for start in range(0, last, FRAME_BYTES_MAX):
            frames += header, body[start : start + FRAME_BYTES_MAX]
        frames += HEADER.pack(0, len(body) - last, DATA, END_STREAM, number), body[last:]
        self.patience.regain(DATA_FRAME * (len(frames) // 2))
        self.write_many(frames)

    def send_head(self, stream: Stream, block: bytes, *, ended: bool = False) -> None:
        """Send an answer's head, final or interim."""
        self.write(format_block(stream.number, self._begin_blocks(block), ended=ended))
        if ended:
            self._end_response(stream)

    def hold_head(self, stream: Stream, block: bytes) -> None:
        """Take an answer's head, to be sent with the next piece of its body, which follows at once."""
        stream.head_frames = format_block(stream.number, self._begin_blocks(block), ended=False)

    def send_data(self, stream: Stream, data: bytes | memoryview, *, ended: bool = False) -> None:
        """Send a piece of an answer's body, now or once there is a window."""
        if data:
            if not stream.waiting:
                # Most streams never wait. Until then they share one empty tuple.
                stream.waiting = []
            stream.waiting.append(data)
            stream.waiting_bytes += len(data)
            self.waiting_bytes += len(data)
        stream.response_ended = stream.response_ended or ended
        self._send_waiting(stream)

    def send_trailers(self, stream: Stream, block: bytes) -> None:
        """Send an answer's trailers, which end it, behind all its waiting pieces."""
        stream.trailer_block, stream.response_ended = block, True
        self._send_waiting(stream)

    def _begin_blocks(self, block: bytes) -> bytes:
        """Return a block in its sent form: the first one says that the table stays empty."""
        if self._has_sent_block:
            return block
        self._has_sent_block = True
        return TABLE_OF_NOTHING + block

    # ---- waiting pieces

    def send_blocked(self) -> None:
        """Send waiting pieces, as a window may be open again: a frame for each stream in turn."""
        while self.blocked and self.send_window > 0 and not self.write_paused:
            sent = 0
            for number, stream in tuple(self.blocked.items()):
                if number in self.blocked:  # The end of a stream before it may have ended this one.
                    sent += self.resume_stream(stream, FRAME_BYTES_MAX)
                if number in self.blocked:
                    self.blocked[number] = self.blocked.pop(number)
                if self.send_window <= 0 or self.write_paused:
                    break
            if not sent:
                return

    def resume_stream(self, stream: Stream, bytes_max: int = WINDOW_MAX) -> int:
        """Send waiting pieces of one stream, at most this much; return the number of sent bytes."""
        sent = self._send_waiting(stream, bytes_max)
        if not stream.waiting:
            stream.on_drained()
        return sent

    def _send_waiting(self, stream: Stream, bytes_max: int = WINDOW_MAX) -> int:
        room = 0 if self.write_paused else min(self._get_room(stream), bytes_max)
        frames: list[bytes | memoryview] = []
        if stream.head_frames:
            frames.append(stream.head_frames)
            stream.head_frames = b""
        sent = self._take_frames(stream, max(0, room), frames)
        if stream.waiting:
            self.blocked[stream.number] = stream
        else:
            self.blocked.pop(stream.number, None)
            if stream.response_ended and stream.trailer_block:
                frames.append(format_block(stream.number, self._begin_blocks(stream.trailer_block), ended=True))
            # The last piece went out before the end was known, so an empty frame ends the stream.
            elif stream.response_ended and not sent:
                frames.append(HEADER.pack(0, 0, DATA, END_STREAM, stream.number))
        if frames:
            self.write_many(frames)
        if stream.response_ended and not stream.waiting:
            self._end_response(stream)
        return sent

    def _get_room(self, stream: Stream) -> int:
        """Return how many bytes of a stream may be sent now, at most 0 if none may."""
        return min(stream.send_window, self.send_window)

    def _take_frames(self, stream: Stream, room: int, frames: list[bytes | memoryview]) -> int:
        """Take DATA frames of this many bytes from a stream's waiting pieces; return the number of their bytes."""
        waiting, pack, number = stream.waiting, HEADER.pack, stream.number
        left, useful = room, 0
        while waiting and left > 0:
            piece = waiting[0]
            size = len(piece)
            if size <= left and size <= FRAME_BYTES_MAX:
                del waiting[0]
                useful += DATA_FRAME
            else:
                size = min(left, FRAME_BYTES_MAX)
                view = memoryview(piece)
                waiting[0], piece = view[size:], view[:size]
                useful += DATA_FRAME if size >= USEFUL_BYTES else 0
            left -= size
            is_last = stream.response_ended and not waiting and not stream.trailer_block
            frames += (pack(0, size, DATA, END_STREAM if is_last else 0, number), piece)
        sent = room - left
        if sent:
            self.patience.regain(useful)
            stream.send_window -= sent
            self.send_window -= sent
            stream.waiting_bytes -= sent
            self.waiting_bytes -= sent
        return sent

    # ---- bodies of requests

    def consume(self, stream: Stream, size: int) -> None:
        """Take note that this many bytes of a body were taken: the peer may send as many more."""
        if stream.closed or stream.request_ended:
            return
        stream.returnable_bytes += size
        # One WINDOW_UPDATE for each half of the window, not one for each piece.
        if stream.returnable_bytes >= STREAM_WINDOW // 2:
            self.write(format_window_update(stream.number, stream.returnable_bytes))
            stream.receive_window += stream.returnable_bytes
            stream.returnable_bytes = 0

    def _return_window(self, size: int) -> None:
        """Open the connection's window again, once half of it has arrived."""
        self._returnable_bytes += size
        if self._returnable_bytes >= CONNECTION_WINDOW // 2:
            self.write(format_window_update(0, self._returnable_bytes))
            self._returnable_bytes = 0

    # ---- ends

    def sweep(self) -> None:
        """Give some patience back; called twice a second."""
        self.patience.sweep()

    def _end_response(self, stream: Stream) -> None:
        """Take note that an answer has gone out whole. The rest of the request is dropped when it comes."""
        stream.response_ended = True
        patience = self.patience
        if patience.frames < patience.maximum or patience.resets < patience.maximum:
            patience.regain(ANSWER, ANSWER_RESETS)
        if stream.request_ended:
            self._close_stream(stream)

    def _close_if_over(self, stream: Stream) -> None:
        """Close a stream whose request has ended, if its answer has gone out whole."""
        if stream.response_ended and not (stream.waiting or stream.closed):
            self._close_stream(stream)

    def _close_stream(self, stream: Stream) -> None:
        stream.closed = True
        self.streams.pop(stream.number, None)
        if stream.waiting:
            self.blocked.pop(stream.number, None)
            self.waiting_bytes -= stream.waiting_bytes
            stream.waiting, stream.waiting_bytes = (), 0
        stream.on_closed()

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """Reset a stream; its `on_reset` is not called."""
        if not stream.closed:
            self._close_stream(stream)
            self._write_reset(stream.number, code)

    def _write_reset(self, number: int, code: ErrorCode) -> None:
        self.reset_streams[number] = None
        if len(self.reset_streams) > RESET_STREAMS_MAX:
            del self.reset_streams[next(iter(self.reset_streams))]
        self.write(format_reset(number, code))
        self.on_reset_sent(code)

    def announce_shutdown(self) -> None:
        """Say that the connection is about to end; streams that the peer begins before it reads this are served."""
        if not self.is_over:
            self.write(format_goaway(STREAM_MASK, ErrorCode.NO_ERROR))

    def shut_down(self) -> None:
        """Serve only streams that have begun (section 6.8)."""
        if not self.is_over and self.last_served == STREAM_MASK:
            self.last_served = self.last_stream
            self.write(format_goaway(self.last_served, ErrorCode.NO_ERROR))
            self.on_goaway_sent(ErrorCode.NO_ERROR)

    def close(self, code: ErrorCode, detail: str = "") -> None:
        """End the connection with a GOAWAY."""
        if not self.is_over:
            # The client may repeat requests of later streams elsewhere (section 6.8).
            self.write(format_goaway(min(self.last_stream, self.last_served), code, detail))
            self.on_goaway_sent(code)
            self.abandon()
            self.on_closed(code, detail)

    def on_reset_sent(self, code: int) -> None:
        """Take note that a RST_STREAM was written."""

    def on_goaway_sent(self, code: int) -> None:
        """Take note that the GOAWAY was written that ends the opening of streams."""

    def on_closed(self, code: ErrorCode, detail: str) -> None:
        """Take note that a GOAWAY was written, and that the transport may be closed."""

    def abandon(self) -> None:
        """End all streams: the connection is gone, or about to be."""
        self.is_over = True
        # Exchanges that end from here on may still write.
        self.write = self.write_many = _drop
        streams = list(self.streams.values())
        for stream in streams:
            self._close_stream(stream)
        self.on_abandoned(streams)

    def on_abandoned(self, streams: "list[Stream]") -> None:
        """End the requests of streams that are closed because the connection is over."""
        for stream in streams:
            stream.on_reset(ErrorCode.NO_ERROR)


def _drop(data: object) -> None:
    """Drop the frame: its connection is over."""
