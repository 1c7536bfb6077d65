"""Request ids (UUIDv7, RFC 9562 section 5.7) and trace contexts (W3C Trace Context, version 00).

Random bits are drawn for 256 requests at a time, and the time part is made once a millisecond. Drawn one by one, ids
were the most expensive part of a request (3.6 µs against 0.5). Fixed characters are inserted into a whole draw, column
by column: formatting each id alone takes three times as long.
"""

import os
from collections.abc import Callable

IDS_PER_DRAW = 256

ID_BYTES = 36
"""The length of each id."""

TAIL = b"***-9***-************|"
"""The form of an id after its version; a star stands for a random hex digit. The variant is written as 9, one of its
four possible digits: 72 random bits are enough beside the time.
"""

BEGUN = b"\r\ntraceparent: 00-" + b"*" * 32 + b"-" + b"*" * 16 + b"-01\r\n\r\n|"
"""The form of the closing lines of a head with a trace begun here: between two CRLF, and before the blank line."""

DIGIT, END = ord("*"), b"|"
"""In forms: the placeholder of a digit, and the end of a form."""

NO_SPAN = b"0" * 16
"""The value that no span may have, and a part of the one that no trace may have."""

TRACE_ID, SPAN_ID, SAMPLED_AT, SAMPLED = slice(18, 50), slice(51, 67), -5, ord("1")
"""In these lines: the positions of the ids of trace and span and of the flags' last digit, and the value of that digit
in a sampled trace begun here.
"""

LAST_HALF = slice(34, 50)
"""In these lines: the last half of the id of the trace."""

ALL_TRACES = b"g"
"""A bound above all ids."""


class IdGenerator:
    """Makes the ids of one worker. `random` returns that many random bytes; tests replace os.urandom."""

    __slots__ = ("_begun", "_bound", "_millisecond", "_prefix", "_random", "_tails")

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random
        self._tails: list[bytes] = []
        self._begun: list[bytes] = []
        self._millisecond = -1
        self._prefix = b""
        self._bound = ALL_TRACES

    def set_sample(self, share: float) -> None:
        """Set the share of the traces begun here that are sampled; the default is all.

        The last half of the id decides, as in OpenTelemetry's TraceIdRatioBased. So services with equal shares sample
        equal traces.
        """
        bound = ALL_TRACES if share >= 1 else b"%016x" % round(share * (1 << 64))
        if bound != self._bound:
            self._bound = bound
            self._begun = []

    def create_ids(self, unix_seconds: float) -> tuple[bytes, bytes]:
        """Return (request id, the closing lines of a head with a trace begun here).

        These are `traceparent: 00-<trace>-<span>-01` (00: not sampled) between two CRLF, and the blank line after it:
        the end of an upstream request head whose last line so far lacks its CRLF. Their span (`SPAN_ID`) also serves
        for a trace that is continued.
        """
        if not self._begun:
            self._draw_traces()
        return self.create_request_id(unix_seconds), self._begun.pop()

    def create_request_id(self, unix_seconds: float) -> bytes:
        """Return a request id alone, for a request that goes no further."""
        millisecond = int(unix_seconds * 1000)
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            digits = b"%012x" % millisecond
            self._prefix = b"%b-%b-7" % (digits[:8], digits[8:])
        if not self._tails:
            self._tails = self._draw(TAIL)
        return self._prefix + self._tails.pop()

    def _draw_traces(self) -> None:
        """Draw closing lines. Their flags say whether the trace is sampled."""
        bound, begun = self._bound, self._draw(BEGUN)
        if bound != ALL_TRACES:
            begun = [line if line[LAST_HALF] < bound else line[:SAMPLED_AT] + b"0\r\n\r\n" for line in begun]
        self._begun = begun

    def _draw(self, form: bytes) -> list[bytes]:
        """Draw IDS_PER_DRAW ids of this form, without the end of each."""
        text = bytearray(self._random(IDS_PER_DRAW * len(form) // 2).hex().encode())
        for at, byte in enumerate(form):
            if byte != DIGIT:
                text[at :: len(form)] = bytearray((byte,)) * IDS_PER_DRAW
        drawn = bytes(text).split(END)
        drawn.pop()
        # One in 10¹⁴ draws has one.
        return [each for each in drawn if NO_SPAN not in each] if NO_SPAN in text else drawn


def format_trace(trace: bytes, span: bytes, flags: bytes) -> bytes:
    """Format the closing lines of a head whose trace was not begun by `create_ids`; `flags` are two hex digits."""
    return b"".join((b"\r\ntraceparent: 00-", trace, b"-", span, b"-", flags, b"\r\n\r\n"))
