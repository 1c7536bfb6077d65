"""A conversation: what one client does on one connection, and how the upstream answers each of its requests.

It is a pure function of the run's seed and its number (`script.py` makes it), so that it can be had again.
"""

import re
from dataclasses import dataclass, field
from random import Random

TOKEN = re.compile(rb"q[0-9a-f]{14}z")
"""What marks every part of a request as that request's."""
SERIAL = re.compile(rb"[rp][0-9a-f]{14}z")
"""What marks every part of an answer: r… as the answer to one forwarded request, p… as what nobody asked for."""

ANSWER = b"r@@@@@@@@@@@@@@z"
POISON = b"p@@@@@@@@@@@@@@z"
"""Stand in a reply for the serials that it gets when it is sent."""


def token(draw: Random) -> bytes:
    """A new one, that no other request of any run has."""
    return b"q%014xz" % draw.getrandbits(56)


# ---- what a client does


@dataclass(frozen=True, slots=True)
class Send:
    """Write these bytes; `eager` ones also where the edge has not switched protocols, see AwaitSwitch."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Pause:
    """Do nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class AwaitAnswers:
    """Wait for so many final answers in all, or the end of the connection."""

    count: int


@dataclass(frozen=True, slots=True)
class AwaitGo:
    """Wait for an interim answer behind so many final ones. Where a final one comes instead, nothing more is sent."""

    count: int


@dataclass(frozen=True, slots=True)
class AwaitSwitch:
    """Wait for the final answer behind so many others. Where that is not 101, nothing more is sent."""

    count: int


@dataclass(frozen=True, slots=True)
class StopReading:
    """Read nothing for so many seconds, while other steps go on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Finish:
    """Close the sending side; what comes is read to its end."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Close the connection, with a reset or without; nothing more is read."""

    reset: bool


Step = Send | Pause | AwaitAnswers | AwaitGo | AwaitSwitch | StopReading | Finish | Leave

# ---- what the upstream does


@dataclass(frozen=True, slots=True)
class Reply:
    """How the upstream answers one request."""

    kind: str
    sound: bool
    """Nothing is wrong with it: the client must get it, and whole."""
    data: bytes
    """What is sent, with ANSWER and POISON in it."""
    cuts: tuple[tuple[int, float], ...] = ()
    """Where `data` is cut into pieces, and the seconds before the next one."""
    first: bytes = b""
    """Sent as soon as the request's head is there: 100 Continue."""
    early: bool = False
    """`data` is sent before the body of the request has come."""
    end: str = "keep"
    """keep the connection, fin (close it in order), rst (reset it), stall (until the edge closes it)."""
    late: bytes = b""
    """Sent once the connection is idle, or another's."""
    lost: int = 0
    """So many times the connection is closed, or reset, as soon as the request's head is there."""
    wait: float = 0.0
    """Seconds for which nothing of the request is read behind its head."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One request as it was meant."""

    kind: str
    data: bytes
    token: bytes
    method: bytes
    sound: bool = True
    last: bool = False
    """Nothing after it is served."""
    upgrade: bool = False
    body_at: int = 0
    """Where its body begins."""
    expect: bool = False
    refused: int = 0
    """The status with which the edge must refuse it; 0 where it must forward it."""


@dataclass(slots=True)
class Conversation:
    """What is planned, of one client's connection."""

    seed: int
    number: int
    kind: str
    planned: list[Planned] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    replies: dict[bytes, Reply] = field(default_factory=dict)
    """By the token in the request's target."""
    sound: int = 0
    """So many requests, from the first on, must be answered as planned."""
