"""Random frames without sockets, in both roles: legal frames, nearly legal frames and random bytes, cut anywhere.

The events and the output of a connection must depend on the bytes alone, not on the boundaries of reads. So each
conversation runs twice, in one piece and cut, with equal results. The connection raises no error, writes only frames
within the peer's windows, and stores a bounded number of bytes. As in each test of this folder, every head is read a
second time without the cache of blocks.
"""

import random
from collections.abc import Callable

import pytest

from edgeproxy.edge.http1.grammar import LIMITS
from edgeproxy.edge.http2.connection import BLOCK_EXCESS, Http2Connection
from edgeproxy.edge.http2.head_reader import HEADS_BYTES_MAX
from edgeproxy.edge.http2.lines import Line
from edgeproxy.edge.http2.requester import AnsweredStream, Requester, encode_pseudo_fields
from edgeproxy.edge.http2.response import format_response_head
from edgeproxy.edge.http2.stream import Stream
from tests.edge.http2.fuzz_run import fuzz_for_long
from tests.edge.http2.odd_encoder import OddEncoder, draw_fields
from tests.edge.http2.peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Fields,
    frame,
    reset,
    settings,
    update,
    word,
)

CONVERSATIONS = 50
STORED_BYTES_MAX = BLOCK_EXCESS * LIMITS.head + 2 * (16_384 + 9) + HEADS_BYTES_MAX + 4096
WINDOWS = (0, 1, 100, 65_535, 1 << 20, (1 << 31) - 1)
FRAME_BYTES_MAX = 16_384
ANSWERS = ("whole", "pieces", "trailers", "early", "never")


class Answering(Stream):
    """A stream opened by a client. Its number decides on the kind of its answer."""

    has_ended = False
    """True after the end of the request. No event of the request may follow."""

    def __init__(self, tape: "Tape", number: int, send_window: int, receive_window: int) -> None:
        super().__init__(number, send_window, receive_window)
        self.tape = tape
        self.kind = ANSWERS[number // 2 % len(ANSWERS)]
        self.body = b"z" * (number * 7919 % 90_000)

    def on_request(self, head: bytes) -> None:
        self._check_order()
        self.tape.events.append((self.number, "request", head))
        if self.kind == "early" or self.request_ended:
            self._answer()

    def on_oversized_request(self, head: bytes) -> None:
        self.on_request(b"")

    def on_data(self, data: bytes) -> None:
        self._check_order()
        self.tape.events.append((self.number, "data", data))
        self.tape.connection.consume(self, len(data))
        if self.request_ended:
            self._answer()

    def on_trailers(self, lines: list[bytes]) -> None:
        self._check_order()
        self.tape.events.append((self.number, "trailers", *lines))
        self._answer()

    def on_reset(self, code: int) -> None:
        self.tape.events.append((self.number, "reset", code))

    def on_drained(self) -> None:
        self.tape.events.append((self.number, "drained"))

    def on_closed(self) -> None:
        self.tape.events.append((self.number, "closed"))

    def _check_order(self) -> None:
        assert not self.has_ended
        assert not self.closed
        self.has_ended = self.request_ended

    def _answer(self) -> None:
        connection = self.tape.connection
        if self.response_ended or self.kind == "never":
            return
        if self.kind in ("whole", "early"):
            connection.respond(self, b"\x88", self.body)
            return
        connection.send_head(self, b"\x88")
        connection.send_data(self, self.body[:1000])
        connection.send_data(self, self.body[1000:], ended=self.kind == "pieces")
        if self.kind == "trailers":
            connection.send_trailers(self, b"\x88")


class Calling(AnsweredStream):
    """A stream opened by the edge to an upstream."""

    def __init__(self, tape: "Tape") -> None:
        super().__init__(0, 0, 0)
        self.tape = tape

    def on_response(self, lines: list[Line], *, ended: bool) -> None:
        head = format_response_head(lines, ended=ended)
        self.has_head = not head.is_interim
        self.tape.events.append((self.number, "answer", *head))

    def on_oversized_request(self, head: bytes) -> None:
        self.on_request(b"")

    def on_data(self, data: bytes) -> None:
        self.tape.events.append((self.number, "data", data))
        self.tape.connection.consume(self, len(data))

    def on_trailers(self, lines: list[bytes]) -> None:
        self.tape.events.append((self.number, "trailers", *lines))

    def on_reset(self, code: int) -> None:
        self.tape.events.append((self.number, "reset", code))

    def on_closed(self) -> None:
        self.tape.events.append((self.number, "closed"))


class Tape:
    """A connection with its recorded events and output."""

    connection: Http2Connection

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []
        self.written = bytearray()

    def write_many(self, parts: list[bytes | memoryview]) -> None:
        for part in parts:
            self.written += part


def create_client_side() -> Tape:
    tape = Tape()

    def create(number: int, send_window: int, receive_window: int) -> Stream:
        return Answering(tape, number, send_window, receive_window)

    tape.connection = Http2Connection(tape.written.extend, tape.write_many, create, LIMITS, websockets=True)
    return tape


def create_upstream_side() -> Tape:
    """Return the upstream side with six open calls. Every second one has a body without an end."""
    tape = Tape()
    connection = tape.connection = Requester(tape.written.extend, tape.write_many, LIMITS)
    for number in range(6):
        call, head = Calling(tape), encode_pseudo_fields(b"POST", b"http", b"/", b"a")
        connection.open(call, head, ended=number % 2 == 0)
        if number % 2:
            connection.send_data(call, b"q" * (number * 20_000))
    return tape


class Frames:
    """The random bytes of a peer, and the windows that they open."""

    def __init__(self, draw: random.Random, *, upstream: bool) -> None:
        self._draw = draw
        self._upstream = upstream
        self._encoder = OddEncoder(draw)
        self._usual = [self._draw_fields() for _ in range(3)]
        self._next = 13 if upstream else 1
        self._begun = list(range(1, self._next, 2))
        self.initial_window = 65_535
        self.stream_windows: dict[int, int] = {}
        steps: list[Callable[[], bytes]] = [self._head, self._head, self._data, self._data, self._control, self._reset]
        parts = [(b"" if upstream else PREFACE) + settings()]
        parts += [draw.choice(steps)() for _ in range(draw.randrange(5, 60))]
        self.is_legal = draw.random() < 0.7
        if not self.is_legal:
            parts.insert(draw.randrange(1, len(parts)), self._damage())
        self.data = b"".join(parts)

    def _draw_fields(self) -> Fields:
        if not self._upstream:
            return draw_fields(self._draw)
        status = self._draw.choice((b"200", b"200", b"204", b"103", b"101", b"99"))
        return [(b":status", status), *draw_fields(self._draw)[3:]]

    def _number(self) -> int:
        """Draw the number of a recently opened stream, or rarely any number."""
        begun = self._begun[-6:]
        return (
            self._draw.choice(begun) if begun and self._draw.random() < 0.99 else self._draw.randrange(self._next + 3)
        )

    def _head(self) -> bytes:
        draw = self._draw
        number = self._number()
        if not self._upstream and (not self._begun or draw.random() < 0.8):
            number, self._next = self._next, self._next + draw.choice((2, 2, 2, 6))
            self._begun.append(number)
        elif not self._upstream and draw.random() < 0.8:
            return self._data()  # Open streams get data, so that trailers may follow.
        fields = draw.choice(self._usual) if draw.random() < 0.7 else self._draw_fields()
        if draw.random() < 0.1:
            fields = [(b"x-sum", b"1")]
        block, flags = self._encoder.encode(fields), END_STREAM if draw.random() < 0.5 else 0
        cuts = sorted(draw.randrange(len(block) + 1) for _ in range(draw.choice((0, 0, 0, 1, 3))))
        first, *rest = [block[a:b] for a, b in zip([0, *cuts], [*cuts, len(block)], strict=True)]
        if draw.random() < 0.2:
            first, flags = word(draw.choice((0, 0, 1 << 31, number + 2))) + b"\x07" + first, flags | PRIORITIZED
        if draw.random() < 0.2:
            first, flags = b"\x05" + first + bytes(5), flags | PADDED
        frames = [frame(HEADERS, flags | (0 if rest else END_HEADERS), number, first)]
        frames += [frame(CONTINUATION, 0, number, part) for part in rest[:-1]]
        frames += [frame(CONTINUATION, END_HEADERS, number, part) for part in rest[-1:]]
        return b"".join(frames)

    def _data(self) -> bytes:
        draw = self._draw
        if not self._begun:
            return b""
        payload = draw.randbytes(draw.choice((0, 1, 100, 3000, FRAME_BYTES_MAX)))
        if draw.random() < 0.2:
            return frame(
                DATA, PADDED | draw.choice((0, END_STREAM)), self._number(), b"\x03" + payload[:9000] + bytes(3)
            )
        return frame(DATA, draw.choice((0, 0, END_STREAM)), self._number(), payload)

    def _reset(self) -> bytes:
        if not self._begun or self._draw.random() < 0.6:
            return self._control()
        return reset(self._number(), self._draw.choice((0, 7, 8, 99)))

    def _control(self) -> bytes:
        draw = self._draw
        if draw.random() < 0.4:
            number = self._number() if self._begun and draw.random() < 0.5 else 0
            increment = draw.choice((1, 1000, 100_000))
            self.stream_windows[number] = self.stream_windows.get(number, 0) + increment
            return update(number, increment)
        if draw.random() < 0.3:
            window = draw.choice(WINDOWS)
            self.initial_window = max(self.initial_window, window)
            return settings((4, window), (1, draw.choice((0, 4096))), (5, 1 << 14), (3, draw.choice((1, 100))))
        return draw.choice(
            (
                frame(PING, draw.choice((0, 1)), 0, draw.randbytes(8)),
                frame(PRIORITY, 0, self._next, word(0) + b"\x01"),
                frame(0x42, draw.randrange(256), self._number(), draw.randbytes(9)),
                settings(flags=1),
            )
        )

    def _damage(self) -> bytes:
        """Return bytes that are illegal, or illegal in some states."""
        draw = self._draw
        return draw.choice(
            (
                lambda: draw.randbytes(draw.choice((1, 9, 300))),
                lambda: frame(
                    draw.randrange(12), draw.randrange(256), self._number(), draw.randbytes(draw.randrange(20))
                ),
                lambda: frame(PUSH_PROMISE, END_HEADERS, self._number(), word(2) + b"\x82"),
                lambda: frame(CONTINUATION, END_HEADERS, self._number(), b"\x82"),
                lambda: frame(HEADERS, 0, self._next, b"\x82") + frame(PING, 0, 0, bytes(8)),
                lambda: update(self._number(), 0) + update(0, (1 << 31) - 1) * 2,
                lambda: frame(GOAWAY, 0, 0, word(self._number()) + word(0)),
                lambda: frame(SETTINGS, 0, 0, b"\0\4" + word(1 << 31)),
                lambda: frame(HEADERS, END_HEADERS, self._next, b"\xff" * draw.randrange(9)),
                lambda: b"\xff" * 9,
            )
        )()


def check_written(tape: Tape, frames: Frames) -> None:
    """Check that the output consists of frames within the windows that the peer opened."""
    written = bytes(tape.written).removeprefix(PREFACE)
    sent: dict[int, int] = {0: 0}
    ended: set[int] = set()
    position = 0
    while position < len(written):
        size = int.from_bytes(written[position : position + 3], "big")
        kind, flags = written[position + 3], written[position + 4]
        number = int.from_bytes(written[position + 5 : position + 9], "big")
        position += 9 + size
        assert size <= FRAME_BYTES_MAX
        assert position <= len(written)
        if kind in (HEADERS, DATA):
            assert number not in ended, "a frame follows the end of its stream"
            if flags & END_STREAM:
                ended.add(number)
        if kind == RST_STREAM:
            ended.add(number)
        if kind == DATA:
            sent[0] += size
            sent[number] = sent.get(number, 0) + size
        assert kind != WINDOW_UPDATE or size == 4
    if not frames.is_legal:
        return  # Damaged bytes may open windows too.
    assert sent.pop(0) <= 65_535 + frames.stream_windows.get(0, 0)
    for number, size in sent.items():
        assert size <= frames.initial_window + frames.stream_windows.get(number, 0)


def converse(draw: random.Random) -> int:
    """Run one conversation and return its number of events."""
    upstream = draw.random() < 0.3
    frames = Frames(draw, upstream=upstream)
    create = create_upstream_side if upstream else create_client_side
    whole, pieces = create(), create()
    whole.connection.receive(frames.data)
    data, size = frames.data, draw.choice((1, 3, 20, 200, 20_000))
    while data:
        length = draw.randrange(1, size + 1)
        pieces.connection.receive(data[:length])
        data = data[length:]
        assert pieces.connection.stored_bytes <= STORED_BYTES_MAX
    assert pieces.events == whole.events
    assert pieces.written == whole.written
    check_written(whole, frames)
    for tape in (whole, pieces):
        connection = tape.connection
        assert connection.waiting_bytes == sum(stream.waiting_bytes for stream in connection.streams.values())
        connection.abandon()
        assert not connection.streams
        assert not connection.waiting_bytes
    return len(whole.events)


def test_read_boundaries_do_not_change_a_conversation(seed: int) -> None:
    events = sum(converse(random.Random(f"{seed} {number}")) for number in range(CONVERSATIONS))
    assert events > 5 * CONVERSATIONS, "too few events to prove anything"


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_read_boundaries_do_not_change_long_series_of_conversations(seed: int) -> None:
    fuzz_for_long(seed, converse)
