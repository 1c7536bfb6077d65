"""What llhttp reads in a head, what we read in it, and every difference that we stand by.

A head is read by both. Where they differ, the difference must be excused by an entry of one of the lists below, each
with the rule that it follows; what no entry excuses is a defect, of ours or of the lists.
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
"""Fed behind a head: how much of it is taken for the body tells how the head was understood."""

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2


class Reading(NamedTuple):
    """What a head says."""

    start: tuple[bytes, ...]
    """Method and target; or the status."""
    version: str
    fields: tuple[tuple[bytes, bytes], ...]
    """Names in lower case, values without the whitespace around them."""
    body: int
    """Its bytes, or CHUNKED, or UNTIL_CLOSE."""
    keep_alive: bool
    upgrade: bool


class Rejected(NamedTuple):
    """Not a head. `status` is the one that we refuse it with, 0 where llhttp does."""

    status: int
    why: str


class Unfinished(NamedTuple):
    """More bytes are waited for."""


Outcome = Reading | Rejected | Unfinished


# ---- ours


def without_empty_lines(data: bytes) -> bytes:
    """RFC 9112 section 2.2: empty lines before a request line are ignored."""
    while data.startswith(CRLF):
        data = data[2:]
    return data


def fields_of(block: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The fields of a block that was read, as its reader saw them."""
    split = (line.partition(b":") for line in block.split(CRLF)[:-1])
    return tuple((name.lower(), value.strip(b" \t")) for name, _, value in split)


class Request(NamedTuple):
    """A request head that we accept."""

    first: bytes
    block: bytes
    line: RequestLine
    head: RequestHead
    host: bytes
    """The Host lines that its fields lack."""

    def reading(self) -> Reading:
        """What it says."""
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
        """The head that the upstream gets, but for the stamps that depend on the customer."""
        return b"%b %b HTTP/1.1\r\n%b%b%b\r\n" % (
            *(self.line.method, self.line.target, self.host, self.head.keep, format_upgrade(self.head.upgrade)),
        )


class Response(NamedTuple):
    """A response head that we accept."""

    block: bytes
    head: ResponseHead

    def reading(self) -> Reading:
        """What it says."""
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
        """The head that the client gets, but for the lines that depend on the request."""
        return self.head.keep + CRLF


def our_request(data: bytes) -> Request | Rejected | Unfinished:
    """The request head at the beginning of `data`, as we read it."""
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
    """The response head at the beginning of `data`, as we read it."""
    end = data.find(BLANK)
    if end < 0:
        return Unfinished()
    block = data[: end + 2]
    try:
        return Response(block, read_response(block))
    except UpstreamError as fault:
        return Rejected(fault.status, fault.detail)


# ---- llhttp's


class Listener:
    """Takes down what a parser tells."""

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
        """What is wrong with it, or nothing."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.upgrade = True
        except httptools.HttpParserError as error:
            return str(error)
        return ""


def _listen(kind: type, data: bytes) -> Listener | Rejected | Unfinished:
    """What llhttp makes of one head, and of the PROBE behind it."""
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
    """The request head at the beginning of `data`, as llhttp reads it."""
    heard = _listen(httptools.HttpRequestParser, _head_alone(without_empty_lines(data)))
    if not isinstance(heard, Listener):
        return heard
    parser = heard.parser
    start = (parser.get_method(), heard.target)
    version = parser.get_http_version()
    return Reading(start, version, tuple(heard.fields), _body(heard), heard.keep_alive, heard.upgrade)


def their_response(data: bytes) -> Outcome:
    """The response head at the beginning of `data`, as llhttp reads it."""
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
