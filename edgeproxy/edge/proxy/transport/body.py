"""A request's body on its way in: bytes from the client become bytes for the upstream, with new framing.

Only the beginning of a chunk's first line is held here. The connections handle back-pressure.
"""

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1 import grammar
from edgeproxy.edge.http1.chunked import ChunkedDecoder, encode_chunk, encode_last_chunk
from edgeproxy.edge.http1.fields import FieldKind
from edgeproxy.edge.http1.lines import REQUESTS, NameCache

NO_LIMIT = 1 << 62


class SizedBody:
    """A body of known length (RFC 9112 section 6.2)."""

    __slots__ = ("_left", "done", "rest", "size")

    def __init__(self, length: int) -> None:
        self._left = length
        self.size = 0
        """Bytes of it that have come."""
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return the bytes for the upstream. Once `done`, `rest` has the bytes after the body."""
        if len(data) < self._left:
            self._left -= len(data)
            self.size += len(data)
            return data
        self.done = True
        part, self.rest = data[: self._left], data[self._left :]
        self.size += len(part)
        return part


class ChunkedBody:
    """A chunked body (RFC 9112 section 7.1): decoded, checked, and chunked again."""

    __slots__ = ("_decoder", "_most", "_names", "done", "rest", "size")

    def __init__(
        self, most: int = NO_LIMIT, names: NameCache = REQUESTS.names, limits: grammar.HeadLimits = grammar.LIMITS
    ) -> None:
        """`limits` apply to the trailers. `names` classifies fields by the configuration.

        Only fields that pass unchanged may be trailers, because some servers take trailers for fields of the head.
        """
        self._decoder = ChunkedDecoder(limits=limits)
        self._most, self._names = most, names
        self.size = 0
        """Bytes of it that have come, without their framing."""
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return the bytes for the upstream.

        Raises RejectedError: 400 for an invalid chunked body, 413 beyond the maximum size.
        """
        parts = self._decoder.feed(data)
        self.size += sum(map(len, parts))
        if self.size > self._most:
            raise RejectedError(413, "The body is larger than this edge accepts")
        if not self._decoder.done:
            return encode_chunk(parts)
        self.done = True
        self.rest = self._decoder.rest
        names = self._names
        return encode_chunk(parts) + encode_last_chunk(
            line for line in self._decoder.trailers if names[grammar.parse_field_name(line)] is FieldKind.PASS
        )


class StreamBody:
    """A body over HTTP/2. The stream marks its end, so only its size is tracked."""

    __slots__ = ("done", "rest", "size")

    def __init__(self) -> None:
        self.size = 0
        """Bytes of it that have come."""
        self.done = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return the data unchanged."""
        self.size += len(data)
        return data


RequestBody = SizedBody | ChunkedBody | StreamBody
