"""The languages of readers, and the catalogs with their texts."""

import gettext
import io
from functools import cache
from importlib.resources import files

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from edgeproxy.config.collector.languages import DEFAULT, LANGUAGES

__all__ = ["DEFAULT", "LANGUAGES", "load_catalog"]
DOMAIN = "pages"


@cache
def load_catalog(language: str) -> gettext.NullTranslations:
    """Return the translations of a language; templates and modules have the English texts."""
    if language == DEFAULT:
        return gettext.NullTranslations()
    place = files("edgeproxy.collector.languages") / "locale" / language / "LC_MESSAGES" / f"{DOMAIN}.po"
    compiled = io.BytesIO()
    with place.open("rb") as file:
        write_mo(compiled, read_po(file, locale=language))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)
