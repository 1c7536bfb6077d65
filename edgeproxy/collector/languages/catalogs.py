"""The languages of readers, and the catalogs with their texts."""

import gettext
import io
from functools import cache

from babel import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

from edgeproxy.config.collector.languages import CATALOGS, CODES, DEFAULT, SUFFIX

__all__ = ["DEFAULT", "LANGUAGES", "load_catalog"]


def find_own_name(code: str) -> str:
    """Return a language's own name, for example Deutsch."""
    name = str(Locale.parse(code).get_display_name(code))
    return name[:1].upper() + name[1:]


LANGUAGES = {code: find_own_name(code) for code in CODES}
"""The languages with their own names."""


class Translations(gettext.GNUTranslations):
    """The texts of a language. The empty text has no translation: a catalog stores its header there."""

    def gettext(self, message: str) -> str:
        """Return the translation of a text."""
        return super().gettext(message) if message else ""


@cache
def load_catalog(language: str) -> gettext.NullTranslations:
    """Return the translations of a language. The English texts are in templates and modules."""
    if language == DEFAULT:
        return gettext.NullTranslations()
    compiled = io.BytesIO()
    with (CATALOGS / f"{language}{SUFFIX}").open("rb") as file:
        write_mo(compiled, read_po(file, locale=language))
    compiled.seek(0)
    return Translations(compiled)
