"""A copy of the package with one more language, which is written from right to left, as translators would add it.

Its texts are the English ones in meaningless Arabic letters; no English word is left in them.
"""

import shutil
import sys
from pathlib import Path

from babel.messages.plurals import get_plural

from edgeproxy.config.collector.languages import SUFFIX
from loadtest.testbed.process import PACKAGE
from tests.collector.languages.catalogues import HEADER, Text, texts, write_entry
from tests.collector.languages.test_words import HOLE

CODE = "ar"
PLURAL = get_plural(CODE)
LETTERS = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ابتثجحخدذرزسشصضطظعغفقكلمنه")


def write_in_arabic(text: str) -> str:
    """Return a text in Arabic letters, with its placeholders unchanged."""
    pieces, holes = HOLE.split(text)[::2], [found[0] for found in HOLE.finditer(text)]
    letters = [piece.lower().translate(LETTERS) for piece in pieces]
    return "".join(map("".join, zip(letters, [*holes, ""], strict=True)))


def translate(text: Text) -> Text:
    """Return a text, or all forms of its plural."""
    return (write_in_arabic(text[0]),) if len(text) == 1 else (write_in_arabic(text[1]),) * PLURAL.num_plurals


def add_language(folder: Path, first: str = "pass") -> tuple[str, ...]:
    """Create the copy in a folder. Returns the command of its collector, which first runs the line `first`.

    The copy includes the compiled modules, because compiling them takes seconds of CPU.
    """
    shutil.copytree(PACKAGE, folder / "edgeproxy")
    entries = [write_entry(text, translate(text), PLURAL.num_plurals) for text in sorted(texts())]
    file = folder / "edgeproxy/collector/languages/locale" / f"{CODE}{SUFFIX}"
    file.write_text("\n".join([HEADER.format(CODE, PLURAL.plural_forms.rstrip(";")), *entries]), encoding="utf-8")
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); {first}; from edgeproxy.cli import main; main()"
    return (sys.executable, "-c", start, "collector", "-c")
