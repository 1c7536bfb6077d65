"""The states of a client's connection: their meanings, and the allowed transitions.

The request path does not look the table up. The tests assert, for every connection of every transcript, that only
allowed transitions occur. The states are integers in order of their occurrence, so that one comparison shows whether a
connection is closing.
"""

from typing import Final

SERVING: Final = 0
"""Requests are served, one after another."""
LAST: Final = 1
"""The current request is the last one. Without a current request, the next one is."""
LINGERING: Final = 2
"""The edge has closed its side. The client's further input is dropped, so that no reset destroys the last answer."""
CLOSING: Final = 3
"""The connection closes once everything written has gone."""
RESETTING: Final = 4
"""The connection is reset within an answer, once everything written before has arrived."""
CLOSED: Final = 5
"""The connection is gone, or was reset and ends in the next turn of the loop."""

TRANSITIONS: Final[dict[int, frozenset[int]]] = {
    SERVING: frozenset((LAST, LINGERING, CLOSING, RESETTING, CLOSED)),
    LAST: frozenset((LINGERING, CLOSING, RESETTING, CLOSED)),
    LINGERING: frozenset((CLOSED,)),
    CLOSING: frozenset((CLOSED,)),
    RESETTING: frozenset((CLOSED,)),
    CLOSED: frozenset(),
}
"""The states that may follow each state."""
