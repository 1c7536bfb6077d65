"""The heads of ordinary answers, remembered by their bytes: they mean what their bytes say and nothing else."""

from edgeproxy.base.lru_cache import BytesCache
from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.http1.response import NOT_PLAIN, PlainResponse, read_plain_response

PLAIN_HEAD_BYTES_MAX = 16 << 10
"""Bytes of a head that may be plain. No service may send less, so its own bound is looked at where a head is longer."""

HEADS_MAX, HEAD_BYTES_MAX = 1024, 4096
"""Bounds of each of the two memories below: heads, and bytes of each."""

PLAIN_RESPONSES: BytesCache[PlainResponse] = BytesCache(HEADS_MAX, HEAD_BYTES_MAX)
"""Heads of answers seen before, which mean what their bytes say and nothing else."""

UNDATED_RESPONSES: BytesCache[PlainResponse] = BytesCache(HEADS_MAX, HEAD_BYTES_MAX)
"""Heads of answers without Date, to which the time is still to be added at which they came."""


def read_plain_head(block: bytes, date: bytes) -> PlainResponse:
    """Return what the head of an answer means, where it is plain; NOT_PLAIN elsewhere.

    It is remembered, but for the Date line that it gets if it has none: `date`, with its CRLF.
    """
    plain = UNDATED_RESPONSES[block]
    if plain is None:
        if len(block) > PLAIN_HEAD_BYTES_MAX:
            return NOT_PLAIN
        try:
            plain = read_plain_response(block)
        except UpstreamError:
            # The reader that knows every rule will say so again, where there is somebody to hear it.
            return NOT_PLAIN
        if plain[5]:
            return PLAIN_RESPONSES.store(block, plain)
        UNDATED_RESPONSES.store(block, plain)
    status, length, keep, rate, flags, _ = plain
    return status, length, keep + date, rate, flags, True
