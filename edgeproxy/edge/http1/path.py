"""The one rule about paths: routes are matched with the result of `normalize_target`, and that result is forwarded."""

import re
from typing import Final

from edgeproxy.edge.errors import RejectedError
from edgeproxy.edge.http1 import grammar

UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
"""RFC 3986 section 2.3: an escape of one of these has the meaning of the character."""

FORBIDDEN: Final = frozenset(b"\\\0")
"""Escaped, these are data to us and a separator, or the end, to some server behind us."""

ESCAPED_SLASH: Final = b"%2F"
"""Data to us and to some servers, as in the names of GitLab's and RabbitMQ's APIs; a separator to others."""

ESCAPE: Final = re.compile(rb"(%[0-9A-Fa-f]{2})")
SLASHES: Final = re.compile(rb"/{2,}")
DOTS_AND_MORE: Final = re.compile(rb"/\.\.?(?:;|%3B)")
"""A dot segment with parameters. It is a plain segment by RFC 3986, but a dot segment to servers that drop parameters
first; some of these servers undo escapes before.
"""


PERCENT, DOT = b"%."
"""The bytes as integers: for bytes, `in` makes an exception each time and drops it (CPython 3.11), at the cost of a
microsecond.
"""


def is_plain(path: bytes) -> bool:
    """Return whether a path, of bytes in grammar.TARGET only, is in its one form already; may return False though it
    is.
    """
    return PERCENT not in path and (DOT not in path or path.find(b"/.") < 0)


def normalize_target(target: bytes) -> bytes:
    """Return the target with its path in its only normal form; its query is left alone.

    `target` is in origin-form or `*`. Escapes of unreserved characters are undone and other escapes written in upper
    case (RFC 3986 section 6.2.2), dot segments removed (section 5.2.4); `//` stays. Raises RejectedError(400) for a
    path that climbs above the root, for escaped `\\` and NUL, for a dot segment beside an escaped `/`, and for
    malformed targets.
    """
    path, question, query = target.partition(b"?")
    if target == b"*":
        return target
    if not path.startswith(b"/") or path.translate(None, grammar.TARGET) or query.translate(None, grammar.QUERY):
        raise RejectedError(400, "The path is malformed")
    if is_plain(path):
        return target
    return _remove_dot_segments(_unescape(path)) + question + query


def _normalize_escapes() -> dict[bytes, bytes]:
    """Return the normal form of each escape, in all spellings. Escapes of FORBIDDEN have none."""
    forms = {}
    for code in frozenset(range(256)) - FORBIDDEN:
        form = bytes((code,)) if code in UNRESERVED else b"%%%02X" % code
        for digits in {b"%02x" % code, b"%02X" % code, b"%x%X" % divmod(code, 16), b"%X%x" % divmod(code, 16)}:
            forms[b"%" + digits] = form
    return forms


ESCAPES: Final = _normalize_escapes()


def _unescape(path: bytes) -> bytes:
    parts = ESCAPE.split(path)  # The escapes are every second part.
    if path.count(b"%") != len(parts) // 2:
        raise RejectedError(400, "The path has a percent sign without two hex digits")
    try:
        parts[1::2] = [ESCAPES[escape] for escape in parts[1::2]]
    except KeyError:
        raise RejectedError(400, "The path has an escaped backslash or NUL") from None
    return b"".join(parts)


def _remove_dot_segments(path: bytes) -> bytes:
    """Remove dot segments (RFC 3986 section 5.2.4); to climb above the root is refused, not ignored."""
    if DOTS_AND_MORE.search(path):
        raise RejectedError(400, "The path has a dot segment with parameters")
    segments = path.split(b"/")[1:]
    if path.find(ESCAPED_SLASH) >= 0 and any(map(_has_hidden_dots, segments)):
        raise RejectedError(400, "The path has a dot segment beside an escaped slash")
    remaining: list[bytes] = []
    for segment in segments:
        if segment == b"..":
            if not remaining:
                raise RejectedError(400, "The path climbs above its root")
            remaining.pop()
        elif segment != b".":
            remaining.append(segment)
    if segments[-1] in (b".", b".."):
        remaining.append(b"")
    return b"/" + b"/".join(remaining)


def _has_hidden_dots(segment: bytes) -> bool:
    """Return whether a dot segment appears once escaped slashes are taken for slashes, with parameters or without."""
    if segment.find(ESCAPED_SLASH) < 0:
        return False
    parts = segment.split(ESCAPED_SLASH)
    return b"." in parts or b".." in parts or DOTS_AND_MORE.search(segment.replace(ESCAPED_SLASH, b"/")) is not None


def list_readings(path: bytes) -> tuple[bytes, bytes]:
    """Return two readings of a resolved path: by a server that unescapes its slashes, and by one that also merges
    them.
    """
    unescaped = path.replace(ESCAPED_SLASH, b"/")
    return unescaped, SLASHES.sub(b"/", unescaped)
