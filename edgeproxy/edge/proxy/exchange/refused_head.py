"""The values of a refused request head that select the CORS fields of the answer: Origin, host, method and path.

The edge refuses a head that is malformed, too long, too late or cut off before it knows the route. A web page can read
the refusal only if the answer has the CORS fields of the route. So the edge reads these values from the refused head,
as far as it can. The head has no other use.
"""

import re
from typing import Final, NamedTuple

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1.field_values import find_value
from edgeproxy.edge.http1.grammar import TARGET, parse_host
from edgeproxy.edge.http1.path import normalize_target
from edgeproxy.edge.http1.request import PLAIN, RequestHead
from edgeproxy.edge.http1.request_line import ABSOLUTE

BLANK: Final = b"\r\n\r\n"

REFUSED_IN_PATH: Final = re.compile(rb"%%(?![0-9A-Fa-f]{2})|%%(?:5[Cc]|00)|[^%b]" % re.escape(TARGET))
"""Matches an invalid escape, an escape that no path may have, or a byte that no request target may have."""


class RefusedHead(NamedTuple):
    """The values of a refused head. A value that cannot be read is empty or None."""

    host: bytes | None
    method: bytes
    path: bytes
    """The normalized path, up to the last slash before its first fault."""
    keep: bytes
    """The complete field lines, each with its CRLF."""
    request_line: bytes
    """The request line, without its CRLF."""
    head: RequestHead = PLAIN
    length: int = 0


def read_refused_head(data: bytes) -> RefusedHead:
    """Read a whole head or the beginning of one. A field line without its CRLF is not read."""
    line, _, lines = data.partition(BLANK)[0].partition(b"\r\n")
    if BLANK not in data:
        lines = lines[: lines.rfind(b"\r\n") + 2]
    method, _, rest = line.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    authority = find_value(lines, b"host")
    absolute = ABSOLUTE.fullmatch(path)
    if absolute is not None:
        authority, path = absolute[2], absolute[3] or b"/"
    host = None if authority is None else parse_host(authority)
    return RefusedHead(host, method, _normalize_beginning(path), lines, line)


def _normalize_beginning(path: bytes) -> bytes:
    """Return the normalized path up to the last slash before its first fault, or b"" if that part is invalid too."""
    fault = REFUSED_IN_PATH.search(path)
    if fault is not None:
        path = path[: path.rfind(b"/", 0, fault.start()) + 1]
    try:
        return normalize_target(path) if path.startswith(b"/") else b""
    except RejectedError:
        return b""
