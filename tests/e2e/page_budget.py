"""The size, layout shifts and largest contentful paint of pages in Chromium."""

from tests.e2e.browser import Chromium, Tab, tab
from tests.support.filled_site import invoice_of, key_of, pages_of
from tests.support.site import PagesStage
from tests.support.visitor import Visitor

BYTES_MAX = 90_000
"""The most bytes of a page with all its resources, as sent."""
LCP_MS_MAX = 1000.0
SLOWER = 4
"""The slowdown factor of the processor for these measurements."""
OFTEN = ("/console", "/console/customers/{customer}", "/account", "/account/usage", "/account/plan")
"""The pages that every run measures."""
OBSERVE = """
    window.seen = {shift: 0, largest: 0};
    new PerformanceObserver(list => list.getEntries().forEach(one => seen.shift += one.value))
        .observe({type: "layout-shift", buffered: true});
    new PerformanceObserver(list => list.getEntries().forEach(one => seen.largest = one.startTime))
        .observe({type: "largest-contentful-paint", buffered: true});
"""
MEASURE = """
    while (!seen.largest) await new Promise(requestAnimationFrame);
    for (let frame = 0; frame < 5; frame++) await new Promise(requestAnimationFrame);
    const sent = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
    return [sent.reduce((sum, one) => sum + one.encodedBodySize, 0), seen.shift, seen.largest];
"""

Seen = tuple[int, float, float]
"""Bytes, the sum of layout shifts, and the milliseconds until the largest contentful paint."""


async def measure(page: Tab, url: str) -> Seen:
    """Load a page; return its measurements."""
    await page.goto(url)
    size, shift, largest = await page.run(MEASURE)
    return size, shift, largest


async def visit_pages(
    stage: PagesStage,
    browser: Chromium,
    audiences: list[tuple[Visitor | None, list[str]]],
    slower: int = 1,
) -> dict[str, Seen]:
    """Return the measurements of these pages on a telephone."""
    seen = {}
    for visitor, paths in audiences:
        async with tab(browser) as page:
            if visitor is not None:
                await page.lend(visitor)
            await page.call("Page.addScriptToEvaluateOnNewDocument", source=OBSERVE)
            await page.look(360, "light")
            await page.call("Emulation.setCPUThrottlingRate", rate=slower)
            for path in paths:
                seen[path] = await measure(page, f"{stage.site}{path}?lang=de")
    return seen


def list_pages(stage: PagesStage, invoice: str) -> list[tuple[Visitor | None, list[str]]]:
    """Return all pages, by their reader."""
    own = pages_of("customer", invoice_of(stage, "acme"), key=key_of(stage, "acme"))
    return [
        (stage.operator, list(pages_of("operator", invoice).values())),
        (stage.customer("acme"), list(own.values())),
        (None, ["/status", "/sign-in"]),
    ]
