"""Visible and invisible characters of untrusted texts, so that none can deceive readers. Pure."""

import re
from collections.abc import Callable
from unicodedata import category

TEXT_CHARACTERS_MAX = 2000
"""Most displayed characters of an untrusted text."""
JOINERS = re.compile("(?<=[\u0590-\u1fff\u2190-\U0010ffff])[\u200c\u200d]")
"""Zero-width joiners where words are written with them: Persian and Indian words, and emoji. In Latin, Greek and
Cyrillic words they would make two equal names.
"""


def replace_invisible(text: str, replace: Callable[[str], str]) -> str:
    """Return a text with `replace` of each invisible character: controls, and marks that change the text direction.

    Spaces of all languages are visible, and so are JOINERS.
    """
    if text.isprintable():
        return text
    joiners = {match.start() for match in JOINERS.finditer(text)}
    return "".join(
        char if char.isprintable() or category(char) == "Zs" or place in joiners else replace(char)
        for place, char in enumerate(text)
    )


def is_visible(text: str) -> bool:
    """Return whether a text is one line of visible characters."""
    return replace_invisible(text, lambda _: "") == text


def escape_invisible(value: object, most: int = TEXT_CHARACTERS_MAX) -> str:
    r"""Return an untrusted text with invisible characters escaped (\u202e), so that it cannot deceive readers."""
    text = str(value)
    seen = replace_invisible(text[:most], lambda char: char if char == "\n" else char.encode("unicode_escape").decode())
    return seen if len(text) <= most else f"{seen}…"


def format_line(text: str) -> str:
    """Return a text on one line, with spaces in place of its invisible characters."""
    return replace_invisible(text, lambda _: " ")
