"""Pictures of all pages for the docs: `python -m tests.e2e.pictures`.

It fills docs/pages/: each page wide and light, and narrow and dark, and README.md, which shows them. Look at each.
"""

import asyncio
import base64
import re
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

from edgeproxy.collector.pages.site import Audience
from loadtest.testbed.process import ROOT
from tests.e2e.browser import Chromium, Tab, tab
from tests.support.filled_site import fill, held, invoice_of, pages_of
from tests.support.site import PagesStage
from tests.support.visitor import Visitor

FOLDER = ROOT / "docs/pages"
LOOKS = {"wide": (1280, "light"), "narrow": (360, "dark")}
HEIGHT_MAX = 2000
"""Pixels; what is below is not in the picture."""
QUALITY = 55
WHOSE: dict[Audience, str] = {
    "operator": "The operators' console",
    "customer": "A customer's portal",
    "anyone": "Everybody's",
}
HEAD = """# Pictures of all pages

Made by `python -m tests.e2e.pictures`, of what the tests have on the pages: wide and light, narrow and dark. What each
page is for is in [pages.md](pages.md).
"""


def name_of(path: str) -> str:
    """Return what the picture of a page is called."""
    return re.sub(r"[{}]", "", path).strip("/").replace("/", "-")


async def take(page: Tab, url: str, name: str) -> str:
    """Take the pictures of a page; return its title."""
    for called, (width, scheme) in LOOKS.items():
        await page.look(width, scheme)
        await page.goto(url)
        height = min(HEIGHT_MAX, await page.run("return document.documentElement.scrollHeight"))
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = await page.call(
            "Page.captureScreenshot", format="webp", quality=QUALITY, captureBeyondViewport=True, clip=clip
        )
        (FOLDER / f"{name}-{called}.webp").write_bytes(base64.b64decode(shot["data"]))
    title: str = await page.run("return document.querySelector('h1').textContent")
    return " ".join(title.split())


async def gallery(stage: PagesStage, browser: Chromium) -> str:
    """Take all pictures; return the page that shows them."""
    said, held_one = HEAD, held(stage)
    visitors: dict[Audience, Visitor | None] = {
        "operator": stage.operator,
        "customer": stage.customer("acme"),
        "anyone": None,
    }
    for who, heading in WHOSE.items():
        said += f"\n## {heading}\n"
        visitor = visitors[who]
        invoice = held_one if who == "operator" else invoice_of(stage, "acme")
        paths = pages_of(who, invoice) if visitor else {"/status": "/status", "/sign-in": "/sign-in"}
        async with tab(browser) as page:
            if visitor is not None:
                await page.lend(visitor)
            for path, where in paths.items():
                name = name_of(path)
                title = await take(page, f"{stage.site}{where}?lang=en", name)
                said += f"\n### {title}\n\n`{path}`\n\n![{title}, wide]({name}-wide.webp)\n"
                said += f"\n![{title}, narrow]({name}-narrow.webp)\n"
    return said


def main() -> None:
    """Take them all anew."""
    for old in FOLDER.glob("*.webp"):
        old.unlink()
    chromium = shutil.which("chromium")
    assert chromium, "Chromium is not on this machine"
    with tempfile.TemporaryDirectory(prefix="pictures-") as name:
        folder = Path(name)
        with closing(PagesStage(folder / "site")) as stage:
            fill(stage)
            browser = Chromium(chromium, folder / "browser")
            try:
                (FOLDER / "README.md").write_text(asyncio.run(gallery(stage, browser)), encoding="utf-8")
            finally:
                browser.stop()


if __name__ == "__main__":
    main()
