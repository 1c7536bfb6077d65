"""Names of customers for what issuers of tokens call their subjects: `auth0|5f7c`, `abc@clients`, `user@example.com`.

A subject that is a name stays as it is. Any other gets a name that nothing else gets: `sub--` and the subject, every
byte of which that is no letter, digit or hyphen is written as `_` and two hex digits. Where that would be longer than a
name may be it is `sha--` and the SHA-256 of the subject in Base64 (RFC 4648 section 5). A subject that begins with
one of the two itself is never left as it is, so nobody gets another's name by calling themselves that.
"""

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final

from edgeproxy.config.parsers import NAME

ESCAPED, HASHED = "sub--", "sha--"
PREFIXES: Final = (ESCAPED, HASHED)
NAME_CHARACTERS_MAX: Final = 64
PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-")
ESCAPE: Final = re.compile(rb"_([0-9a-f]{2})")


def subject_name(subject: str) -> str:
    """Return the customer's name for a subject. Raises ValueError for an empty one, UnicodeError for no Unicode."""
    if NAME.fullmatch(subject) and not subject.startswith(PREFIXES):
        return subject
    written = subject.encode()
    if not written:
        raise ValueError("the subject is empty")
    name = ESCAPED + "".join(chr(byte) if byte in PLAIN else f"_{byte:02x}" for byte in written)
    if len(name) <= NAME_CHARACTERS_MAX:
        return name
    return HASHED + urlsafe_b64encode(sha256(written).digest()).rstrip(b"=").decode()


def name_subject(name: str) -> str | None:
    """Return the subject that has this name; None where the name has only its hash, or no subject has it."""
    if not name.startswith(PREFIXES):
        return name if NAME.fullmatch(name) else None
    if name.startswith(HASHED):
        return None
    try:
        escaped = name.removeprefix(ESCAPED).encode("ascii")
        subject = ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), escaped).decode()
        return subject if subject_name(subject) == name else None
    except ValueError:
        return None
