"""The seconds for which the other side keeps an idle connection, where it says so: `Keep-Alive: timeout=N`.

The field is older than the RFCs and in none of them but as a name (RFC 9112 appendix C.2.2); Apache, nginx, Node and
others send it. It is about one connection, so it is never passed on.
"""

import re
from typing import Final

TIMEOUT: Final = re.compile(rb'\r\nkeep-alive[ \t]*:(?:[^\r\n]*[,; \t])?timeout[ \t]*=[ \t]*"?(\d{1,9})', re.IGNORECASE)

MARGIN: Final = 1.0
"""Seconds by which to be earlier than the other side: its clock began before ours, and ours is looked at seldom."""


def parse_idle_timeout(block: bytes) -> float:
    """Return the seconds for which a connection may be kept idle, by the head of an answer on it; infinite by default.

    `block` is the head, whole lines and no part of a body. A second less than the other side says, but no less than
    half of it: to be later than it is to send a request into a connection that is being closed.
    """
    match = TIMEOUT.search(block)
    if match is None:
        return float("inf")
    return subtract_margin(int(match[1]))


def subtract_margin(seconds: float) -> float:
    """Return for how long a connection may be kept that the other side closes after so many seconds."""
    return max(seconds - MARGIN, seconds / 2)
