"""The languages of pages and mails: English, and each one with a file of texts."""

from importlib.resources import files
from typing import TYPE_CHECKING, Literal

DEFAULT = "en"
"""The language of the texts in templates and modules."""
CATALOGS = files("edgeproxy") / "collector" / "languages" / "locale"
"""The folder of the languages' files: de.po is German."""
SUFFIX = ".po"
CODES = (DEFAULT, *sorted(path.name.removesuffix(SUFFIX) for path in CATALOGS.iterdir() if path.name.endswith(SUFFIX)))
"""The languages, by their codes (ISO 639)."""

if TYPE_CHECKING:
    Language = str
else:
    Language = Literal[CODES]
