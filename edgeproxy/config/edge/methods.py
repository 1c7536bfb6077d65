"""The request methods of IANA's registry (RFC 9110 section 16.1.1): which are forwarded, and which may be repeated.

Unregistered methods are forwarded as well, because any token is a method (RFC 9110 section 9.1).
"""

import re
from typing import Final

SAFE: Final = ("GET", "HEAD", "OPTIONS", "PROPFIND", "QUERY", "REPORT", "SEARCH")
"""Methods without side effects."""

REFUSED: Final = ("CONNECT", "TRACE", "PRI", "*")
"""Methods that are not forwarded.

CONNECT asks for a tunnel past every rule, and TRACE shows the additions of the edge (RFC 9110 sections 9.3.6 and
9.3.8). The other two are reserved and must not be used (RFC 9113 section 3.4, RFC 9110 section 18.2).
"""

WRITING: Final = (
    *("POST", "PUT", "PATCH", "DELETE"),
    *("ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "COPY", "LABEL", "LINK", "LOCK", "MERGE"),
    *("MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "ORDERPATCH", "PROPPATCH"),
    *("REBIND", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL"),
)
"""The other registered methods."""

FORWARDED: Final = (*SAFE, *WRITING)

REPEATABLE: Final = (*SAFE, "PUT", "DELETE")
"""Methods that may be repeated if a connection fails before any byte of an answer (RFC 9110 section 9.2.2).

The registry calls most methods of WebDAV idempotent too. But a repeated MOVE would fail, because nothing is left to
move.
"""

TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110 section 5.6.2."""


def is_forwarded(method: str) -> bool:
    """Return whether this token is forwarded as a method.

    A known method in other letter case is a different one (RFC 9110 section 9.1), but not to every server. It would
    bypass the routes that name the method, and a server might still treat it as that method. So it is not forwarded.
    """
    upper = method.upper()
    return upper not in REFUSED and (method == upper or upper not in FORWARDED)
