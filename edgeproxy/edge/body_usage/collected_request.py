"""The body of a request, collected as it passes, for an estimate of its input.

Long encodings, for example images in base64, are cut out, so requests with media need little memory. A compressed body
is decoded within the bounds of `content_coding`.
"""

import re
from collections.abc import Iterable
from typing import Final

from edgeproxy.edge.body_usage.body_kind import find_coding
from edgeproxy.edge.body_usage.content_coding import CODINGS, create_decoder
from edgeproxy.edge.body_usage.json_text import JsonText
from edgeproxy.edge.body_usage.prompt_text import MARK, PromptSize, measure_prompt

KEPT_BYTES_MAX: Final = 96 << 10
"""Bytes that are kept of the beginning of a body; the rest counts as text."""
END_BYTES_MAX: Final = 16 << 10
"""Bytes that are kept of its end, which may have the most tokens of an answer."""
CUT_BYTES: Final = 32 << 10
"""After this many bytes of a body, encodings are cut out."""
ENCODING: Final = re.compile(rb"[A-Za-z0-9+/_=-]{512,}")
"""Text of no language is that long without a blank or a mark."""


class CollectedRequest:
    """The body of one request. `lines`: the lines of its head, which tell its coding."""

    __slots__ = ("_decoder", "_is_opaque", "_size", "_text", "_text_bytes")

    def __init__(self, lines: bytes) -> None:
        coding = find_coding(b"\r\n" + lines.lower())
        self._is_opaque = coding not in (b"", b"identity", *CODINGS)
        """True if it has a coding that is not decoded here: then its bytes count as text."""
        self._decoder = create_decoder(coding) if coding in CODINGS else None
        self._text = JsonText(KEPT_BYTES_MAX, END_BYTES_MAX)
        self._size = self._text_bytes = 0
        """Bytes of the body so far, and its bytes without the encodings that were cut out."""

    def __len__(self) -> int:
        """Return the number of bytes that are kept."""
        return len(self._text)

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        for piece in [data] if self._decoder is None else self._decoder.feed(data):
            self._size += len(piece)
            text = piece if self._size <= CUT_BYTES else _cut_encodings(piece)
            self._text_bytes += len(text)
            self._text.add(text)

    @property
    def size(self) -> int:
        """The bytes of the body so far, decoded."""
        return self._size

    def measure(self, provider: str) -> PromptSize:
        """Return the size of the input; `provider`: see `measure_prompt`."""
        if self._is_opaque:
            return PromptSize(self._size, 0)
        beginning = self._text.beginning
        return measure_prompt(beginning, self._text_bytes - len(beginning), self._size, provider)

    def list_texts(self) -> Iterable[bytes | bytearray]:
        """Return the body, or the two ends of a long one, each as JSON."""
        return self._text.list_texts()


def _cut_encodings(data: bytes) -> bytes:
    mark = MARK.encode()
    return ENCODING.sub(lambda match: b"%b%d%b" % (mark, match.end() - match.start(), mark), data)
