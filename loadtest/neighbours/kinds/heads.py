"""Bytes of HTTP/1.1 requests, and ways to send them."""

from collections.abc import Iterator
from itertools import repeat

from loadtest.neighbours.neighbour import Piece, Pieces

CHUNKED = "Transfer-Encoding: chunked"
_HOLD_SECONDS = 3600.0


def head(path: str, *fields: str, method: str = "GET") -> bytes:
    """The head of a request."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: a", *fields, "", "")).encode()


def endless(block: bytes, first: bytes = b"") -> Pieces:
    """`first`, and then `block` for as long as the connection is open."""

    def pieces(inbox: bytearray) -> Iterator[Piece]:
        if first:
            yield first
        yield from repeat(block)

    return pieces


def once(block: bytes, seconds: float = _HOLD_SECONDS) -> Pieces:
    """`block`, and then answers for so many seconds."""
    return lambda inbox: iter((block, seconds))


def dribbled(first: bytes, rest: bytes, seconds: float) -> Pieces:
    """`first` at once, and then a byte of `rest` each time."""

    def pieces(inbox: bytearray) -> Iterator[Piece]:
        yield first
        for byte in rest:
            yield seconds
            yield bytes((byte,))

    return pieces
