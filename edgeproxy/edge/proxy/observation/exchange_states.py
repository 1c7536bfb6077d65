"""The states of an exchange: their meanings, and the allowed transitions.

`Exchange.state` is set only at the end of a step. The request path does not look the table up. The tests assert, for
every exchange of every transcript, that only allowed transitions occur.
"""

from enum import Enum, IntEnum
from typing import Final


class State(IntEnum):
    """The state of an exchange."""

    DECIDING = 0
    """The head is complete, and the edge decides whether to forward it."""
    AWAITS_KEY = 1
    """The supervisor was asked for the owner of its key."""
    AWAITS_CLAIMS = 2
    """The hub was asked for claims on a limit that hosts share."""
    AWAITS_BODY = 3
    """Its body states its reservation, and is not complete yet."""
    GATHERING = 4
    """The request is admitted. Its upstream gets whole requests, so the edge collects the body first."""
    CONNECTING = 5
    """The request is admitted and has an endpoint; a connection to it is being opened."""
    SENT = 6
    """The request was sent, and no final answer has begun."""
    ANSWERING = 7
    """The answer is relayed piece by piece. A whole answer does not need this state."""
    TUNNEL = 8
    """Both connections have switched protocols."""
    OVER = 9
    """Everything that it took was released."""


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
    # An answer has come, or the wait is over.
    AWAITS_KEY: frozenset((DECIDING, OVER)),
    AWAITS_CLAIMS: frozenset((DECIDING, OVER)),
    AWAITS_BODY: frozenset((DECIDING, OVER)),
    GATHERING: frozenset((CONNECTING, SENT, OVER)),
    # After a connection that closed at once, the request goes over another one, as from SENT if the upstream is gone.
    CONNECTING: frozenset((SENT, CONNECTING, OVER)),
    # SENT again: sent to its fallback over an existing connection.
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
    """The result of an admission that is not decided yet."""

    UNREAD = "the body has to be read first, which tells what the request reserves"


UNREAD: Final = Unread.UNREAD
