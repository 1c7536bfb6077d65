"""The meaning of single field lines, and the memory of lines read before.

The meaning of a line is a pure function of its bytes; for a request's line, also of the rules of its configuration. So
a line seen before costs one look-up. The memories hold cookies and API keys, also invalid ones: they are bounded, and
`RequestLines.clear` and `clear_response_caches` empty them.
"""

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from edgeproxy.base.lru_cache import BytesCache
from edgeproxy.edge.errors import RejectedError, UpstreamError
from edgeproxy.edge.http1 import grammar
from edgeproxy.edge.http1.fields import UNCACHED, FieldKind, FieldRules, classify_response_field
from edgeproxy.edge.http1.grammar import OWS, VALUE_TABLE
from edgeproxy.edge.http1.security_fields import NAMES_PLACES, parse_flags

LINES_MAX: Final = 4096
NAMES_MAX: Final = 1024
LINE_BYTES_MAX: Final = 256
"""Bounds of a memory: lines, names, and bytes of each; longer ones are read each time."""

VIA_LINE: Final = b"Via: 1.1 edgeproxy\r\n"
"""The end of a plain head's kept lines."""


class Field:
    """The meaning of one field line.

    Each attribute of the last group is set only for the kinds that its remark names.
    """

    __slots__ = ("dropped", "flags", "host", "kind", "length", "line", "tail", "trace", "value")

    kind: FieldKind
    line: bytes
    """The line to forward, without its CRLF."""
    value: bytes
    dropped: bool
    """Not forwarded, and without further meaning, unless the peer is trusted or the head is odd."""

    host: bytes
    """HOST: the name that routing looks at."""
    tail: bytes
    """HOST: the last of the kept lines of a plain head. BEARER, API_KEY, RATE: the line with its CRLF."""
    length: int
    """LENGTH: the number."""
    trace: grammar.TraceParent | None
    """TRACEPARENT: its parts; None if the value is invalid."""
    flags: int
    """SECURITY, PLACE: the flags of security_fields.py that this line gives its answer."""

    def __init__(self, kind: FieldKind, line: bytes = b"", value: bytes = b"", gone: bool = False) -> None:
        self.kind = kind
        self.line = line
        self.value = value
        self.dropped = gone


PASSED: Final = Field(FieldKind.PASS)
"""The meaning of every line that passes unchanged."""

DROPPED: Final = Field(FieldKind.HOP, gone=True)
"""The meaning of every line that never passes and says nothing."""


LineReader = Callable[[FieldKind, bytes, bytes], Field]
"""(kind, line, value) -> meaning."""


class LineCache(BytesCache[Field]):
    """Line -> meaning."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(LINES_MAX, LINE_BYTES_MAX)


class NameCache(BytesCache[FieldKind]):
    """Sent field name -> kind; `classify` reads a new one. For the lines that are not remembered."""

    __slots__ = ("_classify",)

    def __init__(self, classify: Callable[[bytes], FieldKind]) -> None:
        super().__init__(NAMES_MAX, LINE_BYTES_MAX)
        self._classify = classify

    if TYPE_CHECKING:

        def __getitem__(self, name: bytes) -> FieldKind: ...

    def __missing__(self, name: bytes) -> FieldKind:
        kind = super().__missing__(name)
        if kind is None:
            kind = self._classify(name)
            if kind is not FieldKind.MALFORMED:
                self.store(name, kind)
        return kind


MALFORMED, PASS = FieldKind.MALFORMED, FieldKind.PASS

RESPONSE_LINES: Final = LineCache()
RESPONSE_NAMES: Final = NameCache(classify_response_field)
STATUS_LINES: Final[BytesCache[int]] = BytesCache(LINES_MAX, LINE_BYTES_MAX)
"""Status line -> its status; 0 if the response needs a closer look."""


def clear_response_caches() -> None:
    """Empty the memories of upstreams' answers."""
    RESPONSE_LINES.clear()
    RESPONSE_NAMES.clear()
    STATUS_LINES.clear()


class RequestLines:
    """The field lines of requests under one configuration's rules, with the memory of lines read before."""

    __slots__ = ("cache", "names", "passes", "passing", "recall", "rules")

    def __init__(self, rules: FieldRules) -> None:
        self.rules = rules
        self.passing = LineCache()
        """Lines that pass unchanged: most lines."""
        self.passes = self.passing.__contains__
        self.cache = LineCache()
        """The meaning of the other lines."""
        self.names = NameCache(rules.classify)
        self.recall = self.cache.get
        """Returns the meaning of a line that was read lately, and does not just pass; None for any other."""

    def clear(self) -> None:
        """Forget everything: after a reload, or a change that concerns all customers."""
        self.passing.clear()
        self.cache.clear()
        self.names.clear()

    def parse_field(self, line: bytes) -> Field:
        """Read a request's field line anew, and remember its meaning if that is useful.

        Raises RejectedError(400) if the line (RFC 9112 section 5), its Host or its Content-Length is malformed.
        Whitespace before the colon makes the name malformed. So does the folding of the line before (sections 5.1 and
        5.2).
        """
        name, colon, value = line.partition(b":")
        kind = self.names[name]
        if kind is MALFORMED or not colon or value.translate(VALUE_TABLE) != value:
            raise RejectedError(400, "A header field line is malformed")
        if kind is PASS:
            return self.passing.store(line, PASSED)
        field = REQUEST_READERS[kind](kind, line, value.strip(OWS))
        return field if kind in UNCACHED else self.cache.store(line, field)


def parse_response_field(line: bytes) -> Field:
    """Read a response's field line anew, and remember its meaning if that is useful.

    Raises UpstreamError if the line or its Content-Length is malformed. Whitespace before the colon is removed, as RFC
    9112 section 5.1 asks of proxies; a folded line (5.2) is a fault.
    """
    name, colon, value = line.partition(b":")
    kind = RESPONSE_NAMES[name]
    tidy = line
    if kind is MALFORMED:
        name = name.rstrip(OWS)
        kind = RESPONSE_NAMES[name]
        tidy = name + colon + value
    if kind is MALFORMED or not colon or value.translate(VALUE_TABLE) != value:
        raise UpstreamError("http_protocol_error", "The upstream sent a malformed header field line")
    if kind is PASS:
        return RESPONSE_LINES.store(line, PASSED if tidy is line else Field(kind, tidy))
    field = RESPONSE_READERS[kind](kind, tidy, value.strip(OWS))
    return field if kind is FieldKind.STAMP else RESPONSE_LINES.store(line, field)


def parse_plain_status(line: bytes) -> int:
    """Return the status of a status line that may be passed on unchanged; 0 for 1xx, HTTP/1.0 and malformed ones."""
    match = grammar.STATUS_LINE.fullmatch(line)
    plain = match is not None and match[1] == b"1" and match[2] >= b"200" and match[3] is not None
    status = int(match[2]) if match is not None and plain else 0
    return STATUS_LINES.store(line, status)


def _read_value(kind: FieldKind, line: bytes, value: bytes) -> Field:
    return Field(kind, line, value)


def _drop(kind: FieldKind, line: bytes, value: bytes) -> Field:
    return DROPPED


def _read_peer_value(kind: FieldKind, line: bytes, value: bytes) -> Field:
    return Field(kind, line, value, gone=True)


def _read_host(kind: FieldKind, line: bytes, value: bytes) -> Field:
    host = grammar.parse_host(value)
    if host is None:  # RFC 9112 section 3.2
        raise RejectedError(400, "Host is malformed")
    field = Field(kind, line, value)
    field.host = host
    field.tail = b"X-Forwarded-Host: " + value + b"\r\n" + VIA_LINE
    return field


def _read_request_length(kind: FieldKind, line: bytes, value: bytes) -> Field:
    if not grammar.CONTENT_LENGTH.fullmatch(value):  # RFC 9112 section 6.3
        raise RejectedError(400, "Content-Length is malformed")
    return _read_length(kind, line, value)


def _read_response_length(kind: FieldKind, line: bytes, value: bytes) -> Field:
    if not grammar.CONTENT_LENGTH.fullmatch(value):
        raise UpstreamError("http_protocol_error", "The upstream's Content-Length is malformed")
    return _read_length(kind, line, value)


def _read_length(kind: FieldKind, line: bytes, value: bytes) -> Field:
    # Written anew: with leading zeros, a reader of octal would take it for another number.
    length = int(value)
    field = Field(kind, b"Content-Length: %d" % length, value)
    field.length = length
    return field


def _read_authorization(kind: FieldKind, line: bytes, value: bytes) -> Field:
    # RFC 6750 section 2.1, RFC 9110 section 11.1; a tab is not a separator there, but the key behind it is a key.
    if value[:6].lower() != b"bearer" or value[6:7] not in OWS:
        return Field(kind, line, value)
    return _read_with_tail(FieldKind.BEARER, line, value[6:].strip(OWS))


def _read_basic(kind: FieldKind, line: bytes, value: bytes) -> Field:
    # RFC 7617 section 2: `curl -u KEY:` has the key as user, `git clone https://x:KEY@…` as password.
    if value[:5].lower() == b"basic" and value[5:6] in OWS:
        try:
            user, colon, password = base64.b64decode(value[5:].strip(OWS), validate=True).partition(b":")
        except ValueError:
            return Field(FieldKind.CREDENTIALS, line, value)
        if colon:
            return _read_with_tail(FieldKind.BEARER, line, password or user)
    return _read_authorization(FieldKind.CREDENTIALS, line, value)


def _read_with_tail(kind: FieldKind, line: bytes, value: bytes) -> Field:
    field = Field(kind, line, value)
    field.tail = line + b"\r\n"
    return field


def _read_connection(kind: FieldKind, line: bytes, value: bytes) -> Field:
    return Field(kind, line, value, gone=value.lower() == b"keep-alive")


def _read_security(kind: FieldKind, line: bytes, value: bytes) -> Field:
    field = Field(kind, line, value)
    field.flags = parse_flags(grammar.parse_field_name(line), value)
    return field


def _read_place(kind: FieldKind, line: bytes, value: bytes) -> Field:
    field = Field(kind, line, value)
    field.flags = NAMES_PLACES
    return field


def _read_traceparent(kind: FieldKind, line: bytes, value: bytes) -> Field:
    field = Field(kind)
    field.trace = grammar.parse_traceparent(value)
    return field


REQUEST_READERS: Final[dict[FieldKind, LineReader]] = {
    FieldKind.HOP: _drop,
    FieldKind.STAMP: _drop,
    FieldKind.ORIGIN: _read_peer_value,
    FieldKind.FORWARDED_FOR: _read_peer_value,
    FieldKind.FORWARDED_PROTO: _read_peer_value,
    FieldKind.FORWARDED_HOST: _read_peer_value,
    FieldKind.REQUEST_ID: _read_peer_value,
    FieldKind.HOST: _read_host,
    FieldKind.LENGTH: _read_request_length,
    FieldKind.CONNECTION: _read_connection,
    FieldKind.CREDENTIALS: _read_authorization,
    FieldKind.BASIC: _read_basic,
    FieldKind.API_KEY: _read_with_tail,
    FieldKind.COOKIE: _read_value,
    FieldKind.PROTOCOLS: _read_value,
    FieldKind.PROXY_CREDENTIALS: _read_with_tail,
    FieldKind.TRACEPARENT: _read_traceparent,
    FieldKind.CODING: _read_value,
    FieldKind.UPGRADE: _read_value,
    FieldKind.TE: _read_value,
    FieldKind.EXPECT: _read_value,
    FieldKind.VIA: _read_value,
    FieldKind.MAX_FORWARDS: _read_value,
    FieldKind.TRACESTATE: _read_value,
}
"""The reader of the lines of each kind."""

RESPONSE_READERS: Final[dict[FieldKind, LineReader]] = {
    FieldKind.HOP: _drop,
    FieldKind.STAMP: _drop,
    FieldKind.LENGTH: _read_response_length,
    FieldKind.CONNECTION: _read_connection,
    FieldKind.RATE: _read_with_tail,
    FieldKind.SECURITY: _read_security,
    FieldKind.PLACE: _read_place,
    FieldKind.DATE: _read_value,
    FieldKind.CODING: _read_value,
    FieldKind.UPGRADE: _read_value,
}

REQUESTS: Final = RequestLines(FieldRules())
"""Requests under the rules that hold unless a configuration has others."""
