"""The chunked transfer coding, RFC 9112 section 7.1: a decoder for any split of the bytes, and the encoder.

In all states but DATA the decoder waits for a line. The table STATES names the method that acts on the line.
"""

import re
from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Final, Protocol

from edgeproxy.edge.errors import EdgeError, RejectedError, UpstreamError
from edgeproxy.edge.http1 import grammar
from edgeproxy.edge.http1.fields import NOT_IN_TRAILERS

CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
"""chunk-size [chunk-ext]. Spaces and tabs behind the size are dropped: section 7.1.1 has them before an extension, and
some servers pad every size with them. HAProxy, nginx and Envoy read them like this, too. Every server reads such a size
as the number without its padding, and the edge writes the size anew.
"""

CRLF: Final = b"\r\n"

PLAIN_CHUNK_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
"""The line of a chunk without extensions."""

CHUNK_LINE_BYTES_MAX: Final = 4096
"""Bytes of a chunk's line with its CRLF."""

LINE_BYTES_FREE: Final = 16
"""Bytes that the line of any chunk may have, whatever the chunk holds."""

EXCESS_BYTES_MAX: Final = 16 << 10
"""Bytes of extensions that a body may have beyond twice its payload."""


class DecoderState(Enum):
    """The states of the decoder, each named for the bytes that it waits for."""

    SIZE = auto()
    """A line that says how long the chunk is."""
    DATA = auto()
    """The rest of a chunk's payload."""
    DATA_END = auto()
    """The empty line behind it."""
    TRAILER = auto()
    """A trailer field's line, or the empty line that ends the message."""
    DONE = auto()


SIZE, DATA, DATA_END, TRAILER, DONE = DecoderState


class ChunkedFault(Enum):
    """The kinds of faults in a chunked body."""

    MALFORMED = auto()
    """The body breaks RFC 9112 section 7.1."""
    FRAMING = auto()
    """A chunk's line, or the chunk extensions, are longer than the edge reads."""
    TRAILERS = auto()
    """The trailer section is larger than the edge reads."""


def create_request_error(detail: str, fault: ChunkedFault = ChunkedFault.MALFORMED) -> EdgeError:
    """Return the error of a client's body.

    Trailers beyond a bound get the status of a head beyond it (RFC 6585 section 5).
    """
    if fault is ChunkedFault.TRAILERS:
        return RejectedError(431, f"The request's {detail}")
    if fault is ChunkedFault.FRAMING:
        return RejectedError(400, f"The edge reads no such chunked body: {detail}")
    return RejectedError(400, f"The chunked body is malformed: {detail}")


def create_response_error(detail: str, fault: ChunkedFault = ChunkedFault.MALFORMED) -> EdgeError:
    """Return the error of an upstream's body. The upstream is not to blame for a bound of the edge."""
    if fault is ChunkedFault.TRAILERS:
        return UpstreamError("http_response_trailer_section_size", f"The answer's {detail}", is_local=True)
    if fault is ChunkedFault.FRAMING:
        return UpstreamError("http_response_transfer_coding", f"The edge reads no such body: {detail}", is_local=True)
    return UpstreamError("http_protocol_error", f"The upstream's chunked body is malformed: {detail}")


class CreateError(Protocol):
    """Creates the error of a body."""

    def __call__(self, detail: str, fault: ChunkedFault = ChunkedFault.MALFORMED) -> EdgeError:
        """Return the error."""


CHUNK_TOO_LONG: Final = "a chunk is longer than it says"
TRAILERS_TOO_LARGE: Final = "trailer section is too large"


class ChunkedDecoder:
    """Decodes one body. `malformed` makes the error that `feed` raises; after that, no more may be fed."""

    __slots__ = (
        "_excess",
        "_left",
        "_line",
        "_malformed",
        "_state",
        "_trailer_bytes_left",
        "_trailers_left",
        "rest",
        "trailers",
    )

    def __init__(
        self, malformed: CreateError = create_request_error, limits: grammar.HeadLimits = grammar.LIMITS
    ) -> None:
        self._malformed = malformed
        self._state = SIZE
        self._left = 0  # bytes of payload still to come in this chunk
        self._excess = 0  # bytes of extensions beyond the payload's allowance
        self._line = bytearray()  # the beginning of a line whose end has not come
        self._trailer_bytes_left = limits.head + len(CRLF)  # bytes that the trailer lines may still have
        self._trailers_left = limits.fields  # and field lines
        self.trailers: list[bytes] = []
        """The trailer lines that may be passed on, without CRLF."""
        self.rest = b""
        """The bytes behind the body: the next message."""

    @property
    def done(self) -> bool:
        """True if the body and its trailer section are complete."""
        return self._state is DONE

    def feed(self, data: bytes) -> list[bytes]:
        """Return the pieces of payload in `data`, which may begin and end anywhere.

        Raises the error that `malformed` makes.
        """
        pieces: list[bytes] = []
        position, end = 0, len(data)
        while position < end:
            state = self._state
            if state is DATA:
                piece = data[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = DATA_END
            elif state is DONE:
                self.rest += data[position:]
                break
            elif state is SIZE and not self._line:
                position = self._decode_whole_chunk(data, position, pieces)
            else:
                position = self._read_line(data, position)
        return pieces

    def _decode_whole_chunk(self, data: bytes, position: int, pieces: list[bytes]) -> int:
        """Decode a chunk that is all there, the short way; anything else is decoded line by line."""
        match = PLAIN_CHUNK_LINE.match(data, position)
        if match is not None:
            start = match.end()
            stop = start + int(match[1], 16)
            if stop > start and data[stop : stop + 2] == b"\r\n":
                pieces.append(data[start:stop])
                return stop + 2
        return self._read_line(data, position)

    def _read_line(self, data: bytes, position: int) -> int:
        """Take the bytes that belong to the present line; act on it once it is whole. Returns where `data` goes on."""
        newline = data.find(b"\n", position)
        stop = newline + 1 if newline >= 0 else len(data)
        line = self._line
        if self._state is TRAILER:
            # The empty line behind the section is not part of it, as with a head.
            if len(line) + stop - position > max(self._trailer_bytes_left, len(CRLF)):
                raise self._malformed(TRAILERS_TOO_LARGE, ChunkedFault.TRAILERS)
        elif len(line) + stop - position > LINE_BYTES_MAX[self._state]:
            if self._state is DATA_END:
                raise self._malformed(CHUNK_TOO_LONG)
            raise self._malformed("a chunk's line is too long", ChunkedFault.FRAMING)
        line += data[position:stop]
        if newline >= 0:
            # A reader that does not take a bare LF for the end of a line would find another end of the body (RFC 9112
            # section 11.2).
            if line[-2:] != b"\r\n":
                raise self._malformed("a line ends with a bare LF")
            whole = bytes(line[:-2])
            line.clear()
            STATES[self._state](self, whole)
        # Only a CR may come first. So a chunk that is too long is refused before the rest of the line comes.
        elif self._state is DATA_END and line != b"\r":
            raise self._malformed(CHUNK_TOO_LONG)
        return stop

    def _read_size(self, line: bytes) -> None:
        match = CHUNK_LINE.fullmatch(line)
        if match is None:
            raise self._malformed("a chunk size is not one")
        self._left = int(match[1], 16)
        # Section 7.1.1: the total of extensions is limited, in proportion to the payload that they describe.
        self._excess = max(0, self._excess + len(line) - LINE_BYTES_FREE - 2 * self._left)
        if self._excess > EXCESS_BYTES_MAX:
            raise self._malformed("its chunk extensions are longer than what they are about", ChunkedFault.FRAMING)
        self._state = DATA if self._left else TRAILER

    def _read_data_end(self, line: bytes) -> None:
        # A line of two bytes that ends with CRLF is empty.
        self._state = SIZE

    def _read_trailer(self, line: bytes) -> None:
        if not line:
            self._state = DONE
            return
        split = grammar.parse_field_line(line)
        if split is None:
            raise self._malformed("a trailer field line is malformed")
        self._trailer_bytes_left -= len(line) + 2
        self._trailers_left -= 1
        if self._trailers_left < 0:
            raise self._malformed(TRAILERS_TOO_LARGE, ChunkedFault.TRAILERS)
        # Some servers take `_` and `-` in names for equal.
        if split[0].replace(b"_", b"-") not in NOT_IN_TRAILERS:
            self.trailers.append(line)


STATES: Final[dict[DecoderState, Callable[[ChunkedDecoder, bytes], None]]] = {
    SIZE: ChunkedDecoder._read_size,  # -> DATA, or TRAILER after the size 0
    DATA_END: ChunkedDecoder._read_data_end,  # -> SIZE
    TRAILER: ChunkedDecoder._read_trailer,  # -> TRAILER, or DONE after the empty line
}
"""The method that acts on a whole line, by the state that waits for one. DATA goes to DATA_END by itself, DONE
nowhere.
"""

LINE_BYTES_MAX: Final = {SIZE: CHUNK_LINE_BYTES_MAX, DATA_END: 2}
"""Bytes of a line in each state, with its CRLF; a trailer section is bounded as a whole."""


def encode_chunk(parts: Iterable[bytes]) -> bytes:
    """Encode these pieces of payload as one chunk; return no bytes if the pieces are empty, as an empty chunk would end
    the body.
    """
    payload = b"".join(parts)
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


def decode_chunk(framed: bytes) -> bytes:
    """Return the payload of a chunk that `encode_chunk` has made, whatever follows it."""
    size, _, payload = framed.partition(b"\r\n")
    return payload[: int(size, 16)] if size else b""


def encode_last_chunk(trailers: Iterable[bytes] = ()) -> bytes:
    """Encode the end of a chunked body, with these trailer lines (each without CRLF)."""
    return b"".join([b"0\r\n", *(line + b"\r\n" for line in trailers), b"\r\n"])
