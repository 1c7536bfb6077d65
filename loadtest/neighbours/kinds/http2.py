"""Hostile traffic over HTTP/2 without TLS: frames and streams that carry next to nothing, or are never taken."""

from collections.abc import Iterator
from itertools import repeat
from struct import pack

from loadtest.neighbours import frames
from loadtest.neighbours.kinds.windows import Windows
from loadtest.neighbours.neighbour import EDGE, Neighbour, Piece, Pieces

STREAMS = 90
"""Open streams of a connection: below the 100 that most servers allow."""
_HIGHEST_STREAM = 1 << 30
_IDLE = 0.02


def uploads(path: bytes, size: int, payload: int, *, fields: bytes = b"") -> Pieces:
    """Bodies of up to `size` octets on each stream in frames of `payload` octets, as windows allow. None ends."""

    def pieces(inbox: bytearray) -> Iterator[Piece]:
        windows = Windows(range(1, 2 * STREAMS, 2))
        sent = dict.fromkeys(windows.streams, 0)
        yield frames.preface() + b"".join(frames.ask(stream, path, post=True, fields=fields) for stream in sent)
        while True:
            block = windows.receive(inbox)
            for stream in list(windows.streams):
                octets = windows.take(stream, min(size - sent[stream], 200 * payload))
                sent[stream] += octets
                frame = frames.frame(frames.DATA, 0, stream, b"x" * payload)
                block += frame * (octets // payload)
                if octets % payload:
                    block += frames.frame(frames.DATA, 0, stream, b"x" * (octets % payload))
            yield block or _IDLE

    return pieces


def streams(*blocks: bytes, tail: bytes = b"") -> Pieces:
    """New streams without end, each with the next of these field blocks; `tail` is sent after each 100 of them with
    the stream's number in place of `NNNN`."""

    def pieces(inbox: bytearray) -> Iterator[Piece]:
        yield frames.preface()
        for first in range(1, _HIGHEST_STREAM, 4000):
            numbers = range(first, first + 4000, 2)
            yield b"".join(
                frames.frame(frames.HEADERS, frames.END_STREAM | frames.END_HEADERS, number, block)
                + (tail and tail.replace(b"NNNN", pack(">I", number)))
                for number, block in zip(numbers, blocks * (2000 // len(blocks) + 1), strict=False)
            )

    return pieces


def flood(block: bytes, first: bytes = b"") -> Pieces:
    """The preface, `first`, and then `block` for as long as the connection is open."""

    def pieces(inbox: bytearray) -> Iterator[Piece]:
        yield frames.preface() + first
        yield from repeat(block)

    return pieces


def asked(path: bytes) -> Pieces:
    """One request, and its answer for as long as it lasts."""
    return lambda inbox: iter((frames.preface() + frames.ask(1, path), 3600.0))


def stalled(count: int) -> Pieces:
    """So many streams that ask for a large answer and open no window."""

    def pieces(inbox: bytearray) -> Iterator[Piece]:
        begin = frames.frame(frames.SETTINGS)
        asks = b"".join(frames.ask(2 * each + 1, b"/text") for each in range(count))
        yield frames.PREFACE + begin + asks
        yield 3600.0

    return pieces


_RESET = b"\x00\x00\x04\x03\x00NNNN\x00\x00\x00\x08"
"""RST_STREAM with CANCEL."""
_OPEN = frames.ask(1, b"/sink", post=True)
_BOMB = b"\x40\x01x\x7f\xa1\x1e" + b"v" * 4000
"""A field of 4,000 octets that enters the table (RFC 7541 section 6.2.1)."""

ROWS = (
    Neighbour("h2-404", streams(frames.request(b"/none")), door="http2"),
    Neighbour("h2-401", streams(frames.request(b"/keyed")), door="http2"),
    Neighbour("h2-proxied", streams(frames.request(b"/small")), door="http2"),
    Neighbour(
        "h2-many-fields", streams(frames.request(b"/none", fields=frames.literal(b"x", b"v" * 60) * 90)), "http2"
    ),
    Neighbour("h2-rapid-resets", streams(frames.request(b"/hang"), tail=_RESET), door="http2"),
    Neighbour("h2-data-1-byte-up", uploads(b"/sink", 1 << 40, 1), door="http2", listens=True),
    Neighbour("h2-data-1-byte-down", asked(b"/chunks"), door="http2"),
    Neighbour("h2-empty-data", flood(frames.frame(frames.DATA, 0, 1) * 5000, _OPEN), door="http2"),
    Neighbour("h2-settings", flood(frames.frame(frames.SETTINGS) * 5000), door="http2"),
    Neighbour("h2-pings", flood(frames.frame(frames.PING, 0, 0, bytes(8)) * 5000), door="http2"),
    Neighbour("h2-priorities", flood(frames.frame(frames.PRIORITY, 0, 1, bytes((0, 0, 0, 3, 1))) * 5000), door="http2"),
    Neighbour("h2-window-updates", flood(frames.window(1, 1) * 5000, _OPEN), door="http2"),
    Neighbour(
        "h2-continuations", flood(frames.frame(9, 0, 1, b"\x00") * 5000, frames.frame(1, 1, 1, b"\x82")), "http2"
    ),
    Neighbour("h2-hpack-bomb", streams(frames.request(b"/none", fields=_BOMB + b"\xbe" * 1000)), door="http2"),
    Neighbour("h2-stalled-10", stalled(10), door="http2"),
    Neighbour("h2-stalled-90", stalled(90), door="http2"),
    Neighbour("h2-unread", streams(frames.request(b"/text")), door="http2", reads=False, parallel=5),
    Neighbour(
        "held-bodies",
        uploads(b"/buffered", 250_000, 10_000, fields=frames.literal(b"content-length", b"260000")),
        door="http2",
        peers=EDGE,
        listens=True,
        parallel=5,
    ),
)
