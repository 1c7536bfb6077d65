"""The heads of ordinary answers, cached by their bytes: their meaning depends on nothing else."""

from edgeproxy.base.lru_cache import BytesCache
from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.http1.response import NOT_PLAIN, PlainResponse, read_plain_response

PLAIN_HEAD_BYTES_MAX = 16 << 10
"""Bytes of a plain head at most. No service has a smaller bound, so each service's own bound only matters for longer
heads.
"""

HEADS_MAX, HEAD_BYTES_MAX = 1024, 4096
"""Bounds of each of the two caches below: heads, and bytes of each."""

PLAIN_RESPONSES: BytesCache[PlainResponse] = BytesCache(HEADS_MAX, HEAD_BYTES_MAX)
"""Cached heads of answers. Their meaning depends only on their bytes."""

UNDATED_RESPONSES: BytesCache[PlainResponse] = BytesCache(HEADS_MAX, HEAD_BYTES_MAX)
"""Cached heads of answers without Date. The time of arrival is still to be added."""


def read_plain_head(block: bytes, date: bytes) -> PlainResponse:
    """Return the meaning of an answer's head if it is plain, else NOT_PLAIN.

    The meaning is cached without the Date line that is added if the head has none: `date`, with its CRLF.
    """
    plain = UNDATED_RESPONSES[block]
    if plain is None:
        if len(block) > PLAIN_HEAD_BYTES_MAX:
            return NOT_PLAIN
        try:
            plain = read_plain_response(block)
        except UpstreamError:
            # The reader of all other heads will raise the error again, to a caller that handles it.
            return NOT_PLAIN
        if plain[5]:
            return PLAIN_RESPONSES.store(block, plain)
        UNDATED_RESPONSES.store(block, plain)
    status, length, keep, rate, flags, _ = plain
    return status, length, keep + date, rate, flags, True
