"""The sending side of a connection: answers within the windows, streams in turn, and an orderly end."""

import pytest

from edgeproxy.edge.http2.errors import ErrorCode
from edgeproxy.edge.http2.patience import ANSWER, DATA_FRAME, PATIENCE_MAX
from tests.edge.http2.peer import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    RST_STREAM,
    WINDOW_UPDATE,
    Frame,
    Peer,
    data,
    get,
    post,
    reset,
    settings,
    update,
    word,
)

OK = b"\x88"


def begun(*numbers: int, window: int | None = None) -> Peer:
    """A connection with these requests, whose streams have this window."""
    peer = Peer()
    if window is not None:
        peer.send(settings((4, window)))
    peer.send(*map(get, numbers or (1,)))
    peer.frames()
    return peer


def sizes(frames: list[Frame]) -> list[tuple[int, int, int]]:
    return [(frame.number, len(frame.payload), frame.flags) for frame in frames if frame.kind == DATA]


def test_an_answer_is_a_head_and_a_body() -> None:
    peer = begun(1, 3)
    peer.connection.respond(peer.stream(), OK, b"hello")
    # The first block says that the table stays empty; no later one does.
    assert peer.frames() == [Frame(HEADERS, END_HEADERS, 1, b"\x20\x88"), Frame(DATA, END_STREAM, 1, b"hello")]
    peer.connection.respond(peer.stream(3), OK, b"")
    assert peer.frames() == [Frame(HEADERS, END_HEADERS | END_STREAM, 3, OK)]
    assert not peer.connection.streams


def test_an_answer_may_come_piece_by_piece_with_interim_heads_and_trailers() -> None:
    peer = begun()
    stream, connection = peer.stream(), peer.connection
    connection.send_head(stream, b"\x08\x03103")
    connection.send_head(stream, OK)
    connection.send_data(stream, b"one")
    connection.send_data(stream, b"")
    connection.send_data(stream, b"two")
    connection.send_trailers(stream, b"\x00\x01a\x01b")
    assert peer.frames() == [
        Frame(HEADERS, END_HEADERS, 1, b"\x20\x08\x03103"),
        Frame(HEADERS, END_HEADERS, 1, OK),
        Frame(DATA, 0, 1, b"one"),
        Frame(DATA, 0, 1, b"two"),
        Frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x00\x01a\x01b"),
    ]
    assert stream.closed


def test_a_head_may_be_all_of_an_answer_or_wait_for_its_body() -> None:
    peer = begun(1, 3)
    peer.connection.send_head(peer.stream(), b"\x89", ended=True)
    assert peer.frames() == [Frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x20\x89")]
    peer.connection.hold_head(peer.stream(3), OK)
    assert not peer.frames()
    peer.connection.send_data(peer.stream(3), b"body")
    peer.connection.send_data(peer.stream(3), b"", ended=True)
    assert peer.frames() == [
        Frame(HEADERS, END_HEADERS, 3, OK),
        Frame(DATA, 0, 3, b"body"),
        Frame(DATA, END_STREAM, 3, b""),
    ]
    assert not peer.connection.streams


@pytest.mark.parametrize("frames", [[16384, 1], [16384, 16384], [16384, 16384, 7232]])
def test_a_long_answer_fills_its_frames_and_pays_for_updates_of_windows(frames: list[int]) -> None:
    peer = begun()
    body = b"".join([b"%08d" % number for number in range(5000)])[: sum(frames)]
    peer.connection.patience.frames = 100
    peer.connection.respond(peer.stream(), OK, body)
    assert peer.connection.send_window == 65535 - len(body)
    assert peer.connection.patience.frames == 100 + ANSWER + DATA_FRAME * len(frames)
    head, *pieces = peer.frames()
    assert head == Frame(HEADERS, END_HEADERS, 1, b"\x20\x88")
    assert sizes(pieces) == [*[(1, size, 0) for size in frames[:-1]], (1, frames[-1], END_STREAM)]
    assert b"".join(piece.payload for piece in pieces) == body
    assert not peer.connection.streams


@pytest.mark.parametrize("size", [16384, 16385, 40_000])
def test_a_large_head_goes_on_in_continuations(size: int) -> None:
    peer = begun()
    peer.connection.respond(peer.stream(), OK * size, b"body")
    *heads, body = peer.frames()
    assert b"".join(head.payload for head in heads) == b"\x20" + OK * size
    assert [head.kind for head in heads] == [HEADERS, *[CONTINUATION] * (len(heads) - 1)]
    assert [head.flags for head in heads] == [0] * (len(heads) - 1) + [END_HEADERS]
    assert body == Frame(DATA, END_STREAM, 1, b"body")


def test_data_beyond_the_stream_window_waits() -> None:
    peer = begun(window=5)
    peer.connection.respond(peer.stream(), OK, b"0123456789")
    assert sizes(peer.frames()) == [(1, 5, 0)]
    assert peer.connection.waiting_bytes == 5
    peer.send(update(1, 2))
    assert sizes(peer.frames()) == [(1, 2, 0)]
    assert ("drained", 1) not in peer.events
    peer.send(update(1, 10))
    assert sizes(peer.frames()) == [(1, 3, END_STREAM)]
    assert peer.events[-1] == ("drained", 1)
    assert not peer.connection.waiting_bytes
    assert not peer.connection.streams


def test_a_window_may_become_negative_and_is_then_paid_back_first() -> None:
    peer = begun(window=5)
    peer.connection.respond(peer.stream(), OK, b"0123456789")
    peer.frames()
    peer.send(settings((4, 2)))
    assert peer.stream().send_window == -3
    peer.send(update(1, 3))
    assert not sizes(peer.frames())
    peer.send(update(1, 1))
    assert sizes(peer.frames()) == [(1, 1, 0)]
    peer.send(settings((4, 100)))
    assert sizes(peer.frames()) == [(1, 4, END_STREAM)]


def test_trailers_follow_waiting_data() -> None:
    peer = begun(window=5)
    peer.connection.send_head(peer.stream(), OK)
    peer.connection.send_data(peer.stream(), b"01234567")
    peer.connection.send_data(peer.stream(), b"89")
    peer.connection.send_trailers(peer.stream(), b"\x00\x01a\x01b")
    peer.frames()
    peer.send(update(1, 5))
    assert [(frame.kind, frame.flags) for frame in peer.frames()] == [
        (DATA, 0),
        (DATA, 0),
        (HEADERS, END_HEADERS | END_STREAM),
    ]


def test_the_connection_s_window_is_shared_in_turn() -> None:
    peer = begun(1, 3, 5, window=1 << 20)
    for number in (1, 3, 5):
        peer.connection.respond(peer.stream(number), OK, b"x" * 60_000)
    assert [number for number, _, _ in sizes(peer.frames())] == [1, 1, 1, 1, 3]
    peer.send(update(0, 5 * 16384))
    assert [number for number, _, _ in sizes(peer.frames())] == [3, 5, 3, 5, 3]
    peer.send(update(0, 1 << 20))
    ends = [number for number, _, flags in sizes(peer.frames()) if flags]
    assert ends == [3, 5]
    assert not peer.connection.blocked


def test_a_stream_without_a_window_does_not_stop_the_others() -> None:
    peer = begun(1, 3, window=0)
    peer.connection.respond(peer.stream(1), OK, b"abc")
    peer.connection.respond(peer.stream(3), OK, b"abc")
    assert not sizes(peer.frames())
    peer.send(update(3, 3), update(0, 1))
    assert sizes(peer.frames()) == [(3, 3, END_STREAM)]
    assert list(peer.connection.blocked) == [1]


def test_body_waits_while_the_transport_is_paused() -> None:
    peer = begun(1, 3)
    peer.connection.write_paused = True
    for number in (1, 3):
        peer.connection.respond(peer.stream(number), OK, b"x" * 20_000)
    assert [frame.kind for frame in peer.frames()] == [HEADERS, HEADERS]
    peer.send(update(0, 1))
    assert not peer.frames()
    peer.connection.write_paused = False
    peer.connection.send_blocked()
    assert [number for number, _, _ in sizes(peer.frames())] == [1, 3, 1, 3]


def test_a_transport_that_is_full_in_the_middle_stops_the_round() -> None:
    peer = begun(1, 3, window=0)
    for number in (1, 3):
        peer.connection.respond(peer.stream(number), OK, b"abc")
    peer.frames()
    write_many = peer.connection.write_many

    def fill(parts: list[bytes | memoryview]) -> None:
        write_many(parts)
        peer.connection.write_paused = True

    peer.connection.write_many = fill
    peer.send(settings((4, 10)))
    assert sizes(peer.frames()) == [(1, 3, END_STREAM)]


def test_a_stream_that_is_reset_while_others_are_served_is_left_out() -> None:
    peer = begun(1, 3, window=0)
    for number in (1, 3):
        peer.connection.respond(peer.stream(number), OK, b"abc")
    third = peer.stream(3)
    peer.stream(1).on_drained = lambda: peer.connection.reset(third, ErrorCode.INTERNAL_ERROR)  # type: ignore[method-assign]
    peer.frames()
    peer.send(settings((4, 10)))
    frames = peer.frames()
    assert sizes(frames) == [(1, 3, END_STREAM)]
    assert [(frame.number, frame.code) for frame in frames if frame.kind == RST_STREAM] == [(3, 2)]


def test_a_body_s_window_opens_again_once_half_of_it_was_taken() -> None:
    peer = Peer(consumes=False).send(post(), data(1, b"x" * 16384), data(1, b"x" * 16384))
    stream, connection = peer.stream(), peer.connection
    connection.consume(stream, 32767)
    assert not peer.frames()
    connection.consume(stream, 1)
    assert peer.frames() == [Frame(WINDOW_UPDATE, 0, 1, word(32768))]
    assert stream.receive_window == 65536


def test_a_request_that_has_ended_needs_no_window() -> None:
    peer = Peer(consumes=False)
    for number in range(1, 34, 2):
        peer.send(post(number), data(number, b"x" * 16384), data(number, b"x" * 16384, ended=True))
        peer.connection.consume(peer.stream(number), 32768)
    assert peer.frames() == [Frame(WINDOW_UPDATE, 0, 0, word(524288))]


def test_padding_is_taken_at_once() -> None:
    peer = Peer(consumes=False).send(post())
    for _ in range(128):
        peer.connection.receive(b"\x00\x01\x00\x00\x08\x00\x00\x00\x01\xff" + b"\0" * 255)
    assert peer.frames() == [Frame(WINDOW_UPDATE, 0, 1, word(32768))]


def test_streams_that_the_edge_has_reset_are_remembered_up_to_a_bound() -> None:
    peer = Peer()
    for number in range(1, 301, 2):
        peer.send(get(number))
        peer.connection.reset(peer.stream(number), ErrorCode.CANCEL)
    assert list(peer.connection.reset_streams) == list(range(101, 301, 2))


def test_a_stream_that_waits_and_is_reset_leaves_nothing_behind() -> None:
    peer = begun(window=0)
    peer.connection.respond(peer.stream(), OK, b"abc")
    peer.send(reset(1))
    assert not peer.connection.blocked
    assert not peer.connection.waiting_bytes
    assert peer.events[-1] == ("reset", 1, "CANCEL")


def test_answer_restores_patience_up_to_its_maximum() -> None:
    peer = begun()
    peer.connection.patience.frames = PATIENCE_MAX - 3
    peer.connection.respond(peer.stream(), OK, b"abc")
    assert peer.connection.patience.frames == PATIENCE_MAX


# ---- the end


def test_drain_serves_streams_begun_before_the_final_goaway() -> None:
    peer = begun()
    peer.connection.announce_shutdown()
    assert peer.frames() == [Frame(GOAWAY, 0, 0, word((1 << 31) - 1) + word(0))]
    peer.send(get(3))
    peer.connection.shut_down()
    peer.connection.shut_down()
    assert peer.frames() == [Frame(GOAWAY, 0, 0, word(3) + word(0))]
    peer.send(post(5), data(5, b"x"))
    assert peer.frames() == [Frame(RST_STREAM, 0, 5, word(7))]
    assert not [event for event in peer.events if event[1] == 5]
    for number in (1, 3):
        peer.connection.respond(peer.stream(number), OK, b"")
    assert [frame.number for frame in peer.frames()] == [1, 3]
    peer.connection.close(ErrorCode.NO_ERROR)
    # Never more than was said before (section 6.8).
    assert peer.frames() == [Frame(GOAWAY, 0, 0, word(3) + word(0))]


def test_closed_connection_writes_no_further_frames() -> None:
    peer = begun(window=0)
    stream, connection = peer.stream(), peer.connection
    connection.send_head(stream, OK)
    connection.send_data(stream, b"abc")
    connection.close(ErrorCode.INTERNAL_ERROR, "why")
    assert peer.frames()[-1] == Frame(GOAWAY, 0, 0, word(1) + word(2) + b"why")
    assert peer.closed == (ErrorCode.INTERNAL_ERROR, "why")
    assert peer.events[-1] == ("reset", 1, "NO_ERROR")
    connection.close(ErrorCode.NO_ERROR)
    connection.announce_shutdown()
    connection.shut_down()
    connection.reset(stream, ErrorCode.CANCEL)
    peer.send(get(3))
    assert not peer.frames()
    assert stream.closed


def test_a_connection_that_is_lost_ends_its_streams() -> None:
    peer = begun(1, 3)
    peer.connection.abandon()
    assert peer.events[-2:] == [("reset", 1, "NO_ERROR"), ("reset", 3, "NO_ERROR")]
    assert not peer.frames()
    assert peer.closed is None
