"""The known name that a misspelled word probably meant."""

import difflib
from collections.abc import Collection, Iterable
from itertools import islice

COMPARED_NAMES_MAX = 2000
"""Maximum compared names. Beyond it only names with an equal beginning are compared, which keeps errors cheap."""
LISTED_NAMES_MAX = 12
CANDIDATES_MAX = 3
CHARACTERS_PER_SLIP = 4
"""Characters of a word per additional slip. Shorter words may have one slip."""


def find_nearest(word: str, known: Collection[str]) -> str | None:
    """Return the member of `known` that is most like `word`, or None."""
    names: Iterable[str] = known
    if len(known) > COMPARED_NAMES_MAX:
        names = islice((name for name in known if name[:2] == word[:2]), COMPARED_NAMES_MAX)
    slips_max = max(1, len(word) // CHARACTERS_PER_SLIP)
    alike = difflib.get_close_matches(word, names, n=CANDIDATES_MAX)
    return next((name for name in alike if name.startswith(word) or count_slips(word, name) <= slips_max), None)


def count_slips(word: str, name: str) -> int:
    """Count the characters that were omitted, added, replaced or swapped with the next (optimal string alignment)."""
    before: list[int] = []
    row = list(range(len(name) + 1))
    for i, character in enumerate(word, 1):
        above, row = row, [i]
        for j, meant in enumerate(name, 1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (character != meant)))
            if i > 1 and j > 1 and (character, word[i - 2]) == (name[j - 2], meant):
                row[j] = min(row[j], before[j - 2] + 1)
        before = above
    return row[-1]


def format_suggestion(word: str, known: Collection[str], otherwise: str) -> str:
    """Suggest a replacement for `word`: the nearest known name, else a list of the known names, else `otherwise`."""
    name = find_nearest(word, known)
    if name is not None:
        return f"did you mean {name}?"
    if not known or len(known) > LISTED_NAMES_MAX:
        return otherwise
    return f"known here: {', '.join(sorted(known))}"
