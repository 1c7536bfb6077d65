"""Received bytes of a connection: events however the bytes are cut, states of streams, and errors by section."""

import struct
from itertools import pairwise

import h2.config
import h2.connection
import h2.events
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.http1.grammar import HeadLimits
from edgeproxy.edge.http2.connection import STREAMS_MAX
from edgeproxy.edge.http2.errors import format_code
from tests.edge.http2.peer import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET,
    GET_HEAD,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    POST,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Peer,
    block,
    data,
    frame,
    get,
    literal,
    post,
    reset,
    settings,
    update,
    word,
)

PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM = 1, 3, 5, 6, 7
CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 8, 9, 11


def test_the_first_frames_are_settings_and_a_window() -> None:
    first, second = Peer(greets=False).frames()
    assert first.kind == SETTINGS
    assert dict(struct.iter_unpack(">HI", first.payload)) == {3: 100, 4: 65536, 6: 32768}
    assert (second.kind, second.number, second.payload) == (WINDOW_UPDATE, 0, word((1 << 20) - 65535))


def test_extended_connect_is_offered_where_it_is_spoken() -> None:
    first, _ = Peer(greets=False, websockets=True).frames()
    assert dict(struct.iter_unpack(">HI", first.payload))[8] == 1


def test_settings_are_acknowledged_and_pings_answered() -> None:
    peer = Peer()
    assert peer.connection.has_settings
    peer.send(
        settings((1, 0), (3, 1), (6, 1), (0x99, 7)), frame(PING, 0, 0, b"12345678"), frame(PING, ACK, 0, b"x" * 8)
    )
    peer.send(settings(flags=ACK), frame(0x77, 255, 3, b"unknown"), frame(GOAWAY, 0, 0, b"\0" * 8 + b"bye"))
    assert [(frame.kind, frame.flags, frame.payload) for frame in peer.frames()] == [
        (SETTINGS, ACK, b""),
        (PING, ACK, b"12345678"),
    ]


# A connection with every element: padding, priorities, split blocks, trailers, resets, windows.
CONVERSATION = b"".join((
    PREFACE,
    settings((4, 100)),
    get(1),
    frame(HEADERS, END_HEADERS | PADDED | PRIORITIZED, 3, b"\x02" + word(1) + b"\x10" + block(POST) + b"\0\0"),
    frame(DATA, PADDED, 3, b"\x03abc\0\0\0"),
    data(3),
    data(3, b"def"),
    frame(HEADERS, END_HEADERS | END_STREAM, 3, literal(b"x-sum", b"1", 0x40)),
    frame(HEADERS, END_STREAM, 5, block(GET)[:9]),
    frame(CONTINUATION, 0, 5, block(GET)[9:]),
    frame(CONTINUATION, END_HEADERS, 5, b"\xbe"),
    post(7, (b"content-length", b"4")),
    data(7, b"12"),
    reset(7),
    frame(PRIORITY, 0, 9, word(1) + b"\0"),
    get(11),
    update(0, 1000),
    update(11, 500),
    settings((4, 5)),
    frame(PING, 0, 0, b"12345678"),
    post(13),
    data(13, b"x" * 16384),
    data(13, b"x" * 10, ended=True),
))  # fmt: skip
EVENTS = [
    ("request", 1, GET_HEAD),
    ("end", 1),
    ("request", 3, b"POST" + GET_HEAD[3:-2] + b"transfer-encoding: chunked\r\n\r\n"),
    ("data", 3, b"abc"),
    ("data", 3, b""),
    ("data", 3, b"def"),
    ("trailers", 3, [b"x-sum: 1"]),
    ("end", 3),
    ("request", 5, GET_HEAD[:-2] + b"x-sum: 1\r\n\r\n"),
    ("end", 5),
    ("request", 7, b"POST" + GET_HEAD[3:-2] + b"content-length: 4\r\n\r\n"),
    ("data", 7, b"12"),
    ("reset", 7, "CANCEL"),
    ("request", 11, GET_HEAD),
    ("end", 11),
    ("drained", 11),
    ("request", 13, b"POST" + GET_HEAD[3:-2] + b"transfer-encoding: chunked\r\n\r\n"),
    ("data", 13, b"x" * 16384),
    ("data", 13, b"x" * 10),
    ("end", 13),
]


def converse(pieces: list[bytes]) -> tuple[list[tuple[object, ...]], bytes]:
    """Return the events and the written bytes after these bytes were read in order. Each answer has 300 bytes."""
    peer = Peer(b"y" * 300, greets=False)
    for piece in pieces:
        peer.connection.receive(piece)
    assert peer.closed is None
    return peer.events, bytes(peer.written)


def test_a_conversation_is_the_same_wherever_it_is_cut() -> None:
    whole = converse([CONVERSATION])
    assert whole[0] == EVENTS
    assert converse([CONVERSATION[i : i + 1] for i in range(len(CONVERSATION))]) == whole
    for cut in range(1200):
        assert converse([CONVERSATION[:cut], CONVERSATION[cut:]]) == whole


@given(st.lists(st.integers(0, len(CONVERSATION)), max_size=12))
def test_a_conversation_is_the_same_in_any_pieces(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(CONVERSATION)]
    pieces = [CONVERSATION[start:end] for start, end in pairwise(edges)]
    assert converse(pieces) == converse([CONVERSATION])


DAMAGE = st.lists(st.tuples(st.integers(24, 900), st.integers(0, 255)), max_size=6)
FRAMES = st.lists(
    st.builds(
        frame,
        st.integers(0, 11),
        st.sampled_from([0, 1, 4, 5, 8, 0x20, 0xFF]),
        st.sampled_from([0, 1, 2, 3, 13, 15, 17]),
        st.one_of(st.binary(max_size=40), st.sampled_from([4, 5, 6, 8, 3000]).map(bytes)),
    ),
    max_size=10,
)


@given(DAMAGE, FRAMES, st.integers(1, 4000), st.sampled_from([None, b"", b"z" * 20_000]))
def test_damaged_bytes_raise_nothing_and_leave_bounded_state(
    damage: list[tuple[int, int]], more: list[bytes], step: int, body: bytes | None
) -> None:
    blob = bytearray(CONVERSATION + b"".join(more))
    for place, byte in damage:
        blob[place] = byte
    peer = Peer(body, greets=False)
    for start in range(0, len(blob), step):
        peer.connection.receive(bytes(blob[start : start + step]))
        connection = peer.connection
        assert len(connection.streams) <= STREAMS_MAX
        assert len(connection.reset_streams) <= 100
        assert connection.stored_bytes <= 16393 + 4096 + (32 << 10) + (32 << 10)
        assert connection.waiting_bytes == sum(stream.waiting_bytes for stream in connection.streams.values())
        assert all(stream.waiting for stream in connection.blocked.values())
    assert peer.closed is None or not peer.connection.streams


@given(st.binary(max_size=200))
def test_bytes_that_are_no_http2_end_with_goaway(noise: bytes) -> None:
    peer = Peer(greets=False)
    peer.connection.receive(noise)
    if peer.closed is not None:
        assert peer.frames()[-1].kind == GOAWAY
        assert not peer.events
    else:
        assert PREFACE.startswith(noise[: len(PREFACE)])


# ---- the states of a stream: the effect of each frame in each state (section 5.1)


def begin(state: str) -> Peer:
    """Return a connection whose stream 1 is in this state. Stream 3 was opened after it."""
    peer = Peer(consumes=False)
    if state == "idle":
        return peer
    if state == "open":
        peer.send(post())
    elif state == "received":
        peer.send(get())
    elif state == "answered early":
        peer.send(post())
        peer.connection.respond(peer.stream(), b"\x88", b"early")
    elif state == "waiting":
        peer.send(settings((4, 1)), get())
        peer.connection.respond(peer.stream(), b"\x88", b"long")
    elif state == "reset by the edge":
        peer.send(post(), update(1, 0))
    elif state == "reset by the peer":
        peer.send(post(), reset(1))
    else:
        assert state == "closed"
        peer.send(get())
        peer.connection.respond(peer.stream(), b"\x88", b"")
    peer.send(get(3))
    peer.frames()
    peer.events.clear()
    return peer


MORE_HEADERS = frame(HEADERS, END_HEADERS, 1, block([(b"x", b"y")]))
TRAILERS = frame(HEADERS, END_HEADERS | END_STREAM, 1, block([(b"x", b"y")]))
INPUT = {
    "HEADERS": MORE_HEADERS,
    "trailers": TRAILERS,
    "DATA": data(1, b"abc"),
    "last DATA": data(1, b"abc", ended=True),
    "RST_STREAM": reset(1),
    "WINDOW_UPDATE": update(1, 1),
    "WINDOW_UPDATE by 0": update(1, 0),
    "too large a window": update(1, (1 << 31) - 1),
    "PRIORITY": frame(PRIORITY, 0, 1, word(3) + b"\0"),
}
NOTHING = ""
CONNECTION_ERROR, RESET = "connection", "reset"
STATES: list[tuple[str, dict[str, str | tuple[str, int]]]] = [
    # by state and frame: nothing, an event, or an error with its code
    (
        "open",
        {
            "HEADERS": (RESET, PROTOCOL_ERROR),
            "trailers": "trailers",
            "DATA": "data",
            "last DATA": "data",
            "RST_STREAM": "reset",
            "WINDOW_UPDATE": NOTHING,
            "WINDOW_UPDATE by 0": (RESET, PROTOCOL_ERROR),
            "too large a window": (RESET, FLOW_CONTROL_ERROR),
            "PRIORITY": NOTHING,
        },
    ),
    (
        "received",
        {
            "HEADERS": (RESET, STREAM_CLOSED),
            "trailers": (RESET, STREAM_CLOSED),
            "DATA": (RESET, STREAM_CLOSED),
            "last DATA": (RESET, STREAM_CLOSED),
            "RST_STREAM": "reset",
            "WINDOW_UPDATE": NOTHING,
            "WINDOW_UPDATE by 0": (RESET, PROTOCOL_ERROR),
            "too large a window": (RESET, FLOW_CONTROL_ERROR),
            "PRIORITY": NOTHING,
        },
    ),
    (
        "answered early",
        {
            "HEADERS": (RESET, PROTOCOL_ERROR),
            "trailers": NOTHING,
            "DATA": NOTHING,
            "last DATA": NOTHING,
            "RST_STREAM": "reset",
            "WINDOW_UPDATE": NOTHING,
            "WINDOW_UPDATE by 0": (RESET, PROTOCOL_ERROR),
            "too large a window": (RESET, FLOW_CONTROL_ERROR),
            "PRIORITY": NOTHING,
        },
    ),
    (
        "waiting",
        {
            "HEADERS": (RESET, STREAM_CLOSED),
            "trailers": (RESET, STREAM_CLOSED),
            "DATA": (RESET, STREAM_CLOSED),
            "last DATA": (RESET, STREAM_CLOSED),
            "RST_STREAM": "reset",
            "WINDOW_UPDATE": NOTHING,
            "WINDOW_UPDATE by 0": (RESET, PROTOCOL_ERROR),
            "too large a window": "drained",
            "PRIORITY": NOTHING,
        },
    ),
    (
        "closed",
        {
            "HEADERS": (CONNECTION_ERROR, STREAM_CLOSED),
            "trailers": (CONNECTION_ERROR, STREAM_CLOSED),
            "DATA": (RESET, STREAM_CLOSED),
            "last DATA": (RESET, STREAM_CLOSED),
            "RST_STREAM": NOTHING,
            "WINDOW_UPDATE": NOTHING,
            "WINDOW_UPDATE by 0": NOTHING,
            "too large a window": NOTHING,
            "PRIORITY": NOTHING,
        },
    ),
    (
        "reset by the peer",
        {
            "HEADERS": (CONNECTION_ERROR, STREAM_CLOSED),
            "trailers": (CONNECTION_ERROR, STREAM_CLOSED),
            "DATA": (RESET, STREAM_CLOSED),
            "last DATA": (RESET, STREAM_CLOSED),
            "RST_STREAM": NOTHING,
            "WINDOW_UPDATE": NOTHING,
            "WINDOW_UPDATE by 0": NOTHING,
            "too large a window": NOTHING,
            "PRIORITY": NOTHING,
        },
    ),
    ("reset by the edge", dict.fromkeys(INPUT, NOTHING)),
    (
        "idle",
        {
            "HEADERS": (RESET, PROTOCOL_ERROR),
            "trailers": (RESET, PROTOCOL_ERROR),
            "DATA": (CONNECTION_ERROR, PROTOCOL_ERROR),
            "last DATA": (CONNECTION_ERROR, PROTOCOL_ERROR),
            "RST_STREAM": (CONNECTION_ERROR, PROTOCOL_ERROR),
            "WINDOW_UPDATE": (CONNECTION_ERROR, PROTOCOL_ERROR),
            "WINDOW_UPDATE by 0": (CONNECTION_ERROR, PROTOCOL_ERROR),
            "too large a window": (CONNECTION_ERROR, PROTOCOL_ERROR),
            "PRIORITY": NOTHING,
        },
    ),
]
CELLS = [(state, name, expected) for state, row in STATES for name, expected in row.items()]


@pytest.mark.parametrize(("state", "name", "expected"), CELLS, ids=[f"{cell[0]}: {cell[1]}" for cell in CELLS])
def test_frame_gets_the_reaction_of_its_stream_state(state: str, name: str, expected: str | tuple[str, int]) -> None:
    peer = begin(state)
    peer.send(INPUT[name])
    frames = peer.frames()
    if isinstance(expected, tuple):
        kind = RST_STREAM if expected[0] == RESET else GOAWAY
        assert (frames[-1].kind, frames[-1].code) == (kind, expected[1])
        assert (peer.closed is None) is (kind == RST_STREAM)
    else:
        assert not [frame for frame in frames if frame.kind in (RST_STREAM, GOAWAY)]
        assert [event[0] for event in peer.events if event[1] == 1 and event[0] != "end"] == [expected] * bool(expected)
    # The table and the other stream are unchanged in every case.
    if peer.closed is None:
        peer.send(frame(PING, 0, 0, b"-" * 8), get(5))
        assert peer.frames()[-1].kind == PING
        assert ("request", 5, GET_HEAD) in peer.events


@pytest.mark.parametrize("last", ["trailers", "last DATA"])
def test_early_answered_stream_closes_at_the_end_of_its_request(last: str) -> None:
    peer = begin("answered early").send(INPUT[last])
    assert 1 not in peer.connection.streams
    assert not peer.connection.reset_streams


@pytest.mark.parametrize("last", ["trailers", "last DATA"])
def test_an_early_answer_that_waits_for_a_window_outlives_the_request(last: str) -> None:
    peer = Peer(consumes=False).send(settings((4, 2)), post())
    peer.connection.respond(peer.stream(), b"\x88", b"early")
    peer.send(INPUT[last])
    assert peer.stream().request_ended
    peer.frames()
    peer.send(update(1, 3))
    assert [(frame.kind, frame.flags, frame.payload) for frame in peer.frames()] == [(DATA, END_STREAM, b"rly")]
    assert not peer.connection.streams


# ---- refusals

TOO_LONG = struct.pack(">I", 16385)[1:] + bytes([DATA, 0]) + word(1)


def long_continuation(number: int) -> bytes:
    """Return a CONTINUATION frame of 16,384 bytes with two fields."""
    return frame(CONTINUATION, 0, number, literal(b"a", b"~" * 8184) + literal(b"b", b"~" * 8184))


LONG = long_continuation(1)

CONNECTION_ERRORS = [
    # section and case, frames, code
    ("3.4 another preface", b"GET / HTTP/1.1\r\n\r\n", PROTOCOL_ERROR),
    ("3.4 no SETTINGS", PREFACE + frame(PING, 0, 0, b"x" * 8), PROTOCOL_ERROR),
    ("3.4 an acknowledgement", PREFACE + settings(flags=ACK), PROTOCOL_ERROR),
    ("4.2 a frame of 16,385 bytes", post() + TOO_LONG, FRAME_SIZE_ERROR),
    ("4.2 a frame of 16 MiB", post() + b"\xff" + TOO_LONG[1:], FRAME_SIZE_ERROR),
    ("4.3 a block that cannot be read", frame(HEADERS, END_HEADERS, 1, b"\x80"), COMPRESSION_ERROR),
    ("4.3 trailers that cannot", post() + frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x80"), COMPRESSION_ERROR),
    ("5.1 DATA of an idle stream", data(1, b"x"), PROTOCOL_ERROR),
    ("5.1.1 an even stream", get(2), PROTOCOL_ERROR),
    ("5.1.1 DATA of an even stream", get(3) + data(2), PROTOCOL_ERROR),
    ("5.1.1 a lower stream", get(5) + get(3), STREAM_CLOSED),
    ("6.1 DATA of no stream", data(0, b"x"), PROTOCOL_ERROR),
    ("6.1 no room for the padding's length", post() + frame(DATA, PADDED, 1, b""), FRAME_SIZE_ERROR),
    ("6.1 more padding than payload", post() + frame(DATA, PADDED, 1, b"\x04abc"), PROTOCOL_ERROR),
    ("6.2 HEADERS of no stream", get(0), PROTOCOL_ERROR),
    ("6.2 no room for the priority", frame(HEADERS, END_HEADERS | PRIORITIZED, 1, b"1234"), FRAME_SIZE_ERROR),
    ("6.2 more padding than block", frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff\x82"), PROTOCOL_ERROR),
    ("6.3 a priority of no stream", frame(PRIORITY, 0, 0, b"12345"), PROTOCOL_ERROR),
    ("6.3 one of an idle stream with 4 bytes", frame(PRIORITY, 0, 1, b"1234"), FRAME_SIZE_ERROR),
    ("RFC 7540 5.3.1 a stream that depends on itself", frame(PRIORITY, 0, 5, word(5) + b"\0"), PROTOCOL_ERROR),
    ("6.4 RST_STREAM of no stream", reset(0), PROTOCOL_ERROR),
    ("6.4 RST_STREAM of an even stream", get(3) + reset(2), PROTOCOL_ERROR),
    ("6.4 RST_STREAM of 3 bytes", post() + frame(RST_STREAM, 0, 1, b"123"), FRAME_SIZE_ERROR),
    ("6.5 SETTINGS of a stream", settings(number=1), PROTOCOL_ERROR),
    ("6.5 half a setting", frame(SETTINGS, 0, 0, b"12345"), FRAME_SIZE_ERROR),
    ("6.5 an acknowledgement with settings", settings((1, 1), flags=ACK), FRAME_SIZE_ERROR),
    ("6.5.2 ENABLE_PUSH of 2", settings((2, 2)), PROTOCOL_ERROR),
    ("6.5.2 a window of 2^31", settings((4, 1 << 31)), FLOW_CONTROL_ERROR),
    ("6.5.2 frames of 16,383 bytes", settings((5, 16383)), PROTOCOL_ERROR),
    ("6.5.2 frames of 2^24 bytes", settings((5, 1 << 24)), PROTOCOL_ERROR),
    ("6.7 PING of a stream", frame(PING, 0, 1, b"12345678"), PROTOCOL_ERROR),
    ("6.7 PING of 7 bytes", frame(PING, 0, 0, b"1234567"), FRAME_SIZE_ERROR),
    ("6.8 GOAWAY of a stream", frame(GOAWAY, 0, 1, b"12345678"), PROTOCOL_ERROR),
    ("6.8 GOAWAY of 7 bytes", frame(GOAWAY, 0, 0, b"1234567"), FRAME_SIZE_ERROR),
    ("6.9 WINDOW_UPDATE by nothing", update(0, 0), PROTOCOL_ERROR),
    ("6.9 WINDOW_UPDATE of 3 bytes", frame(WINDOW_UPDATE, 0, 0, b"123"), FRAME_SIZE_ERROR),
    ("6.9.1 a window above 2^31-1", update(0, (1 << 31) - 1), FLOW_CONTROL_ERROR),
    ("6.9.2 windows above 2^31-1", get() + update(1, (1 << 31) - 65536) + settings((4, 1 << 20)), FLOW_CONTROL_ERROR),
    ("6.9 WINDOW_UPDATE of an even stream", get(3) + update(2, 1), PROTOCOL_ERROR),
    ("6.10 CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, b""), PROTOCOL_ERROR),
    ("6.10 another frame in a block", frame(HEADERS, 0, 1, b"") + frame(PING, 0, 0, b"x" * 8), PROTOCOL_ERROR),
    ("6.10 HEADERS in a block", frame(HEADERS, 0, 1, b"") + get(3), PROTOCOL_ERROR),
    ("6.10 a block of another stream", frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 4, 3, b""), PROTOCOL_ERROR),
    ("8.4 PUSH_PROMISE", get() + frame(PUSH_PROMISE, END_HEADERS, 1, word(2) + block(GET)), PROTOCOL_ERROR),
    ("10.5 33 settings", settings(*[(1, 1)] * 33), ENHANCE_YOUR_CALM),
    (
        "4.3 a block that is too long and ends within a field",
        frame(HEADERS, 1, 1) + LONG * 7 + frame(CONTINUATION, END_HEADERS, 1, b"\x82\x00"),
        COMPRESSION_ERROR,
    ),
]  # fmt: skip


@pytest.mark.parametrize(("case", "frames", "code"), CONNECTION_ERRORS, ids=[case[0] for case in CONNECTION_ERRORS])
def test_a_connection_error_ends_it_with_goaway(case: str, frames: bytes, code: int) -> None:
    peer = Peer(greets=not case.startswith("3.4"))
    peer.send(frames)
    goaway = peer.frames()[-1]
    assert (goaway.kind, goaway.code) == (GOAWAY, code)
    assert b" section " in goaway.payload
    begun = {event[1] for event in peer.events if event[0] == "request"}
    assert {event[1] for event in peer.events if event[0] == "reset"} == begun
    assert int.from_bytes(goaway.payload[:4], "big") >= max(begun, default=0)
    peer.send(get(101))
    assert not peer.frames()
    assert peer.connection.is_over


STREAM_ERRORS = [
    ("5.1.2 the stream that is one too many", b"".join(get(1 + 2 * i) for i in range(101)), 201, REFUSED_STREAM),
    ("6.3 a priority of 4 bytes", post() + frame(PRIORITY, 0, 1, b"1234"), 1, FRAME_SIZE_ERROR),
    ("6.9.1 more than the window", post() + b"".join(data(1, b"x" * 16384) for _ in range(5)), 1, FLOW_CONTROL_ERROR),
    ("8.1 trailers before the length is there", post(1, (b"content-length", b"5")) + TRAILERS, 1, PROTOCOL_ERROR),
    ("8.1 malformed trailers", post() + frame(HEADERS, 5, 1, block([(b":path", b"/")])), 1, PROTOCOL_ERROR),
    ("8.1.1 a malformed request", get(1, (b"X", b"y")), 1, PROTOCOL_ERROR),
    ("8.1.1 a longer body", post(1, (b"content-length", b"5")) + data(1, b"123456"), 1, PROTOCOL_ERROR),
    ("8.1.1 a longer one in two", post(1, (b"content-length", b"5")) + data(1, b"123") * 2, 1, PROTOCOL_ERROR),
    ("8.1.1 a shorter one", post(1, (b"content-length", b"5")) + data(1, b"1234", ended=True), 1, PROTOCOL_ERROR),
]  # fmt: skip


@pytest.mark.parametrize(("case", "frames", "number", "code"), STREAM_ERRORS, ids=[case[0] for case in STREAM_ERRORS])
def test_a_stream_error_ends_one_stream(case: str, frames: bytes, number: int, code: int) -> None:
    peer = Peer(consumes=False)
    peer.send(frames)
    end = peer.frames()[-1]
    assert (end.kind, end.number, end.code) == (RST_STREAM, number, code)
    assert number not in peer.connection.streams
    peer.send(frame(PING, 0, 0, b"x" * 8))
    assert peer.frames()[-1].kind == PING


def test_unread_uploads_leave_the_connection_window_open() -> None:
    peer = Peer(consumes=False)
    for number in range(1, 199, 2):
        peer.send(post(number), *[data(number, b"x" * 16384)] * 4)
    updates = [int.from_bytes(sent.payload, "big") for sent in peer.frames() if (sent.kind, sent.number) == (8, 0)]
    assert 99 * 65536 - sum(updates) < 1 << 19
    peer.send(data(1, b"x"))
    assert (peer.frames()[-1].number, peer.closed) == (1, None)


def test_oversized_head_is_reported_as_an_empty_head() -> None:
    peer = Peer(limits=HeadLimits(fields=5)).send(get(1, *[(b"x", b"y")] * 6))
    assert peer.events[0] == ("request", 1, b"")


def test_oversized_header_block_fails_only_its_stream_and_updates_the_table() -> None:
    peer = Peer()
    for number in (1, 3):
        last = frame(CONTINUATION, END_HEADERS, number, b"\x82" * 900 + literal(b"x", b"%d" % number, 0x40))
        peer.send(frame(HEADERS, END_STREAM, number, block(GET)), *[long_continuation(number)] * 7, last)
    peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 5, block(GET) + b"\xbe\xbf"))
    requests = [event for event in peer.events if event[0] == "request"]
    assert requests == [
        ("request", 1, b""),
        ("request", 3, b""),
        ("request", 5, GET_HEAD[:-2] + b"x: 3\r\nx: 1\r\n\r\n"),
    ]
    assert peer.connection.stored_bytes < 110_000


def test_oversized_trailers_fail_only_their_stream() -> None:
    peer = Peer().send(post(), get(3))
    peer.send(frame(HEADERS, END_STREAM, 1), *[LONG] * 7, frame(CONTINUATION, END_HEADERS, 1))
    assert peer.events[-1] == ("oversized trailers", 1)
    assert 3 in peer.connection.streams


def test_partial_header_block_reports_its_stream_and_bytes() -> None:
    peer = Peer()
    assert (peer.connection.partial_block, peer.connection.partial_bytes) == (0, 0)
    peer.send(frame(HEADERS, END_STREAM, 7, b"\x82" * 50), frame(CONTINUATION, 0, 7, b"\x82" * 20)[:-5])
    assert (peer.connection.partial_block, peer.connection.partial_bytes) == (7, 50 + 9 + 15)


def test_unregistered_error_codes_share_one_label() -> None:
    assert [format_code(code) for code in (0, 13, 14)] == ["NO_ERROR", "HTTP_1_1_REQUIRED", "_OTHER"]


def test_a_block_that_is_not_of_a_stream_any_more_still_fills_the_table() -> None:
    peer = Peer().send(post(), update(1, 0))
    peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, literal(b"x", b"1", 0x40)))
    peer.send(get(3), frame(HEADERS, END_HEADERS | END_STREAM, 3, literal(b"x", b"2", 0x40)))
    peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 5, block(GET) + b"\xbe\xbf"))
    assert ("request", 5, GET_HEAD[:-2] + b"x: 2\r\nx: 1\r\n\r\n") in peer.events


# ---- another implementation as the client


class Client:
    """The library h2 connected to a Peer."""

    def __init__(self, body: bytes) -> None:
        self.peer = Peer(body, greets=False)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.h2.initiate_connection()
        self.events: list[h2.events.Event] = []

    def exchange(self) -> None:
        """Pass bytes in both directions until none are left."""
        while (out := self.h2.data_to_send()) or self.peer.written:
            self.peer.connection.receive(out)
            written = bytes(self.peer.written)
            self.peer.written.clear()
            for event in self.h2.receive_data(written):
                self.events.append(event)
                if isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)


@pytest.mark.parametrize("size", [0, 1, 16384, 65535, 65536, 300_000])
def test_the_library_h2_gets_its_answers(size: int) -> None:
    client = Client(bytes(range(256)) * (size // 256 + 1))
    client.peer.body = client.peer.body[:size] if client.peer.body else b""
    for number in (1, 3, 5):
        client.h2.send_headers(number, GET, end_stream=number != 3)
    for part in range(7):
        client.h2.send_data(3, b"%d" % part * 9000, end_stream=part == 6)
    client.exchange()
    received = {1: b"", 3: b"", 5: b""}
    for event in client.events:
        if isinstance(event, h2.events.DataReceived):
            received[event.stream_id] += event.data
    assert received == dict.fromkeys((1, 3, 5), client.peer.body)
    assert {event.stream_id for event in client.events if isinstance(event, h2.events.StreamEnded)} == {1, 3, 5}
    uploaded = [event[2] for event in client.peer.events if event[0] == "data"]
    assert b"".join(part for part in uploaded if isinstance(part, bytes)) == b"".join(
        b"%d" % p * 9000 for p in range(7)
    )
    assert client.peer.closed is None
