"""The states of a client's connection: which there are, what each means, and which may follow which.

That only what the table allows ever follows is asserted in the tests, for every connection of every transcript; on the
request path it is not looked up. The states are whole numbers in the order in which they come, so that one comparison
tells whether a connection is closing.
"""

from typing import Final

SERVING: Final = 0
"""Requests are served, one after another."""
LAST: Final = 1
"""The request under way is the last one; where none is under way, the next."""
LINGERING: Final = 2
"""The edge has closed its side. What the client still sends is dropped, so that no reset destroys the last answer."""
CLOSING: Final = 3
"""The connection closes once everything written has gone."""
RESETTING: Final = 4
"""The connection is reset, within an answer, once what was written before has arrived."""
CLOSED: Final = 5
"""The connection is gone, or was reset and will be in the next turn of the loop."""

TRANSITIONS: Final[dict[int, frozenset[int]]] = {
    SERVING: frozenset((LAST, LINGERING, CLOSING, RESETTING, CLOSED)),
    LAST: frozenset((LINGERING, CLOSING, RESETTING, CLOSED)),
    LINGERING: frozenset((CLOSED,)),
    CLOSING: frozenset((CLOSED,)),
    RESETTING: frozenset((CLOSED,)),
    CLOSED: frozenset(),
}
"""The states that may follow each state."""
