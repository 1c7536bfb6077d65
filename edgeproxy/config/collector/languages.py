"""The languages of pages and mails."""

from typing import Literal

Language = Literal["en", "nl", "de"]
LANGUAGES: dict[str, str] = {"en": "English", "nl": "Nederlands", "de": "Deutsch"}
"""The languages, as each calls itself."""
DEFAULT: Language = "en"
