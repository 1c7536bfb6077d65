"""Translate requests of HTTP/1.1 to HTTP/2, or give the reason why HTTP/2 has no form of them (RFC 9113 section 8).

The translation accepts any value, even one with a line break, because a client can put any bytes into a frame.
"""

import re
from dataclasses import dataclass
from typing import Final

from tests.contract.case import Asked

SHAPE: Final = "the shape of a request line, its version or empty lines before it: HTTP/2 has pseudo-header fields"
ENDLESS: Final = "a head without an end: a field block says how long it is"
NO_FIELD: Final = "a line without a colon, or one that is folded: HTTP/2 has names and values"
CHUNKS: Final = "chunks that are malformed: DATA frames say how long they are"
INCOMPLETE: Final = "fewer bytes than Content-Length, and no end: a stream is open until END_STREAM"
ABSOLUTE: Final = "absolute-form, which is :scheme, :authority and :path"

NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
VALUE: Final = re.compile(rb"(?![ \t])[\t\x20-\x7e\x80-\xff]*(?<![ \t])")
METHOD: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
PATH: Final = re.compile(rb"/[\x21-\x7e\x80-\xff]*|\*")
AUTHORITY: Final = re.compile(rb"[\x21-\x7e]+")
OF_USERS: Final = re.compile(rb"[@,/?\\]")
"""Bytes that an authority cannot contain, or that some parsers take as its end."""
SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\x20-\x7e]*)?\r\n")

OF_CONNECTIONS: Final = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))

Lines = tuple[tuple[bytes, bytes], ...]


class UnsayableError(Exception):
    """HTTP/2 has no form of this; the argument is the reason."""


@dataclass(frozen=True)
class Http2Request:
    """A request of HTTP/2. `block` returns its pseudo-header fields and its `fields`."""

    method: bytes
    path: bytes
    authority: bytes | None
    fields: Lines
    body: bytes | None = None
    """None if HEADERS ends the stream."""
    trailers: Lines = ()

    @property
    def block(self) -> list[tuple[bytes, bytes]]:
        """All fields, the pseudo-header fields first."""
        pseudo = [(b":method", self.method), (b":scheme", b"http"), (b":path", self.path)]
        if self.authority is not None:
            pseudo.append((b":authority", self.authority))
        return [*pseudo, *self.fields]

    def is_malformed(self) -> bool:
        """Return whether RFC 9113 sections 8.1.1 to 8.3.1 require its refusal, whatever HTTP/1.1 allows."""
        names = [name for name, _ in self.fields + self.trailers]
        lengths = [value for name, value in self.fields if name == b"content-length"]
        hosts = [value for name, value in self.fields if name == b"host"]
        return (
            self.method == b"CONNECT"
            or not METHOD.fullmatch(self.method)
            or not PATH.fullmatch(self.path)
            or (self.path == b"*" and self.method != b"OPTIONS")
            or (self.authority is not None and not is_authority(self.authority))
            or len(hosts) > 1
            or not all(NAME.fullmatch(name) and VALUE.fullmatch(value) for name, value in self.fields + self.trailers)
            or not OF_CONNECTIONS.isdisjoint(names)
            or any(name == b"te" and value.lower() != b"trailers" for name, value in self.fields + self.trailers)
            or len(lengths) > 1
            or any(not value.isdigit() or int(value) != len(self.body or b"") for value in lengths)
        )


def is_authority(value: bytes) -> bool:
    """Return whether all parsers read the value as one authority (section 8.3.1)."""
    return AUTHORITY.fullmatch(value) is not None and OF_USERS.search(value) is None


def translate(case: Asked) -> list[Http2Request]:
    """Return the requests of a row that HTTP/1.1 answers, each for a stream. Raises UnsayableError."""
    requests: list[Http2Request] = []
    data = case.sent
    while data and len(requests) < len(case.answers):
        request, data = _translate_first(data)
        if request.path[:4].lower() == b"http" and case.answers[len(requests)] < 400:
            raise UnsayableError(ABSOLUTE)
        requests.append(request)
    if case.cut and not requests[-1].trailers:
        raise UnsayableError(CHUNKS)
    return requests


def _translate_first(data: bytes) -> tuple[Http2Request, bytes]:
    head, blank, rest = data.partition(b"\r\n\r\n")
    if not blank:
        raise UnsayableError(ENDLESS)
    first, *lines = head.split(b"\r\n")
    parts = first.split(b" ")
    if len(parts) != 3 or parts[2] != b"HTTP/1.1" or not parts[0]:
        raise UnsayableError(SHAPE)
    if any(b":" not in line or line[:1] in (b" ", b"\t") for line in lines):
        raise UnsayableError(NO_FIELD)
    fields = [(name.lower(), value.strip(b" \t")) for name, _, value in (line.partition(b":") for line in lines)]
    hosts = [value for name, value in fields if name == b"host"]
    authority = hosts[0] if len(hosts) == 1 else None
    if authority is not None:
        fields = [field for field in fields if field[0] != b"host"]
    codings = [value.lower() for name, value in fields if name == b"transfer-encoding"]
    lengths = [value for name, value in fields if name == b"content-length"]
    body: bytes | None = None
    trailers: Lines = ()
    if codings == [b"chunked"] and not lengths:
        fields = [field for field in fields if field[0] != b"transfer-encoding"]
        body, trailers, rest = _decode(rest)
    elif not codings and len(lengths) == 1 and lengths[0].isdigit():
        length = int(lengths[0])
        if len(rest) < length:
            raise UnsayableError(INCOMPLETE)
        body, rest = rest[:length] or None, rest[length:]
    elif codings or lengths:
        body, rest = rest, b""
    return Http2Request(parts[0], parts[1], authority, tuple(fields), body, trailers), rest


def _decode(data: bytes) -> tuple[bytes, Lines, bytes]:
    """Return the data of the chunks, the trailers, and the bytes after them."""
    body = b""
    while (size := SIZE.match(data)) is not None:
        length, data = int(size[1], 16), data[size.end() :]
        if not length:
            break
        body, end, data = body + data[:length], data[length : length + 2], data[length + 2 :]
        if end != b"\r\n":
            raise UnsayableError(CHUNKS)
    else:
        raise UnsayableError(CHUNKS)
    trailers = []
    while (line := data.partition(b"\r\n"))[1] and line[0]:
        name, colon, value = line[0].partition(b":")
        if not colon or name != name.strip() or b"\n" in line[0]:
            raise UnsayableError(CHUNKS)
        trailers.append((name.lower(), value.strip(b" \t")))
        data = line[2]
    if not data.startswith(b"\r\n"):
        raise UnsayableError(CHUNKS)
    return body, tuple(trailers), data[2:]
