"""The time that the other side keeps an idle connection, if it says so: `Keep-Alive: timeout=N`.

The field is older than the RFCs, and they only mention its name (RFC 9112 appendix C.2.2); Apache, nginx, Node and
others send it. It is about one connection, so it is never passed on.
"""

import re
from typing import Final

TIMEOUT: Final = re.compile(rb'\r\nkeep-alive[ \t]*:(?:[^\r\n]*[,; \t])?timeout[ \t]*=[ \t]*"?(\d{1,9})', re.IGNORECASE)

MARGIN: Final = 1.0
"""The edge must be this many seconds earlier than the other side: its clock began before ours, and ours is looked at
seldom.
"""


def parse_idle_timeout(block: bytes) -> float:
    """Return how many seconds a connection may be kept idle, by the head of an answer on it; infinite by default.

    `block` is the head, whole lines and no part of a body. The result is a second less than the other side says, but no
    less than half of it: a later edge would send a request into a connection that is being closed.
    """
    match = TIMEOUT.search(block)
    if match is None:
        return float("inf")
    return subtract_margin(int(match[1]))


def subtract_margin(seconds: float) -> float:
    """Return how many seconds a connection may be kept, if the other side closes it after `seconds`."""
    return max(seconds - MARGIN, seconds / 2)
