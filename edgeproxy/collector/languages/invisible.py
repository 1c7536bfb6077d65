"""Visible and invisible characters of untrusted texts, so that none can deceive readers. Pure."""

import re
from collections.abc import Callable
from unicodedata import category

TEXT_CHARACTERS_MAX = 2000
"""Most displayed characters of an untrusted text."""
JOINED = (
    "\u0600-\u0dff\u1000-\u109f\u1780-\u1aaf\u1b00-\u1c4f\ua800-\ua8ff\ua980-\uab2f"
    "\U00010800-\U00011fff\U0001e900-\U0001e95f\u2190-\u2bff\ufe0f\U0001f000-\U0001faff"
)
"""The characters that zero-width joiners change: Arabic, Indian and related scripts, and emoji."""
VIRAMAS = "\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca"
"""Indian signs without a vowel. A joiner after one changes the letter before it, at the end of a word too."""
JOINERS = re.compile(f"(?<=[{JOINED}])[\u200c\u200d](?=[{JOINED}])|(?<=[{VIRAMAS}])\u200d")
"""Zero-width joiners where words are written with them. In Latin or Chinese words, and at other ends, they would make
two equal names.
"""
FILLERS = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0]")
"""Letters and signs that show nothing, for example the Hangul filler. Unicode counts them neither as controls nor as
spaces.
"""


def replace_invisible(text: str, replace: Callable[[str], str]) -> str:
    """Return a text with `replace` of each invisible character: controls, FILLERS, and marks that change the direction.

    Spaces of all languages are visible, and so are JOINERS.
    """
    if text.isprintable() and (text.isascii() or not FILLERS.search(text)):
        return text
    joiners = {match.start() for match in JOINERS.finditer(text)}
    return "".join(char if _is_visible(char) or place in joiners else replace(char) for place, char in enumerate(text))


def _is_visible(char: str) -> bool:
    return (char.isprintable() and not FILLERS.match(char)) or category(char) == "Zs"


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
