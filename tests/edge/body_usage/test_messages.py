"""Messages of a WebSocket: put together of frames that come in any pieces, compressed or not."""

import json
import zlib
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeproxy.edge.body_usage.grpc_messages import MessageScanner
from edgeproxy.edge.body_usage.messages import MessageReader

DONE = json.dumps({"type": "response.done", "response": {"usage": {"input_tokens": 1}}}).encode()
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\n"


def frame(payload: bytes, first: int = 0x81, mask: bytes = b"") -> bytes:
    size = len(payload)
    length = bytes([size]) if size < 126 else pack(">BH", 126, size) if size < 1 << 16 else pack(">BQ", 127, size)
    length = bytes([length[0] | (0x80 if mask else 0)]) + length[1:]
    return bytes([first]) + length + mask + bytes(b ^ mask[i % 4] if mask else b for i, b in enumerate(payload))


def packed(*messages: bytes, takeover: bool) -> bytes:
    coder, frames = zlib.compressobj(wbits=-15), b""
    for message in messages:
        data = (coder.compress(message) + coder.flush(zlib.Z_SYNC_FLUSH))[:-4]
        frames += frame(data, 0xC1)
        if not takeover:
            coder = zlib.compressobj(wbits=-15)
    return frames


STREAMS = {
    "text": (b"", frame(DONE) + frame(b"{}") + frame(DONE)),
    "binary": (b"", frame(DONE, 0x82) + frame(b"{}", 0x82) + frame(DONE, 0x82)),
    "masked": (b"", frame(DONE, mask=b"abcd") + frame(b"{}", mask=b"\0\1\2\3") + frame(DONE, mask=b"xyzw")),
    "in frames, with a ping between": (
        b"",
        frame(DONE[:9], 0x01)
        + frame(b"hi", 0x89)
        + frame(DONE[9:20], 0x00)
        + frame(DONE[20:], 0x80)
        + frame(b"{}")
        + frame(b"", 0x01)
        + frame(DONE, 0x80),
    ),
    "packed": (DEFLATE, packed(DONE, b"{}", DONE, takeover=False)),
    "packed with one window": (
        DEFLATE.replace(b"; server_no_context_takeover", b""),
        packed(DONE, b"{}", DONE, takeover=True),
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_messages_are_the_same_however_they_are_cut(name: str) -> None:
    head, data = STREAMS[name]
    for pieces in [(data,), *[(data[:at], data[at:]) for at in range(1, len(data))], [bytes([b]) for b in data]]:
        messages: list[bytes] = []
        reader = MessageReader(b"HTTP/1.1 101 Switching Protocols\r\n" + head, messages.append)
        for piece in pieces:
            reader.feed(piece)
        assert messages == [DONE, b"{}", DONE]
        assert reader.is_readable


def test_message_of_many_bytes_keeps_its_ends() -> None:
    messages: list[bytes] = []
    reader = MessageReader(b"", lambda text: messages.append(bytes(text)))
    reader.feed(frame(json.dumps({"a": "x" * 3_000_000, "usage": {"input_tokens": 7}}).encode()))
    assert json.loads(messages[-1]) == {"usage": {"input_tokens": 7}}
    assert sum(map(len, messages)) < 1 << 20


def test_bomb_of_compression_ends_the_reading() -> None:
    reader = MessageReader(DEFLATE, lambda text: None)
    reader.feed(packed(b"0" * (8 << 20), takeover=False))
    assert not reader.is_readable


@pytest.mark.parametrize("mask", [b"", b"abcd"])
def test_long_frames_may_be_cut_within_their_heads(mask: bytes) -> None:
    messages: list[bytes] = []
    reader = MessageReader(b"", lambda text: messages.append(bytes(text)))
    for byte in frame(DONE + b" " * 200, mask=mask):
        reader.feed(bytes([byte]))
    assert messages == [DONE + b" " * 200]


def test_frames_that_no_message_began_are_ignored() -> None:
    messages: list[bytes] = []
    reader = MessageReader(b"", lambda text: messages.append(bytes(text)))
    reader.feed(frame(b"lost", 0x80) + frame(DONE))
    assert messages == [DONE]
    reader = MessageReader(DEFLATE, lambda text: messages.append(bytes(text)))
    message = packed(DONE, takeover=False)
    reader.feed(message + bytes([0x80]) + message[1:] + message)
    assert messages == [DONE] * 3


def test_broken_compression_ends_the_reading() -> None:
    reader = MessageReader(DEFLATE, lambda text: None)
    reader.feed(frame(b"\xff\xff\xff", 0xC1) + frame(DONE))
    assert not reader.is_readable


# ---- messages of gRPC


MESSAGES = st.lists(st.tuples(st.booleans(), st.binary(max_size=20)), max_size=12)


def prefixed(payload: bytes, *, packed: bool = False) -> bytes:
    return bytes([packed]) + len(payload).to_bytes(4, "big") + payload


@given(MESSAGES, st.lists(st.integers(0, 400), max_size=12))
def test_grpc_message_counts_at_its_last_byte_for_any_split(
    messages: list[tuple[bool, bytes]], cuts: list[int]
) -> None:
    data = b"".join(prefixed(payload, packed=packed) for packed, payload in messages)
    ends = [sum(5 + len(payload) for _, payload in messages[: n + 1]) for n in range(len(messages))]
    scanner, position, counted = MessageScanner(), 0, 0
    for cut in sorted({min(cut, len(data)) for cut in (*cuts, len(data))}):
        counted += scanner.count_ends(data[position:cut])
        position = cut
        assert counted == sum(end <= position for end in ends)


@pytest.mark.parametrize("size", [1, 4, 5, 6, 11])
def test_a_message_that_is_cut_off_does_not_count(size: int) -> None:
    scanner = MessageScanner()
    assert scanner.count_ends(prefixed(b"") + prefixed(b"hello!!")[:size]) == 1
    assert scanner.count_ends(b"") == 0


def test_a_long_message_is_not_kept() -> None:
    scanner = MessageScanner()
    assert scanner.count_ends(b"\0" + (1 << 20).to_bytes(4, "big")) == 0
    for _ in range(15):
        assert scanner.count_ends(bytes(1 << 16)) == 0
    assert scanner.count_ends(bytes(1 << 16) + prefixed(b"x") + b"\0") == 2
