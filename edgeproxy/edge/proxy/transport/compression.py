"""Compression of answers on their way to the client. The edge never decompresses an answer that it forwards.

A compressed answer is another representation of the resource (RFC 9110 section 8.8.3.3). So its ETag becomes weak, it
offers no ranges, and Vary tells caches that it depends on Accept-Encoding.
"""

import re
import zlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, Protocol

import zstandard

from edgeproxy.config.edge.compression import STREAMS
from edgeproxy.edge.http1.field_values import find_value, find_values, remove_fields
from edgeproxy.edge.http1.grammar import parse_list

if TYPE_CHECKING:
    from edgeproxy.config.edge.compression import Compress
    from edgeproxy.edge.http1.response import ResponseHead

GZIP_LEVEL: Final = 1
ZSTD_LEVEL: Final = 1
"""The fastest level of each, because the cores of an edge are for requests."""

VARY: Final = b"Vary: Accept-Encoding\r\n"
INVALID_WHEN_CHANGED: Final = (
    *(b"content-length", b"accept-ranges", b"etag"),
    *(b"content-md5", b"digest", b"content-digest", b"repr-digest"),
)
"""The fields that are no longer true once the content of an answer has changed."""

WHOLE: Final = frozenset((200, 201, 202, 203, *range(400, 600)))
"""Statuses whose content is complete: neither a range nor empty."""

QVALUE: Final = re.compile(rb"q=(0(?:\.0{0,3})?|.*)")


class CompressibleRequest(Protocol):
    """The properties of a request that compression reads, see `Exchange`."""

    method: bytes
    minor: int
    keep: bytes


class Compressor:
    """The content of one answer. `flushes`: each fed part must arrive without waiting for later ones."""

    def __init__(self, algorithm: str, flushes: bool) -> None:
        self._flushes = flushes
        if algorithm == "gzip":
            gzip = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
            self._feed: Callable[[bytes], bytes] = gzip.compress
            self._flush: Callable[[], bytes] = lambda: gzip.flush(zlib.Z_SYNC_FLUSH)
            self.end: Callable[[], bytes] = gzip.flush
            """Returns the rest at the end of the content."""
        else:
            zstd = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compressobj()
            self._feed = zstd.compress
            self._flush = lambda: zstd.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
            self.end = zstd.flush

    def feed(self, parts: Iterable[bytes], *, last: bool = False) -> bytes:
        """Compress the next part of the content; `last`: nothing follows."""
        packed = b"".join([self._feed(part) for part in parts])
        if last:
            return packed + self.end()
        return packed + self._flush() if self._flushes else packed


class Compression:
    """The answers that a route compresses."""

    def __init__(self, settings: "Compress") -> None:
        self._algorithms = settings.algorithms
        self._types = frozenset(kind.encode() for kind in settings.types)
        self._least = settings.min_size

    def apply(self, head: "ResponseHead", request: CompressibleRequest) -> Compressor | None:
        """Change the head for a compressed answer, and return the compressor; None if the answer stays as received."""
        if head.status == 304:
            head.keep = weaken_etag(head.keep, request.keep) + VARY
            return None
        if not self.is_compressible(head):
            return None
        head.keep += VARY
        algorithm = next(
            (algorithm for algorithm in self._algorithms if algorithm.encode() in parse_accepted_codings(request.keep)),
            None,
        )
        # HTTP/1.0 has no chunks, and without them a client could not tell a complete answer from a truncated one.
        if algorithm is None or not request.minor:
            return None
        etag = find_value(head.keep, b"etag")
        lines = remove_fields(head.keep, INVALID_WHEN_CHANGED) + f"Content-Encoding: {algorithm}\r\n".encode()
        if etag is not None:
            lines += b"ETag: %b\r\n" % (etag if etag.startswith(b"W/") else b"W/" + etag)
        head.keep = lines
        # An answer of unknown length may be a stream whose client waits for each piece.
        return None if request.method == b"HEAD" else Compressor(algorithm, flushes=head.length < 0)

    def is_compressible(self, head: "ResponseHead") -> bool:
        """Return whether an answer is complete text that is not compressed yet and may be transformed."""
        lines = head.keep
        if head.status not in WHOLE or 0 <= head.length < self._least:
            return False
        kind = (find_value(lines, b"content-type") or b"").partition(b";")[0].strip().lower()
        if kind == STREAMS.encode() or not {kind, kind.partition(b"/")[0] + b"/*"} & self._types:
            return False
        if find_values(lines, b"content-encoding") or find_values(lines, b"content-range"):
            return False
        return b"no-transform" not in parse_list(b",".join(find_values(lines, b"cache-control")))


def parse_accepted_codings(lines: bytes) -> set[bytes]:
    """Return the codings that a request names as acceptable (RFC 9110 section 12.5.3)."""
    codings = set()
    for member in parse_list(b",".join(find_values(lines, b"accept-encoding"))):
        coding, _, parameter = member.partition(b";")
        match = QVALUE.fullmatch(parameter.strip())
        if match is None or match[1].rstrip(b"0.") != b"":
            codings.add(coding.strip())
    return codings


def weaken_etag(lines: bytes, request_lines: bytes) -> bytes:
    """Return the lines of a 304 with a weak ETag if the request's ETag is weak: the client has the compressed
    answer.
    """
    etag = find_value(lines, b"etag")
    known = b",".join(find_values(request_lines, b"if-none-match"))
    if etag is None or etag.startswith(b"W/") or b"W/" + etag not in known:
        return lines
    return remove_fields(lines, (b"etag",)) + b"ETag: W/%b\r\n" % etag
