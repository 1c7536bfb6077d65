"""How many clicks everyday tasks take, in Chromium.

With a site of its own: a customer may look at so many invoices a minute, and the tests of test_browser_pages.py look at
all of them.
"""

import asyncio
import re

from loadtest.testbed.collector import ADMIN
from loadtest.testbed.process import ROOT
from loadtest.testbed.waiting import until
from tests.e2e import clicks
from tests.e2e.browser import Chromium, tab
from tests.e2e.test_browser_pages import SECONDS, WIDE, browser, invoice, stage  # noqa: F401
from tests.support.filled_site import invoice_of
from tests.support.site import PagesStage


def test_each_everyday_task_takes_four_clicks_at_most_and_as_many_as_the_page_of_pages_says(
    stage: PagesStage,  # noqa: F811
    invoice: str,  # noqa: F811
    browser: Chromium,  # noqa: F811
) -> None:
    assert invoice, "some of what operators look at is there"
    credited = invoice_of(stage, "acme")
    path = f"/billing/invoices/{credited}"
    until(lambda: stage.collector.get(path, token=ADMIN).json()["state"] == "open", "it can be credited")
    note = {"amount": 100, "why": "an outage"}
    assert stage.collector.send("POST", f"{path}/credit", note).status == 201
    kept, leaked = (stage.collector.send("POST", "/v1/customers/acme/keys", {}).json() for _ in range(2))
    tasks = clicks.list_tasks("acme", kept["start"], leaked["secret"], credited)

    async def work() -> list[str]:
        faults = []
        async with tab(browser) as page:
            await page.look(WIDE, "light")
            for who, home, visitor in (
                ("customer", "/account", stage.customer("acme")),
                ("operator", "/console", stage.operator),
            ):
                await page.lend(visitor)
                for task in [task for task in tasks if task.who == who]:
                    # The navigation is the same on each page, and the first one asks much of what is limited.
                    if not task.steps or not await page.run(f"return location.pathname.startsWith('{home}')"):
                        await page.goto(f"{stage.site}{home}?lang=en")
                    try:
                        for step in task.steps:
                            await clicks.do(page, step)
                        if not await page.run(f"return Boolean({task.done})"):
                            faults.append(f"{task.name}: {await page.run('return location.href')}")
                    except AssertionError as error:
                        seen = await page.run("return document.querySelector('main').innerText.slice(0, 200)")
                        faults.append(f"{task.name}: {error}: {seen}")
        return faults

    faults = asyncio.run(asyncio.wait_for(work(), 2 * SECONDS))
    assert not faults, "\n".join(faults)
    assert max(task.clicks for task in tasks) <= clicks.CLICKS_MAX
    told = re.findall(r"^\| (.+?) \| (customer|operator) \| (\d) \|$", (ROOT / "docs/pages/pages.md").read_text(), re.M)
    assert told == [(task.name, task.who, str(task.clicks)) for task in tasks]
