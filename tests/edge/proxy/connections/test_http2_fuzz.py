"""Random conversations over HTTP/2 with a real worker, cut anywhere: each request gets its own answer or was reset.

The frames are legal. Their kinds, their order and the boundaries of reads are random. Then random bytes follow. The
expected answer of a stream depends only on the frames of that stream. The test bed checks for leaks and exceptions.
"""

import asyncio
import hashlib
import os
import random
from time import monotonic

import hpack
import pytest

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
    RST_STREAM,
    frame,
    reset,
    settings,
    update,
    word,
)
from tests.support.transcript import Edge, chunks, head
from tests.support.wire import Cut, Message, Wire

CONVERSATIONS = 25
MINUTES = float(os.environ.get("EDGEPROXY_FUZZ_MINUTES") or 30)
STREAMS_MAX = 12
WINDOWS = (0, 1, 100, 65535, 1 << 20)


@pytest.fixture
def edge(edge: Edge) -> Edge:
    edge.config["listen"] = {"address": "127.0.0.1:0", "http2": True}
    edge.upstream.answers(answer)
    return edge


def expected_body(method: str, path: str, body: bytes) -> bytes:
    """Return the upstream's answer, with the size given in the path."""
    size = int(path.partition("size=")[2])
    text = f"{method} {path} {hashlib.sha256(body).hexdigest()}\n".encode()
    return (text * (size // len(text) + 1))[: max(size, len(text))]


def answer(request: Message) -> bytes:
    method, path, _ = request.first.split(" ")
    body = expected_body(method, path, request.body)
    if len(body) % 2:
        return head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + chunks(
            *(part for part in (body[:999], body[999:]) if part)
        )
    return head("HTTP/1.1 200 OK", f"Content-Length: {len(body)}") + body


class Conversation:
    """The random frames of one connection, and the expected answer of each stream."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._encoder = hpack.Encoder()
        self._open: dict[int, tuple[str, str, list[bytes]]] = {}
        """The method, path and body pieces of each stream whose request has not ended."""
        self._number = 1
        self.expected: dict[int, bytes] = {}
        """The expected response body of each request that has ended and was not reset."""
        steps = [self._begin, self._begin, self._send, self._send, self._finish, self._reset, self._bother]
        parts = [PREFACE + settings((4, chance.choice(WINDOWS))), update(0, 1 << 28)]
        parts += [chance.choice(steps)() for _ in range(chance.randrange(10, 80))]
        parts += [self._end(number) for number in tuple(self._open)]
        parts.append(settings((4, 1 << 24)))  # Open the windows for all answers.
        self.data = b"".join(parts)

    def _begin(self) -> bytes:
        chance = self._chance
        if self._number > 2 * STREAMS_MAX:
            return b""
        number, self._number = self._number, self._number + chance.choice((2, 2, 4))
        has_body = chance.random() < 0.5
        method, path = "POST" if has_body else "GET", f"/public/{number}?size={chance.choice((0, 50, 999, 70_000))}"
        fields = [(":method", method), (":scheme", "http"), (":authority", "edge.test"), (":path", path)]
        fields += [(f"x-{chance.randrange(9)}", str(chance.randrange(9)) * chance.randrange(40)) for _ in range(3)]
        if chance.random() < 0.1:
            self._encoder.header_table_size = chance.choice((0, 100, 4096))
        if has_body:
            self._open[number] = method, path, []
        else:
            self.expected[number] = expected_body(method, path, b"")
        return self._frame_head(number, self._encoder.encode(fields), ended=not has_body)

    def _frame_head(self, number: int, block: bytes, *, ended: bool) -> bytes:
        """Return a HEADERS frame, in some cases with padding, a priority or CONTINUATION frames."""
        chance, flags = self._chance, END_STREAM if ended else 0
        cuts = sorted(chance.randrange(len(block) + 1) for _ in range(chance.choice((0, 0, 1, 3))))
        first, *rest = [block[a:b] for a, b in zip([0, *cuts], [*cuts, len(block)], strict=True)]
        if chance.random() < 0.2:
            first, flags = word(0) + b"\x07" + first, flags | PRIORITIZED
        if chance.random() < 0.2:
            first, flags = b"\x05" + first + bytes(5), flags | PADDED
        frames = [frame(HEADERS, flags | (0 if rest else END_HEADERS), number, first)]
        frames += [frame(CONTINUATION, 0, number, part) for part in rest[:-1]]
        frames += [frame(CONTINUATION, END_HEADERS, number, part) for part in rest[-1:]]
        return b"".join(frames)

    def _send(self) -> bytes:
        if not self._open:
            return b""
        number = self._chance.choice(tuple(self._open))
        piece = self._chance.randbytes(self._chance.choice((0, 1, 100, 1500)))
        self._open[number][2].append(piece)
        if self._chance.random() < 0.2:
            return frame(DATA, PADDED, number, b"\x03" + piece + bytes(3))
        return frame(DATA, 0, number, piece)

    def _finish(self) -> bytes:
        return self._end(self._chance.choice(tuple(self._open))) if self._open else b""

    def _end(self, number: int) -> bytes:
        method, path, pieces = self._open.pop(number)
        self.expected[number] = expected_body(method, path, b"".join(pieces))
        if self._chance.random() < 0.3:
            return self._frame_head(number, self._encoder.encode([("x-sum", "1")]), ended=True)
        return frame(DATA, END_STREAM, number)

    def _reset(self) -> bytes:
        begun = [*self._open, *self.expected]
        if not begun or self._chance.random() < 0.7:
            return b""
        number = self._chance.choice(begun)
        self._open.pop(number, None)
        self.expected.pop(number, None)
        return reset(number, self._chance.choice((0, 5, 8, 99)))

    def _bother(self) -> bytes:
        chance = self._chance
        stream = chance.choice((*self.expected, *self._open, 0))
        return chance.choice(
            (
                frame(PING, 0, 0, chance.randbytes(8)),
                frame(PRIORITY, 0, 99, word(0) + b"\x01"),
                frame(0x42, chance.randrange(256), chance.randrange(9), chance.randbytes(9)),
                settings((4, chance.choice(WINDOWS)), (1, chance.choice((0, 4096))), (7, 7)),
                update(stream, chance.choice((1, 1000))),
            )
        )


async def send_in_pieces(client: Wire, data: bytes, chance: random.Random) -> None:
    """Send the data in random pieces, from single bytes to several frames."""
    size = chance.choice((3, 20, 200, 2000, 100_000))
    while data:
        length = chance.randrange(1, size + 1)
        piece, data = data[:length], data[length:]
        await client.sends(piece)
        for _ in range(chance.choice((0, 0, 1, 5))):
            await asyncio.sleep(0)


async def read_answers(client: Wire, numbers: set[int]) -> dict[int, bytes]:
    """Read until all these streams have ended. Return their bodies."""
    decoder = hpack.Decoder()
    bodies: dict[int, bytearray] = {}
    left = set(numbers)
    while left:
        prefix = await client.gets_bytes(9)
        payload = await client.gets_bytes(int.from_bytes(prefix[:3], "big"))
        kind, flags, number = prefix[3], prefix[4], int.from_bytes(prefix[5:], "big")
        assert kind != GOAWAY, payload
        assert kind != RST_STREAM or number not in left, (number, payload)
        if kind == HEADERS:
            fields = dict(decoder.decode(payload))
            assert fields.get(":status") == "200", fields
            bodies[number] = bytearray()
        elif kind == DATA:
            bodies[number] += payload
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            left.discard(number)
    return {number: bytes(body) for number, body in bodies.items()}


async def converse(edge: Edge, chance: random.Random) -> int:
    """Run one conversation. Return the number of checked answers."""
    conversation = Conversation(chance)
    client = await edge.client()
    async with asyncio.TaskGroup() as both:
        both.create_task(send_in_pieces(client, conversation.data, chance))
        reading = both.create_task(read_answers(client, set(conversation.expected)))
    bodies = reading.result()
    for number, body in conversation.expected.items():
        assert bodies[number] == body, number
    if chance.random() < 0.5:  # Now random or repeated bytes follow.
        garbage = chance.randbytes(chance.choice((1, 9, 200))) if chance.random() < 0.5 else conversation.data[24:]
        try:
            await client.sends(garbage, chance.randbytes(9))
            await edge.settles()
        except (ConnectionError, Cut):
            pass
    client.closes()
    edge.clients.remove(client)
    return len(conversation.expected)


async def test_http2_conversation_cut_anywhere_leaves_no_state(edge: Edge, seed: int) -> None:
    answers = 0
    for number in range(CONVERSATIONS):
        answers += await converse(edge, random.Random(f"{seed} {number}"))
    assert answers > 3 * CONVERSATIONS, "too few answers to prove anything"


@pytest.mark.soak
@pytest.mark.timeout(MINUTES * 60 + 300)
async def test_conversations_cut_anywhere_for_long(edge: Edge, seed: int) -> None:
    end, number = monotonic() + MINUTES * 60, 0
    while monotonic() < end:
        await converse(edge, random.Random(f"{seed} long {number}"))
        number += 1
    print(f"{number} conversations")
