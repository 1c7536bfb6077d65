"""WebSockets whose messages are a byte each, in either direction (RFC 6455)."""

from collections.abc import Iterator

from loadtest.neighbours.kinds.heads import head, once
from loadtest.neighbours.neighbour import Neighbour, Piece, Pieces
from loadtest.testbed.frames import BINARY, PING, frame

_UPGRADE = (
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def _frames(opcode: int) -> Pieces:
    def pieces(inbox: bytearray) -> Iterator[Piece]:
        yield head("/ws", *_UPGRADE)
        while b"\r\n\r\n" not in inbox:
            yield 0.01
        while True:
            del inbox[:]
            yield frame(opcode, b"x") * 20_000

    return pieces


ROWS = (
    Neighbour("ws-frames-up", _frames(BINARY), listens=True),
    Neighbour("ws-pings-up", _frames(PING), listens=True),
    Neighbour("ws-frames-down", once(head("/ws-down", *_UPGRADE))),
)
