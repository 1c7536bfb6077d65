"""Names from outside as keys of memory: short ones as they are, long ones shortened, so that entries have a bound."""

from hashlib import blake2b

NAME_CHARACTERS_MAX = 64
"""Characters of a name that is kept as it is."""
KEPT_CHARACTERS = 31
"""Characters of a longer one that are kept in front of its hash."""


def shorten_name(name: str) -> str:
    """Return a name of at most 64 characters that differs for different names: a long one ends with its hash."""
    if len(name) <= NAME_CHARACTERS_MAX:
        return name
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{name[:KEPT_CHARACTERS]}~{digest}"
