"""Every form of a page is opened, and its buttons are found, and pressed with the mouse, at their coordinates."""

import base64
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import orjson

from edgeproxy.collector.database.database import Database
from edgeproxy.collector.pages.sign_in import SignInPages
from edgeproxy.collector.pages.sign_up import SignUpPages
from edgeproxy.collector.pages.site import Page
from edgeproxy.collector.pages.subscriptions import Subscriptions
from edgeproxy.collector.pages_service import list_signed_in_pages
from edgeproxy.wire.batch import format_batch, format_headers
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN
from loadtest.testbed.waiting import until
from tests.e2e.browser import Tab
from tests.support.credited import HOUR, book_spent_hour
from tests.support.filled_site import EDGE_SEEN, invoice_of, key_of, pages_of
from tests.support.mailbox import text_of
from tests.support.site import PagesStage
from tests.support.used_database import use_database
from tests.support.visitor import Read, Visitor

NEEDS = ("zoom of 400 %", "text of 200 %", "forced colours")
"""The ways to show a page in which its buttons must be under the mouse, too."""


class Place(NamedTuple):
    """A page with forms. `sends` ends the action of the form that leads to it; empty: it is opened by its path."""

    path: str
    sends: str = ""
    fields: Mapping[str, str] = {}
    """The values of that form's fields, if they differ."""


PUBLIC = (
    "/sign-in",
    "/sign-in/link?token=any",
    "/sign-up",
    "/status/subscribe",
    "/status/confirm?token=any",
    "/status/unsubscribe?token=any",
)
RESUMED = Place("/console/rollout")
"""A page that has another form while charging is stopped."""
Places = dict[str, tuple[Visitor | None, list[Place]]]
"""Pages by their reader: operators, a customer, or anyone."""


def list_places(stage: PagesStage, invoice: str, change: str) -> Places:
    """Bring a filled site into the states whose pages have forms of their own. Return their pages by reader."""
    theirs = invoice_of(stage, "acme")
    operators = pages_of("operator", invoice, edge=EDGE_SEEN, change=change).values()
    own = pages_of("customer", theirs, key=key_of(stage, "acme")).values()
    customers = "/console/customers"
    draft = _open_states(stage)
    states = ("paused", "raised", "leaving", "ending/plan", "ending/credits", "bolt/plan")
    more = [f"{customers}/{name}" for name in states]
    more += [f"/console/invoices/{one}" for one in (theirs, draft)]
    previews = [
        Place(f"{customers}/acme/plan", "/plan/preview", {"plan": "enterprise"}),
        Place(f"{customers}/acme/plan", "/plan/end/preview", {"when": "now"}),
        Place(f"{customers}/acme/credits", "/top-up/preview"),
        Place(
            "/console/price-changes",
            "/price-changes/amounts",
            {"enterprise@1/fee": "599", "at": "2030-03-01", "why": "a test"},
        ),
    ]
    ending = [f"/account/{page}" for page in ("plan", "keys", "webhooks", "team", "data", "credits")]
    return {
        "operator": (stage.operator, [*map(Place, [*operators, *more]), *previews]),
        "acme": (
            stage.customer("acme"),
            [*map(Place, own), Place("/account/plan", "/plan/preview"), Place("/account/credits", "/top-up/preview")],
        ),
        "ending": (stage.customer("ending"), [Place(path) for path in ending]),
        "bolt": (stage.customer("bolt"), [Place("/account/alerts")]),
        "anyone": (None, [Place(path) for path in (*PUBLIC, _begin_sign_up(stage))]),
    }


def _open_states(stage: PagesStage) -> str:
    """Bring customers, alerts, an edge and an invoice into further states. Returns the id of a draft."""
    operator, collector = stage.operator, stage.collector
    for name in ("paused", "raised", "leaving", "ending", "later"):
        stage.join(name)
    leaked = collector.send("POST", "/v1/customers/raised/keys", {"name": "leaked"}).json()["id"]
    for name in ("ending", "later"):
        assert collector.send("POST", f"/billing/subscription?customer={name}", {"plan": "standard"}).status == 201
    page = "/console/customers"
    steps: tuple[tuple[str, str, dict[str, str]], ...] = (
        (f"{page}/paused", "/pause", {"why": "a test"}),
        (f"{page}/raised", "/limits/raise", {"why": "a test"}),
        (f"{page}/raised", f"/keys/{leaked}/revoke", {}),
        (f"{page}/ending/plan", "/plan/coupon", {"coupon": "launch20"}),
        (f"{page}/ending/plan", "/plan/end/preview", {}),
        (f"{page}/ending/credits", "/top-up/preview", {}),
        ("", "/credits/top-up", {}),
        ("/console/tokens", "/tokens", {"name": "robot", "role": "read"}),
    )
    stage.save_card("ending")
    with stage.customer("ending") as ending, stage.customer("bolt") as bolt:
        jwk = {"kty": "OKP", "crv": "X25519", "x": base64.urlsafe_b64encode(b"k" * 32).decode().rstrip("=")}
        reached = {"token": ADMIN, "kind": "quota_reached", "customer": "bolt"}
        alert = collector.get("/v1/alerts", **reached).json()["alerts"][0]["id"]
        own: tuple[tuple[str, str, dict[str, str]], ...] = (
            ("/account/keys", "/public-key", {"jwk": orjson.dumps(jwk).decode()}),
            ("/account/webhooks", "/webhooks", {"url": "http://127.0.0.1:1/edge"}),
            ("/account/webhooks", "/disable", {}),
            ("/account/team", "/team/invite", {"email": "colleague-of-ending@example.com"}),
        )
        muted = (f"/alerts/{alert}/mute", {"span": "1h", "why": "a test"})
        for visitor, done in (
            (operator, (*steps, ("/console/alerts", *muted))),
            (ending, own),
            (bolt, (("/account/alerts", *muted),)),
        ):
            for path, action, fields in done:
                if path:
                    visitor.get(path)
                visitor.send(action, **fields)
                assert visitor.status == 200, (path, action, visitor.read.text)
    assert collector.send("DELETE", "/v1/customers/leaving").status == 202
    planned = {"begins_at": "2030-02-01T10:00:00Z", "ends_at": "2030-02-01T11:00:00Z"}
    planned |= {"title": "New disks", "message": "Signing in fails for a minute."}
    assert collector.send("POST", "/v1/maintenance", planned | {"regions": ["portal"]}).status == 201
    acme = collector.get("/v1/customers/acme").json()["id"]

    async def spend(database: Database) -> None:
        async with database.writing() as connection:
            await book_spent_hour(connection, acme, HOUR, 1000)

    use_database(collector.settings["database"], spend)
    chain = Chain("edge-new", "eu-west", int(time.time()) - 60)
    batch = chain.next(("acme", "requests", "v1", 7))
    later_version = orjson.dumps({**orjson.loads(format_batch(batch)), "version": 2})
    fields = format_headers(batch, later_version)
    assert collector.post(later_version, fields=fields).status == 422, "it is in quarantine"
    draft = invoice_of(stage, "later")
    with closing(sqlite3.connect(collector.database, timeout=30)) as database, database:
        database.execute("UPDATE sessions SET factor_at = ? WHERE customer IS NULL", [int(time.time())])
        database.execute("UPDATE webhook_deliveries SET state = 'dead' WHERE state = 'due'")
        columns = "alert, channel, state, attempts, due_at"
        database.execute(f"INSERT INTO alert_deliveries ({columns}) VALUES (?, 'pager', 'dead', 9, 0)", [alert])
        columns = "key, kind, severity, customer, title, details, at, routed_at"
        for number in (1, 2):  # Several that wait can be acknowledged at once.
            row = [f"webhook:{number}", int(time.time() * 1000)]
            waiting = (
                "?1, 'webhook_disabled', 'warn', 'bolt', 'A webhook is disabled', '{\"host\": \"a.test\"}', ?2, ?2"
            )
            database.execute(f"INSERT INTO alerts ({columns}) VALUES ({waiting})", row)
        later = int(time.time()) + 86400
        database.execute("UPDATE invoices SET state = 'draft', try_at = ? WHERE id = ?", [later, draft])
    return draft


def _begin_sign_up(stage: PagesStage) -> str:
    """Ask for an account. Returns the path of the mailed link."""
    address = "new-account@example.com"
    with Visitor(stage.site) as visitor:
        visitor.get("/sign-up")
        visitor.send("/sign-up", email=address)
    mails = stage.mailbox.mails
    until(lambda: any(mail["To"] == address for mail in mails), "the link is mailed")
    (text,) = [text_of(mail) for mail in mails if mail["To"] == address]
    return f"/sign-up/confirm{text.partition('/sign-up/confirm')[2].split()[0]}"


@contextmanager
def stopped_charging(stage: PagesStage) -> Iterator[None]:
    """Stop charging within the context."""
    assert stage.collector.send("PUT", "/billing/rollout", {"charging": False, "why": "a test"}).status == 200
    try:
        yield
    finally:
        assert stage.collector.send("PUT", "/billing/rollout", {"charging": True, "why": "over"}).status == 200


def find_forms(read: Read) -> set[str]:
    """Return the forms of a page, by their path in the table of all pages."""
    actions = {form.action.partition("?")[0] for form in read.forms}
    tables = {page.path: re.sub(r"{\w+}", "[^/]+", page.path) for page in list_forms()}
    return {path for path, pattern in tables.items() if any(re.fullmatch(pattern, action) for action in actions)}


def list_forms() -> list[Page]:
    """Return the forms of all pages, also for visitors without a session."""
    public = [page for group in (SignInPages, SignUpPages, Subscriptions) for page in group.__new__(group).pages()]
    pages = [*list_signed_in_pages(sells=True), *public]
    return [page for page in pages if page.method == "POST" and page.path != "/sign-out"]


def open_place(visitor: Visitor | None, place: Place, site: str) -> Read:
    """Open a page without a browser. A visitor of None has no session."""
    if visitor is None:
        with Visitor(site) as anyone:
            return open_place(anyone, place, site)
    visitor.get(place.path)
    if place.sends:
        (form, *_) = [form for form in visitor.read.forms if form.action.endswith(place.sends)]
        visitor.post(form.action, form.fields | place.fields)
    assert visitor.status == 200, (place, visitor.read.text)
    return visitor.read


FILL = """
    const form = [...document.querySelectorAll('main form')].find(it => it.action.endsWith('SENDS'));
    for (const [name, value] of Object.entries(FIELDS)) form.elements[name].value = value;
    form.noValidate = true;
    form.requestSubmit();
"""
PREPARE = """
    if (!window.pressed) {
        window.pressed = [];
        // A live part would be replaced every 15 s, also while its buttons are pressed.
        document.querySelectorAll('[data-live]').forEach(it => it.removeAttribute('data-live'));
        document.addEventListener('submit', event => event.preventDefault(), true);
        document.addEventListener('click', event => {
            const button = event.target.closest('button');
            if (button) { window.pressed.push(button); event.preventDefault(); event.stopPropagation(); }
        }, true);
    }
    window.show = button => {
        document.querySelectorAll('main details[open]').forEach(it => { if (!it.contains(button)) it.open = false; });
        for (let it = button.closest('details'); it; it = it.parentElement.closest('details')) it.open = true;
        button.scrollIntoView({block: 'center', inline: 'nearest', behavior: 'instant'});
        const {x, y, width, height} = button.getBoundingClientRect();
        const name = `${button.textContent.trim().slice(0, 60)} (${button.form.getAttribute('action')})`;
        const is_shown = button.checkVisibility() && width > 0 && height > 0;
        return {x: x + width / 2, y: y + height / 2, name, is_shown};
    };
    window.buttons = [...document.querySelectorAll('main form button:not([type=button])')];
    return window.buttons.map(button => {
        let style = '';
        for (let it = button; it.tagName !== 'MAIN'; it = it.parentElement) style += `${it.tagName}.${it.className} `;
        return style;
    });
"""
COVERED = """
    return window.buttons.flatMap(button => {
        const {x, y, name, is_shown} = window.show(button);
        const is_hit = button.matches(':enabled') && document.elementFromPoint(x, y)?.closest('button') === button;
        return is_shown && is_hit ? [] : [`${name} at ${Math.round(x)}, ${Math.round(y)}`];
    });
"""


async def show_place(page: Tab, site: str, place: Place) -> None:
    """Open a page with forms in the browser."""
    await page.goto(f"{site}{place.path}")
    if place.sends:
        async with page.loading():
            await page.run(FILL.replace("SENDS", place.sends).replace("FIELDS", orjson.dumps(place.fields).decode()))


async def adapt(page: Tab, name: str) -> None:
    """Show a page to readers who need larger text or other colours: each as browsers do it."""
    if name == "zoom of 400 %":  # A window of 1280 × 1024 then has 320 × 256 px.
        size = {"width": 320, "height": 256, "deviceScaleFactor": 4, "mobile": False}
        await page.call("Emulation.setDeviceMetricsOverride", **size)
    elif name == "text of 200 %":
        await page.look(768, "light")
        await page.run("document.documentElement.style.fontSize = '200%'")
    else:
        await page.look(1280, "light")
        await page.run("document.documentElement.style.fontSize = ''")
        await page.call("Emulation.setEmulatedMedia", features=[{"name": "forced-colors", "value": "active"}])


async def press_buttons(page: Tab, where: str, pressed: set[str]) -> list[str]:
    """Find the submit buttons of the forms on a page, and press one of each style that was not pressed before.

    Return the buttons that cannot be pressed. Buttons that have equal elements around them, with equal classes, react
    to the mouse alike. The mouse's events take ten times the CPU of the browser's own hit test.
    """
    faults: list[str] = []
    for number, style in enumerate(await page.run(PREPARE)):
        if style in pressed:
            continue
        pressed.add(style)
        place: dict[str, Any] = await page.run(f"return window.show(window.buttons[{number}])")
        for kind, buttons in (("mousePressed", 1), ("mouseReleased", 0)):
            about = {"x": place["x"], "y": place["y"], "button": "left", "buttons": buttons, "clickCount": 1}
            await page.call("Input.dispatchMouseEvent", type=kind, **about)
        if not await page.run(f"return window.pressed.pop() === window.buttons[{number}]"):
            faults.append(f"{place['name']} does not hear the mouse at {place['x']:.0f}, {place['y']:.0f}")
    faults += [f"{name} is not under the mouse" for name in await page.run(COVERED)]
    return [f"{where}: {fault}" for fault in faults]
