"""Readers' settings in cookies: language, theme, and the currency for additional amounts."""

from collections.abc import Iterator

from aiohttp import web

from edgeproxy.collector.languages.catalogs import LANGUAGES
from edgeproxy.config.collector.currencies import CODE

LANGUAGE_COOKIE = "edgeproxy-language"
CURRENCY_COOKIE = "edgeproxy-currency"
THEME_COOKIE = "edgeproxy-theme"
THEMES = frozenset({"light", "dark", "auto"})


def find_theme(request: web.Request) -> str:
    """Return the reader's theme, light or dark; empty to follow the browser."""
    chosen = request.query.get("theme") or request.cookies.get(THEME_COOKIE, "")
    return chosen if chosen in THEMES - {"auto"} else ""


def list_choices(request: web.Request) -> Iterator[tuple[str, str]]:
    """Yield the cookies for the settings in a request's query."""
    query = request.query
    if query.get("lang") in LANGUAGES:
        yield LANGUAGE_COOKIE, query["lang"]
    if query.get("theme") in THEMES:
        yield THEME_COOKIE, query["theme"]
    if CODE.fullmatch(query.get("currency", "")):
        yield CURRENCY_COOKIE, query["currency"]
