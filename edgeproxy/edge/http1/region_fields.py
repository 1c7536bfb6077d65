"""The fields of an answer that name the region of its request, and the upstream's fields that would contradict them."""

import re
from collections.abc import Sequence
from typing import Final

LINES: Final[dict[str, bytes]] = {
    "X-Edge-Region": b"X-Edge-Region: %b\r\n",
    "Server-Timing": b'Server-Timing: region;desc="%b"\r\n',
    "Proxy-Status": b'Proxy-Status: edgeproxy; next-hop="%b"\r\n',
}
"""The line of each field. The last two are lists (W3C Server Timing, RFC 9209 section 2.1.2): an upstream's own lines
stay in front of it. `config/edge/settings.py` offers these names.
"""

NO_HOP: Final = "Proxy-Status"
"""The field that answers of the edge alone do not have, as no upstream was asked."""

_REGION_LINE: Final = re.compile(rb"(?i)\r\nX-Edge-Region:[^\r\n]*")


def format_region_lines(names: Sequence[str], region: str, *, own: bool = False) -> bytes:
    """Format the fields of these names for a request that ran in a region, each with its CRLF; `own`: the edge itself
    answered.
    """
    return b"".join([LINES[name] % region.encode() for name in names if not (own and name == NO_HOP)])


def remove_region(head: bytes) -> bytes:
    """Return an answer's head without its upstream's field about the region."""
    return _REGION_LINE.sub(b"", head)
