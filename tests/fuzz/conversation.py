"""A conversation: the steps of one client on one connection, and the upstream's reply to each request.

It is a pure function of the run's seed and its number (`script.py` generates it), so a run can repeat it.
"""

import re
from dataclasses import dataclass, field
from random import Random

TOKEN = re.compile(rb"q[0-9a-f]{14}z")
"""The token in every part of a request. It shows which request the bytes belong to."""
SERIAL = re.compile(rb"[rp][0-9a-f]{14}z")
"""The serial in every part of an answer: r… for the answer to one forwarded request, p… for unrequested bytes."""

ANSWER = b"r@@@@@@@@@@@@@@z"
POISON = b"p@@@@@@@@@@@@@@z"
"""Placeholders in a reply. The upstream replaces them with serials when it sends the reply."""


def token(draw: Random) -> bytes:
    """Return a new token. No other request of any run has it."""
    return b"q%014xz" % draw.getrandbits(56)


# ---- the client's steps


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AwaitAnswers:
    """Wait until the client has this number of final answers, or until the connection ends."""

    count: int


@dataclass(frozen=True, slots=True)
class AwaitGo:
    """Wait for an interim answer after `count` final ones. If a final answer comes instead, stop sending."""

    count: int


@dataclass(frozen=True, slots=True)
class AwaitSwitch:
    """Wait for the final answer after `count` others. If its status is not 101, stop sending."""

    count: int


@dataclass(frozen=True, slots=True)
class StopReading:
    """Stop reading for this number of seconds. Other steps go on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Finish:
    """Close the sending side, and read until the edge closes its side."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Close the connection, with or without a reset, and stop reading."""

    reset: bool


Step = Send | Pause | AwaitAnswers | AwaitGo | AwaitSwitch | StopReading | Finish | Leave

# ---- the upstream's replies


@dataclass(frozen=True, slots=True)
class Reply:
    """The upstream's reply to one request."""

    kind: str
    sound: bool
    """The reply is valid: the client must get all of it."""
    data: bytes
    """The bytes to send, with the placeholders ANSWER and POISON."""
    cuts: tuple[tuple[int, float], ...] = ()
    """The offsets of the cuts in `data`, each with the seconds to wait before the next piece."""
    first: bytes = b""
    """Bytes sent as soon as the request's head has arrived: 100 Continue."""
    early: bool = False
    """`data` is sent before the body of the request has arrived."""
    end: str = "keep"
    """The reply's end: keep the connection, fin (orderly close), rst (reset), or stall (wait until the edge closes it).
    """
    late: bytes = b""
    """Bytes sent after the connection is idle or serves another request."""
    lost: int = 0
    """The number of times that the upstream closes or resets the connection right after the request's head."""
    wait: float = 0.0
    """Seconds that the upstream waits after the request's head before it reads on."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan of one request."""

    kind: str
    data: bytes
    token: bytes
    method: bytes
    sound: bool = True
    last: bool = False
    """The edge serves no request after it on this connection."""
    upgrade: bool = False
    body_at: int = 0
    """The offset of the body in `data`."""
    expect: bool = False
    refused: int = 0
    """The status of the expected refusal, or 0 if the edge must forward the request."""


@dataclass(slots=True)
class Conversation:
    """The plan of one client's connection."""

    seed: int
    number: int
    kind: str
    planned: list[Planned] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    replies: dict[bytes, Reply] = field(default_factory=dict)
    """The replies by the token in the request's target."""
    sound: int = 0
    """The number of requests, counted from the first, that the edge must serve as planned."""
