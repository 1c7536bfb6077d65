"""What single field lines mean, and the memory of lines read before.

The meaning of a line is a pure function of its bytes, a request's of the rules of its configuration too. So a line
seen before costs one look-up. The memories hold cookies and API keys: they are bounded, and `forget` empties them.
"""

from collections.abc import Callable
from typing import Final

from edgeproxy.edge.errors import RejectedError, UpstreamError
from edgeproxy.edge.http1 import grammar
from edgeproxy.edge.http1.fields import UNCACHED, FieldKind, FieldRules, classify_response_field
from edgeproxy.edge.http1.grammar import OWS, VALUE_TABLE
from edgeproxy.edge.http1.security_fields import NAMES_PLACES, said_by

LINES_MOST: Final = 4096
PINNED_MOST: Final = 4096
NAMES_MOST: Final = 1024
LINE_LONGEST: Final = 256
"""Bounds of a memory: lines, lines with known keys, and bytes of each line; longer ones are read each time."""


class Field:
    """What one field line means. What the last group of attributes says is set for the kinds that it names only."""

    __slots__ = ("gone", "host", "kind", "length", "line", "said", "tail", "trace", "value")

    kind: FieldKind
    line: bytes
    """The line to forward, without its CRLF."""
    value: bytes
    gone: bool
    """Not forwarded, and nothing else to know of it, unless the peer is trusted or the head is odd."""

    host: bytes
    """HOST: the name that routing looks at."""
    tail: bytes
    """HOST: the lines that end what is kept of a plain head. BEARER, API_KEY, RATE: the line with its CRLF."""
    length: int
    """LENGTH: the number."""
    trace: tuple[bytes, bytes] | None
    """TRACEPARENT: trace-id and flags; None where the value is invalid."""
    said: int
    """SECURITY, PLACE: what the answer says with it, as security_fields.py has it."""

    def __init__(self, kind: FieldKind, line: bytes = b"", value: bytes = b"", gone: bool = False) -> None:
        self.kind = kind
        self.line = line
        self.value = value
        self.gone = gone


PASSED: Final = Field(FieldKind.PASS)
"""The meaning of every line that passes as it came."""

DROPPED: Final = Field(FieldKind.HOP, gone=True)
"""The meaning of every line that never passes and says nothing."""


Reader = Callable[[FieldKind, bytes, bytes], Field]
"""(kind, line, value) -> meaning."""


class Memory(dict[bytes, Field]):
    """Line -> meaning. Emptied when full, but for its pinned lines: cheaper than evicting one by one."""

    __slots__ = ("_pinned",)

    def __init__(self) -> None:
        super().__init__()
        self._pinned: dict[bytes, Field] = {}

    def keep(self, line: bytes, meaning: Field) -> Field:
        """Remember, unless the line is too long to be worth it. Returns the meaning."""
        if len(line) <= LINE_LONGEST:
            if len(self) >= LINES_MOST + len(self._pinned):
                self.clear()
                self.update(self._pinned)
            self[line] = meaning
        return meaning

    def pin(self, line: bytes, meaning: Field) -> None:
        """Remember so that a flood of other lines does not push it out."""
        if len(line) <= LINE_LONGEST:
            if len(self._pinned) >= PINNED_MOST:
                self.forget()
            self[line] = self._pinned[line] = meaning

    def forget(self) -> None:
        """Forget everything."""
        self._pinned.clear()
        self.clear()


class Names(dict[bytes, FieldKind]):
    """Field name as sent -> kind, read by `read` where it is new; for the lines that are not remembered."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[bytes], FieldKind]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, name: bytes) -> FieldKind:
        kind = self._read(name)
        if kind is not FieldKind.MALFORMED and len(name) <= LINE_LONGEST:
            if len(self) >= NAMES_MOST:
                self.clear()
            self[name] = kind
        return kind


MALFORMED, PASS = FieldKind.MALFORMED, FieldKind.PASS

RESPONSE_LINES: Final = Memory()
RESPONSE_NAMES: Final = Names(classify_response_field)
STATUS_LINES: Final[dict[bytes, int]] = {}
"""Status line -> its status; 0 where the response needs a closer look."""


def forget() -> None:
    """Empty the memories of what upstreams answer."""
    RESPONSE_LINES.forget()
    RESPONSE_NAMES.clear()
    STATUS_LINES.clear()


class RequestLines:
    """The field lines of requests under one configuration's rules, with the memory of those read before."""

    __slots__ = ("known", "names", "passed", "passes", "recall", "rules")

    def __init__(self, rules: FieldRules) -> None:
        self.rules = rules
        self.passed: set[bytes] = set()
        """Lines that pass as they came: what most lines are."""
        self.passes = self.passed.__contains__
        self.known = Memory()
        """What others mean."""
        self.names = Names(rules.classify)
        self.recall = self.known.get
        """What a line means that was read before, and does not just pass; None for any other."""

    def forget(self) -> None:
        """Forget everything: after a reload, a revocation, any change of who a key belongs to."""
        self.passed.clear()
        self.known.forget()
        self.names.clear()

    def vouch(self, credentials: bytes) -> None:
        """Remember the lines in which a key came that turned out to be good; `credentials` as `read_fields` gave them.

        Lines with keys are not remembered otherwise, or anybody could fill the memory with keys that do not exist.
        """
        for line in credentials.split(b"\r\n")[:-1]:
            field = self.field(line)
            if field.kind is not FieldKind.PROXY_CREDENTIALS:  # Of which nobody knows whether they are good.
                self.known.pin(line, field)

    def field(self, line: bytes) -> Field:
        """What a request's field line means, read anew, and remembered where that is of use.

        Raises RejectedError(400) where the line (RFC 9112 section 5), its Host or its Content-Length is malformed.
        Whitespace before the colon makes the name malformed, and so does the folding of a line before (sections 5.1 and
        5.2).
        """
        name, colon, value = line.partition(b":")
        kind = self.names[name]
        if kind is MALFORMED or not colon or value.translate(VALUE_TABLE) != value:
            raise RejectedError(400, "A header field line is malformed")
        if kind is PASS:
            if len(line) <= LINE_LONGEST:  # As a Memory would keep it, for 2,300 instructions less of a new head.
                if len(self.passed) >= LINES_MOST:
                    self.passed.clear()
                self.passed.add(line)
            return PASSED
        field = REQUEST_READERS[kind](kind, line, value.strip(OWS))
        return field if kind in UNCACHED else self.known.keep(line, field)


def response_field(line: bytes) -> Field:
    """What a response's field line means, read anew, and remembered where that is of use.

    Raises UpstreamError where the line or its Content-Length is malformed. Whitespace before the colon is removed, as
    RFC 9112 section 5.1 asks of proxies; a folded line (5.2) is a fault.
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
        return RESPONSE_LINES.keep(line, PASSED if tidy is line else Field(kind, tidy))
    field = RESPONSE_READERS[kind](kind, tidy, value.strip(OWS))
    return field if kind is FieldKind.STAMP else RESPONSE_LINES.keep(line, field)


def plain_status(line: bytes) -> int:
    """The status of a status line that may be passed on as it is; 0 for 1xx, HTTP/1.0 and what is malformed."""
    match = grammar.STATUS_LINE.fullmatch(line)
    plain = match is not None and match[1] == b"1" and match[2] >= b"200" and match[3] is not None
    status = int(match[2]) if match is not None and plain else 0
    if len(line) <= LINE_LONGEST:
        if len(STATUS_LINES) >= LINES_MOST:
            STATUS_LINES.clear()
        STATUS_LINES[line] = status
    return status


def _plainly(kind: FieldKind, line: bytes, value: bytes) -> Field:
    return Field(kind, line, value)


def _dropped(kind: FieldKind, line: bytes, value: bytes) -> Field:
    return DROPPED


def _of_peer(kind: FieldKind, line: bytes, value: bytes) -> Field:
    return Field(kind, line, value, gone=True)


def _host(kind: FieldKind, line: bytes, value: bytes) -> Field:
    host = grammar.parse_host(value)
    if host is None:  # RFC 9112 section 3.2
        raise RejectedError(400, "Host is malformed")
    field = Field(kind, line, value)
    field.host = host
    field.tail = b"X-Forwarded-Host: " + value + b"\r\nVia: 1.1 edgeproxy\r\n"
    return field


def _length(kind: FieldKind, line: bytes, value: bytes) -> Field:
    if not grammar.CONTENT_LENGTH.fullmatch(value):  # RFC 9112 section 6.3
        raise RejectedError(400, "Content-Length is malformed")
    return _number(kind, line, value)


def _answer_length(kind: FieldKind, line: bytes, value: bytes) -> Field:
    if not grammar.CONTENT_LENGTH.fullmatch(value):
        raise UpstreamError("http_protocol_error", "The upstream's Content-Length is malformed")
    return _number(kind, line, value)


def _number(kind: FieldKind, line: bytes, value: bytes) -> Field:
    # Written anew: with leading zeros it would be another number to who reads octal.
    length = int(value)
    field = Field(kind, b"Content-Length: %d" % length, value)
    field.length = length
    return field


def _authorization(kind: FieldKind, line: bytes, value: bytes) -> Field:
    # RFC 6750 section 2.1, RFC 9110 section 11.1; a tab is no separator there, but the key behind it is a key.
    if value[:6].lower() != b"bearer" or value[6:7] not in OWS:
        return Field(kind, line, value)
    return _apart(FieldKind.BEARER, line, value[6:].strip(OWS))


def _apart(kind: FieldKind, line: bytes, value: bytes) -> Field:
    field = Field(kind, line, value)
    field.tail = line + b"\r\n"
    return field


def _connection(kind: FieldKind, line: bytes, value: bytes) -> Field:
    return Field(kind, line, value, gone=value.lower() == b"keep-alive")


def _security(kind: FieldKind, line: bytes, value: bytes) -> Field:
    field = Field(kind, line, value)
    field.said = said_by(grammar.parse_field_name(line), value)
    return field


def _place(kind: FieldKind, line: bytes, value: bytes) -> Field:
    field = Field(kind, line, value)
    field.said = NAMES_PLACES
    return field


def _traceparent(kind: FieldKind, line: bytes, value: bytes) -> Field:
    field = Field(kind)
    match = grammar.TRACEPARENT.fullmatch(value)
    field.trace = (match[1], match[2]) if match is not None else grammar.parse_later_traceparent(value)
    return field


REQUEST_READERS: Final[dict[FieldKind, Reader]] = {
    FieldKind.HOP: _dropped,
    FieldKind.STAMP: _dropped,
    FieldKind.ORIGIN: _of_peer,
    FieldKind.FORWARDED_FOR: _of_peer,
    FieldKind.FORWARDED_PROTO: _of_peer,
    FieldKind.FORWARDED_HOST: _of_peer,
    FieldKind.REQUEST_ID: _of_peer,
    FieldKind.HOST: _host,
    FieldKind.LENGTH: _length,
    FieldKind.CONNECTION: _connection,
    FieldKind.CREDENTIALS: _authorization,
    FieldKind.API_KEY: _apart,
    FieldKind.COOKIE: _plainly,
    FieldKind.PROTOCOLS: _plainly,
    FieldKind.PROXY_CREDENTIALS: _apart,
    FieldKind.TRACEPARENT: _traceparent,
    FieldKind.CODING: _plainly,
    FieldKind.UPGRADE: _plainly,
    FieldKind.TE: _plainly,
    FieldKind.EXPECT: _plainly,
    FieldKind.VIA: _plainly,
    FieldKind.MAX_FORWARDS: _plainly,
    FieldKind.TRACESTATE: _plainly,
}
"""How the line of each kind is read."""

RESPONSE_READERS: Final[dict[FieldKind, Reader]] = {
    FieldKind.HOP: _dropped,
    FieldKind.STAMP: _dropped,
    FieldKind.LENGTH: _answer_length,
    FieldKind.CONNECTION: _connection,
    FieldKind.RATE: _apart,
    FieldKind.SECURITY: _security,
    FieldKind.PLACE: _place,
    FieldKind.DATE: _plainly,
    FieldKind.CODING: _plainly,
    FieldKind.UPGRADE: _plainly,
}

REQUESTS: Final = RequestLines(FieldRules())
"""Requests under the rules that hold unless a configuration has others."""
