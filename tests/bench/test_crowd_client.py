"""The load of many customers: each answer is counted once, in whatever pieces it comes."""

import itertools
import socket
from collections.abc import Iterator

import pytest

from edgeproxy.edge.http2 import frames
from edgeproxy.edge.http2.frames import FrameType
from loadtest.bench.load.crowd_client import Connection, Http1Connection, Http2Connection

ANSWER = b"HTTP/1.1 %d OK\r\nContent-Length: 5\r\n\r\nabcde"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield ours, theirs


def receive(connection: Connection, peer: socket.socket, pieces: list[bytes]) -> list[int]:
    """Return the answers that each of these pieces ends."""
    ended = []
    for piece in pieces:
        peer.sendall(piece)
        ended.append(connection.receive())
    return ended


def test_answers_of_http1_are_counted_by_their_length(ends: tuple[socket.socket, socket.socket]) -> None:
    connection = Http1Connection(ends[0], iter([b"one", b"two"]))
    connection.send(1)
    assert ends[1].recv(100) == b"one"
    answer = ANSWER % 200
    assert receive(connection, ends[1], [answer[:20], answer[20:-3], answer[-3:-1], answer[-1:]]) == [0, 0, 0, 1]
    connection.send(2)
    assert (ends[1].recv(100), connection.under_way) == (b"two", 1)
    assert receive(connection, ends[1], [ANSWER % 429]) == [1]
    assert (connection.answered, connection.refused, connection.under_way) == (2, 1, 0)
    assert connection.bytes == len(answer) * 2


def read_frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Return the type, the flags, the stream and the payload of each frame."""
    parsed = []
    while data:
        _, length, kind, flags, number = frames.HEADER.unpack(data[: frames.HEADER_BYTES])
        parsed.append((kind, flags, number, data[frames.HEADER_BYTES : frames.HEADER_BYTES + length]))
        data = data[frames.HEADER_BYTES + length :]
    return parsed


def test_answers_of_http2_are_counted_by_the_end_of_their_stream(ends: tuple[socket.socket, socket.socket]) -> None:
    connection = Http2Connection(ends[0], itertools.repeat(b"other"), b"first")
    assert ends[1].recv(100).startswith(frames.PREFACE)
    connection.send(3)
    sent = read_frames(ends[1].recv(1000))
    assert [(number, block) for _, _, number, block in sent] == [(1, b"first"), (3, b"other"), (5, b"other")]
    # The first block of a peer may change the size of its table: here to 31 + 97 bytes.
    blocks = {1: b"\x3f\x61\x20\x88", 3: b"\x88", 5: b"\x08\x03429"}
    answers = b"".join(
        frames.format_frame(FrameType.HEADERS, frames.END_HEADERS | (number == 5), number, block)
        for number, block in blocks.items()
    )
    data = [frames.format_frame(FrameType.DATA, number == 3, number, b"abc") for number in (1, 3)]
    last = frames.format_frame(FrameType.DATA, frames.END_STREAM, 1)
    pieces = [answers[:5], answers[5:], *data, last[:4], last[4:]]
    assert receive(connection, ends[1], pieces) == [0, 1, 0, 1, 0, 1]
    assert (connection.answered, connection.refused, connection.under_way) == (3, 1, 0)


def test_peer_of_http2_gets_acknowledgements_and_windows(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadtest.bench.load.crowd_client.WINDOW_STEP", 5)
    connection = Http2Connection(ends[0], iter(()), b"first")
    ends[1].recv(100)
    frame = frames.format_frame
    pieces = [frame(FrameType.SETTINGS, 0, 0), frame(FrameType.PING, 0, 0, b"12345678")]
    pieces += [frame(FrameType.SETTINGS, frames.ACK, 0), *[frame(FrameType.DATA, 0, 1, b"abc")] * 2]
    receive(connection, ends[1], pieces)
    answers = read_frames(ends[1].recv(1000))
    assert answers == [
        (FrameType.SETTINGS, frames.ACK, 0, b""),
        (FrameType.PING, frames.ACK, 0, b"12345678"),
        (FrameType.WINDOW_UPDATE, 0, 0, (6).to_bytes(4)),
    ]


def test_a_peer_that_ends_a_connection_is_an_error(ends: tuple[socket.socket, socket.socket]) -> None:
    connection = Http2Connection(ends[0], iter(()), b"first")
    with pytest.raises(ConnectionResetError, match="type 7"):
        receive(connection, ends[1], [frames.format_frame(FrameType.GOAWAY, 0, 0, bytes(8))])
    ends[1].shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError, match="0 requests under way"):
        connection.receive()
