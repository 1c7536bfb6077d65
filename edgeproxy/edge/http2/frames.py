"""Frames (RFC 9113 sections 4 and 6): their layout, the parts of their payloads, and the frames that the edge sends."""

from enum import IntEnum
from struct import Struct
from typing import Final

from edgeproxy.edge.http2.errors import (
    create_protocol_error,
    create_size_error,
    create_window_error,
)

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes of a client (section 3.4)."""


class FrameType(IntEnum):
    """The types of frames (section 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Setting(IntEnum):
    """The settings that mean something here (section 6.5.2, RFC 8441 section 3)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8


# Plain integers, as these are compared for each frame.
DATA, HEADERS, CONTINUATION = FrameType.DATA.value, FrameType.HEADERS.value, FrameType.CONTINUATION.value
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x01, 0x01, 0x04, 0x08, 0x20
"""The flags."""

HEADER: Final = Struct(">BHBBL")
"""The header of a frame: the high byte of its length and the other two, its type, its flags, its stream."""
HEADER_BYTES: Final = 9
SETTING: Final = Struct(">HL")

FRAME_BYTES_MAX: Final = 16384
"""Bytes of a payload either way: every peer takes this many (section 4.2), and the edge does not announce more."""

WINDOW_MAX: Final = (1 << 31) - 1
DEFAULT_WINDOW: Final = 65535
"""Bytes of a window until a peer says otherwise (section 6.9.2)."""

STREAM_MASK: Final = (1 << 31) - 1
"""The bits of a stream identifier, of a window's increment, of a dependency; the one before is reserved."""


def remove_padding(flags: int, payload: bytes) -> bytes:
    """Return a payload without its padding (section 6.1). Raises Http2ConnectionError."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise create_size_error("a padded frame without the length of its padding", "6.1")
    if payload[0] >= len(payload):
        raise create_protocol_error("more padding than there is payload", "6.1")
    return payload[1 : len(payload) - payload[0]]


def parse_word(payload: bytes) -> int:
    """Return the first 31 bits of a payload after the reserved one."""
    return int.from_bytes(payload[:4], "big") & STREAM_MASK


def read_settings(payload: bytes, window: int) -> int:
    """Check settings (section 6.5.2); return the initial window that they give streams, `window` by default.

    If it is repeated the last one holds (section 6.5.3). Other settings are about things that the edge never does.
    Raises Http2ConnectionError.
    """
    for setting, value in SETTING.iter_unpack(payload):
        if setting == Setting.INITIAL_WINDOW_SIZE:
            window = value
            if value > WINDOW_MAX:
                raise create_window_error("SETTINGS_INITIAL_WINDOW_SIZE is too large", "6.5.2")
        elif setting == Setting.ENABLE_PUSH and value > 1:
            raise create_protocol_error("SETTINGS_ENABLE_PUSH is neither 0 nor 1", "6.5.2")
        elif setting == Setting.MAX_FRAME_SIZE and not FRAME_BYTES_MAX <= value < 1 << 24:
            raise create_protocol_error("SETTINGS_MAX_FRAME_SIZE is out of bounds", "6.5.2")
    return window


def check_dependency(number: int, payload: bytes) -> None:
    """Check a priority (RFC 7540 section 5.3.1); its dependency is the only part that is looked at.

    Raises Http2ConnectionError.
    """
    if parse_word(payload) == number:
        raise create_protocol_error("a stream depends on itself", "RFC 7540 section 5.3.1")


def format_frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    """Format a frame whose payload is short."""
    return HEADER.pack(0, len(payload), kind, flags, number) + payload


def format_block(number: int, block: bytes, *, ended: bool) -> bytes:
    """Format a field block as HEADERS, and as many CONTINUATION frames as it takes (section 4.3)."""
    flags = END_STREAM if ended else 0
    if len(block) <= FRAME_BYTES_MAX:
        return HEADER.pack(0, len(block), HEADERS, flags | END_HEADERS, number) + block
    first, *rest = [block[start : start + FRAME_BYTES_MAX] for start in range(0, len(block), FRAME_BYTES_MAX)]
    frames = [format_frame(HEADERS, flags, number, first)]
    frames += [format_frame(CONTINUATION, 0, number, part) for part in rest[:-1]]
    frames.append(format_frame(CONTINUATION, END_HEADERS, number, rest[-1]))
    return b"".join(frames)


def format_settings(settings: dict[Setting, int]) -> bytes:
    """Format a SETTINGS frame (section 6.5)."""
    payload = b"".join([SETTING.pack(setting, value) for setting, value in settings.items()])
    return format_frame(FrameType.SETTINGS, 0, 0, payload)


def format_window_update(number: int, increment: int) -> bytes:
    """Format a WINDOW_UPDATE frame (section 6.9)."""
    return HEADER.pack(0, 4, FrameType.WINDOW_UPDATE, 0, number) + increment.to_bytes(4, "big")


def format_reset(number: int, code: int) -> bytes:
    """Format a RST_STREAM frame (section 6.4)."""
    return HEADER.pack(0, 4, FrameType.RST_STREAM, 0, number) + code.to_bytes(4, "big")


def format_goaway(last: int, code: int, detail: str = "") -> bytes:
    """Format a GOAWAY frame (section 6.8). `last`: the highest stream that was or may be served."""
    return format_frame(
        FrameType.GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big") + detail.encode("ascii")
    )
