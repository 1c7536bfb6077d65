"""The known name that somebody probably meant."""

import difflib
from collections.abc import Collection
from itertools import islice

MOST = 2000
"""Names that are compared: beyond it, those that begin alike, so that an error costs little among a million."""
LISTED = 12


def nearest(word: str, known: Collection[str]) -> str | None:
    """The one of `known` that is most like `word`, None where none is alike."""
    names = known if len(known) <= MOST else islice((name for name in known if name[:2] == word[:2]), MOST)
    found = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return found[0] if found else None


def suggestion(word: str, known: Collection[str], otherwise: str) -> str:
    """What would be right instead of `word`: the nearest known name, else what is known, else `otherwise`."""
    name = nearest(word, known)
    if name is not None:
        return f"did you mean {name}?"
    if not known or len(known) > LISTED:
        return otherwise
    return f"known here: {', '.join(sorted(known))}"
