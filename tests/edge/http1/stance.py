"""The intended differences between llhttp and the edge, each with its rule and an example.

Both must read a head alike, and both must refuse a head that one refuses, unless an entry here excuses the difference.
A difference without an entry is a defect of the edge or of this list.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from edgeproxy.edge.http1.grammar import parse_host
from edgeproxy.edge.http1.grammar import parse_list as list_of
from tests.edge.http1.oracle import CHUNKED, CRLF, UNTIL_CLOSE, Outcome, Reading, Rejected, without_empty_lines

COMMON: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
"""Methods that llhttp knows in each of its versions."""


class Stricter(NamedTuple):
    """The edge refuses a head that llhttp accepts."""

    says: str
    """The exact text of the edge's refusal. It has a field's name as the client wrote it."""
    status: int
    rule: str
    applies: Callable[[Reading, bytes], bool]
    """Takes llhttp's reading and the head. Returns whether the head breaks the rule."""
    example: bytes


class Looser(NamedTuple):
    """The edge accepts a head that llhttp refuses."""

    says: str
    """The text of llhttp's error."""
    rule: str
    applies: Callable[[Reading, bytes], bool]
    """Takes the edge's reading and the head. Returns whether the rule allows the head."""
    example: bytes


class Different(NamedTuple):
    """Both accept a head, but these parts of their readings may differ."""

    parts: frozenset[str]
    rule: str
    applies: Callable[[Reading, Reading], bool]
    """Takes the edge's and llhttp's reading. Returns whether the rule allows the difference."""
    example: bytes


class Stance(NamedTuple):
    """All intended differences for requests or for responses."""

    stricter: tuple[Stricter, ...]
    looser: tuple[Looser, ...]
    different: tuple[Different, ...]

    def excuses(self, ours: Outcome, theirs: Outcome, head: bytes) -> list[str] | None:
        """Return the rules that excuse the difference between two outcomes: empty without a difference, None without
        an excuse.

        If neither accepts a head, there is no difference, because neither would forward it.
        """
        if isinstance(ours, Reading) and isinstance(theirs, Reading):
            return self._excuse_parts(ours, theirs)
        rules: list[str] = []
        if isinstance(ours, Reading):
            for looser in self.looser:
                if theirs == Rejected(0, looser.says) and looser.applies(ours, head):
                    rules.append(looser.rule)
        elif isinstance(theirs, Reading):
            said = isinstance(ours, Rejected) and (ours.status, ours.why.lower())
            for stricter in self.stricter:
                if said == (stricter.status, stricter.says.lower()) and stricter.applies(theirs, head):
                    rules.append(stricter.rule)
        else:
            return rules
        return rules or None

    def _excuse_parts(self, ours: Reading, theirs: Reading) -> list[str] | None:
        parts = {name for name in Reading._fields if getattr(ours, name) != getattr(theirs, name)}
        rules = []
        for entry in self.different:
            if parts & entry.parts and entry.applies(ours, theirs):
                parts -= entry.parts
                rules.append(entry.rule)
        return None if parts else rules


# ---- properties of readings and heads


def named(reading: Reading, name: bytes) -> list[bytes]:
    """Return the values of the fields of this name."""
    return [value for field, value in reading.fields if field == name]


def members(reading: Reading, name: bytes) -> set[bytes]:
    """Return the list members of all fields of this name, in lower case."""
    return {member.strip(b" \t") for value in named(reading, name) for member in value.lower().split(b",")} - {b""}


def codings(reading: Reading) -> list[bytes]:
    """Return the values of Transfer-Encoding, in lower case."""
    return [value.lower() for value in named(reading, b"transfer-encoding")]


def too_long(reading: Reading) -> bool:
    """Return whether Content-Length has more digits than the edge accepts."""
    return any(len(length) > 18 for length in named(reading, b"content-length"))


def status(reading: Reading) -> int:
    """A response's status."""
    return int(reading.start[0])


def first_line(head: bytes) -> bytes:
    """Return the start line of a head."""
    return without_empty_lines(head).partition(CRLF)[0]


def target(reading: Reading) -> bytes:
    """A request's target."""
    return reading.start[-1]


def authority(reading: Reading) -> bytes | None:
    """Return host[:port] of an absolute-form target, or None for the other forms."""
    scheme, found, rest = target(reading).partition(b"://")
    return re.split(rb"[/?]", rest)[0] if found and scheme.lower() in (b"http", b"https") else None


def origin(reading: Reading, host: bytes) -> bytes:
    """Return an authority in lower case without the default port of the target's scheme."""
    port = b":443" if target(reading).lower().startswith(b"https:") else b":80"
    return host.lower().removesuffix(port).removesuffix(b":")


def hosts_differ(reading: Reading) -> bool:
    """Return whether an absolute-form target names another host than Host does."""
    hosts = named(reading, b"host")
    return len(hosts) == 1 and origin(reading, authority(reading) or b"") != origin(reading, hosts[0])


GET: Final = b"GET / HTTP/1.1\r\nHost: a\r\n"
OK: Final = b"HTTP/1.1 200 OK\r\n"

# ---- requests

STRICTER_REQUESTS: Final = (
    Stricter(
        "The request line is not a method, a target and a version with one space between",
        400,
        "RFC 9112 section 3: single spaces between three parts",
        lambda theirs, head: first_line(head).count(b" ") != 2 or b"  " in first_line(head),
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    Stricter(
        "The HTTP version is malformed",
        400,
        "RFC 9112 section 3: a line without a version is HTTP/0.9, which is not spoken here",
        lambda theirs, head: theirs.version == "0.9",
        b"GET  /a\r\n\r\n",
    ),
    Stricter(
        "The head has a NUL, or a CR or LF of its own",
        400,
        "RFC 9112 section 2.2: lines end with CRLF; llhttp ends the line of HTTP/0.9 with LF",
        lambda theirs, head: theirs.version == "0.9" and b"\n" in head.replace(CRLF, b""),
        b"GET /a\n\r\n",
    ),
    Stricter(
        "The request target is malformed",
        400,
        "RFC 9112 section 2.2: lines end with CRLF; llhttp ends the line of HTTP/0.9 with LF",
        lambda theirs, head: theirs.version == "0.9" and b"\n" in first_line(head),
        b"GET /a?\nC: HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    Stricter(
        "The method is malformed",
        400,
        "RFC 9112 section 2.2: an empty line that may be ignored before a request line is CRLF",
        lambda theirs, head: head.lstrip(CRLF) != without_empty_lines(head),
        b"\n" + GET + CRLF,
    ),
    Stricter(
        "The method is not forwarded",
        501,
        "RFC 9110 section 9.1: a method that is not implemented: CONNECT (9.3.6) and TRACE (9.3.8)",
        lambda theirs, head: theirs.start[0] in (b"CONNECT", b"TRACE"),
        b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    Stricter(
        "The HTTP version is malformed",
        400,
        "RFC 9112 section 2.3: HTTP-name is HTTP; llhttp also speaks RTSP and ICE",
        lambda theirs, head: re.search(rb" (RTSP|ICE)/\d\.\d$", first_line(head)) is not None,
        b"GET / RTSP/1.0\r\nHost: a\r\n\r\n",
    ),
    Stricter(
        "Only HTTP/1.1 and HTTP/1.0 are spoken here",
        505,
        "RFC 9110 section 15.6.6",
        lambda theirs, head: theirs.version not in ("1.0", "1.1"),
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
    ),
    Stricter(
        "The request target is malformed",
        400,
        "RFC 9112 section 3.2: no fragment; RFC 3986 section 2: no quotes, angle brackets, nor backslash in a path",
        lambda theirs, head: re.search(rb'#|^[^?]*["<>\\]', target(theirs)) is not None,
        b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    Stricter(
        "Only OPTIONS may ask for *",
        400,
        "RFC 9112 section 3.2.4",
        lambda theirs, head: target(theirs) == b"*" and theirs.start[0] != b"OPTIONS",
        b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    Stricter(
        "The request target is neither a path nor an http URI",
        400,
        "RFC 9112 section 3.2: origin-form or absolute-form; RFC 9110 section 4.2: of http or https",
        lambda theirs, head: not target(theirs).startswith(b"/") and authority(theirs) is None,
        b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    Stricter(
        "The request target names no valid host",
        400,
        "RFC 9110 sections 4.2.1 and 4.2.4: neither an empty host nor user information",
        lambda theirs, head: parse_host(authority(theirs) or b"") is None,
        b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    Stricter(
        "The request target names another host than Host does",
        400,
        "RFC 9112 section 3.2.2: the target's authority replaces Host; where both are there, they must not differ",
        lambda theirs, head: hosts_differ(theirs),
        b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    Stricter(
        "Host is missing",
        400,
        "RFC 9112 section 3.2: HTTP/1.1 has a Host",
        lambda theirs, head: theirs.version == "1.1" and not named(theirs, b"host"),
        b"GET / HTTP/1.1\r\nA: b\r\n\r\n",
    ),
    Stricter(
        "Host is repeated",
        400,
        "RFC 9112 section 3.2: one Host",
        lambda theirs, head: len(named(theirs, b"host")) > 1,
        GET + b"Host: a\r\n\r\n",
    ),
    Stricter(
        "Host is malformed",
        400,
        "RFC 9112 section 3.2: a valid Host; RFC 9110 section 7.2 says what that is",
        lambda theirs, head: any(parse_host(host) is None for host in named(theirs, b"host")),
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    ),
    Stricter(
        "Content-Length is malformed",
        400,
        "RFC 9112 section 6.3: a number that no body has (19 digits or more)",
        lambda theirs, head: too_long(theirs),
        GET + b"Content-Length: 1000000000000000000\r\n\r\n",
    ),
    Stricter(
        "Transfer-Encoding is repeated",
        400,
        "RFC 9112 section 6.1: chunked is applied once, and is the only coding known here",
        lambda theirs, head: len(codings(theirs)) > 1,
        GET + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    Stricter(
        "The transfer coding chunked is not the last one, or there twice",
        400,
        "RFC 9112 section 6.1: chunked is applied once, and last; llhttp does not see it with a tab behind it",
        lambda theirs, head: b"chunked" in list_of(b",".join(codings(theirs)))[:-1],
        GET + b"Transfer-Encoding: chunked\t, chunked\r\n\r\n",
    ),
    Stricter(
        "The only transfer coding known here is chunked",
        501,
        "RFC 9112 section 6.1: a coding that is not understood",
        lambda theirs, head: codings(theirs) not in ([], [b"chunked"]),
        GET + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    ),
    Stricter(
        "HTTP/1.0 has no Transfer-Encoding",
        400,
        "RFC 9112 section 6.1: faulty framing, not to be processed",
        lambda theirs, head: theirs.version == "1.0" and codings(theirs) != [],
        b"GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    Stricter(
        "The only expectation that can be met is 100-continue",
        417,
        "RFC 9110 section 10.1.1",
        lambda theirs, head: bool(members(theirs, b"expect") - {b"100-continue"}),
        GET + b"Expect: a\r\n\r\n",
    ),
    Stricter(
        "The request went from edge to edge too often: their upstreams lead to each other",
        400,
        "RFC 9110 section 7.6.3: Via is also there to avoid request loops",
        lambda theirs, head: b", ".join([*named(theirs, b"via"), b""]).count(b" edgeproxy, ") >= 8,
        GET + b"Via: " + b", ".join([b"1.1 edgeproxy"] * 8) + b"\r\n\r\n",
    ),
    Stricter(
        "Authorization is repeated",
        400,
        "RFC 9110 section 5.3: not a list, so it comes once; which of two keys would count?",
        lambda theirs, head: len(named(theirs, b"authorization")) > 1,
        GET + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
    ),
    Stricter(
        "X-API-Key is repeated",
        400,
        "RFC 9110 section 5.3: not a list, so it comes once; which of two would count?",
        lambda theirs, head: len(named(theirs, b"x-api-key")) > 1,
        GET + b"X-API-Key: a\r\nX-API-Key: b\r\n\r\n",
    ),
)

LOOSER_REQUESTS: Final = (
    Looser(
        "Request has invalid `Transfer-Encoding`",
        "RFC 9110 section 5.5: whitespace behind a value is no part of it; we write the line anew",
        lambda ours, head: (
            ours.body == CHUNKED and re.search(rb"(?i)\r\ntransfer-encoding:[ \t]*chunked[ \t]+\r\n", head) is not None
        ),
        GET + b"Transfer-Encoding: chunked\t\r\n\r\n",
    ),
    Looser(
        "Invalid method encountered",
        "RFC 9110 section 9.1: a method that nobody knows is passed on",
        lambda ours, head: ours.start[0] not in COMMON,
        b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    Looser(
        "Expected space after method",
        "RFC 9110 section 9.1: the same, of one that begins like a known method",
        lambda ours, head: ours.start[0] not in COMMON,
        b"GETX / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
)

DIFFERENT_REQUESTS: Final = (
    Different(
        frozenset(("upgrade",)),
        "RFC 9110 section 7.8: Upgrade in HTTP/1.0 is ignored",
        lambda ours, theirs: theirs.upgrade and not ours.upgrade and ours.version == "1.0",
        b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    ),
    Different(
        frozenset(("upgrade",)),
        "RFC 9110 section 5.6.1: an empty list names no protocol",
        lambda ours, theirs: theirs.upgrade and not ours.upgrade and not members(ours, b"upgrade"),
        GET + b"Connection: upgrade\r\nUpgrade: ,\r\n\r\n",
    ),
    Different(
        frozenset(("upgrade", "body")),
        "RFC 9110 section 7.8: Upgrade may be ignored, and is where there is a body, which llhttp leaves unread",
        lambda ours, theirs: theirs.upgrade and not ours.upgrade and ours.body != 0 and theirs.body == 0,
        GET + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n",
    ),
    Different(
        frozenset(("upgrade",)),
        "RFC 9112 appendix C.2.2: Proxy-Connection means nothing; llhttp takes its upgrade for Connection's",
        lambda ours, theirs: (
            theirs.upgrade
            and b"upgrade" in members(ours, b"proxy-connection")
            and b"upgrade" not in members(ours, b"connection")
        ),
        GET + b"Proxy-Connection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ),
    Different(
        frozenset(("keep_alive",)),
        "RFC 9112 appendix C.2.2: Proxy-Connection means nothing; llhttp takes it for Connection",
        lambda ours, theirs: bool(named(ours, b"proxy-connection")),
        GET + b"Proxy-Connection: close\r\n\r\n",
    ),
    Different(
        frozenset(("keep_alive",)),
        "RFC 9112 section 9.3: close wins, in HTTP/1.0 too",
        lambda ours, theirs: not ours.keep_alive and b"close" in members(ours, b"connection"),
        b"GET / HTTP/1.0\r\nConnection: close\r\nConnection: keep-alive\r\n\r\n",
    ),
)

REQUESTS: Final = Stance(STRICTER_REQUESTS, LOOSER_REQUESTS, DIFFERENT_REQUESTS)

# ---- responses

STRICTER_RESPONSES: Final = (
    Stricter(
        "The upstream sent a malformed status line",
        502,
        "RFC 9112 section 2.3: HTTP/1.0 or HTTP/1.1; llhttp knows others",
        lambda theirs, head: not head.startswith((b"HTTP/1.0 ", b"HTTP/1.1 ")),
        b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    Stricter(
        "The upstream sent a malformed status line",
        502,
        "RFC 9110 section 15: a status is 100 at least",
        lambda theirs, head: status(theirs) < 100,
        b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    Stricter(
        "The upstream sent a malformed status line",
        502,
        "RFC 9112 section 4: no control characters in a reason phrase",
        lambda theirs, head: re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", first_line(head)) is not None,
        b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
    ),
    Stricter(
        "The upstream's Content-Length is malformed",
        502,
        "RFC 9112 section 6.3: a number that no body has (19 digits or more)",
        lambda theirs, head: too_long(theirs),
        OK + b"Content-Length: 1000000000000000000\r\n\r\n",
    ),
    Stricter(
        "The upstream repeated Transfer-Encoding",
        502,
        "RFC 9112 section 6.1: chunked is applied once, and is the only coding known here",
        lambda theirs, head: len(codings(theirs)) > 1,
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    Stricter(
        "The upstream sent a transfer coding that is not known here",
        502,
        "RFC 9112 section 6.1: no coding but those that were asked for with TE",
        lambda theirs, head: codings(theirs) not in ([], [b"chunked"]),
        OK + b"Transfer-Encoding: gzip\r\n\r\n",
    ),
    Stricter(
        "The upstream sent Transfer-Encoding in HTTP/1.0",
        502,
        "RFC 9112 section 6.1: faulty framing",
        lambda theirs, head: theirs.version == "1.0" and codings(theirs) != [],
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
)

LOOSER_RESPONSES: Final = (
    Looser(
        "Invalid header token",
        "RFC 9112 section 5.1: a proxy removes whitespace before the colon of a response's field",
        lambda ours, head: re.search(rb"\r\n[^\s:]+[ \t]+:", head) is not None,
        OK + b"A : b\r\n\r\n",
    ),
    Looser(
        "Invalid header field char",
        "RFC 9112 section 5.1: the same, before the colon of a field that llhttp looks at",
        lambda ours, head: re.search(rb"\r\n[^\s:]+[ \t]+:", head) is not None,
        OK + b"Transfer-Encoding : chunked\r\n\r\n",
    ),
)

DIFFERENT_RESPONSES: Final = (
    Different(
        frozenset(("keep_alive",)),
        "RFC 9112 section 9.3: close wins, in HTTP/1.0 too",
        lambda ours, theirs: not ours.keep_alive and b"close" in members(ours, b"connection"),
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 0\r\n\r\n",
    ),
    Different(
        frozenset(("keep_alive",)),
        "RFC 9112 appendix C.2.2: Proxy-Connection means nothing; llhttp takes it for Connection",
        lambda ours, theirs: bool(named(ours, b"proxy-connection")),
        OK + b"Proxy-Connection: close\r\nContent-Length: 0\r\n\r\n",
    ),
    Different(
        frozenset(("upgrade",)),
        "RFC 9110 section 15.2.2: a 101 switches, whether Connection names Upgrade or not",
        lambda ours, theirs: status(ours) == 101 and ours.upgrade and not theirs.upgrade,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    ),
    Different(
        frozenset(("keep_alive",)),
        "RFC 9112 section 6.1, RFC 9110 section 8.6: framing where there is no body; such an upstream is not relied on",
        lambda ours, theirs: (
            not ours.keep_alive
            and status(ours) in (*range(100, 200), 204)
            and bool(named(ours, b"content-length") or named(ours, b"transfer-encoding"))
        ),
        b"HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\n",
    ),
    Different(
        frozenset(("body", "keep_alive")),
        "RFC 9112 section 6.3: no 1xx has a body; llhttp knows it of some only",
        lambda ours, theirs: ours.body == 0 and status(ours) < 200,
        b"HTTP/1.1 199 Own\r\nContent-Length: 1\r\n\r\n",
    ),
    Different(
        frozenset(("body", "keep_alive")),
        "RFC 9110 section 5.5: whitespace behind a value is no part of it, so the coding is chunked",
        lambda ours, theirs: ours.body == CHUNKED and theirs.body == UNTIL_CLOSE,
        OK + b"Transfer-Encoding: chunked\t\r\n\r\n",
    ),
)

RESPONSES: Final = Stance(STRICTER_RESPONSES, LOOSER_RESPONSES, DIFFERENT_RESPONSES)
