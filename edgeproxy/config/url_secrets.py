"""Passwords in URLs: the characters that must be escaped, and the parts of a URL that may be shown.

A raw `@`, `/`, `#` or `:` in a password ends it at different places for different parsers. The rest of it is taken for
a host, which errors show.
"""

import re
from urllib.parse import unquote

from edgeproxy.config.parsers import read_secret_text
from edgeproxy.config.units import value_error

ESCAPES = {"%": "%25", "@": "%40", ":": "%3A", "/": "%2F", "?": "%3F", "#": "%23"}
"""Characters that must be escaped in the user or password of a URL (RFC 3986 section 3.2.1)."""
HINT = "in the user and the password " + ", ".join(f"{code} stands for {raw}" for raw, code in ESCAPES.items())
AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)(.*)", re.DOTALL)
USER = re.compile(r"(?:[^%:@\s]|%[0-9A-Fa-f]{2})*(?::(?:[^%:@\s]|%[0-9A-Fa-f]{2})*)?")


def read_secret_url(value: object, hint: str) -> str:
    """Read a URL that may have a password. Errors do not show it."""
    url = read_secret_text(value, hint)
    check_credentials(url, hint)
    return url


def check_credentials(url: str, hint: str = "") -> None:
    """Raise ValueError if the user or password of a URL has a character that must be escaped.

    The error does not show the URL. An `@` after the host counts as the end of a password with a raw `/`.
    """
    match = AUTHORITY.fullmatch(url)
    if match is None:
        return
    authority, rest = match.groups()
    who, at, _ = authority.rpartition("@")
    if "@" in rest or (at and USER.fullmatch(who) is None):
        raise value_error("has a user or a password with a raw character", f"{hint}: {HINT}" if hint else HINT)
    try:
        unquote(who, errors="strict")
    except UnicodeDecodeError:
        raise value_error("has a user or a password that is not UTF-8", HINT) from None
