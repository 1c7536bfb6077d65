"""The opinion of llhttp on each message: it must agree with the strict reader on the message's start and end."""

import re

import httptools

from tests.edge.http1.oracle import CHUNKED, UNTIL_CLOSE, Reading, their_request, their_response
from tests.edge.http1.stance import COMMON, REQUESTS, RESPONSES
from tests.fuzz.messages import Framing, Message

LOOSER_BODIES = (
    # RFC 9112 section 7.1.1: whitespace before an extension is parsed and ignored. Some senders pad sizes with it.
    (r"Invalid character in chunk size", rb"\r\n[0-9A-Fa-f]+[ \t]+(?:;|\r\n)"),
    # RFC 9112 section 7.1.1: unknown extensions are ignored. The edge writes chunks again, so it passes none on.
    (r"Invalid .* in chunk extensions.*", rb"\r\n[0-9A-Fa-f]+[ \t]*;"),
    # RFC 9110 section 6.5.1: the edge drops a forbidden trailer. llhttp treats it as a field of the head.
    (
        r"Content-Length can't be present .*|Transfer-Encoding can't be present .*",
        rb"\r\n0+[^\r]*\r\n[^\0]*[Nn][Tt]-[Ll]",
    ),
)
"""Bodies that llhttp refuses and the edge accepts: llhttp's message, and a pattern of the bytes."""


class Heard:
    """The results of llhttp for the bytes that it was fed."""

    def __init__(self, kind: type) -> None:
        self.parser = kind(self)
        self.body = b""
        self.ends: list[int] = []
        self.wrong = ""

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.ends.append(len(self.body))

    def feed(self, data: bytes) -> None:
        """Feed more bytes. `wrong` keeps the first error."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            self.wrong = self.wrong or str(error)


def of_whole(kind: type, segment: bytes, body: bytes) -> str:
    """Return llhttp's objection to `segment` as exactly one message with this body, or an empty string."""
    heard = Heard(kind)
    heard.feed(segment[:-1])
    if heard.ends:
        return "llhttp sees its end earlier"
    heard.feed(segment[-1:])
    if heard.wrong:
        excused = any(re.fullmatch(says, heard.wrong) and re.search(shape, segment) for says, shape in LOOSER_BODIES)
        return "" if excused else f"llhttp: {heard.wrong}"
    if len(heard.ends) != 1:
        return "llhttp does not see its end there"
    return "" if heard.body == body else "llhttp sees another body"


def of_forwarded(segment: bytes, message: Message) -> str:
    """Return llhttp's objection to a request that the edge wrote. No difference of heads is excused.

    llhttp knows few methods, and the edge passes any method on.
    """
    if message.method not in COMMON:
        segment = b"GET" + segment[len(message.method) :]
    return of_whole(httptools.HttpRequestParser, segment, message.body)


def of_answered(segment: bytes, message: Message) -> str:
    """Return llhttp's objection to an answer that the edge wrote, if llhttp can parse it without the request."""
    if message.method == b"HEAD" or message.status < 200 or message.framing is Framing.UNTIL_CLOSE:
        return ""
    return of_whole(httptools.HttpResponseParser, segment, message.body)


def of_request(segment: bytes, message: Message) -> str:
    """Return llhttp's objection to a client's request that was forwarded.

    Known differences of heads are excused, see tests/edge/http1/stance.py.
    """
    head = segment[: message.body_at - message.at]
    theirs = their_request(head)
    body = CHUNKED if message.framing is Framing.CHUNKED else message.length
    options = message.members(b"connection")
    keep_alive = b"close" not in options and (message.minor == 1 or b"keep-alive" in options)
    start = (message.method, message.target)
    ours = Reading(start, f"1.{message.minor}", tuple(message.fields), body, keep_alive, bool(message.offers))
    rules = REQUESTS.excuses(ours, theirs, head)
    if rules is None:
        return f"llhttp reads its head as {theirs}"
    if rules:
        return ""
    return of_whole(httptools.HttpRequestParser, segment, message.body)


def of_answer(segment: bytes, message: Message) -> str:
    """Return llhttp's objection to an upstream's answer that a client got whole. Known differences are excused."""
    head = segment[: message.body_at - message.at]
    theirs = their_response(head)
    body = {Framing.CHUNKED: CHUNKED, Framing.UNTIL_CLOSE: UNTIL_CLOSE}.get(message.framing, message.length)
    if message.status < 200 or message.status in (204, 304):
        body = 0
    elif message.method == b"HEAD":
        return ""  # llhttp cannot know that the request was a HEAD
    until_close = body == UNTIL_CLOSE
    framed = message.all(b"content-length") not in ([], [b"0"]) or bool(message.all(b"transfer-encoding"))
    odd = framed and (message.status < 200 or message.status == 204)
    ours = Reading(
        (b"%d" % message.status,),
        f"1.{message.minor}",
        tuple(message.fields),
        body,
        not message.closes and not until_close and not odd,
        message.status == 101 and bool(message.members(b"upgrade")) and b"upgrade" in message.members(b"connection"),
    )
    rules = RESPONSES.excuses(ours, theirs, head)
    if rules is None:
        return f"llhttp reads its head as {theirs}"
    if rules or until_close or message.status < 200:
        return ""
    return of_whole(httptools.HttpResponseParser, segment, message.body)
