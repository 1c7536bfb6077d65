"""Request ids (UUIDv7, RFC 9562 section 5.7) and trace contexts (W3C Trace Context, version 00).

Random bits are drawn for 256 requests at a time and the time part is made once a millisecond: drawn one by one,
ids were the dearest single part of a request (3.6 µs against 0.5).
"""

import os
import struct
from collections.abc import Callable

from edgeproxy.edge.http1.grammar import TraceParent

IDS_PER_DRAW = 256

ID_BYTES = 36
"""The length of each id."""

IDS = struct.Struct("3s3s12s")
"""The hex digits of randomness in an id: after the version, after the variant, and the node."""

TRACES = struct.Struct("3s3s12s32s16s")
"""The hex digits of an id as in IDS, then a trace id and a span id."""

NO_TRACE, NO_SPAN = b"0" * 32, b"0" * 16
"""The one value that neither may have."""

TRACE_LINE = b"\r\ntraceparent: 00-%b-%b-%b\r\n\r\n"
"""The end of an upstream request head whose last line so far lacks its CRLF: trace, span and flags."""

TRACE_ID, SPAN_ID, SAMPLED_AT, SAMPLED = slice(18, 50), slice(51, 67), -5, ord("1")
"""In these lines: the ids of the trace and of the span, and where the last digit of the flags is, and which it is of a
trace begun here that is sampled."""

ALL_TRACES = b"g"
"""A bound above all ids."""


class IdGenerator:
    """Makes the ids of one worker. `random` gives that many random bytes; os.urandom unless a test says otherwise."""

    __slots__ = ("_bare", "_bound", "_millisecond", "_prefix", "_random", "_tails")

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random
        self._tails: list[tuple[bytes, bytes, bytes]] = []
        self._bare: list[bytes] = []
        self._millisecond = -1
        self._prefix = b""
        self._bound = ALL_TRACES

    def set_sample(self, share: float) -> None:
        """Set the share of the traces begun here that are sampled: all, unless this was called.

        By the last half of their ids, as OpenTelemetry's TraceIdRatioBased does, so that services that draw by the same
        share draw the same traces.
        """
        bound = ALL_TRACES if share >= 1 else b"%016x" % round(share * (1 << 64))
        if bound != self._bound:
            self._bound = bound
            self._tails = []

    def create_ids(self, unix_seconds: float) -> tuple[bytes, bytes, bytes]:
        """Return (request id, the line of a trace begun here, a span id for a trace that is continued).

        The line is `traceparent: 00-<trace>-<span>-01` (00: not sampled) between two CRLF, and the blank line after it:
        it is the end of an upstream request head whose last line so far lacks its CRLF.
        """
        millisecond = int(unix_seconds * 1000)
        if millisecond != self._millisecond:
            self._begin(millisecond)
        if not self._tails:
            self._draw()
        tail, begun, span = self._tails.pop()
        return self._prefix + tail, begun, span

    def create_request_id(self, unix_seconds: float) -> bytes:
        """Return a request id alone, for a request that goes no further."""
        millisecond = int(unix_seconds * 1000)
        if millisecond != self._millisecond:
            self._begin(millisecond)
        if not self._bare:
            self._bare = [b"%b-9%b-%b" % digits for digits in IDS.iter_unpack(self._digits(IDS))]
        return self._prefix + self._bare.pop()

    def _begin(self, millisecond: int) -> None:
        self._millisecond = millisecond
        digits = b"%012x" % millisecond
        self._prefix = b"%b-%b-7" % (digits[:8], digits[8:])

    def _draw(self) -> None:
        # The variant is written as 9, one of the four digits it may be: 72 random bits are enough beside the time.
        bound, drawn = self._bound, TRACES.iter_unpack(self._digits(TRACES))
        if bound == ALL_TRACES:
            self._tails = [
                (b"%b-9%b-%b" % (a, b, c), b"\r\ntraceparent: 00-%b-%b-01\r\n\r\n" % (trace, span), span)
                for a, b, c, trace, span in drawn
                if span != NO_SPAN and trace != NO_TRACE
            ]
            return
        self._tails = [
            (b"%b-9%b-%b" % (a, b, c), TRACE_LINE % (trace, span, b"01" if trace[16:] < bound else b"00"), span)
            for a, b, c, trace, span in drawn
            if span != NO_SPAN and trace != NO_TRACE
        ]

    def _digits(self, layout: struct.Struct) -> bytes:
        return self._random(IDS_PER_DRAW * layout.size // 2).hex().encode()


def format_continued_trace(trace: TraceParent, span: bytes) -> bytes:
    """Format the closing lines of a head whose caller sent a trace: the same trace and flags, this edge's span."""
    return TRACE_LINE % (trace[0], span, trace[2])
