"""The request methods: those of IANA's registry (RFC 9110 section 16.1.1), what is not forwarded, what may be repeated.

A method that is in no registry is forwarded as well, as any token is one (RFC 9110 section 9.1).
"""

import re
from typing import Final

SAFE: Final = ("GET", "HEAD", "OPTIONS", "PROPFIND", "QUERY", "REPORT", "SEARCH")
"""Methods that change nothing."""

REFUSED: Final = ("CONNECT", "TRACE", "PRI", "*")
"""Not forwarded. CONNECT asks for a tunnel past every rule, TRACE shows what the edge has added (RFC 9110 sections
9.3.6 and 9.3.8), the other two are reserved so that nobody uses them (RFC 9113 section 3.4, RFC 9110 section 18.2)."""

WRITING: Final = (
    *("POST", "PUT", "PATCH", "DELETE"),
    *("ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "COPY", "LABEL", "LINK", "LOCK", "MERGE"),
    *("MKACTIVITY", "MKCALENDAR", "MKCOL", "MKREDIRECTREF", "MKWORKSPACE", "MOVE", "ORDERPATCH", "PROPPATCH"),
    *("REBIND", "UNBIND", "UNCHECKOUT", "UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL"),
)
"""The others of the registry."""

FORWARDED: Final = (*SAFE, *WRITING)

REPEATABLE: Final = (*SAFE, "PUT", "DELETE")
"""May be sent again when a connection died before any byte of an answer (RFC 9110 section 9.2.2). The registry calls
most methods of WebDAV idempotent too; but who repeats a MOVE that was done is told that there is nothing to move."""

TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110 section 5.6.2."""


def is_forwarded(method: str) -> bool:
    """Return whether this token is forwarded as a method.

    A known method in other letters is another one (RFC 9110 section 9.1), but not to every server: it would pass by
    the routes that name the method, and might be served as that. So it is not forwarded.
    """
    upper = method.upper()
    return upper not in REFUSED and (method == upper or upper not in FORWARDED)
