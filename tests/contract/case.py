"""The rows of the tables: a client's request or an upstream's answer, with all permitted outcomes."""

from dataclasses import dataclass
from typing import Literal

HOST = "edge.test"
"""The host in every row. A row that has a service of its own is run with a host of its own in its place."""

FROM_ANYBODY = "127.0.0.1"
FROM_TRUSTED = "127.0.0.2"
"""Clients with this address are trusted proxies to the edge."""


def lines(*texts: str) -> bytes:
    """The head of a message: each line with its CRLF, and the blank line."""
    return "".join(f"{text}\r\n" for text in (*texts, "")).encode("latin-1")


def get(path: str = "/", *fields: str) -> bytes:
    """A GET with these further field lines."""
    return lines(f"GET {path} HTTP/1.1", f"Host: {HOST}", *fields)


def post(*fields: str, body: bytes = b"", path: str = "/") -> bytes:
    """A POST with these further field lines and, behind the head, these bytes. It has no framing but theirs."""
    return lines(f"POST {path} HTTP/1.1", f"Host: {HOST}", *fields) + body


def chunked(*texts: bytes, fields: tuple[str, ...] = ()) -> bytes:
    """A POST in the chunked coding, with these bytes behind its head."""
    return post("Transfer-Encoding: chunked", *fields, body=b"".join(texts))


@dataclass(frozen=True)
class Seen:
    """A whole request that the upstream gets."""

    line: str
    body: bytes = b""
    has: tuple[str, ...] = ()
    """Field lines, each there exactly once under its name."""
    lacks: tuple[str, ...] = ()
    """Names of fields that are not there."""
    trailers: tuple[str, ...] = ()
    """Its trailer field lines, all of them."""


@dataclass(frozen=True)
class Asked:
    """Bytes of a client to an edge whose upstream answers every request with 200."""

    name: str
    rule: str
    sent: bytes
    seen: tuple[Seen, ...] = ()
    """Every request that the upstream gets."""
    answers: tuple[int, ...] = ()
    """The status of every answer that the client gets."""
    ends: bool = False
    """The edge ends the connection after that; otherwise it serves another request."""
    cut: bool = False
    """After those in `seen` the upstream may have got the beginning of one more request, never the whole of it."""
    has: tuple[str, ...] = ()
    """Field lines of the last answer."""
    source: str = FROM_ANYBODY


def forwarded(name: str, rule: str, sent: bytes, *seen: Seen | str, ends: bool = False) -> Asked:
    """These requests reach the upstream, and each gets its answer. A text stands for a request line and no more."""
    requests = tuple(Seen(each) if isinstance(each, str) else each for each in seen)
    return Asked(name, rule, sent, requests, (200,) * len(requests), ends)


def refused(name: str, rule: str, sent: bytes, status: int = 400) -> Asked:
    """Answered by the edge, nothing forwarded, and the connection ends."""
    return Asked(name, rule, sent, (), (status,), True)


def cut_short(name: str, rule: str, sent: bytes, status: int = 400) -> Asked:
    """A body that turns out to be malformed when its head may have been forwarded already."""
    return Asked(name, rule, sent, (), (status,), True, cut=True)


@dataclass(frozen=True)
class Whole:
    """A whole answer that the client gets."""

    status: int = 200
    body: bytes = b""
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    trailers: tuple[str, ...] = ()
    interim: tuple[int, ...] = ()
    """The statuses of the interim answers before it, all of them."""
    ends: bool = False
    """The client's connection ends after it."""


@dataclass(frozen=True)
class Fault:
    """An answer of the edge's own, with this error in Proxy-Status (RFC 9209 section 2.3)."""

    error: str
    status: int = 502
    interim: tuple[int, ...] = ()


@dataclass(frozen=True)
class Broken:
    """The fault may be found when the head has been passed on: as Fault, or an answer that is visibly cut off."""

    error: str


Then = Literal["stays", "closes", "resets"]


@dataclass(frozen=True)
class Answered:
    """Bytes of an upstream in answer to one request."""

    name: str
    rule: str
    sent: bytes
    got: Whole | Fault | Broken
    reused: bool = False
    """The connection to the upstream serves the next request; otherwise the edge closes it."""
    then: Then = "stays"
    """The upstream's action on its connection after the answer."""
    to: bytes = get()
    """The request. Whatever it is, the upstream waits for the whole of it."""
