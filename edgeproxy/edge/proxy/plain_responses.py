"""The heads of ordinary answers, remembered by their bytes: they mean what their bytes say and nothing else."""

from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.http1.response import NOT_PLAIN, PlainResponse, read_plain_response
from edgeproxy.edge.proxy.bounded_cache import store_bytes

PLAIN_HEAD_BYTES_MAX = 16 << 10
"""Bytes of a head that may be plain. No service may send less, so its own bound is looked at where a head is longer."""

PLAIN_RESPONSES: dict[bytes, PlainResponse] = {}
"""Heads of answers seen before, which mean what their bytes say and nothing else."""

UNDATED_RESPONSES: dict[bytes, PlainResponse] = {}
"""Heads of answers without Date, to which the time is still to be added at which they came."""


def read_plain_head(block: bytes, date: bytes) -> PlainResponse:
    """Return what the head of an answer means, where it is plain; NOT_PLAIN elsewhere.

    It is remembered, but for the Date line that it gets if it has none: `date`, with its CRLF.
    """
    plain = UNDATED_RESPONSES.get(block)
    if plain is None:
        if len(block) > PLAIN_HEAD_BYTES_MAX:
            return NOT_PLAIN
        try:
            plain = read_plain_response(block)
        except UpstreamError:
            # The reader that knows every rule will say so again, where there is somebody to hear it.
            return NOT_PLAIN
        if plain[5]:
            return store_bytes(PLAIN_RESPONSES, block, plain)
        store_bytes(UNDATED_RESPONSES, block, plain)
    status, length, keep, rate, flags, _ = plain
    return status, length, keep + date, rate, flags, True
