"""WebSocket frames (RFC 6455 section 5): written like a client, valid or not, and read from a server."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import pack, unpack_from

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"
"""The mask of every frame here (from the RFC's example), so that a case has equal bytes in each run."""
COMPRESSED = 4
"""The reserved bit that permessage-deflate has taken (RFC 7692 section 6)."""
FLUSH = b"\x00\x00\xff\xff"
"""Ends every sync flush of deflate, and is left out of compressed messages (RFC 7692 section 7.2.1)."""


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """Return a masked client frame, without any checks."""
    first = fin << 7 | rsv << 4 | opcode
    if len(payload) < 126:
        head = pack(">BB", first, 0x80 | len(payload))
    elif len(payload) < 1 << 16:
        head = pack(">BBH", first, 0x80 | 126, len(payload))
    else:
        head = pack(">BBQ", first, 0x80 | 127, len(payload))
    return head + MASK + masked(payload)


def masked(payload: bytes) -> bytes:
    """Apply a mask (RFC 6455 section 5.3), as one exclusive-or of long numbers."""
    mask = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(len(payload), "big")


def fragments(opcode: int, payload: bytes, size: int, *, rsv: int = 0) -> list[bytes]:
    """Return a message in frames of `size` octets, with a shorter last one if needed; `size` 0: one frame."""
    parts = [payload[at : at + size] for at in range(0, len(payload), size)] if size else [payload]
    last = len(parts) - 1
    return [
        frame(CONTINUATION if number else opcode, part, fin=number == last, rsv=0 if number else rsv)
        for number, part in enumerate(parts or [b""])
    ]


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    """Return a close frame."""
    return frame(CLOSE, reason if code is None else pack(">H", code) + reason)


@dataclass(frozen=True)
class Frame:
    """A frame of a server."""

    opcode: int
    payload: bytes
    fin: bool
    rsv: int


def read(data: bytes | bytearray, at: int = 0) -> Iterator[tuple[Frame, int]]:
    """Yield the whole frames from `at` on, each with its end."""
    while len(data) >= at + 2:
        first, length = data[at], data[at + 1]
        assert length < 128, "a server masks nothing"
        start = at + 2
        if length >= 126:
            form, size = (">H", 2) if length == 126 else (">Q", 8)
            if len(data) < start + size:
                return
            (length,) = unpack_from(form, data, start)
            start += size
        at = start + length
        if len(data) < at:
            return
        yield Frame(first & 15, bytes(data[start:at]), bool(first & 128), first >> 4 & 7), at


class Deflate:
    """One direction of permessage-deflate (RFC 7692 section 7.2)."""

    def __init__(self, bits: int = 15, *, takeover: bool = True) -> None:
        self._bits, self._takeover = bits, takeover
        self._deflating = zlib.compressobj(wbits=-bits)
        self._inflating = zlib.decompressobj(-15)

    def deflate(self, payload: bytes) -> bytes:
        if not self._takeover:
            self._deflating = zlib.compressobj(wbits=-self._bits)
        return (self._deflating.compress(payload) + self._deflating.flush(zlib.Z_SYNC_FLUSH)).removesuffix(FLUSH)

    def inflate(self, payload: bytes) -> bytes:
        return self._inflating.decompress(payload + FLUSH)
