"""Bounded keys for names from outside: a short name stays unchanged, a long name is cut and gets a hash."""

from hashlib import blake2b

NAME_CHARACTERS_MAX = 64
"""The length of the longest name that stays unchanged, in characters."""
KEPT_CHARACTERS = 31
"""The number of characters of a longer name that stay in front of its hash."""


def shorten_name(name: str) -> str:
    """Return a text of at most 64 characters. Different names have different texts: a long name ends with its hash."""
    if len(name) <= NAME_CHARACTERS_MAX:
        return name
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{name[:KEPT_CHARACTERS]}~{digest}"
