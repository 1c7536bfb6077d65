"""WebSocket frames (RFC 6455 section 5) as a client writes them, right or wrong, and as it reads a server's."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from struct import pack, unpack_from

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"
"""Of every frame here (that of the RFC's example): a case is the same bytes each time it is played."""
COMPRESSED = 4
"""The reserved bit that permessage-deflate has taken (RFC 7692 section 6)."""
FLUSH = b"\x00\x00\xff\xff"
"""Ends every sync flush of deflate, and is left out of compressed messages (RFC 7692 section 7.2.1)."""


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    """A frame of a client, masked; nothing about it is checked."""
    first = fin << 7 | rsv << 4 | opcode
    if len(payload) < 126:
        head = pack(">BB", first, 0x80 | len(payload))
    elif len(payload) < 1 << 16:
        head = pack(">BBH", first, 0x80 | 126, len(payload))
    else:
        head = pack(">BBQ", first, 0x80 | 127, len(payload))
    return head + MASK + masked(payload)


def masked(payload: bytes) -> bytes:
    """RFC 6455 section 5.3, as one exclusive-or of long numbers."""
    mask = (MASK * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(len(payload), "big")


def fragments(opcode: int, payload: bytes, size: int, *, rsv: int = 0) -> list[bytes]:
    """A message in frames of `size` octets, the last one shorter where it must be; `size` 0: in one."""
    parts = [payload[at : at + size] for at in range(0, len(payload), size)] if size else [payload]
    last = len(parts) - 1
    return [
        frame(CONTINUATION if number else opcode, part, fin=number == last, rsv=0 if number else rsv)
        for number, part in enumerate(parts or [b""])
    ]


def close(code: int | None = None, reason: bytes = b"") -> bytes:
    """A close frame."""
    return frame(CLOSE, reason if code is None else pack(">H", code) + reason)


@dataclass(frozen=True)
class Frame:
    """A frame of a server."""

    opcode: int
    payload: bytes
    fin: bool
    rsv: int


def read(data: bytes | bytearray, at: int = 0) -> Iterator[tuple[Frame, int]]:
    """The whole frames that begin at `at`, each with where it ends."""
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
