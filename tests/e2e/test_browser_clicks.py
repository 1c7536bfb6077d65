"""How many clicks everyday tasks take, in Chromium.

With a site of its own: a customer may look at so many invoices a minute, and the tests of test_browser_pages.py look at
all of them.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest

from loadtest.testbed.collector import ADMIN
from loadtest.testbed.process import ROOT
from loadtest.testbed.waiting import until
from tests.e2e.browser import Chromium, Tab, tab
from tests.e2e.clicks import CLICKS_MAX, Step, Task, do, do_by_keys, list_tasks
from tests.e2e.test_browser_pages import SECONDS, WIDE, browser, invoice, stage  # noqa: F401
from tests.support.filled_site import invoice_of
from tests.support.site import PagesStage


@pytest.fixture(scope="module")
def credited(stage: PagesStage, invoice: str) -> str:  # noqa: F811
    """The id of an open invoice, of which $1.00 was credited."""
    assert invoice, "some of what operators look at is there"
    credited = invoice_of(stage, "acme")
    path = f"/billing/invoices/{credited}"
    until(lambda: stage.collector.get(path, token=ADMIN).json()["state"] == "open", "it can be credited")
    note = {"amount": 100, "why": "an outage"}
    assert stage.collector.send("POST", f"{path}/credit", note).status == 201
    return credited


def prepare(stage: PagesStage, credited: str, hands: str) -> list[Task]:  # noqa: F811
    """Return the tasks as they are done with a mouse or a keyboard, with what one of each kind uses up."""
    kept, leaked = (stage.collector.send("POST", "/v1/customers/acme/keys", {}).json() for _ in range(2))
    return list_tasks("acme", kept["start"], leaked["secret"], credited, f"{hands}@example.com")


async def work(
    stage: PagesStage,  # noqa: F811
    browser: Chromium,  # noqa: F811
    tasks: list[Task],
    width: int,
    do_step: Callable[[Tab, Step], Awaitable[object]],
) -> list[str]:
    """Do all tasks; return what could not be done."""
    faults = []
    async with tab(browser) as page:
        await page.look(width, "light")
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
                        await do_step(page, step)
                    if not await page.run(f"return Boolean({task.done})"):
                        faults.append(f"{task.name}: {await page.run('return location.href')}")
                except (AssertionError, TimeoutError) as error:
                    seen = await page.run("return document.querySelector('main').innerText.slice(0, 200)")
                    faults.append(f"{task.name}: {error!r}: {seen}")
    return faults


@pytest.mark.timeout(300)
def test_each_everyday_task_takes_four_clicks_at_most_and_as_many_as_the_page_of_pages_says(
    stage: PagesStage,  # noqa: F811
    credited: str,
    browser: Chromium,  # noqa: F811
) -> None:
    tasks = prepare(stage, credited, "mouse")
    faults = asyncio.run(asyncio.wait_for(work(stage, browser, tasks, WIDE, do), 2 * SECONDS))
    assert not faults, "\n".join(faults)
    assert max(task.clicks for task in tasks) <= CLICKS_MAX
    told = re.findall(r"^\| (.+?) \| (customer|operator) \| (\d) \|$", (ROOT / "docs/pages/pages.md").read_text(), re.M)
    assert told == [(task.name, task.who, str(task.clicks)) for task in tasks]


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_each_everyday_task_can_be_done_by_keyboard_alone_on_a_telephone(
    stage: PagesStage,  # noqa: F811
    credited: str,
    browser: Chromium,  # noqa: F811
) -> None:
    tasks = prepare(stage, credited, "keyboard")
    faults = asyncio.run(asyncio.wait_for(work(stage, browser, tasks, 360, do_by_keys), 8 * SECONDS))
    assert not faults, "\n".join(faults)
