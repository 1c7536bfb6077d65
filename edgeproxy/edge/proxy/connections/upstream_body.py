"""The body of an upstream's answer beside its relay: its framing, and the usage that it states.

If usage is read, the answer is read to its end even after its client has left, within a bound of time and bytes: the
client requested the generated content.
"""

from time import monotonic
from typing import TYPE_CHECKING

from edgeproxy.edge.errors import UpstreamError
from edgeproxy.edge.http1.chunked import ChunkedDecoder, create_response_error
from edgeproxy.edge.http1.grammar import create_answer_limits
from edgeproxy.edge.proxy.connections.upstream_transport import UpstreamTransport
from edgeproxy.edge.proxy.exchange.forwarding import Forwarding
from edgeproxy.edge.proxy.metering.answer_usage import ABSENT, BodyUsage, ReadBytes, ReadChunks

if TYPE_CHECKING:
    from edgeproxy.edge.http1.response import ResponseHead
    from edgeproxy.edge.proxy.exchange.runtime import Runtime
    from edgeproxy.edge.proxy.exchange.sides import BodyFilter
    from edgeproxy.edge.proxy.upstreams.pool import Endpoint

# The kinds of bytes from an upstream. An ordinary answer never leaves zero.
WAITING, SIZED, CHUNKED, UNTIL_CLOSE, TUNNEL, FILTERED, READ_UNTIL_CLOSE = range(7)
UNTIL_CLOSES = (UNTIL_CLOSE, READ_UNTIL_CLOSE)
"""The kinds of a body that ends with its connection. The second one's usage is read."""


class UpstreamBody(UpstreamTransport):
    """The stream of bytes, by kind."""

    __slots__ = ("_decoder", "_left", "_rechunk", "_state", "body_filter", "usage")

    _decoder: ChunkedDecoder | ReadBytes
    """Extracts the body from the bytes of CHUNKED."""

    def __init__(self, runtime: "Runtime", endpoint: "Endpoint") -> None:
        super().__init__(runtime, endpoint)
        self._state = WAITING
        self.usage: BodyUsage | None = None
        """The usage that the current body states, if it is read."""
        self._rechunk = False
        """True if the client gets the current answer in chunks."""
        self.body_filter: BodyFilter | None = None
        """The filter for the content of the current answer; None if the content passes unchanged."""

    @property
    def rechunks(self) -> bool:
        """True if the client gets the current answer in chunks, each written whole."""
        return self._rechunk and self._state in (CHUNKED, *UNTIL_CLOSES, FILTERED)

    def frame_body(self, exchange: Forwarding, head: "ResponseHead") -> None:
        """Set the framing of a body from its answer's head (RFC 9112 section 6.3), and read its usage if that
        counts.
        """
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
        """Return the part of `data` that belongs to the answer, which ends where its head says (RFC 9112 section
        6.3).
        """
        self.record_surplus(len(data) - self._left)
        return data[: self._left]

    def read_on(self) -> bool:
        """Read the current answer to its end for its usage, because its client has left.

        Return False if there is none.
        """
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
        """Read a piece of an answer whose client has left."""
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
        """Count the usage that the body stated until its end or the loss of its connection, if it is read."""
        usage, self.usage = self.usage, None
        if usage is None:
            return
        self.runtime.connections.readers.discard(self)
        is_whole = self._state == READ_UNTIL_CLOSE and self.half_closed
        usage.finish(ABSENT if is_whole else usage.cut_reason)


def create_head_too_long_error() -> UpstreamError:
    """Return the error of an answer whose head exceeds the bound."""
    detail = "The answer has a longer head than this edge reads of its upstream"
    return UpstreamError("http_response_header_section_size", detail, is_local=True)
