"""Names of customers for the subjects of tokens: `auth0|5f7c`, `abc@clients`, `user@example.com`.

A subject that is a valid name stays unchanged. Any other subject gets a unique name: `sub--` and the subject, with
every byte except letters, digits and hyphens written as `_` and two hex digits. If that is too long for a name, it
becomes `sha--` and the SHA-256 of the subject in Base64 (RFC 4648 section 5). A subject that begins with one of these
prefixes is always converted, so people cannot choose a subject that equals another's name.
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
    """Return the customer's name for a subject. Raises ValueError if it is empty, UnicodeError if it is not Unicode."""
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
    """Return the subject of this name. None: the name contains only its hash, or no subject has it."""
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
