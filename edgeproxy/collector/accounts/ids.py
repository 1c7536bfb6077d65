"""Ids of stored objects, and the pseudonyms of customers that are made of them.

Ids are UUIDv7 (RFC 9562 section 5.7), which sort by the time of their creation.
"""

import re
import secrets
import time
from uuid import UUID

ID_PATTERN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

PSEUDONYM_PREFIX = "c-"


def generate_id() -> str:
    """Return a new id."""
    bits = now_ms() << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(UUID(int=bits))


def is_id(text: str) -> bool:
    """Return whether a text has the form of an id."""
    return ID_PATTERN.fullmatch(text) is not None


def build_pseudonym(id_: str) -> str:
    """Return the pseudonym of the customer with this id."""
    return f"{PSEUDONYM_PREFIX}{id_}"


def is_pseudonym(name: str) -> bool:
    """Return whether a name has the form of a pseudonym."""
    return name.startswith(PSEUDONYM_PREFIX) and is_id(name.removeprefix(PSEUDONYM_PREFIX))


def parse_pseudonym(pseudonym: str) -> str:
    """Return the id of the customer with this pseudonym."""
    return pseudonym.removeprefix(PSEUDONYM_PREFIX)


def now_ms() -> int:
    """Return the time in Unix milliseconds."""
    return time.time_ns() // 1_000_000
