"""The body of an upstream's answer beside its relay: how it ends, and the usage that it states.

An answer of which usage is read is read to its end when its client has left, within a bound of time and bytes: what was
generated was asked for.
"""

from time import monotonic
from typing import TYPE_CHECKING

from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.http1.chunked import ChunkedDecoder, create_response_error
from edgeproxy.edge.http1.grammar import create_answer_limits
from edgeproxy.edge.proxy.answer_usage import ABSENT, BodyUsage, ReadBytes, ReadChunks
from edgeproxy.edge.proxy.forwarding import Forwarding
from edgeproxy.edge.proxy.upstream_transport import UpstreamTransport

if TYPE_CHECKING:
    from edgeproxy.edge.http1.response import ResponseHead
    from edgeproxy.edge.proxy.exchange_sides import BodyFilter
    from edgeproxy.edge.proxy.pool import Endpoint
    from edgeproxy.edge.proxy.runtime import Runtime

# What the bytes from an upstream are. Zero is where an ordinary answer never leaves.
WAITING, SIZED, CHUNKED, UNTIL_CLOSE, TUNNEL, FILTERED, READ_UNTIL_CLOSE = range(7)
UNTIL_CLOSES = (UNTIL_CLOSE, READ_UNTIL_CLOSE)
"""Those of a body that ends with its connection; of the second one usage is read."""


class UpstreamBody(UpstreamTransport):
    """The stream of bytes, by what they are."""

    __slots__ = ("_decoder", "_left", "_rechunk", "_state", "body_filter", "usage")

    _decoder: ChunkedDecoder | ReadBytes
    """What takes the body out of the bytes of CHUNKED."""

    def __init__(self, runtime: "Runtime", endpoint: "Endpoint") -> None:
        super().__init__(runtime, endpoint)
        self._state = WAITING
        self.usage: BodyUsage | None = None
        """The usage that the body under way states, if it is read."""
        self._rechunk = False
        """Whether the client gets the answer under way in chunks."""
        self.body_filter: BodyFilter | None = None
        """What the content of the answer under way passes through, if it does not pass as it is."""

    @property
    def rechunks(self) -> bool:
        """Whether an answer is under way that the client gets in chunks, each written whole."""
        return self._rechunk and self._state in (CHUNKED, *UNTIL_CLOSES, FILTERED)

    def frame_body(self, exchange: Forwarding, head: "ResponseHead") -> None:
        """Take from an answer's head how its body ends (RFC 9112 section 6.3), and read what usage it states if that
        counts."""
        assert exchange.binding is not None
        if exchange.binding.body_metering is not None and (head.chunked or head.length):
            self.usage = exchange.binding.body_metering.open(exchange, head.status, head.keep)
        if head.chunked:
            self._state = CHUNKED
            limits = create_answer_limits(self.endpoint.service.max_head_bytes)
            self._decoder = (
                ChunkedDecoder(create_response_error, limits) if self.usage is None else ReadChunks(self.usage, limits)
            )
        elif head.length < 0:
            self._state, self.reusable = UNTIL_CLOSE if self.usage is None else READ_UNTIL_CLOSE, False
        elif self.usage is not None:
            # It passes as if it came in chunks, and is not changed.
            self._state, self._decoder = CHUNKED, ReadBytes(self.usage, head.length)
        else:
            self._state, self._left = SIZED if self.body_filter is None or not head.length else FILTERED, head.length

    def cut_surplus(self, data: bytes) -> bytes:
        """Return what of `data` belongs to the answer, which ends where its head says (RFC 9112 section 6.3)."""
        self.record_surplus(len(data) - self._left)
        return data[: self._left]

    def read_on(self) -> bool:
        """Read the answer under way to its end for the usage that it states: its client has left. Returns False where
        nothing is to be read."""
        usage = self.usage
        if usage is None:
            return False
        usage.begin_rest()
        if not usage.read_on_seconds or not self.runtime.connections.add_reader(self):
            return False
        self.exchange, self.deadline = None, monotonic() + usage.read_on_seconds
        self.resume_reading()
        return True

    def read_rest(self, usage: BodyUsage, data: bytes) -> None:
        """Read a piece of an answer that nobody waits for any more."""
        try:
            is_over = not usage.take_rest(data)
            if self._state == READ_UNTIL_CLOSE:
                usage.feed(data)
            else:
                self._decoder.feed(data)
                is_over = is_over or self._decoder.done
        except UpstreamError:
            is_over = True
        if is_over:
            self.abort()

    def end_usage(self) -> None:
        """Count what the body has stated by its end, or until its connection was lost, if it is read."""
        usage, self.usage = self.usage, None
        if usage is None:
            return
        self.runtime.connections.readers.discard(self)
        is_whole = self._state == READ_UNTIL_CLOSE and self.half_closed
        usage.finish(ABSENT if is_whole else usage.cut_reason)


def create_head_too_long_error() -> UpstreamError:
    """Return the error of an answer whose head is longer than any that is read."""
    detail = "The answer has a longer head than this edge reads of its upstream"
    return UpstreamError("http_response_header_section_size", detail, is_local=True)
