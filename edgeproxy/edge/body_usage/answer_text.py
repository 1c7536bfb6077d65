"""The text of an answer, for an estimate of its output if the answer does not state it.

Only text of known members counts: not the log probabilities, identifiers, signatures and encodings beside it. An answer
without any of these members is in no dialect of the table. Then each text with a blank counts, as identifiers and
encodings have no blanks.
"""

import re
from typing import Final

REASONING: Final = ("reasoning_content", "reasoning", "reasoning_details")
"""Members that repeat one reasoning, by service; some answers have it in two of them."""
MEMBERS: Final = (
    *("content", "text", "delta", "refusal", "thinking", "partial_json", "arguments", "transcript"),
    *("response", "generation", "outputText", "completion", "output", "args_delta"),
)
TEXT: Final = re.compile(
    rb'"(?:type"\s*+:\s*+"reasoning\.text",\s*+"text|(%b))"\s*+:\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)'
    % b"|".join(name.encode() for name in (*REASONING, *MEMBERS)),
    re.DOTALL,
)
"""A member of text: its name (absent for OpenRouter's details of reasoning), and the text, which may be cut off."""
STRING: Final = re.compile(rb':\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)', re.DOTALL)
WITHOUT_TEXT: Final = re.compile(
    rb'"(?:event_)?type"\s*+:\s*+"(?:response\.[a-z_.]*(?:done|completed|incomplete|added|created|in_progress)"|'
    rb'response\.(?:output_)?audio\.delta"|interaction\.[a-z_]*"|transcript\.text\.done"|stream-end")'
)
"""Events that repeat the text of earlier ones, or have sound under the name of a text."""
EVENT_END: Final = re.compile(rb"\r?\n\r?\n")
ESCAPE: Final = b"\\u"
ESCAPE_BYTES: Final = 6
ESCAPED_BYTES: Final = 3
"""Bytes in UTF-8 of most characters that are written with an escape."""
BYTES_PER_TOKEN_LEAST: Final = 2
"""Bytes of text that a token has at least, except in rare texts: the upper bound of an estimate by other bytes."""
PIECES_READ_MAX: Final = 64
SAMPLED: Final = 7
"""After PIECES_READ_MAX, every eighth piece is read: most streams state their usage at their end, and reading each
event for an estimate would cost more than all else.
"""


class AnswerText:
    """The bytes of text in the pieces of an answer. A long stream is only sampled."""

    __slots__ = ("_bytes", "_other_bytes", "_passed", "_pieces", "_read", "_reasoning")

    def __init__(self) -> None:
        self._pieces = self._read = self._passed = 0
        """The number of pieces, the bytes of the read ones, and the bytes of the others."""
        self._bytes = 0
        self._reasoning = dict.fromkeys((name.encode() for name in REASONING), 0)
        self._other_bytes = 0
        """Bytes of text in members that are not known."""

    def add(self, data: bytes | bytearray) -> None:
        """Add the text of a piece of JSON, or of whole events."""
        self._pieces += 1
        if self._pieces > PIECES_READ_MAX and self._pieces & SAMPLED:
            self._passed += len(data)
            return
        self._read += len(data)
        if WITHOUT_TEXT.search(data) is not None:
            data = b"\n\n".join([event for event in EVENT_END.split(data) if WITHOUT_TEXT.search(event) is None])
        texts = TEXT.findall(data)
        for name, text in texts:
            size = len(text)
            if ESCAPE in text:
                size -= text.count(ESCAPE) * (ESCAPE_BYTES - ESCAPED_BYTES)
            if not name:
                self._reasoning[b"reasoning_details"] += size
            elif name in self._reasoning:
                self._reasoning[name] += size
            else:
                self._bytes += size
        if not texts:
            self._other_bytes += sum([len(text) for text in STRING.findall(data) if b" " in text])

    @property
    def size(self) -> int:
        """The bytes of text, in UTF-8."""
        read = self._bytes + max(self._reasoning.values()) or self._other_bytes
        return read + read * self._passed // self._read if self._passed else read
