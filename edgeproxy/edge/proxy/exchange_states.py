"""The states of an exchange: which there are, what each means, and which may follow which.

`Exchange.state` is set where a step ends, and nowhere else. That only what the table allows ever follows is asserted in
the tests, at every exchange of every transcript; on the request path it is not looked up.
"""

from enum import Enum, IntEnum
from typing import Final


class State(IntEnum):
    """The state of an exchange."""

    DECIDING = 0
    """The head is complete, and the edge decides whether to forward it."""
    AWAITS_KEY = 1
    """The supervisor was asked whose its key is."""
    AWAITS_CLAIMS = 2
    """The hub was asked for claims on a limit that hosts share."""
    AWAITS_BODY = 3
    """Its body tells what it reserves, and is not there yet."""
    GATHERING = 4
    """The request is admitted. Its body is taken in before the upstream is asked, which is sent requests whole."""
    CONNECTING = 5
    """The request is admitted and has an endpoint, to which a connection is being opened."""
    SENT = 6
    """The request was sent, and no final answer has begun."""
    ANSWERING = 7
    """The answer is relayed piece by piece. One that comes whole needs no such state."""
    TUNNEL = 8
    """Both connections have switched protocols."""
    OVER = 9
    """Everything that it took was given back."""


DECIDING: Final = State.DECIDING
AWAITS_KEY: Final = State.AWAITS_KEY
AWAITS_CLAIMS: Final = State.AWAITS_CLAIMS
AWAITS_BODY: Final = State.AWAITS_BODY
GATHERING: Final = State.GATHERING
CONNECTING: Final = State.CONNECTING
SENT: Final = State.SENT
ANSWERING: Final = State.ANSWERING
TUNNEL: Final = State.TUNNEL
OVER: Final = State.OVER

TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    DECIDING: frozenset((AWAITS_KEY, AWAITS_CLAIMS, AWAITS_BODY, GATHERING, CONNECTING, SENT, OVER)),
    # There is an answer, or the wait is over.
    AWAITS_KEY: frozenset((DECIDING, OVER)),
    AWAITS_CLAIMS: frozenset((DECIDING, OVER)),
    AWAITS_BODY: frozenset((DECIDING, OVER)),
    GATHERING: frozenset((CONNECTING, SENT, OVER)),
    # Over a connection that was closed at once it goes again, as it does from SENT where the upstream is gone.
    CONNECTING: frozenset((SENT, CONNECTING, OVER)),
    # Sent to another upstream, its fallback, over a connection that is there already.
    SENT: frozenset((SENT, ANSWERING, TUNNEL, CONNECTING, OVER)),
    ANSWERING: frozenset((OVER,)),
    TUNNEL: frozenset((OVER,)),
    OVER: frozenset(),
}
"""The states that may follow each state."""


class Progress(Enum):
    """The outcome of `Exchange.begin` for a request that is not refused."""

    FORWARDED = "it was sent, or a connection is being opened for it"
    WAITING = "it waits for an answer of the supervisor or the hub, or for its body, and goes on by itself"


FORWARDED: Final = Progress.FORWARDED
WAITING: Final = Progress.WAITING


class Unread(Enum):
    """The result of an admission that has yet to be decided."""

    UNREAD = "the body has to be read first, which tells what the request reserves"


UNREAD: Final = Unread.UNREAD
