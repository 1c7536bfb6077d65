"""Hostile traffic over HTTP/1.1: many small things, or few that never end."""

from collections.abc import Iterator
from itertools import repeat

from loadtest.neighbours.neighbour import Neighbour, Piece, Pieces


def head(path: str, *fields: str, method: str = "GET") -> bytes:
    """The head of a request."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: a", *fields, "", "")).encode()


def endless(block: bytes, first: bytes = b"") -> Pieces:
    """`first`, and then `block` for as long as the connection is open."""

    def pieces() -> Iterator[Piece]:
        if first:
            yield first
        yield from repeat(block)

    return pieces


def once(block: bytes, seconds: float = 60.0) -> Pieces:
    """`block`, and then only answers."""
    return lambda: iter((block, seconds))


CHUNKED = "Transfer-Encoding: chunked"

ROWS = (
    Neighbour("pipelined-404", endless(head("/none") * 2000)),
    Neighbour("chunks-up", endless(b"1\r\nx\r\n" * 20_000, head("/sink", CHUNKED, method="POST"))),
    Neighbour("chunks-down", once(head("/chunks"))),
    Neighbour("h2c-frames-down", once(head("/h2c/frames")), peers=("edgeproxy", "haproxy")),
)
