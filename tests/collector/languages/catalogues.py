"""Texts of pages and mails; `python -m tests.collector.languages.catalogues` updates the files of the languages.

It sorts the entries, adds new texts without a translation (a test then demands one), and removes texts that are gone.
After a rebase with conflicts: keep both sides, and run it.
"""

from functools import cache
from pathlib import Path

from babel.messages.extract import extract_from_dir
from babel.messages.plurals import get_plural
from babel.messages.pofile import escape, read_po

import edgeproxy.collector
from edgeproxy.collector.languages.catalogs import DEFAULT, LANGUAGES

COLLECTOR = Path(edgeproxy.collector.__file__).parent
ROOMS = ("alerts", "languages", "pages", "problems")
"""The packages that contain texts for readers."""
METHODS = [("templates/**", "jinja2.ext:babel_extract"), ("**.py", "python")]
OPTIONS = {"templates/**": {"newstyle_gettext": "true", "trimmed": "false", "encoding": "utf-8"}}
KEYWORDS: dict[str, tuple[int, ...] | None] = {"_": None, "gettext": None, "N_": None, "ngettext": (1, 2)}
HEADER = """msgid ""
msgstr ""
"Language: {}\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Plural-Forms: {};\\n"
"""

Text = tuple[str, ...]
"""A text, or its singular and its plural."""


@cache
def texts() -> set[Text]:
    """Return all texts of the templates and modules."""
    found = [text for room in ROOMS for text in extract_from_dir(COLLECTOR / room, METHODS, OPTIONS, keywords=KEYWORDS)]
    said = (text if isinstance(text, tuple) else (text,) for _, _, text, *_ in found)
    return {tuple(str(one) for one in text if isinstance(one, str)) for text in said}


def file_of(language: str) -> Path:
    """Return the path of a language's translations."""
    return COLLECTOR / "languages" / "locale" / f"{language}.po"


def translations(language: str) -> dict[Text, Text]:
    """Return a language's translations by text: all plural forms, or empty strings if a translation is missing."""
    with file_of(language).open("rb") as file:
        there = [one for one in read_po(file, locale=language) if one.id and not one.fuzzy]
    return {_to_tuple(one.id): _to_tuple(one.string) for one in there}


def _to_tuple(text: str | list[str] | tuple[str, ...]) -> Text:
    return (text,) if isinstance(text, str) else tuple(text)


def write_entry(text: Text, said: Text, forms: int) -> str:
    """Return the lines of a text in a file."""
    if len(text) == 1:
        return f"msgid {escape(text[0])}\nmsgstr {escape(''.join(said))}\n"
    said = said if len(said) == forms else ("",) * forms
    lines = [f"msgstr[{number}] {escape(form)}" for number, form in enumerate(said)]
    return "\n".join([f"msgid {escape(text[0])}", f"msgid_plural {escape(text[1])}", *lines, ""])


def main() -> None:
    """Write the files of all languages, and print the texts without a translation."""
    wanted = sorted(texts())
    for language in sorted(LANGUAGES.keys() - {DEFAULT}):
        there, plural = translations(language), get_plural(language)
        entries = [write_entry(text, there.get(text, ()), plural.num_plurals) for text in wanted]
        header = HEADER.format(language, plural.plural_forms.rstrip(";"))
        file_of(language).write_text("\n".join([header, *entries]), encoding="utf-8")
        for text in wanted:
            if not all(there.get(text, ("",))):
                print(f"{language}: {text[0]}")


if __name__ == "__main__":
    main()
