"""English texts, texts of a catalog's header, and missing values that a page in another language has."""

import re

from edgeproxy.collector.languages.catalogs import DEFAULT, load_catalog
from tests.collector.languages.catalogues import translations
from tests.e2e.browser import Tab

READ = """
    const texts = new Set(), walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const data = "[lang=en], bdi, code, pre, kbd, script, style, textarea, [hreflang]";
    while (walker.nextNode())
        if (!walker.currentNode.parentElement.closest(data)) texts.add(walker.currentNode.data.trim());
    for (const name of ["aria-label", "title", "placeholder", "data-label", "alt"])
        for (const it of document.querySelectorAll(`[${name}]`))
            if (!it.closest(data)) texts.add(it.getAttribute(name).trim());
    return [...texts, document.title];
"""
HEADER = re.compile(r"Plural-Forms|nplurals|Content-T(ype|ransfer-Encoding):|msgid|\b(None)+\b")
"""Texts of a catalog's header, and of a value that a template lacks."""
ENGLISH = re.compile(r"\b(the|and|are|were|your|you|this|that|has|have|been|by|from|with|which|there|their|its|it)\b")
"""Words of English sentences that are no words of German or Dutch."""
NAMES = frozenset({"free"})
"""Names of the tests' tiers that are words of the pages, too."""
WORDS_MIN = 2
"""A text with as many of them is English. One alone may be part of a name."""


async def find_foreign_texts(page: Tab, language: str) -> list[str]:
    """Return the texts of a page that its language has other words for, and texts of a catalog's header."""
    if language == DEFAULT:
        return []
    own = {form for forms in translations(language).values() for form in forms}
    say = load_catalog(language).gettext
    return [text for text in await page.run(READ) if _is_foreign(text, say(text) if text else "", own)]


def _is_foreign(text: str, translated: str, own: set[str]) -> bool:
    is_known = translated != text and text not in own | NAMES
    return bool(is_known or HEADER.search(text) or len(ENGLISH.findall(text)) >= WORDS_MIN)
