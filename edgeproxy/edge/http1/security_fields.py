"""The fields that browsers need to protect the reader of an answer, added if the upstream did not set them.

Pages and APIs do not notice these values, so they may be added to answers of any service. The page itself decides about
its content and scripts; only the sites that may frame it are settled, as X-Frame-Options always did.
"""

from functools import cache
from typing import Final

SecurityLines = tuple[tuple[bytes, ...], ...]
"""The lines to add to an answer, by whether its client came over TLS, and by the flags of the answer."""
HSTS: Final = b"Strict-Transport-Security: max-age=31536000\r\n"
"""RFC 6797, a year. It does not bind other hosts of the domain, nor ask browsers to preload it."""
NO_SNIFFING: Final = b"X-Content-Type-Options: nosniff\r\n"
NO_AUDITOR: Final = b"X-XSS-Protection: 0\r\n"
"""The filters of old browsers could be turned against the pages that they were to protect."""
REFERRER: Final = b"Referrer-Policy: strict-origin-when-cross-origin\r\n"
"""The default policy of today's browsers; older ones sent whole URLs."""
PERMISSIONS: Final = b"Permissions-Policy: camera=(), geolocation=(), microphone=(), payment=(), usb=()\r\n"
OPENER: Final = b"Cross-Origin-Opener-Policy: same-origin\r\n"
RESOURCE: Final = b"Cross-Origin-Resource-Policy: same-origin\r\n"
"""These three break pages that use a camera, open windows of others, or are loaded by others: a route asks for them."""

SET_HSTS, SET_SNIFFING, SET_AUDITOR, SET_REFERRER, SET_POLICY, FRAMED_BY_NONE, FRAMED_BY_SELF = (
    1 << bit for bit in range(7)
)
SET_PERMISSIONS, SET_OPENER, SET_RESOURCE = (1 << bit for bit in range(7, 10))
FRAMED: Final = FRAMED_BY_NONE | FRAMED_BY_SELF
"""Flags of an answer that names the sites that may frame it, in words that the other field cannot express."""
ALL: Final = (1 << 10) - 1
"""The flags of an answer that needs no additions."""
NAMES_PLACES: Final = ALL + 1
"""The flag of an answer that names places of its service, in one of `PLACES`. It shares a number with the flags for
browsers, so that an answer without either costs one look.
"""
NAMES_REGION: Final = 2 * NAMES_PLACES
"""The flag of an answer with the field X-Edge-Region, which is removed if the edge sets its own (region_fields.py)."""

PLACES: Final = frozenset((b"location", b"content-location", b"refresh", b"set-cookie"))
"""Fields of an answer with paths that its client will request, or will send its cookies to."""

BITS: Final[dict[bytes, int]] = {
    b"strict-transport-security": SET_HSTS,
    b"x-content-type-options": SET_SNIFFING,
    b"x-xss-protection": SET_AUDITOR,
    b"referrer-policy": SET_REFERRER,
    b"content-security-policy": SET_POLICY,
    b"x-frame-options": FRAMED,
    b"permissions-policy": SET_PERMISSIONS,
    b"cross-origin-opener-policy": SET_OPENER,
    b"cross-origin-resource-policy": SET_RESOURCE,
    b"x-edge-region": NAMES_REGION,
}
"""The flags of an answer that has a field of this name."""

FRAME_OPTIONS: Final[dict[bytes, int]] = {b"deny": FRAMED_BY_NONE, b"sameorigin": FRAMED_BY_SELF}


def parse_flags(name: bytes, value: bytes) -> int:
    """Return the flags in BITS of an answer that has this field; the name is in lower case.

    A policy with frame-ancestors makes browsers ignore X-Frame-Options (CSP level 3 section 6.4.2.1), so the two must
    agree, or one be absent.
    """
    if name == b"x-frame-options":
        return FRAME_OPTIONS.get(value.lower(), FRAMED)
    if name == b"content-security-policy" and b"frame-ancestors" in value.lower():
        return SET_POLICY | FRAMED
    return BITS[name]


def _format_missing(flags: int, secure: bool) -> bytes:
    framed = flags & FRAMED
    lines = (
        HSTS if secure and not flags & SET_HSTS else b"",
        b"" if flags & SET_SNIFFING else NO_SNIFFING,
        b"" if framed else b"X-Frame-Options: SAMEORIGIN\r\n",
        b"" if flags & SET_POLICY else POLICIES[framed],
        b"" if flags & SET_AUDITOR else NO_AUDITOR,
        b"" if flags & SET_REFERRER else REFERRER,
    )
    return b"".join(lines)


POLICIES: Final[dict[int, bytes]] = {
    0: b"Content-Security-Policy: frame-ancestors 'self'\r\n",
    FRAMED_BY_SELF: b"Content-Security-Policy: frame-ancestors 'self'\r\n",
    FRAMED_BY_NONE: b"Content-Security-Policy: frame-ancestors 'none'\r\n",
    FRAMED: b"",
}

BASIC: Final = SET_PERMISSIONS - 1
"""The flags of all fields except the fields of isolation."""
_BASIC_LINES: Final = tuple(
    tuple(_format_missing(flags, secure) for flags in range(BASIC + 1)) for secure in (False, True)
)
MISSING_LINES: Final[SecurityLines] = tuple(lines * ((ALL + 1) // (BASIC + 1) * 4) for lines in _BASIC_LINES)
"""The lines to add to an upstream's answer: `MISSING_LINES[secure][flags]`, whatever places and region it names. HSTS
over TLS alone (RFC 6797 section 7.2).
"""


@cache
def build_isolation_lines() -> SecurityLines:
    """Build the lines in the form of `MISSING_LINES`, with the lines of isolation. Few configurations need them."""
    isolated = [
        b"".join(
            line
            for bit, line in ((SET_PERMISSIONS, PERMISSIONS), (SET_OPENER, OPENER), (SET_RESOURCE, RESOURCE))
            if not flags & bit
        )
        for flags in range(0, ALL + 1, BASIC + 1)
    ]
    return tuple(tuple(line + more for more in isolated for line in lines) * 4 for lines in _BASIC_LINES)


_OWN: Final = (
    NO_SNIFFING
    + b"X-Frame-Options: DENY\r\nContent-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n"
    + NO_AUDITOR
    + b"Referrer-Policy: no-referrer\r\n"
    + PERMISSIONS
    + OPENER
    + RESOURCE
)
OWN_LINES: Final = (_OWN, HSTS + _OWN)
"""The lines of the edge's own answers, which are not pages: `OWN_LINES[secure]`."""
