"""Mails in a browser: on a phone and on a desk no word breaks, and nothing scrolls sideways."""

import asyncio
from pathlib import Path

import pytest

from edgeproxy.collector.alerts.message import format_customer_mail
from edgeproxy.collector.languages.reader import create_reader
from tests.collector.alerts.test_words import DETAILS, SITE, make
from tests.e2e.browser import Chromium, Tab, tab
from tests.support.mailbox import html_of

WIDTHS = (320, 600)
NAME = f"شركة المثال {'W' * 400}"
LINK = f"https://pay.test/{'i1' * 150}"
BROKEN = r"""
const broken = [], walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
for (let node; node = walk.nextNode();)
    for (const word of node.data.matchAll(/[^\s-]+/g)) {
        const range = document.createRange()
        range.setStart(node, word.index)
        range.setEnd(node, word.index + word[0].length)
        if (new Set([...range.getClientRects()].map(one => Math.round(one.top))).size > 1) broken.push(word[0])
    }
return [broken, document.documentElement.scrollWidth]
"""


async def check(page: Tab, folder: Path, language: str) -> None:
    reader = create_reader(language)
    for kind, details in [(kind, details) for kind, variants in DETAILS.items() for details in variants]:
        alert = make(kind, {**details, **({"pay": LINK} if "pay" in details else {})})._replace(customer=NAME)
        file = folder / f"{kind}.html"
        file.write_text(html_of(format_customer_mail(alert, "a@b.test", "c@d.test", reader, SITE)))
        await page.goto(file.as_uri())
        for width in WIDTHS:
            await page.look(width, "light")
            broken, needed = await page.run(BROKEN)
            assert [word for word in broken if "://" not in word and word not in NAME] == [], (kind, width)
            assert needed <= width, kind


@pytest.mark.parametrize("language", ["en", "de", "nl"])
def test_mails_break_no_words_and_fit_phones_and_desks(tmp_path: Path, browser: Chromium, language: str) -> None:
    async def work() -> None:
        async with tab(browser) as page:
            await check(page, tmp_path, language)

    asyncio.run(work())
