"""Everyday tasks of customers and operators, click by click, from the first page after signing in.

A click is a click on a link, a button or an expandable heading, or Enter in the search. Typing does not count.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from loadtest.testbed.collector import ADMIN
from tests.e2e.browser import Chromium, Tab, tab
from tests.support.site import PagesStage

CLICKS_MAX = 4
CLICKS_MEAN_MAX = 3.0
"""The most clicks of a task on average."""
LOAD_SECONDS = 30.0
"""The longest time for a page to load, on a busy machine."""
KEYS_MAX = 150
"""The most presses of Tab until an element must be reached."""
ENTER = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}


class Click(NamedTuple):
    """A click on the first link, button or expandable heading whose `it` meets a condition in JavaScript."""

    on: str
    leads: bool = True
    """The click loads another page."""


class Write(NamedTuple):
    """Text for a field, or the first letters of a choice, by the name of the field; it is no click."""

    field: str
    text: str


class Search(NamedTuple):
    """Text for the search in the header, and Enter."""

    text: str


Step = Click | Write | Search


class Task(NamedTuple):
    """A task, its reader, its steps, and an expression that is true of the page at the end."""

    name: str
    who: str
    steps: tuple[Step, ...]
    done: str

    @property
    def clicks(self) -> int:
        """The number of clicks."""
        return sum(not isinstance(step, Write) for step in self.steps)


def begins(text: str) -> str:
    """Return the condition of an element whose text begins with this."""
    return f"it.textContent.trim().startsWith('{text}')"


def is_called(text: str) -> str:
    """Return the condition of an element whose whole text is this."""
    return f"it.textContent.trim() === '{text}'"


def shows(text: str) -> str:
    """Return the condition of a page that shows a text."""
    return f"document.querySelector('main').innerText.includes('{text}')"


def sends(path: str) -> str:
    """Return the condition of a button that sends a form to a path with this end."""
    return f"it.tagName === 'BUTTON' && it.form?.getAttribute('action')?.endsWith('{path}')"


def list_tasks(customer: str, key: str, leaked: str, credited: str, number: str, colleague: str) -> list[Task]:
    """Return the tasks about a customer with a plan, an open invoice and an alert, in order.

    `key` is the start of one key, `leaked` is another whole key. `credited` is the id of an invoice with a credit of
    $1.00, and `number` its number. `colleague` is an address that is no contact yet.
    """
    keys, plan = Click(begins("API keys")), Click(begins("Plan"))
    found = Search(customer[1:])
    return [
        Task("create a key", "customer", (keys, Click(begins("Make a key"))), "document.getElementById('secret')"),
        Task(
            "replace a key by another one",
            "customer",
            (keys, Click(begins(f"Rotate {key}"), leads=False), Click(f"{sends('/rotate')} && it.checkVisibility()")),
            "document.getElementById('secret')",
        ),
        Task(
            "usage of today by endpoint",
            "customer",
            (Click(begins("Explore usage")), Click(begins("Today")), Click(is_called("Route"))),
            shows("By route"),
        ),
        Task("limits, and what is used of them", "customer", (Click(begins("Limits")),), shows("Used")),
        Task("what the month will cost", "customer", (), shows("Next invoice, as of now")),
        Task(
            "a larger plan",
            "customer",
            (plan, Click(begins("What would Enterprise cost")), Click(begins("Change the plan"))),
            "location.search === '?done=plan'",
        ),
        Task(
            "a smaller plan",
            "customer",
            (plan, Click(begins("What would you lose with Standard")), Click(begins("Change the plan"))),
            "location.search === '?done=plan-later'",
        ),
        Task(
            "buy credits",
            "customer",
            (Click(begins("Credits")), Click("it.name === 'amount'"), Click(begins("Pay at Stripe"))),
            "!location.pathname.startsWith('/account')",
        ),
        Task(
            "pay an open invoice",
            "customer",
            (Click(is_called("Invoices")), Click("it.tagName === 'A' && it.textContent.trim().startsWith('Pay')")),
            "!location.pathname.startsWith('/account')",
        ),
        Task(
            "an invoice as PDF",
            "customer",
            (Click(is_called("Invoices")), Click("it.href?.endsWith('/pdf')", leads=False)),
            "location.pathname",
        ),
        Task(
            "all invoices as CSV",
            "customer",
            (Click(is_called("Invoices")), Click("it.href?.endsWith('format=csv')", leads=False)),
            "location.pathname",
        ),
        Task(
            "an alert of what is spent",
            "customer",
            (
                Click(begins("Alerts")),
                Click(begins("Alert me when"), leads=False),
                Write("amounts", "50"),
                Click(sends("/alerts/spend")),
            ),
            "document.querySelector('[name=amounts]').value.startsWith('50')",
        ),
        Task(
            "invite a colleague",
            "customer",
            (Click(begins("Team")), Write("email", colleague), Click(sends("/team/invite"))),
            "location.search === '?done=invited'",
        ),
        Task(
            "find a customer by a part of its name", "operator", (found,), f"location.pathname.endsWith('{customer}')"
        ),
        Task("why a customer gets 429", "operator", (found,), shows("Refused by a limit")),
        Task(
            "raise a customer's limits for an hour",
            "operator",
            (
                found,
                Click(
                    "it.tagName === 'SUMMARY' && it.parentElement.querySelector('[action$=\\'/limits/raise\\']')", False
                ),
                Write("why", "a launch"),
                Click(sends("/limits/raise")),
            ),
            shows("times as high"),
        ),
        Task(
            "revoke a leaked key",
            "operator",
            (
                Click(begins("Customers")),
                Click(begins("Revoke a leaked key"), leads=False),
                Write("key", leaked),
                Click(sends("/keys/leaked")),
            ),
            "location.search === '?done=leaked'",
        ),
        Task("which edges are late", "operator", (Click(begins("Edges")),), shows("late")),
        Task(
            "an invoice and what was credited of it",
            "operator",
            (
                found,
                Click("it.getAttribute('href')?.startsWith('/console/invoices?')"),
                Click(f"it.getAttribute('href') === '/console/invoices/{credited}'"),
            ),
            shows("$1.00"),
        ),
        Task(
            "acknowledge an alert",
            "operator",
            (Click(begins("Overview")), Click(sends("/acknowledge"))),
            "location.search.includes('done=acknowledged')",
        ),
        Task(
            "tell everybody of an incident",
            "operator",
            (
                Click(begins("Incidents")),
                Click(begins("New incident"), leads=False),
                Write("title", "Slow answers"),
                Write("message", "We look into it."),
                Click(begins("Tell everybody")),
            ),
            shows("Slow answers"),
        ),
        Task("who changed what", "operator", (Click(begins("Audit log")),), shows("Audit log")),
        Task("the usage of a key", "customer", (keys, Click(begins(key))), shows("Last used")),
        Task("the usage of a month by model", "customer", (Click(begins("Usage and costs")),), shows("by model")),
        Task(
            "a statement of credits",
            "customer",
            (Click(begins("Credits")), Click("it.getAttribute('href')?.includes('/credits/statements/')")),
            shows("Opening balance"),
        ),
        Task(
            "give a plan",
            "operator",
            (
                Search("bolt"),
                Click(is_called("give one")),
                Click(begins("What would it cost")),
                Click(begins("Give this plan")),
            ),
            "location.search === '?done=plan'",
        ),
        Task(
            "change a customer's plan",
            "operator",
            (
                Search("zebra"),
                Click("it.getAttribute('href')?.endsWith('/plan')"),
                Write("plan", "Standard"),
                Click(begins("What would it cost")),
                Click(begins("Change the plan")),
            ),
            "location.search === '?done=plan-later'",
        ),
        Task(
            "discount a customer",
            "operator",
            (
                Search("zebra"),
                Click("it.getAttribute('href')?.endsWith('/plan')"),
                Write("coupon", "LAUNCH20"),
                Click(sends("/plan/coupon")),
            ),
            "location.search === '?done=changed'",
        ),
        Task(
            "end a plan",
            "operator",
            (
                Search("bolt"),
                Click("it.getAttribute('href')?.endsWith('/plan')"),
                Click(sends("/plan/end/preview")),
            ),
            "location.search === '?done=ending'",
        ),
        Task(
            "find an invoice by its number",
            "operator",
            (Search(number),),
            f"location.pathname === '/console/invoices/{credited}'",
        ),
        Task(
            "why a line is on an invoice",
            "operator",
            (Search(number), Click("/lines.\\d+$/.test(it.pathname)")),
            shows("Why this line"),
        ),
        Task("whose key begins like this", "operator", (Search(key),), f"location.pathname.endsWith('{customer}')"),
        Task(
            "find a customer by a contact's address",
            "operator",
            (Search(f"{customer}@example.com"),),
            f"location.pathname.endsWith('{customer}')",
        ),
        Task(
            "make a new customer",
            "operator",
            (
                Click(begins("Customers")),
                Click(begins("New customer")),
                Write("name", "Zephyr GmbH & Co"),
                Click(begins("Make the customer")),
            ),
            shows("zephyr-gmbh-co"),
        ),
        Task(
            "let somebody sign in for a customer",
            "operator",
            (
                found,
                Click(begins("Add somebody"), leads=False),
                Write("email", f"more-{colleague}"),
                Click(f"{sends('/contacts')} && it.checkVisibility()"),
            ),
            shows(f"more-{colleague}"),
        ),
        Task("the margin of the month", "operator", (Click(begins("Business metrics")),), shows("Margin")),
    ]


async def do(page: Tab, step: Step) -> None:
    """Do a step with the mouse, or with the keyboard for text."""
    if isinstance(step, Click):
        await _click(page, step)
    else:
        name = "[data-key]" if isinstance(step, Search) else f"main [name={step.field}]"
        seen = f"[...document.querySelectorAll('{name}')].find(it => it.checkVisibility() && it.type !== 'hidden')"
        assert await page.run(f"const it = {seen}; it?.focus(); return Boolean(it)"), step
        await _type(page, step.text)
        if isinstance(step, Search):
            async with page.loading():
                for kind in ("keyDown", "keyUp"):
                    await page.call("Input.dispatchKeyEvent", type=kind, **ENTER, text="\r" * (kind == "keyDown"))


async def do_by_keys(page: Tab, step: Step) -> int:
    """Do a step with the keyboard alone. Returns the number of pressed keys, without typed text."""
    if isinstance(step, Search):
        await _press(page, "/", 191, "/")
        assert await page.run("return 'key' in document.activeElement.dataset"), "/ goes to the search"
        await page.call("Input.insertText", text=step.text)
        async with page.loading():
            await _press(page, "Enter", 13, "\r")
        return 2
    if isinstance(step, Click):
        return await _click_by_keys(page, step)
    keys = await _tab_to(page, f"it.name === '{step.field}' && it.closest('main')")
    await page.run("document.activeElement.select?.()")
    await _type(page, step.text)
    return keys


async def _type(page: Tab, text: str) -> None:
    """Write a text into the focused field. In a list of choices, the first letters choose."""
    if not await page.run("return document.activeElement.matches('select')"):
        await page.call("Input.insertText", text=text)
        return
    for letter in text:
        for kind in ("keyDown", "keyUp"):
            await page.call("Input.dispatchKeyEvent", type=kind, key=letter, text=letter * (kind == "keyDown"))


async def _click_by_keys(page: Tab, click: Click) -> int:
    text = f"[...document.querySelectorAll('a, button, summary')].filter(it => ({click.on}))"
    seen = await page.run(f"return {text}.some(it => it.checkVisibility({{visibilityProperty: true}}))")
    keys = 0
    if not seen:  # It is in the navigation, which is a menu on a narrow window.
        keys += await _tab_to(page, "it.getAttribute('popovertarget') === 'nav'") + 1
        await _press(page, "Enter", 13, "\r")
    keys += await _tab_to(page, f"it.matches('a, button, summary') && ({click.on})") + 1
    if click.leads:
        async with asyncio.timeout(LOAD_SECONDS), page.loading():
            await _press(page, "Enter", 13, "\r")
    else:
        await _press(page, "Enter", 13, "\r")
    return keys


async def _tab_to(page: Tab, condition: str) -> int:
    """Press Tab until the focused element meets a condition. The element and its outline must be visible."""
    for keys in range(KEYS_MAX):
        seen = "it.checkVisibility({visibilityProperty: true})"
        if await page.run(f"const it = document.activeElement; return Boolean({condition}) && {seen}"):
            box = "const box = document.activeElement.getBoundingClientRect(); return [box.x, box.right, innerWidth]"
            left, right, width = await page.run(box)
            assert right > 0, f"{condition} has the focus left of the window"
            assert left < width, f"{condition} has the focus right of the window"
            return keys
        await _press(page, "Tab", 9)
    raise AssertionError(f"{condition} is not reached on {await page.run('return location.href')}")


async def _press(page: Tab, key: str, code: int, text: str = "") -> None:
    said = {"key": key, "code": key, "windowsVirtualKeyCode": code}
    await page.call("Input.dispatchKeyEvent", type="keyDown", **said, **({"text": text} if text else {}))
    await page.call("Input.dispatchKeyEvent", type="keyUp", **said)


async def _click(page: Tab, click: Click) -> None:
    # A page may still be laid out, and live parts of it are replaced: the element is clicked once it stands still.
    place = await page.run(
        "const find = () => [...document.querySelectorAll('a, button, summary')].find("
        f"it => it.checkVisibility({{visibilityProperty: true}}) && ({click.on}));"
        "let it = find(); it?.scrollIntoView({block: 'center'});"
        "for (let still = 0, last = ''; it && still < 2; it = find()) {"
        "await new Promise(requestAnimationFrame);"
        "const now = Object.values(it.getBoundingClientRect().toJSON()).join();"
        "still = now === last ? still + 1 : 0; last = now; }"
        "if (!it) return null; const box = it.getClientRects()[0];"
        "return [box.x + Math.min(20, box.width / 2), box.y + box.height / 2]"
    )
    assert place is not None, f"{click.on} is not on {await page.run('return location.href')}"

    async def press() -> None:
        for kind in ("mousePressed", "mouseReleased"):
            mouse = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
            await page.call("Input.dispatchMouseEvent", type=kind, **mouse)

    if click.leads:
        async with asyncio.timeout(LOAD_SECONDS), page.loading():
            await press()
    else:
        await press()


def prepare_tasks(stage: PagesStage, credited: str, hands: str) -> list[Task]:
    """Return the tasks for use with a mouse or a keyboard, with the data that each consumes."""
    kept, leaked = (stage.collector.send("POST", "/v1/customers/acme/keys", {}).json() for _ in range(2))
    number = stage.collector.get(f"/billing/invoices/{credited}", token=ADMIN).json()["number"]
    return list_tasks("acme", kept["start"], leaked["secret"], credited, number, f"{hands}@example.com")


async def do_tasks(
    stage: PagesStage,
    browser: Chromium,
    tasks: list[Task],
    width: int,
    do_step: Callable[[Tab, Step], Awaitable[object]],
) -> list[str]:
    """Do all tasks; return the failed ones."""
    faults = []
    async with tab(browser) as page:
        await page.look(width, "light")
        for who, home, visitor in (
            ("customer", "/account", stage.customer("acme")),
            ("operator", "/console", stage.operator),
        ):
            await page.lend(visitor)
            for task in [task for task in tasks if task.who == who]:
                # Each page has the navigation, and the first page makes many rate-limited requests.
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
