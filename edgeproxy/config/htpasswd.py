"""Files of htpasswd: users, and the bcrypt hashes of their passwords."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeproxy.config.tree import Items, Table

FILE_BYTES_MAX: Final = 256 << 10
USERS_MAX: Final = 1000
NAME_BYTES_MAX: Final = 255
"""Bytes of a user's name, as in htpasswd."""
COST_MAX: Final = 12
"""The highest cost of a hash. Each step doubles the time; 12 takes about a quarter of a second."""

BCRYPT: Final = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")
NAME: Final = re.compile(r"[^:\x00-\x1f\x7f-\x9f]+")
"""RFC 7617 section 2: a user's name has no colon and no control characters."""
OUTER: Final = " \N{BYTE ORDER MARK}"
"""Characters that cannot be around a name. A field's value has no spaces around it, so the upstream would get another
user's name.
"""
MAKE_IT: Final = "make it with htpasswd -B -C 10 FILE USER"
SCHEMES: Final = (
    ("$apr1$", "apr1 (MD5)"),
    ("$1$", "MD5"),
    ("{SHA}", "SHA-1"),
    ("$5$", "SHA-256 (crypt)"),
    ("$6$", "SHA-512 (crypt)"),
    ("$2x$", "2x, a faulty bcrypt"),
    ("$2", "a malformed bcrypt"),
    ("$argon2", "argon2"),
    ("$y$", "yescrypt"),
)
"""The beginnings of hashes that are refused, with the names of their schemes."""


class InvalidUsersError(Exception):
    """A file of users that cannot be read or has an invalid line. Neither text has the content of the line."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what, hint)
        self.what, self.hint = what, hint


def find_hash_fault(text: str) -> str | None:
    """Return the problem of a password's hash without its content, or None."""
    match = BCRYPT.fullmatch(text)
    if match is None:
        scheme = next((name for beginning, name in SCHEMES if text.startswith(beginning)), None)
        return f"has a password by {scheme or 'crypt or in clear text'}, not by bcrypt"
    if not 4 <= int(match[1]) <= COST_MAX:
        return f"has a password with the cost {int(match[1])}, not 4 to {COST_MAX}"
    return None


def read_users(file: str) -> tuple[bytes, dict[str, str]]:
    """Return the content of a file of htpasswd, and the hashes by user. Raises InvalidUsersError.

    Empty lines and lines that begin with a # are skipped.
    """
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise InvalidUsersError(f"{file} cannot be read: {error.strerror}", "name a file that can be read") from None
    if len(content) > FILE_BYTES_MAX:
        raise InvalidUsersError(f"{file} has more than {FILE_BYTES_MAX >> 10} KiB", "give each user a key instead")
    users: dict[str, str] = {}
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip() or line.startswith(b"#"):
            continue
        fault = _add_user(users, line)
        if fault is not None:
            raise InvalidUsersError(f"line {number} of {file}: {fault}", MAKE_IT)
    if not users:
        raise InvalidUsersError(f"{file} has no users", MAKE_IT)
    if len(users) > USERS_MAX:
        raise InvalidUsersError(f"{file} has {len(users)} users", f"at most {USERS_MAX}; give each one a key instead")
    return content, users


def _add_user(users: dict[str, str], line: bytes) -> str | None:
    """Add the user of a line. Return the problem of the line, or None."""
    name, colon, hashed = line.partition(b":")
    try:
        user, text = name.decode(), hashed.rstrip(b" \t").decode()
    except UnicodeDecodeError:
        return "is no UTF-8"
    if not colon:
        return "has no colon"
    if not NAME.fullmatch(user) or len(name) > NAME_BYTES_MAX:
        return f"has no name of 1 to {NAME_BYTES_MAX} bytes without control characters"
    if user.strip(OUTER) != user:
        return "has a name with a space or a byte order mark around it"
    if user in users:
        return "has a user of an earlier line"
    users[user] = text
    return find_hash_fault(text)


def list_basic_sections(tree: Table) -> Iterator[tuple[tuple[str | int, ...], Table]]:
    """Yield each `auth` of a route that is a mapping."""
    routes = tree.get("routes")
    for index, route in enumerate(routes if isinstance(routes, Items) else ()):
        auth = route.get("auth") if isinstance(route, Table) else None
        if isinstance(auth, Table):
            yield ("routes", index, "auth"), auth
