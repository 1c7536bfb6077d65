"""Receivers that answer without end: each attempt to send them a message is short, and takes little to read."""

import asyncio
from contextlib import suppress

import pytest

from edgeproxy.base.http_peer import HEAD_BYTES_MAX
from edgeproxy.collector.webhooks.http_post import DeliveryFailure, post_body
from loadtest.testbed.ports import HOST

PIECES = 1000
"""Pieces that a receiver sends, unless the connection ends before: of at least 64 KiB each."""
PIECES_READ_MAX = 300
"""The number of pieces that fit into the kernel's buffers of both sides."""


async def post(head: bytes, piece: bytes) -> tuple[DeliveryFailure | None, int]:
    """Send a message to a receiver with such an answer; how that ended, and how many pieces were taken."""
    sent = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        with suppress(ConnectionError):
            for _ in range(PIECES):
                writer.write(piece)
                await writer.drain()
                sent += 1
        writer.close()

    async with await asyncio.start_server(answer, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        failure = await post_body(f"http://{HOST}:{port}/", b"{}", {}, lambda _: None)
    return failure, sent


@pytest.mark.parametrize(
    "line", [b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", b"HTTP/1.1 100 Go on\r\n\r\n", b"\r\n"]
)
def test_webhook_ends_on_an_endless_answer_head(line: bytes) -> None:
    failure, sent = asyncio.run(post(b"", line * (HEAD_BYTES_MAX // len(line) + 1)))
    assert failure is not None
    bound = "a head of more than 65536 bytes" if line == b"\r\n" else "more than 32 interim answers"
    assert failure.why == f"the receiver's answer had {bound}"
    assert sent < PIECES_READ_MAX


def test_the_body_of_a_success_is_not_waited_for() -> None:
    failure, sent = asyncio.run(post(b"HTTP/1.1 200 OK\r\n\r\n", bytes(HEAD_BYTES_MAX)))
    assert failure is None
    assert sent < PIECES_READ_MAX
