"""The ends of WebSocket frames (RFC 6455 section 5.2), however the bytes are split, and insertions between frames."""

from itertools import accumulate, pairwise

import pytest
import websockets.frames
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.proxy.transport.websocket import FrameRelay, format_close_frame
from loadtest.testbed.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, frame, read

WORD = format_close_frame()
PAYLOADS = st.one_of(
    st.binary(max_size=10),
    st.sampled_from([125, 126, 127, 128, 65535, 65536]).map(bytes),
    st.integers(0, 300).map(bytes),
)


@st.composite
def one_frame(draw: st.DrawFn) -> bytes:
    """A frame as clients or as servers send them; none that closes."""
    if draw(st.integers(0, 4)) == 0:
        created = frame(draw(st.sampled_from([PING, PONG])), draw(st.binary(max_size=125)))
    else:
        opcode, rsv = draw(st.sampled_from([CONTINUATION, TEXT, BINARY])), draw(st.integers(0, 7))
        created = frame(opcode, draw(PAYLOADS), fin=draw(st.booleans()), rsv=rsv)
    return created if draw(st.booleans()) else unmasked(created)


def unmasked(made: bytes) -> bytes:
    """Return the frame as a server sends it. Its payload stays masked, because the relay does not read it."""
    extended = {126: 2, 127: 8}.get(made[1] & 127, 0)
    return bytes((made[0], made[1] & 127)) + made[2 : 2 + extended] + made[6 + extended :]


@st.composite
def split(draw: st.DrawFn, size: int) -> list[tuple[int, int]]:
    """Where so many bytes are cut into pieces, none of them empty."""
    at = sorted(draw(st.sets(st.integers(1, max(1, size - 1)), max_size=8)) | {0, size})
    return [(start, end) for start, end in pairwise(at) if end > start]


@given(data=st.data(), sent=st.lists(one_frame(), min_size=1, max_size=6))
def test_relay_passes_websocket_frames_unchanged(data: st.DataObject, sent: list[bytes]) -> None:
    stream = b"".join(sent)
    frames = FrameRelay()
    ends = {0, *accumulate(map(len, sent))}
    for start, end in data.draw(split(len(stream))):
        assert frames.relay(stream[start:end]) == stream[start:end]
        assert frames.is_between_frames == (end in ends)
    assert not frames.closed
    assert not frames.is_opaque


@given(data=st.data(), sent=st.lists(one_frame(), min_size=1, max_size=6))
def test_the_last_word_is_said_once_at_the_next_end_of_a_frame(data: st.DataObject, sent: list[bytes]) -> None:
    stream = b"".join(sent)
    pieces = data.draw(split(len(stream)))
    before = data.draw(st.integers(0, len(pieces)))
    frames = FrameRelay()
    passed = b"".join(frames.relay(stream[start:end]) for start, end in pieces[:before])
    ends = {0, *accumulate(map(len, sent))}
    told_at = min(end for end in ends if end >= len(passed))
    passed += frames.insert_close(WORD)
    for start, end in pieces[before:]:
        passed += frames.relay(stream[start:end])
        assert frames.close_sent == (end >= told_at)
    assert passed == stream[:told_at] + WORD
    assert not frames.is_opaque


@given(data=st.data(), sent=st.lists(one_frame(), max_size=3), more=st.lists(one_frame(), max_size=2))
def test_the_answer_is_heard_behind_the_last_word(data: st.DataObject, sent: list[bytes], more: list[bytes]) -> None:
    answer = data.draw(st.sampled_from([close(), close(1001), unmasked(close(1000, b"bye"))]))
    stream = b"".join((*sent, answer, *more))
    frames = FrameRelay()
    pieces = data.draw(split(len(stream)))
    assert frames.insert_close(WORD) == WORD
    for start, end in pieces:
        assert frames.relay(stream[start:end]) == b""
        assert frames.closed == (end >= len(b"".join(sent)) + 2)


@given(stream=st.binary(max_size=200), data=st.data())
def test_relay_passes_arbitrary_bytes_unchanged(stream: bytes, data: st.DataObject) -> None:
    """For any bytes, the relay loses and adds none until a side ends."""
    frames = FrameRelay()
    for start, end in data.draw(split(len(stream))):
        assert frames.relay(stream[start:end]) == stream[start:end]


@pytest.mark.parametrize(
    "wrong",
    [
        *(bytes((0x80 | opcode, 0)) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        frame(PING, b"in pieces", fin=False),
        frame(PING, bytes(126)),
        frame(CLOSE, bytes(126)),
        b"\x82\x7f\x80" + bytes(7),
    ],
    ids=lambda wrong: wrong[:3].hex(),
)
def test_invalid_frame_start_makes_the_relay_opaque(wrong: bytes) -> None:
    frames = FrameRelay()
    assert frames.relay(frame(TEXT, b"a") + wrong) == frame(TEXT, b"a") + wrong
    assert frames.is_opaque
    assert not frames.closed
    assert frames.relay(frame(TEXT, b"b")) == frame(TEXT, b"b")


def test_close_frame_waits_for_the_frame_end_even_if_the_relay_is_opaque() -> None:
    frames = FrameRelay()
    begun = frame(BINARY, bytes(100))
    frames.relay(begun[:50])
    assert frames.insert_close(WORD) == b""
    assert frames.relay(begun[50:70]) == begun[50:70]
    assert frames.relay(begun[70:] + b"\xff\x00") == begun[70:] + WORD
    assert frames.is_opaque
    assert frames.relay(b"more") == b""
    frames = FrameRelay()
    frames.relay(b"\x8b")
    assert frames.insert_close(WORD) == b""
    assert frames.relay(b"\x00") == b"\x00"
    assert frames.relay(b"more") == b"more"
    assert not frames.close_sent


def test_the_last_word_of_a_server_is_bare_and_of_a_client_masked() -> None:
    assert [each for each, _ in read(format_close_frame())] == [each for each, _ in read(b"\x88\x02\x03\xe9")]
    masked = format_close_frame(b"\x01\x02\x03\x04")
    assert masked == b"\x88\x82\x01\x02\x03\x04" + bytes((3 ^ 1, 0xE9 ^ 2))
    assert websockets.frames.Close.parse(bytes((masked[6] ^ 1, masked[7] ^ 2))).code == 1001
