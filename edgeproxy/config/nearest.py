"""The known name that somebody probably meant."""

import difflib
from collections.abc import Collection, Iterable
from itertools import islice

COMPARED_NAMES_MAX = 2000
"""Names that are compared: beyond it, those that begin alike, so that an error costs little among a million."""
LISTED_NAMES_MAX = 12


def nearest(word: str, known: Collection[str]) -> str | None:
    """Find the one of `known` that is most like `word`; None where none is alike."""
    names: Iterable[str] = known
    if len(known) > COMPARED_NAMES_MAX:
        names = islice((name for name in known if name[:2] == word[:2]), COMPARED_NAMES_MAX)
    found = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return found[0] if found else None


def suggestion(word: str, known: Collection[str], otherwise: str) -> str:
    """Suggest what to write instead of `word`: the nearest known name, else a list of those known, else `otherwise`."""
    name = nearest(word, known)
    if name is not None:
        return f"did you mean {name}?"
    if not known or len(known) > LISTED_NAMES_MAX:
        return otherwise
    return f"known here: {', '.join(sorted(known))}"
