"""Foreign texts as readers may see them, so that what is invisible in one cannot deceive them. Pure."""

TEXT_CHARACTERS_MAX = 2000
"""Characters of a foreign text that is shown."""


def escape_invisible(value: object, most: int = TEXT_CHARACTERS_MAX) -> str:
    """Return a foreign text with its invisible characters written out (\\u202e), so that it cannot deceive readers."""
    text = str(value)
    cut = text[:most]
    seen = "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in cut
    )
    return seen if len(text) <= most else f"{seen}…"


def format_line(text: str) -> str:
    """Return a text on one line, without characters that are not printed or that turn the direction of others."""
    return "".join(character if character.isprintable() else " " for character in text)
