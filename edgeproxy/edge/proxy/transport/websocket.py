"""A WebSocket's frames in one direction (RFC 6455): finds their ends, so that a close frame fits between two frames.

Only the first bytes of frames are read (section 5.2), and nothing changes until the edge leaves. Pure: bytes come in as
they were read, split anywhere, and the bytes to pass on come out.
"""

from struct import pack

CLOSE = 8
"""The opcode of a close frame (section 5.5.1)."""

GOING_AWAY = 1001
"""The status code of an endpoint that goes away (section 7.4.1)."""

POLICY_VIOLATION = 1008
"""The status code of an endpoint that closes because a message violates its policy (section 7.4.1)."""

MASKED = 0x80
"""The bit beside a frame's length that marks a masked payload (section 5.3)."""

OPCODES = frozenset((0, 1, 2, 8, 9, 10))
"""The defined opcodes; the others are reserved (section 5.2)."""

CONTROL_BYTES_MAX = 125
"""Bytes of a control frame's payload, which comes in one piece (section 5.5)."""


def classify_frame(first: int) -> int:
    """Return the kind of a frame that begins with this byte. Extensions may use its reserved bits."""
    opcode = first & 15
    if opcode not in OPCODES or (opcode >= CLOSE and first < 0x80):
        return UNKNOWN
    return CLOSING if opcode == CLOSE else CONTROL if opcode > CLOSE else DATA


DATA, CONTROL, CLOSING, UNKNOWN = range(4)
KINDS = bytes(map(classify_frame, range(256)))
WIDTHS = {126: 2, 127: 8}
"""Bytes of an extended payload length."""
SHORT = bytes(2 + (second & 127) + (second >> 7) * 4 if second & 127 < 126 else 0 for second in range(256))
"""Bytes of a whole frame by its second byte; 0 if the length is extended."""


def format_close_frame(mask: bytes = b"", code: int = GOING_AWAY) -> bytes:
    """Format a close frame. A client's frame needs a `mask`: four unpredictable bytes (section 5.3)."""
    payload = code.to_bytes(2, "big")
    if not mask:
        return pack(">BB", 0x80 | CLOSE, len(payload)) + payload
    covered = bytes(byte ^ over for byte, over in zip(payload, mask, strict=False))
    return pack(">BB", 0x80 | CLOSE, MASKED | len(payload)) + mask + covered


class FrameRelay:
    """The frames of one direction."""

    __slots__ = ("_head", "_last", "_left", "close_sent", "closed", "is_opaque", "own_bytes")

    def __init__(self) -> None:
        self._head = b""
        """The beginning of a frame of unknown length. It was passed on already."""
        self._left = 0
        """Bytes of a frame that are still to come."""
        self._last = b""
        """The bytes to send at the next end of a frame, and nothing after them."""
        self.close_sent = False
        """True once these were sent."""
        self.own_bytes = 0
        """The number of these bytes at the end of the result of `relay`. They are the edge's own."""
        self.closed = False
        """True once the sender of this direction has sent a close frame, passed on or not."""
        self.is_opaque = False
        """True if the bytes are not valid frames, so that the ends of frames are unknown."""

    def relay(self, data: bytes) -> bytes:
        """Return the bytes to pass on for `data`: all of it, or its beginning and the edge's close frame, or none."""
        if not self._last:
            if self._left >= len(data):
                self._left -= len(data)
            elif not self.is_opaque:
                self._follow_frames(data)
            return data
        if self.close_sent:
            # After the close frame the receiver reads nothing more (section 1.4). The sender's own close frame is still
            # detected.
            if not self.is_opaque:
                self._follow_frames(data)
            return b""
        taken = 0 if self.is_opaque else self._follow_frames(data, one=True)
        if self.is_opaque or not self.is_between_frames:
            return data
        self.close_sent, self.own_bytes = True, len(self._last)
        self._follow_frames(data[taken:])
        return data[:taken] + self._last

    def insert_close(self, word: bytes) -> bytes:
        """Insert `word`, a close frame, between two frames, and nothing after it. Return the bytes to send right now.

        The place between two frames may be inside a message (section 5.4).
        """
        self._last = word
        self.close_sent = self.is_between_frames
        return word if self.close_sent else b""

    @property
    def is_between_frames(self) -> bool:
        """True if a frame has ended and none has begun."""
        return not self._left and not self._head

    def _follow_frames(self, data: bytes, *, one: bool = False) -> int:
        """Find the ends of frames in `data`, of the `one` that has begun or of all.

        Return the number of bytes covered.
        """
        held = len(self._head)
        if held:
            data, self._head = self._head + data, b""
        at, size = self._left, len(data)
        while at < size and not (one and at):
            # Most frames are short data frames, and must cost next to nothing.
            if at + 1 < size and not KINDS[data[at]] and (whole := SHORT[data[at + 1]]):
                at += whole
                continue
            end = self._find_end(data, at)
            if not end:
                if not self.is_opaque:
                    self._head, self._left = data[at:], 0
                return size - held
            at = end
        if at > size:
            self._left = at - size
            return size - held
        self._left = 0
        return at - held

    def _find_end(self, data: bytes, at: int) -> int:
        """Return the end of the frame that begins at `at`; 0 if it is not known yet, or never will be."""
        if at + 2 > len(data):
            return 0
        kind, length = KINDS[data[at]], data[at + 1]
        at += 2
        if length & MASKED:
            length ^= MASKED
            covered = 4
        else:
            covered = 0
        if kind:
            if kind == UNKNOWN or length > CONTROL_BYTES_MAX:
                self.is_opaque = True
                return 0
            if kind == CLOSING:
                self.closed = True
        if length > CONTROL_BYTES_MAX:
            width = WIDTHS[length]
            if at + width > len(data):
                return 0
            length = int.from_bytes(data[at : at + width], "big")
            if length >> 63:
                self.is_opaque = True
                return 0
            at += width
        return at + covered + length
