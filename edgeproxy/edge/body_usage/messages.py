"""The messages of a service's side of a WebSocket (RFC 6455), put together from their frames, and the usage they state.

Bytes come in unchanged, split anywhere. A message is kept within the bounds of `JsonText`. Compressed messages (RFC
7692) are decoded, within the bounds of `content_coding`.
"""

import re
import zlib
from collections.abc import Callable
from typing import Final

from edgeproxy.edge.body_usage.content_coding import BYTES_FREE, PIECE_BYTES_MAX, RATIO_MAX
from edgeproxy.edge.body_usage.json_text import JsonText

DEFLATE: Final = re.compile(rb"(?im)^sec-websocket-extensions:.*permessage-deflate([^,\r\n]*)")
NO_TAKEOVER: Final = b"server_no_context_takeover"
MESSAGE_END: Final = b"\x00\x00\xff\xff"
"""Bytes behind each compressed message, which its sender leaves out (RFC 7692 section 7.2.2)."""
FIN, COMPRESSED, OPCODE, MASKED = 0x80, 0x40, 0x0F, 0x80
CONTINUATION, TEXT, BINARY, CONTROL = 0, 1, 2, 8
WIDTHS: Final = {126: 2, 127: 8}


class MessageReader:
    """Reads the messages of one direction.

    `on_message` is called with the text of each, or with its two ends if it is long.
    """

    __slots__ = (
        "_compression",
        "_decoder",
        "_first",
        "_head",
        "_is_compressed",
        "_left",
        "_left_decoded",
        "_mask",
        "_mask_at",
        "_on_message",
        "_text",
        "is_readable",
    )

    def __init__(self, head: bytes, on_message: Callable[[bytes | bytearray], None]) -> None:
        """`head`: the lines of the answer that has opened the WebSocket, which tell whether it is compressed."""
        match = DEFLATE.search(head)
        self._compression = None if match is None else (NO_TAKEOVER in match[1].lower())
        """True if each message is compressed alone; None: no message is compressed."""
        self._decoder = None if match is None else zlib.decompressobj(-zlib.MAX_WBITS)
        self._on_message = on_message
        self._head = b""
        """The beginning of a frame whose length cannot be told yet."""
        self._first, self._left = 0, 0
        """The first byte of the frame under way, and the bytes of it that are still to come."""
        self._mask, self._mask_at = b"", 0
        self._text: JsonText | None = None
        """The message under way."""
        self._is_compressed = False
        self._left_decoded = BYTES_FREE
        self.is_readable = True
        """True if the bytes are frames that can be read."""

    def feed(self, data: bytes) -> None:
        """Read the next bytes."""
        if self._head:
            data, self._head = self._head + data, b""
        position, size = 0, len(data)
        while position < size and self.is_readable:
            if not self._left:
                begin = self._begin_frame(data, position)
                if begin < 0:
                    self._head = data[position:]
                    return
                position = begin
            part = data[position : position + self._left]
            position += len(part)
            self._left -= len(part)
            # Control frames may come between the frames of a message, and state no usage (RFC 6455 section 5.5).
            if self._first & OPCODE < CONTROL:
                self._add(part)
            if not self._left:
                self._end_frame()

    def _begin_frame(self, data: bytes, at: int) -> int:
        """Read the head of a frame at `at`; return the start of its payload, -1 if the head is incomplete."""
        if at + 2 > len(data):
            return -1
        first, length = data[at], data[at + 1] & 0x7F
        masked = data[at + 1] & MASKED
        at += 2
        if length in WIDTHS:
            width = WIDTHS[length]
            if at + width > len(data):
                return -1
            length = int.from_bytes(data[at : at + width], "big")
            at += width
        if masked:
            if at + 4 > len(data):
                return -1
            self._mask, self._mask_at = data[at : at + 4], 0
            at += 4
        else:
            self._mask = b""
        self._first, self._left = first, length
        # A continuation belongs to the message under way (RFC 6455 section 5.4).
        if first & OPCODE in (TEXT, BINARY):
            self._text = JsonText()
            self._is_compressed = bool(first & COMPRESSED) and self._decoder is not None
        if not length:
            self._end_frame()
        return at

    def _add(self, part: bytes) -> None:
        if self._mask:
            mask, at = self._mask, self._mask_at
            self._mask_at += len(part)
            # The position goes on over the parts of a frame (RFC 6455 section 5.3).
            part = bytes([byte ^ mask[(at + index) & 3] for index, byte in enumerate(part)])
        if self._is_compressed:
            self._inflate(part)
        elif self._text is not None:
            self._text.add(part)

    def _inflate(self, part: bytes) -> None:
        decoder = self._decoder
        assert decoder is not None
        # A budget for the decoded bytes, as a few compressed ones may become very many.
        self._left_decoded = min(BYTES_FREE, self._left_decoded) + RATIO_MAX * len(part)
        while part and self.is_readable:
            try:
                piece = decoder.decompress(part, PIECE_BYTES_MAX)
            except zlib.error:
                self.is_readable = False
                return
            self._left_decoded -= len(piece)
            self.is_readable = self._left_decoded >= 0
            if self._text is not None:
                self._text.add(piece)
            part = decoder.unconsumed_tail

    def _end_frame(self) -> None:
        if self._first & OPCODE >= CONTROL or not self._first & FIN:
            return
        if self._is_compressed:
            self._inflate(MESSAGE_END)
            if self._compression:
                self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)
        text, self._text = self._text, None
        if text is not None and len(text):
            for each in text.list_texts():
                self._on_message(each)
