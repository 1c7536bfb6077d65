"""Each text of the pages is there in each language, with the same figures in it."""

import re
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

import edgeproxy.pages
from edgeproxy.pages.languages import DEFAULT, LANGUAGES, catalog

ROOM = Path(edgeproxy.pages.__file__).parent
METHODS = [("templates/**", "jinja2.ext:babel_extract"), ("**.py", "python")]
OPTIONS = {"templates/**": {"newstyle_gettext": "true", "trimmed": "false", "encoding": "utf-8"}}
HOLE = re.compile(r"%\((\w+)\)s")


def texts() -> set[str]:
    """All texts that templates and modules have."""
    found = extract_from_dir(ROOM, METHODS, OPTIONS, keywords={"_": None, "gettext": None, "N_": None})
    return {text for _, _, text, *_ in found if isinstance(text, str)}


@pytest.mark.parametrize("language", sorted(LANGUAGES.keys() - {DEFAULT}))
def test_a_language_has_every_text(language: str) -> None:
    wanted = texts()
    assert len(wanted) > 100
    with (ROOM / "locale" / language / "LC_MESSAGES" / "pages.po").open("rb") as file:
        there = {str(one.id): one for one in read_po(file, locale=language) if one.id}
    assert sorted(wanted - there.keys()) == []
    assert sorted(there.keys() - wanted) == []
    for text, one in there.items():
        assert not one.fuzzy, text
        assert set(HOLE.findall(str(one.string))) == set(HOLE.findall(text)), text
        assert catalog(language).gettext(text) == one.string != "", text
