"""Hostile traffic over HTTP/2 without TLS: many frames and streams that carry next to nothing."""

from collections.abc import Iterator

from loadtest.neighbours import frames
from loadtest.neighbours.neighbour import Neighbour, Piece

STREAMS = 90
"""Open streams of a connection: below the 100 that most servers allow."""
_HIGHEST_STREAM = 1 << 30


def data_of_one_byte() -> Iterator[Piece]:
    """As many DATA frames of a byte as the windows take: 65,535 octets of the connection (RFC 9113 section 6.9.2)."""
    yield frames.preface() + b"".join(frames.ask(2 * each + 1, b"/sink", post=True) for each in range(STREAMS))
    yield 0.2
    yield b"".join(frames.frame(frames.DATA, 0, 2 * each + 1, b"x") for each in range(STREAMS)) * (65_000 // STREAMS)
    yield 0.2


def not_found() -> Iterator[Piece]:
    """Requests for a path that has no route, each by one frame."""
    yield frames.preface()
    for first in range(1, _HIGHEST_STREAM, 4000):
        yield b"".join(frames.ask(stream, b"/none") for stream in range(first, first + 4000, 2))


ROWS = (
    Neighbour("h2-data-1-byte-up", data_of_one_byte, door="http2"),
    Neighbour("h2-404", not_found, door="http2"),
)
