"""The client's role towards upstreams: no bytes of an upstream, however they are cut, raise an exception."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.http1.grammar import LIMITS, create_answer_limits
from edgeproxy.edge.http2.errors import ErrorCode
from edgeproxy.edge.http2.frames import STREAM_MASK
from edgeproxy.edge.http2.lines import Line
from edgeproxy.edge.http2.requester import AnsweredStream, Requester, encode_pseudo_fields
from edgeproxy.edge.http2.reset_budget import RESETS_MAX, RESETS_PER_SECOND
from edgeproxy.edge.http2.response import format_response_head
from tests.edge.http2.peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    block,
    frame,
    literal,
    settings,
    word,
)

STATUS = (b":status", b"200")
ANSWERS = create_answer_limits(LIMITS.head)


class Call(AnsweredStream):
    """A stream that records its events."""

    def __init__(self) -> None:
        super().__init__(0, 0, 0)
        self.events: list[object] = []

    def on_response(self, lines: list[Line], *, ended: bool) -> None:
        head = format_response_head(lines, ended=ended)
        self.has_head = not head.is_interim
        self.events.append(head.head)

    def on_data(self, data: bytes) -> None:
        self.events.append(data)

    def on_trailers(self, lines: list[bytes]) -> None:
        self.events.append(lines)

    def on_oversized_trailers(self) -> None:
        self.events.append("oversized trailers")

    def on_reset(self, code: int) -> None:
        self.events.append(ErrorCode(code).name)


def opened(calls: int = 1) -> tuple[Requester, list[Call], bytearray]:
    """Return a connection with this number of open requests, and the bytes that it has written."""
    written = bytearray()
    http2 = Requester(written.extend, lambda parts: [written.extend(part) for part in parts] and None, ANSWERS)
    streams = [Call() for _ in range(calls)]
    for stream in streams:
        http2.open(stream, encode_pseudo_fields(b"GET", b"http", b"/", b"a"), ended=True)
    return http2, streams, written


def head(number: int = 1, *fields: tuple[bytes, bytes], ended: bool = False) -> bytes:
    return frame(HEADERS, END_HEADERS | (END_STREAM if ended else 0), number, block(fields or [STATUS]))


def test_an_answer_with_trailers_comes_in_order() -> None:
    http2, (call,), _ = opened()
    http2.receive(settings() + head() + frame(DATA, 0, 1, b"a") + head(1, (b"x-sum", b"1"), ended=True))
    assert call.events == [b"HTTP/1.1 200 \r\ntransfer-encoding: chunked\r\n\r\n", b"a", [b"x-sum: 1"]]
    assert not http2.streams


def test_goaway_refuses_only_streams_above_its_last_id() -> None:
    http2, calls, _ = opened(3)
    http2.receive(frame(GOAWAY, 0, 0, word(3) + word(0)))
    assert [call.events for call in calls] == [[], [], ["REFUSED_STREAM"]]
    assert not http2.has_room
    http2.receive(head(3, ended=True))
    assert calls[1].events == [b"HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n"]


def test_no_more_streams_than_the_upstream_allows() -> None:
    http2, _, _ = opened(2)
    assert not http2.has_room, "until it is known how many the upstream allows, one is open"
    http2.receive(settings((3, 3)))
    assert http2.has_room
    http2.receive(settings((3, 2)))
    assert not http2.has_room
    http2.receive(head(1, ended=True))
    assert http2.has_room
    http2.receive(settings((3, 1 << 31)))
    assert http2.streams_max == 100


def test_settings_about_anything_else_leave_the_number_of_streams() -> None:
    http2, _, _ = opened()
    http2.receive(settings((5, 1 << 15)))
    assert http2.streams_max == 100
    http2.receive(settings((3, 7)) + settings((5, 1 << 15)))
    assert http2.streams_max == 7


def test_connection_has_no_room_once_stream_numbers_run_out() -> None:
    http2, _, _ = opened()
    http2.receive(settings())
    http2.last_stream = STREAM_MASK - 4
    assert http2.has_room
    http2.open(Call(), encode_pseudo_fields(b"GET", b"http", b"/", b"a"), ended=True)
    assert not http2.has_room


def test_a_head_for_an_answer_that_has_ended_is_read_and_forgotten() -> None:
    http2, (call,), _ = opened()
    http2.receive(settings() + head(1, ended=True) + head(1, STATUS, (b"x", b"y"), ended=True))
    assert call.events == [b"HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n"]
    assert not http2.is_over


def test_second_head_after_an_answers_end_resets_an_unfinished_request() -> None:
    http2, _, _ = opened(0)
    call = Call()
    http2.open(call, encode_pseudo_fields(b"POST", b"http", b"/", b"a"), ended=False)
    http2.receive(settings() + head(1, ended=True) + head(1, ended=True))
    assert call.events[1:] == ["STREAM_CLOSED"]


def test_an_answer_that_states_its_length_is_not_chunked() -> None:
    http2, (call,), _ = opened()
    http2.receive(settings() + head(1, STATUS, (b"content-length", b"1")) + frame(DATA, END_STREAM, 1, b"a"))
    assert call.events == [b"HTTP/1.1 200 \r\ncontent-length: 1\r\n\r\n", b"a"]


def test_grpc_answer_is_chunked_despite_content_length() -> None:
    http2, (call,), _ = opened()
    length, kind = (b"content-length", b"1"), (b"content-type", b"application/grpc+proto")
    http2.receive(settings() + head(1, STATUS, length, kind))
    expected = b"HTTP/1.1 200 \r\ncontent-type: application/grpc+proto\r\ntransfer-encoding: chunked\r\n\r\n"
    assert call.events == [expected]


MALFORMED = {
    "no status": head(1, (b"x", b"y")),
    "two statuses": head(1, STATUS, STATUS),
    "a status behind a field": head(1, (b"x", b"y"), STATUS),
    "101": head(1, (b":status", b"101")),
    "a status of words": head(1, (b":status", b"abc")),
    "a field of a connection": head(1, STATUS, (b"connection", b"close")),
    "a line break": head(1, STATUS, (b"x", b"a\r\nb: c")),
    "a field of a request": head(1, STATUS, (b":path", b"/")),
    "the end of an interim answer": head(1, (b":status", b"103"), ended=True),
    "trailers that do not end it": head() + head(1, (b"x", b"y")),
    "a status in trailers": head() + head(1, STATUS, ended=True),
}


LONG_FIELDS = {
    "a field": [(b"x", b"~" * 40_000)],
    "many fields": [(b"x", b"~" * 100)] * 400,
    "a very long field": [(b"x", b"~" * 400_000)],
    "very many fields": [(b"x", b"~")] * 40_000,
}


def long_head(number: int, fields: list[tuple[bytes, bytes]], *, ended: bool) -> bytes:
    """Return the frames of a long head. Its last field adds an entry to the table."""
    whole = block(fields) + literal(b"known", b"1", 0x40)
    first, *rest = [whole[start : start + 16384] for start in range(0, len(whole), 16384)]
    frames = [frame(HEADERS, END_STREAM if ended else 0, number, first)]
    frames += [frame(CONTINUATION, 0, number, part) for part in rest]
    return b"".join(frames) + frame(CONTINUATION, END_HEADERS, number)


@pytest.mark.parametrize("name", LONG_FIELDS)
def test_oversized_answer_head_or_trailers_fail_only_their_stream(name: str) -> None:
    fields = LONG_FIELDS[name]
    http2, (first, second, other), _ = opened(3)
    http2.receive(settings() + long_head(1, [STATUS, *fields], ended=False))
    assert first.events[-1] == "PROTOCOL_ERROR"  # The test's own stream makes a malformed head of OVERSIZED.
    http2.receive(head(3) + long_head(3, fields, ended=True))
    assert second.events[-1] == "oversized trailers"
    http2.receive(frame(HEADERS, END_HEADERS | END_STREAM, 5, block([STATUS]) + b"\xbe"))
    assert other.events == [b"HTTP/1.1 200 \r\nknown: 1\r\ncontent-length: 0\r\n\r\n"]
    assert not http2.is_over


def test_an_answer_may_have_as_many_fields_as_fit() -> None:
    http2, (call,), _ = opened()
    http2.receive(head(1, STATUS, *[(b"x", b"y")] * 450))
    assert len(call.events) == 1


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_http2_answer_resets_only_its_stream(name: str) -> None:
    http2, (call, other), written = opened(2)
    del written[:]
    http2.receive(MALFORMED[name])
    assert call.events[-1] == "PROTOCOL_ERROR"
    assert bytes(written[:9]) == frame(RST_STREAM, 0, 1, word(1))[:9]
    http2.receive(head(3, ended=True))
    assert len(other.events) == 1


BROKEN = {
    "a stream of the upstream's": head(2),
    "a stream that was not begun": head(5),
    "a push": frame(PUSH_PROMISE, END_HEADERS, 1, word(2) + block([STATUS])),
    "a block that does not end": frame(HEADERS, 0, 1) + b"".join(frame(CONTINUATION, 0, 1) for _ in range(10)),
    "an index that is not there": frame(HEADERS, END_HEADERS, 1, b"\xfe"),
    "HTTP/1.1": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_connection_ends_all_its_streams(name: str) -> None:
    http2, calls, _ = opened(2)
    http2.receive(BROKEN[name])
    assert http2.is_over
    assert http2.breach is not None, "the edge has ended it, not the upstream"
    assert all(isinstance(call.events[-1], str) for call in calls)


KINDS = (DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION, 11)
PAYLOADS = (
    b"",
    word(0),
    word(1),
    word(1) * 2,
    block([STATUS]),
    block([(b"x", b"y")]),
    block([STATUS, STATUS]),
    bytes(99),
)


@given(st.integers(0, 1 << 32))
def test_frames_of_any_kind_cut_anywhere_raise_nothing(seed: int) -> None:
    draw = random.Random(seed)
    http2, calls, _ = opened(4)
    data = b"".join(
        frame(draw.choice(KINDS), draw.choice((0, 1, 4, 5, 8, 13, 37)), draw.randrange(11), draw.choice(PAYLOADS))
        for _ in range(draw.randrange(1, 30))
    )
    if draw.random() < 0.2:
        data += draw.randbytes(50)
    while data:
        cut = draw.randrange(1, len(data) + 1)
        http2.receive(data[:cut])
        data = data[cut:]
    assert http2.stored_bytes < 64 << 10
    assert http2.is_over or len(http2.streams) <= len(calls)


# ---- streams without a waiting client


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def abandoned(count: int) -> tuple[Requester, list[Call], bytearray, Clock]:
    """Return a connection with one open request and this number of reset ones."""
    written, clock = bytearray(), Clock()
    http2 = Requester(written.extend, lambda parts: [written.extend(part) for part in parts] and None, LIMITS, clock)
    http2.streams_max = 100
    streams = [Call() for _ in range(count + 1)]
    for stream in streams:
        http2.open(stream, encode_pseudo_fields(b"POST", b"http", b"/", b"a"), ended=False)
    written.clear()
    for stream in streams[1:]:
        http2.reset(stream, ErrorCode.CANCEL)
    return http2, streams, written, clock


def count_resets(written: bytearray) -> int:
    return sum(written[at + 3] == RST_STREAM for at in range(0, len(written), 13))


def test_resets_beyond_the_budget_are_sent_later_in_order() -> None:
    http2, streams, written, clock = abandoned(60)
    assert (count_resets(written), len(http2.unread)) == (RESETS_MAX, 20)
    assert all(stream.closed for stream in streams[1:])
    written.clear()
    clock.now = 2.0
    http2.reset_unread()
    assert count_resets(written) == 2 * RESETS_PER_SECOND
    assert list(http2.unread) == [stream.number for stream in streams[51:]]
    clock.now = 100.0
    http2.reset_unread()
    assert list(http2.streams) == [1]
    http2.receive(head(1, ended=True))
    assert len(streams[0].events) == 1


def test_abandoned_answer_is_dropped_as_it_arrives() -> None:
    http2, streams, written, _ = abandoned(44)
    number = streams[-1].number
    written.clear()
    interim = head(number, (b":status", b"103"))
    http2.receive(settings() + interim + head(number) + frame(DATA, 0, number, bytes(16384)) * 3)
    http2.receive(head(number, (b"x", b"y")))  # These trailers lack END_STREAM, so they are malformed.
    http2.reset(http2.unread[number], ErrorCode.CANCEL)
    assert count_resets(written[9:]) == 0
    assert streams[-1].events == []
    http2.receive(frame(RST_STREAM, 0, number, word(0)))
    assert number not in http2.streams
    assert number not in http2.unread
    http2.receive(frame(GOAWAY, 0, 0, word(0) + word(0)))
    assert not http2.streams
    assert not http2.unread


def test_empty_head_of_an_abandoned_answer_raises_nothing() -> None:
    http2, streams, _, _ = abandoned(44)
    number = streams[-1].number
    http2.receive(settings() + frame(HEADERS, END_HEADERS, number))
    assert not http2.is_over


def test_abandoned_complete_request_ends_with_its_answer() -> None:
    http2, (call, *_), _, _ = abandoned(44)
    http2.send_data(call, b"", ended=True)
    http2.reset(call, ErrorCode.CANCEL)
    assert 1 in http2.unread
    http2.receive(settings() + head(1) + frame(DATA, END_STREAM, 1, b"x"))
    assert 1 not in http2.streams


def test_a_connection_that_many_have_left_takes_no_more_requests() -> None:
    http2, (call, *_), _, clock = abandoned(89)
    assert http2.has_room
    http2, (call, *_), _, clock = abandoned(90)
    assert not http2.has_room
    assert http2.has_places
    assert not http2.is_abandoned
    clock.now = 2.0
    http2.reset_unread()
    assert http2.has_room
    clock.now = 0.0
    http2, (call, *_), _, _ = abandoned(90)
    http2.receive(settings() + head(1, ended=True))
    http2.send_data(call, b"", ended=True)
    assert http2.is_abandoned


# ---- the window of the connection


def uploads(count: int, window: int) -> tuple[Requester, list[Call]]:
    """Open uploads that each exceed the window of the connection, which is also the window of each stream."""
    http2, _, _ = opened(0)
    http2.receive(settings((4, window)))
    if window > 65535:
        http2.receive(frame(WINDOW_UPDATE, 0, 0, word(window - 65535)))
    streams = [Call() for _ in range(count)]
    for stream in streams:
        http2.open(stream, encode_pseudo_fields(b"POST", b"http", b"/", b"a"), ended=False)
    return http2, streams


@pytest.mark.parametrize("window", [65535, 1 << 20])
def test_an_upload_that_is_not_taken_leaves_others_of_the_window(window: int) -> None:
    http2, (stalled, *others) = uploads(3, window)
    http2.send_data(stalled, bytes(2 * window))
    assert window // 2 < window - http2.send_window <= window // 2 + 8192
    assert not http2.has_room
    for other in others:
        http2.send_data(other, bytes(4000))
        assert not other.waiting
        http2.receive(frame(WINDOW_UPDATE, 0, 0, word(4000)))


def test_an_upload_that_is_taken_by_halves_of_the_window_goes_on() -> None:
    """Many services send WINDOW_UPDATE after half of a window is used."""
    window = 65535
    http2, (upload, _) = uploads(2, window)
    http2.send_data(upload, bytes(10 * window), ended=True)
    returned = 0
    for _ in range(100):
        taken = window + returned - http2.send_window
        if upload.response_ended and not upload.waiting:
            break
        assert taken - returned >= window // 2
        update = word(taken - returned)
        returned = taken
        http2.receive(frame(WINDOW_UPDATE, 0, 0, update) + frame(WINDOW_UPDATE, 0, 1, update))
    assert not upload.waiting


def test_a_single_upload_may_use_all_of_the_window() -> None:
    http2, (upload,) = uploads(1, 65535)
    http2.send_data(upload, bytes(100_000))
    assert http2.send_window == 0
    assert not http2.has_room
    http2.receive(frame(WINDOW_UPDATE, 0, 1, word(65535)) + frame(WINDOW_UPDATE, 0, 0, word(65535)))
    assert not upload.waiting
    assert http2.has_room
