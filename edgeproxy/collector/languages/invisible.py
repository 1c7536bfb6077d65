"""Display of untrusted texts, so that invisible characters in them cannot deceive readers. Pure."""

TEXT_CHARACTERS_MAX = 2000
"""Most displayed characters of an untrusted text."""


def escape_invisible(value: object, most: int = TEXT_CHARACTERS_MAX) -> str:
    r"""Return an untrusted text with invisible characters escaped (\u202e), so that it cannot deceive readers."""
    text = str(value)
    cut = text[:most]
    seen = "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in cut
    )
    return seen if len(text) <= most else f"{seen}…"


def format_line(text: str) -> str:
    """Return a text on one line, without unprintable characters and characters that change the text direction."""
    return "".join(character if character.isprintable() else " " for character in text)
