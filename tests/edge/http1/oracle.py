"""Read a head with llhttp and with the edge, and reduce both results to one form that tests can compare.

stance.py lists the intended differences, each with its rule. Any other difference is a defect of the edge or of that
list.
"""

from typing import Final, NamedTuple

import httptools

from edgeproxy.edge.errors import RejectedError, UpstreamError
from edgeproxy.edge.http1.grammar import LIMITS
from edgeproxy.edge.http1.message import format_upgrade
from edgeproxy.edge.http1.request import RequestHead, check_host, read_head
from edgeproxy.edge.http1.request_line import RequestLine, check_sizes, check_unfinished, read_request_line
from edgeproxy.edge.http1.response import ResponseHead, read_response

CRLF: Final = b"\r\n"
BLANK: Final = b"\r\n\r\n"
PROBE: Final = b"5\r\nprobe\r\n0\r\n\r\n"
"""Bytes fed after a head. The part that a parser takes as the body shows how it understood the head."""

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2


class Reading(NamedTuple):
    """The meaning of a head."""

    start: tuple[bytes, ...]
    """Method and target of a request, or the status of a response."""
    version: str
    fields: tuple[tuple[bytes, bytes], ...]
    """Names in lower case, and values without surrounding whitespace."""
    body: int
    """The length of the body in bytes, or CHUNKED, or UNTIL_CLOSE."""
    keep_alive: bool
    upgrade: bool


class Rejected(NamedTuple):
    """A rejected head. `status` is the status of the edge's refusal, or 0 if llhttp rejected it."""

    status: int
    why: str


class Unfinished(NamedTuple):
    """An incomplete head."""


Outcome = Reading | Rejected | Unfinished


# ---- the edge's readings


def without_empty_lines(data: bytes) -> bytes:
    """Return the data without leading empty lines, which a server ignores (RFC 9112 section 2.2)."""
    while data.startswith(CRLF):
        data = data[2:]
    return data


def fields_of(block: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """Return the fields of a header block that a reader accepted."""
    split = (line.partition(b":") for line in block.split(CRLF)[:-1])
    return tuple((name.lower(), value.strip(b" \t")) for name, _, value in split)


class Request(NamedTuple):
    """A request head that the edge accepts."""

    first: bytes
    block: bytes
    line: RequestLine
    head: RequestHead
    host: bytes
    """The Host lines to add, because the fields lack them."""

    def reading(self) -> Reading:
        """Return the meaning of the request head."""
        head = self.head
        minor = self.line.version[1]
        return Reading(
            (self.line.method, self.first.split(b" ")[1]),
            f"1.{minor}",
            fields_of(self.block),
            CHUNKED if head.chunked else head.length,
            not head.close and (minor == 1 or head.keep_alive),
            bool(head.upgrade),
        )

    def forwarded(self) -> bytes:
        """Return the head that the upstream receives, without the stamps that depend on the customer."""
        return b"%b %b HTTP/1.1\r\n%b%b%b\r\n" % (
            *(self.line.method, self.line.target, self.host, self.head.keep, format_upgrade(self.head.upgrade)),
        )


class Response(NamedTuple):
    """A response head that the edge accepts."""

    block: bytes
    head: ResponseHead

    def reading(self) -> Reading:
        """Return the meaning of the response head."""
        head = self.head
        body = UNTIL_CLOSE if head.length < 0 else head.length
        if head.chunked:
            body = CHUNKED
        if head.bodiless:
            body = 0
        fields = fields_of(self.block.partition(CRLF)[2])
        return Reading(
            (b"%d" % head.status,),
            f"1.{head.minor}",
            tuple((name.rstrip(b" \t"), value) for name, value in fields),
            body,
            not head.close and body != UNTIL_CLOSE,
            head.status == 101 and head.upgrade is not None,
        )

    def forwarded(self) -> bytes:
        """Return the head that the client receives, without the lines that depend on the request."""
        return self.head.keep + CRLF


def our_request(data: bytes) -> Request | Rejected | Unfinished:
    """Read the request head at the beginning of `data` with the edge."""
    data = without_empty_lines(data)
    end = data.find(BLANK)
    try:
        if end < 0:
            check_unfinished(data, LIMITS)
            return Unfinished()
        first, _, block = data[: end + 2].partition(CRLF)
        check_sizes(len(first), end, LIMITS)
        line = read_request_line(first)
        head = read_head(block, minor=line.version[1])
        return Request(first, block, line, head, check_host(line, head)[1])
    except RejectedError as refusal:
        return Rejected(refusal.status, refusal.detail)


def our_response(data: bytes) -> Response | Rejected | Unfinished:
    """Read the response head at the beginning of `data` with the edge."""
    end = data.find(BLANK)
    if end < 0:
        return Unfinished()
    block = data[: end + 2]
    try:
        return Response(block, read_response(block))
    except UpstreamError as fault:
        return Rejected(fault.status, fault.detail)


# ---- llhttp's readings


class Listener:
    """Records the events of a parser."""

    def __init__(self, kind: type) -> None:
        self.parser = kind(self)
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.complete = self.ended = self.keep_alive = self.upgrade = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.ended:
            self.fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        if not self.ended:
            self.complete = True
            self.keep_alive = self.parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        if not self.ended:
            self.body += body

    def on_message_complete(self) -> None:
        self.ended = True

    def feed(self, data: bytes) -> str:
        """Feed data to the parser. Return its error, or an empty string."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.upgrade = True
        except httptools.HttpParserError as error:
            return str(error)
        return ""


def _listen(kind: type, data: bytes) -> Listener | Rejected | Unfinished:
    """Feed one head, and PROBE if a body follows, to llhttp."""
    heard = Listener(kind)
    wrong = heard.feed(data)
    if wrong and not (heard.ended and heard.complete):
        return Rejected(0, wrong)
    if not heard.complete:
        return Unfinished()
    if not heard.ended and (wrong := heard.feed(PROBE)) and not heard.ended:
        return Rejected(0, wrong)
    return heard


def _body(heard: Listener) -> int:
    if heard.ended:
        return CHUNKED if heard.body == b"probe" else len(heard.body)
    lengths = [value for name, value in heard.fields if name == b"content-length"]
    return int(lengths[0]) if lengths else UNTIL_CLOSE


def their_request(data: bytes) -> Outcome:
    """Read the request head at the beginning of `data` with llhttp."""
    heard = _listen(httptools.HttpRequestParser, _head_alone(without_empty_lines(data)))
    if not isinstance(heard, Listener):
        return heard
    parser = heard.parser
    start = (parser.get_method(), heard.target)
    version = parser.get_http_version()
    return Reading(start, version, tuple(heard.fields), _body(heard), heard.keep_alive, heard.upgrade)


def their_response(data: bytes) -> Outcome:
    """Read the response head at the beginning of `data` with llhttp."""
    head = _head_alone(data)
    heard = _listen(httptools.HttpResponseParser, head)
    if not isinstance(heard, Listener):
        return heard
    parser = heard.parser
    start = (b"%d" % parser.get_status_code(),)
    version = parser.get_http_version()
    return Reading(start, version, tuple(heard.fields), _body(heard), heard.keep_alive, heard.upgrade)


def _head_alone(data: bytes) -> bytes:
    end = data.find(BLANK)
    return data if end < 0 else data[: end + 4]
