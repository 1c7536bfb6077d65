"""Chromium at the pages: by keyboard alone, narrow and wide, light and dark, without scripts; axe-core finds nothing.

With EDGEPROXY_SCREENSHOTS=FOLDER it leaves pictures there.
"""

import asyncio
import base64
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import orjson
import pytest

from edgeproxy.database.schema import DAY
from edgeproxy.pages.availability import DAYS
from tests.e2e.browser import Chromium, Tab, tab
from tests.pages.test_operators import Stage
from tests.support.chains import Chain
from tests.support.collector import ADMIN, SERVICE
from tests.support.oidc import THERE
from tests.support.site import PagesStage
from tests.support.visitor import Visitor
from tests.support.waiting import until

pytestmark = pytest.mark.chromium

AXE = Path(sys.prefix) / "npm/node_modules/axe-core/axe.min.js"
NARROW, WIDE = 360, 1280
PICTURES = os.environ.get("EDGEPROXY_SCREENSHOTS")
CONSOLE = (
    *("", "/customers", "/customers/acme", "/edges", "/refusals", "/incidents", "/alerts", "/stuck", "/tokens"),
    *("/audit", "/invoices", "/invoices/{invoice}", "/rollout", "/reconciliation", "/figures"),
)
PORTAL = ("", "/limits", "/keys", "/alerts", "/plan", "/invoices", "/credits", "/credits/statements/{month}")
TAB, ENTER = ("Tab", 9, ""), ("Enter", 13, "\r")
SECONDS = 90
"""For all that a test does in the browser: machines may be busy."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagesStage]:
    with closing(PagesStage(tmp_path_factory.mktemp("browsed-pages"))) as made:
        fill(made)
        yield made


def fill(stage: PagesStage) -> None:
    """Have something on each page."""
    now = int(time.time())
    today = now // DAY * DAY
    chain = Chain("edge-eu-1", "eu-west", today - 6 * DAY)
    for day in range(7):
        chain.since = min(today - (6 - day) * DAY + 3600, now - 60)
        rows = (("acme", "requests", "v1", 900 + 150 * day), ("acme", "egress", "v1", 40_000_000 + 3_000_000 * day))
        assert stage.collector.post(chain.next(*rows)).status == 200
    events = [
        {"id": str(n), "source": "app", "customer": "acme", "meter": "tokens", "value": 5000 + n} for n in range(3)
    ]
    bad = {"id": "9", "source": "app", "customer": "acme", "meter": "tokenz", "value": 7}
    assert stage.collector.send("POST", "/v1/events", [*events, bad], token=SERVICE).status == 202
    refused = (("acme", "yes", 220), ("acme", "no", 17), ("bolt", "yes", 40))
    chain.since = now - 60
    refusals = [(who, "refused", "v1", n, f'{{"certain":"{sure}","limit":"pro"}}') for who, sure, n in refused]
    assert stage.collector.post(chain.next(*refusals)).status == 200
    assert stage.collector.send("POST", "/v1/customers/acme/keys", {"name": "server"}).status == 201
    usage = {"source": "models", "customer": "acme", "meter": "llm_tokens"}
    models = ((820_000, "m-large"), (411_000, "m-small"), (95_000, "m-tiny"))
    split = [usage | {"id": model, "value": n, "dimensions": {"model": model}} for n, model in models]
    assert stage.collector.send("POST", "/v1/events", split, token=SERVICE).status == 202
    assert stage.collector.send("POST", "/billing/subscription?customer=acme", {"plan": "standard"}).status == 201
    with stage.customer("acme") as acme:
        stage.buy(acme, "25")
    new = {"severity": "P2", "title": "Slow answers in us-east", "regions": ["us-east"], "message": "We look into it."}
    made = stage.collector.send("POST", "/v1/incidents", new)
    assert made.status == 201
    over = {"state": "resolved", "message": "A disk was full. It has been replaced."}
    assert stage.collector.send("POST", f"/v1/incidents/{made.json()['id']}/updates", over).status == 201
    with closing(sqlite3.connect(stage.collector.database, timeout=30)) as database, database:
        for region, failed in (("eu-west", 1), ("us-east", 4)):
            for age in range(1, DAYS):
                results = {"50": 2600, "100": 270, "fast": 2850, "failed": failed if age % 9 == 3 else 0}
                rows = [(region, today - age * DAY, result, count) for result, count in results.items()]
                database.executemany("INSERT INTO checks VALUES (?, ?, ?, ?)", rows)
    until(lambda: b"eu-west" in Visitor(stage.site).client.get("/status").content, "the status is there", seconds=60)


def held(stage: PagesStage) -> str:
    """The id of an invoice, which waits for somebody to decide; and what comes of two comparisons."""
    (found, *_) = stage.collector.get("/billing/invoices", token=ADMIN, customer="acme").json()["invoices"]
    now = int(time.time())
    differing = '[["acme", "tokens", 15003, 15010]]'
    compared = [
        ("b-1", "B", now - DAY, now, 4, 93_000, 7, "none", differing),
        ("e-1", "E", now, now, 12, 810_000, 0, "none", "[]"),
    ]
    with closing(sqlite3.connect(stage.collector.database, timeout=30)) as database, database:
        why = "Stripe has 1,990 cents, and we have 1,900"
        database.execute("UPDATE invoices SET state = 'held', held_why = ? WHERE id = ?", [why, found["id"]])
        columns = "id, kind, since, until, at, compared, units, different, level, rows"
        filled = [(*one[:4], now * 1000, *one[4:]) for one in compared]
        database.executemany(f"INSERT INTO reconciliations ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", filled)
    for path in ("/console/figures", "/console/refusals"):
        until(partial(is_worked_out, stage, path), "the figures are worked out")
    return str(found["id"])


def is_worked_out(stage: PagesStage, path: str) -> bool:
    """Whether a page has its figures."""
    return "One moment" not in stage.operator.get(path).text


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, chromium: str) -> Iterator[Chromium]:
    browser = Chromium(chromium, tmp_path_factory.mktemp("browser-of-pages"))
    yield browser
    browser.stop()


# ---- what people do


async def press(page: Tab, key: tuple[str, int, str], *, shift: bool = False) -> None:
    """Press a key."""
    name, code, text = key
    said = {"key": name, "code": name, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
    await page.call("Input.dispatchKeyEvent", type="keyDown", **said, **({"text": text} if text else {}))
    await page.call("Input.dispatchKeyEvent", type="keyUp", **said)


async def reach(page: Tab, what: str) -> None:
    """Press Tab until what the expression `it` says holds of the element that has the focus."""
    for _ in range(80):
        if await page.run(f"const it = document.activeElement; return Boolean(it && it !== document.body && ({what}))"):
            return
        await press(page, TAB)
    raise AssertionError(f"{what} cannot be reached by keyboard")


async def enter(page: Tab, what: str) -> None:
    """Go to a link or a button by keyboard, and press it; returns once the next page is loaded."""
    await reach(page, what)
    async with page.loading():
        await press(page, ENTER)


def text(said: str) -> str:
    """The condition of an element that is called so."""
    return f"it.textContent.trim() === {orjson.dumps(said).decode()}"


async def lend(page: Tab, visitor: Visitor) -> None:
    """Give a page the session of somebody."""
    for name, value in visitor.client.cookies.items():
        await page.call("Network.setCookie", name=name, value=value, url=visitor.site, httpOnly=True)


async def look(page: Tab, width: int, scheme: str) -> None:
    """Have the page so wide, and light or dark."""
    await page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    await page.call("Emulation.setEmulatedMedia", features=features)


async def judge(page: Tab, where: str, rules: list[str]) -> list[str]:
    """What is wrong with a page: what axe-core finds by these rules, or by all, and whether it is too wide."""
    await page.call("Runtime.evaluate", expression=AXE.read_text())
    only = f"{{runOnly: {orjson.dumps(rules).decode()}}}" if rules else ""
    found = await page.run(f"return (await axe.run({only})).violations.map(one => [one.id, one.nodes[0].html])")
    overflow = await page.run("return document.documentElement.scrollWidth - innerWidth")
    faults = [f"{where}: {rule}: {html}" for rule, html in found]
    return faults + ([f"{where}: {overflow} px too wide"] if overflow > 0 else [])


async def picture(page: Tab, name: str) -> None:
    """Leave a picture, where they are wanted."""
    if PICTURES:
        shot = await page.call("Page.captureScreenshot", format="webp", quality=60, captureBeyondViewport=True)
        (Path(PICTURES) / f"{name}.webp").write_bytes(base64.b64decode(shot["data"]))


# ---- tests


@pytest.mark.parametrize("whose", ["console", "portal", "everybody"])
def test_every_page_can_be_used_by_everybody_narrow_and_wide_light_and_dark(
    stage: PagesStage, browser: Chromium, whose: str
) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not on this machine")

    looks: tuple[tuple[int, str, str, list[str]], ...] = (
        (NARROW, "dark", "de", []),
        (WIDE, "light", "en", ["color-contrast"]),
    )

    async def walk(visitor: Visitor | None, paths: list[str]) -> list[str]:
        faults = []
        async with tab(browser) as page:
            if visitor is not None:
                await lend(page, visitor)
            for width, scheme, language, rules in looks:
                await look(page, width, scheme)
                for path in paths:
                    await page.goto(f"{stage.site}{path}?lang={language}")
                    where = f"{path} {width} {scheme} {language}"
                    assert await page.run("return document.documentElement.lang") == language
                    faults += await judge(page, where, rules)
                    await picture(page, f"{path.strip('/').replace('/', '-')}-{width}-{scheme}")
            assert page.troubles == []
            asked = {response["url"] for response in page.responses if response["url"].startswith("http")}
            assert all(url.startswith(f"{stage.site}/") for url in asked), asked
        return faults

    if whose == "console":
        invoice = held(stage)
        wanted = walk(stage.operator, [f"/console{path.format(invoice=invoice)}" for path in CONSOLE])
    elif whose == "portal":
        month = datetime.now(UTC).strftime("%Y-%m")
        wanted = walk(stage.customer("acme"), [f"/account{path}".format(month=month) for path in PORTAL])
    else:
        wanted = walk(None, ["/status", "/sign-in"])
    assert asyncio.run(asyncio.wait_for(wanted, SECONDS)) == []


@pytest.mark.parametrize("scripts", [True, False])
def test_a_customer_signs_in_and_rotates_a_key_by_keyboard_alone(
    stage: PagesStage, browser: Chromium, scripts: bool
) -> None:
    async def visit() -> None:
        made = stage.collector.send("POST", "/v1/customers/bolt/keys", {"name": "mine"}).json()
        async with tab(browser) as page:
            await page.call("Emulation.setScriptExecutionDisabled", value=not scripts)
            await look(page, NARROW, "light")
            await page.goto(stage.mailed_link("bolt"))
            await enter(page, text("Sign in"))
            await enter(page, text("Keys"))
            await reach(page, text(f"Rotate {made['start']}"))
            await press(page, ENTER)
            await enter(page, f"it.tagName === 'BUTTON' && it.form.action.endsWith('{made['id']}/rotate')")
            secret = await page.run("return document.getElementById('secret').value")
            assert await page.run("return document.querySelector('[data-copies]').hidden") is not scripts
            old = stage.collector.get(f"/v1/keys/{made['id']}").json()
            assert (old["state"], secret.startswith("edge_v1_")) == ("rotating", True)
            await enter(page, text("Back to the keys"))
            assert secret not in await page.run("return document.documentElement.outerHTML")
            await enter(page, text("Sign out"))
            await page.goto(f"{stage.site}/account")
            assert await page.run("return location.pathname") == "/sign-in"
            assert page.troubles == []

    asyncio.run(asyncio.wait_for(visit(), SECONDS))


def test_an_operator_replays_a_dead_letter_by_keyboard_alone(stage: PagesStage, browser: Chromium) -> None:
    async def visit() -> None:
        bad = {"id": "10", "source": "app", "customer": "bolt", "meter": "tokens", "value": "many"}
        assert stage.collector.send("POST", "/v1/events", [bad], token=SERVICE).status == 202
        letters = stage.collector.get("/v1/dead-letters", token="admin-token").json()["dead_letters"]
        (letter,) = [one["id"] for one in letters if one["event"]["id"] == "10"]
        async with tab(browser) as page:
            await lend(page, stage.operator)
            await page.goto(f"{stage.site}/console")
            await enter(page, text("Stuck"))
            await reach(page, f"it.tagName === 'TEXTAREA' && it.form.action.endsWith('{letter}/replay')")
            await page.run("document.activeElement.select()")
            await page.call("Input.insertText", text=orjson.dumps({**bad, "value": 7}).decode())
            await press(page, TAB)
            await enter(page, text("Count it"))
            assert await page.run("return document.querySelector('[role=status]').textContent") == "It is counted."
        assert stage.collector.usage(customer="bolt", meter="tokens")["total"] == 7

    asyncio.run(asyncio.wait_for(visit(), SECONDS))


@pytest.mark.skipif(not THERE, reason="oidc-provider is not on this machine")
def test_an_operator_signs_in_at_the_issuer_and_flips_the_kill_switch_by_keyboard_alone(
    browser: Chromium, tmp_path: Path
) -> None:
    async def visit(stage: Stage) -> None:
        async with tab(browser) as page:
            await look(page, NARROW, "dark")
            await page.goto(f"{stage.site}/console/rollout")
            await enter(page, text("Sign in with your organisation"))
            await reach(page, "it.name === 'person'")
            await page.call("Input.insertText", text="ops")
            async with page.loading():
                await press(page, ENTER)
            await page.until("location.pathname === '/console/rollout'")
            await reach(page, "it.name === 'message'")
            await page.call("Input.insertText", text="Free today.")
            await press(page, TAB)
            await page.call("Input.insertText", text="a wrong price")
            await enter(page, text("Stop charging"))
            assert (stage.rollout["charging"], stage.rollout["message"]) == (False, "Free today.")
            await reach(page, "it.name === 'why' && it.form.action.endsWith('/resume')")
            await page.call("Input.insertText", text="mended")
            await enter(page, text("Charge again"))
            assert stage.rollout["charging"] is True
            await enter(page, text("Sign out"))
            assert not [trouble for trouble in page.troubles if stage.site in trouble]  # The issuer has no icon.

    with closing(Stage(tmp_path)) as stage:
        asyncio.run(asyncio.wait_for(visit(stage), SECONDS))
