"""A strict reader of HTTP/1.1 messages (RFC 9112). It shares no code with the edge.

A reading gives the message, its end, and its state: whole, partial or invalid. A message is invalid if a careful reader
would reject it. The edge may accept less than this reader, and never more.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

CRLF = b"\r\n"
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/1\.([01])")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
NUMBER = re.compile(rb"[0-9]{1,18}")
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class State(Enum):
    """The state of a message that is read from a stream."""

    WHOLE = "whole"
    PARTIAL = "partial"
    """The message is valid so far, but its end has not arrived."""
    INVALID = "invalid"


class Framing(Enum):
    """The rule that gives the end of a body."""

    NONE = "none"
    SIZED = "sized"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until close"


class Malformed(ValueError):
    """The bytes are not a message. The text says why."""


class Unfinished(Exception):
    """The bytes end before the message does."""


@dataclass(slots=True)
class Message:
    """A request or an answer in a stream."""

    at: int
    """The offset of its first byte."""
    end: int = 0
    """The offset of its end, or the end of the bytes if the message is not whole."""
    state: State = State.PARTIAL
    why: str = ""
    headed: bool = False
    """True if the head is whole and valid."""
    body_at: int = 0
    """The offset of the end of the head. It is set only if `headed`."""
    method: bytes = b""
    target: bytes = b""
    status: int = 0
    minor: int = 1
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    """Names in lower case, and values without surrounding whitespace."""
    framing: Framing = Framing.NONE
    length: int = 0
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return self.state is State.WHOLE

    def all(self, name: bytes) -> list[bytes]:
        """Return the values of all fields of this name (lower case), in order."""
        return [value for each, value in self.fields if each == name]

    def members(self, name: bytes) -> set[bytes]:
        """Return the members of all lists of this name, in lower case."""
        parts = (part.strip(b" \t") for value in self.all(name) for part in value.lower().split(b","))
        return {part for part in parts if part}

    @property
    def closes(self) -> bool:
        """Return whether the connection ends after this message (RFC 9112 section 9.3)."""
        options = self.members(b"connection")
        return b"close" in options or (self.minor == 0 and b"keep-alive" not in options)

    @property
    def offers(self) -> set[bytes]:
        """Return the protocols that a request asks for (RFC 9110 section 7.8)."""
        may_offer = self.minor == 1 and self.framing is not Framing.CHUNKED and not self.length
        return self.members(b"upgrade") if may_offer and b"upgrade" in self.members(b"connection") else set()

    @property
    def upgrades(self) -> bool:
        """Return whether a request asks for a WebSocket (RFC 6455 section 4.1)."""
        return b"websocket" in self.offers


def read_request(data: bytes, at: int = 0) -> Message | None:
    """Return the request that begins at `at`, or None if there are no bytes."""
    while data.startswith(CRLF, at):
        at += 2
    if at >= len(data):
        return None
    message = Message(at)
    return _read(message, data, _read_request)


def read_requests(data: bytes, at: int = 0) -> Iterator[Message]:
    """Yield the requests of a stream, up to the first one that is not whole."""
    while (message := read_request(data, at)) is not None:
        yield message
        if not message.whole:
            return
        at = message.end


def read_answer(data: bytes, at: int, method: bytes, *, ended: bool, sloppy: bool = False) -> Message | None:
    """Return the interim or final answer that begins at `at`, or None if there are no bytes.

    `ended`: the stream was closed in order after `data`. `sloppy` allows whitespace before a colon; a proxy removes it
    from upstream answers (RFC 9112 section 5.1).
    """
    if at >= len(data):
        return None
    message = Message(at, method=method)
    return _read(message, data, lambda read, bytes_: _read_answer(read, bytes_, ended, sloppy))


def read_final(
    data: bytes, at: int, method: bytes, *, ended: bool, sloppy: bool = False
) -> tuple[list[Message], Message | None]:
    """Return the interim answers that begin at `at`, and the answer after them. A 101 is final."""
    interims: list[Message] = []
    while (answer := read_answer(data, at, method, ended=ended, sloppy=sloppy)) is not None:
        if not answer.whole or answer.status >= 200 or answer.status == 101:
            return interims, answer
        interims.append(answer)
        at = answer.end
    return interims, None


def may_be_whole(message: Message, data: bytearray, before: int) -> bool:
    """Return whether a message that was partial in the first `before` bytes of `data` may be whole now.

    This check is fast and may be True too early.
    """
    if message.headed and message.framing is Framing.SIZED:
        return len(data) >= message.body_at + message.length
    return data.find(b"\r\n\r\n", max(message.at, before - 3)) >= 0


def _read(message: Message, data: bytes, read: Callable[[Message, bytes], int]) -> Message:
    try:
        message.end = read(message, data)
        message.state = State.WHOLE
    except Malformed as malformed:
        message.state, message.why, message.end = State.INVALID, str(malformed), len(data)
    except Unfinished:
        message.end = len(data)
    return message


def _read_request(message: Message, data: bytes) -> int:
    first, lines, message.body_at = _head(data, message.at)
    match = REQUEST_LINE.fullmatch(first)
    if match is None:
        raise Malformed("request line")
    message.method, message.target, message.minor = match[1], match[2], int(match[3])
    message.fields = [_field(line, sloppy=False) for line in lines]
    hosts = message.all(b"host")
    if len(hosts) > 1 or (not hosts and message.minor):
        raise Malformed("Host")
    message.framing, message.length = _framing(message, absent=Framing.NONE)
    message.headed = True
    return _body(message, data, ended=False)


def _read_answer(message: Message, data: bytes, ended: bool, sloppy: bool) -> int:
    first, lines, message.body_at = _head(data, message.at)
    match = STATUS_LINE.fullmatch(first)
    if match is None:
        raise Malformed("status line")
    message.minor, message.status = int(match[1]), int(match[2])
    message.fields = [_field(line, sloppy) for line in lines]
    message.framing, message.length = _framing(message, absent=Framing.UNTIL_CLOSE)
    if message.method == b"HEAD" or message.status < 200 or message.status in (204, 304):
        message.framing = Framing.NONE  # RFC 9112 section 6.3
    message.headed = True
    return _body(message, data, ended)


def _head(data: bytes, at: int) -> tuple[bytes, list[bytes], int]:
    end = data.find(b"\r\n\r\n", at)
    if end < 0:
        raise Unfinished
    first, *lines = data[at:end].split(CRLF)
    return first, lines, end + 4


def _field(line: bytes, sloppy: bool) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if sloppy:
        name = name.rstrip(b" \t")
    if not colon or not TOKEN.fullmatch(name) or not VALUE.fullmatch(value):
        raise Malformed("field line")
    return name.lower(), value.strip(b" \t")


def _framing(message: Message, absent: Framing) -> tuple[Framing, int]:
    lengths, codings = message.all(b"content-length"), message.all(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Malformed("more than one framing")
    if codings:
        if codings[0].lower() != b"chunked" or message.minor == 0:
            raise Malformed("transfer coding")
        return Framing.CHUNKED, 0
    if lengths:
        if not NUMBER.fullmatch(lengths[0]):
            raise Malformed("Content-Length")
        return Framing.SIZED, int(lengths[0])
    return absent, 0


def _body(message: Message, data: bytes, ended: bool) -> int:
    """Read the body and return the offset of the message's end."""
    at = message.body_at
    if message.framing is Framing.NONE:
        return at
    if message.framing is Framing.CHUNKED:
        return _chunks(message, data, at)
    end = at + message.length if message.framing is Framing.SIZED else len(data)
    message.body = data[at:end]
    if len(data) < end or (message.framing is Framing.UNTIL_CLOSE and not ended):
        raise Unfinished
    return end


def _chunks(message: Message, data: bytes, at: int) -> int:
    """Read a chunked body and its trailers (RFC 9112 section 7.1)."""
    pieces: list[bytes] = []
    try:
        while True:
            line, at = _line(data, at)
            match = CHUNK.fullmatch(line)
            if match is None:
                raise Malformed("chunk size")
            size = int(match[1], 16)
            if not size:
                break
            pieces.append(data[at : at + size])
            at += size
            end = data[at : at + 2]
            if not CRLF.startswith(end):
                raise Malformed("chunk end")
            if len(end) < 2:
                raise Unfinished
            at += 2
    finally:
        message.body = b"".join(pieces)
    while True:
        line, at = _line(data, at)
        if not line:
            return at
        message.trailers.append(_field(line, sloppy=False))


def _line(data: bytes, at: int) -> tuple[bytes, int]:
    end = data.find(b"\n", at)
    if end < 0:
        raise Unfinished
    if data[end - 1 : end] != b"\r" or end == at:
        raise Malformed("bare LF")
    return data[at : end - 1], end + 1
