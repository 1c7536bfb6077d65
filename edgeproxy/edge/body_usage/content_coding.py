"""Content codings of bodies, decoded as they pass: gzip and deflate (RFC 9110 section 8.4.1), zstd (RFC 8878).

A few bytes can become gigabytes, so the decoded size is bounded by the size of any honest text.
"""

import zlib
from collections.abc import Iterator
from typing import Final, Protocol

AUTODETECT: Final = 32 + zlib.MAX_WBITS
"""For zlib: gzip or deflate, by the header of the data."""
ZSTD: Final = b"zstd"
CODINGS: Final = frozenset((b"gzip", b"x-gzip", b"deflate", ZSTD))
PIECE_BYTES_MAX: Final = 64 << 10
"""Bytes that are decoded at a time."""
RATIO_MAX: Final = 100
"""A text may become at most this many times as long; texts of streams become thirty times as long."""
BYTES_FREE: Final = 1 << 20
"""Bytes that any body may become, whatever its length."""
MEMBERS_MAX: Final = 1000
"""Members of gzip that a body may have, one behind the other. Empty ones take time and become nothing."""

ZSTD_BYTES_AT_ONCE: Final = 128
"""Bytes of zstd that are decoded at a time. A block of four bytes can become 128 KiB, and nothing bounds the decoder's
result: so this many can become 4 MiB.
"""
ZSTD_WINDOW_BYTES_MAX: Final = 8 << 20
"""The largest window of zstd in HTTP (RFC 9659)."""


class Decoder(Protocol):
    """Decodes one body."""

    is_broken: bool

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded bytes of a piece of the body, in pieces."""


def create_decoder(coding: bytes) -> Decoder | None:
    """Create the decoder of a body in one of CODINGS; None if it has no coding."""
    if not coding:
        return None
    return ZstdDecoder() if coding == ZSTD else Inflater()


class Inflater:
    """Decodes one body."""

    __slots__ = ("_decoder", "_left", "_members_left", "is_broken")

    def __init__(self) -> None:
        self._decoder = zlib.decompressobj(AUTODETECT)
        self._members_left = MEMBERS_MAX
        self._left = BYTES_FREE
        """Bytes that may still come out of the bytes fed so far."""
        self.is_broken = False
        """True if the body is not of the coding that it states, or becomes too long; nothing is decoded any more."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded bytes of a piece of the body, in pieces of PIECE_BYTES_MAX at most."""
        self._left += RATIO_MAX * len(data)
        while data and not self.is_broken:
            decoder = self._decoder
            try:
                piece = decoder.decompress(data, PIECE_BYTES_MAX)
            except zlib.error:
                self.is_broken = True
                return
            self._left -= len(piece)
            if self._left < 0:
                self.is_broken = True
                return
            yield piece
            data = decoder.unconsumed_tail
            if decoder.eof and decoder.unused_data:
                self._members_left -= 1
                if not self._members_left:
                    self.is_broken = True
                    return
                data = decoder.unused_data
                self._decoder = zlib.decompressobj(AUTODETECT)


class ZstdDecoder:
    """Decodes one body of zstd."""

    __slots__ = ("_decoder", "_left", "is_broken")

    def __init__(self) -> None:
        # Hardly any worker needs it, and each would have it in its memory.
        import zstandard

        decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
        self._decoder = decompressor.decompressobj(read_across_frames=True)
        self._left = BYTES_FREE
        """Bytes that may still come out of the bytes fed so far."""
        self.is_broken = False
        """True if the body is not of the coding that it states, or becomes too long; nothing is decoded any more."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded bytes of a piece of the body, in pieces."""
        from zstandard import ZstdError

        self._left += RATIO_MAX * len(data)
        for start in range(0, len(data), ZSTD_BYTES_AT_ONCE):
            if self.is_broken:
                return
            try:
                piece = self._decoder.decompress(data[start : start + ZSTD_BYTES_AT_ONCE])
            except ZstdError:
                self.is_broken = True
                return
            self._left -= len(piece)
            if self._left < 0:
                self.is_broken = True
                return
            if piece:
                yield piece
