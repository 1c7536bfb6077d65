"""Texts of the pages; `python -m tests.collector.pages.catalogues`, which brings the files of all languages up to date.

It sorts them, adds texts that are new (without a translation, which a test then asks for) and takes out those that are
gone. After a rebase with conflicts: keep both sides, and run it.
"""

from pathlib import Path

from babel.messages.extract import extract_from_dir
from babel.messages.pofile import escape, read_po

import edgeproxy.collector.pages
from edgeproxy.collector.pages.languages import DEFAULT, LANGUAGES

ROOM = Path(edgeproxy.collector.pages.__file__).parent
METHODS = [("templates/**", "jinja2.ext:babel_extract"), ("**.py", "python")]
OPTIONS = {"templates/**": {"newstyle_gettext": "true", "trimmed": "false", "encoding": "utf-8"}}
HEADER = """msgid ""
msgstr ""
"Language: {}\\n"
"Content-Type: text/plain; charset=utf-8\\n"
"Content-Transfer-Encoding: 8bit\\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\\n"
"""


def texts() -> set[str]:
    """Return all texts that templates and modules have."""
    found = extract_from_dir(ROOM, METHODS, OPTIONS, keywords={"_": None, "gettext": None, "N_": None})
    return {text for _, _, text, *_ in found if isinstance(text, str)}


def file_of(language: str) -> Path:
    """Return where the translations of a language are."""
    return ROOM / "locale" / language / "LC_MESSAGES" / "pages.po"


def translations(language: str) -> dict[str, str]:
    """Return them by their texts; one that has none has an empty one."""
    with file_of(language).open("rb") as file:
        return {str(one.id): str(one.string) for one in read_po(file, locale=language) if one.id and not one.fuzzy}


def main() -> None:
    """Write all files anew, and say what has no translation."""
    wanted = sorted(texts())
    for language in sorted(LANGUAGES.keys() - {DEFAULT}):
        there = translations(language)
        pairs = [f"msgid {escape(text)}\nmsgstr {escape(there.get(text, ''))}\n" for text in wanted]
        file_of(language).write_text("\n".join([HEADER.format(language), *pairs]), encoding="utf-8")
        for text in wanted:
            if not there.get(text):
                print(f"{language}: {text}")


if __name__ == "__main__":
    main()
