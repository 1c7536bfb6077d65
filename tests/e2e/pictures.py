"""Take the pictures of all pages for the docs: `python -m tests.e2e.pictures`.

It fills docs/pages/: each page wide and light, and narrow and dark, and README.md, which shows them. Look at each.
On the first days of a month its charts have few bars: then use a later clock, `faketime -f +18d python -m …`.
"""

import asyncio
import base64
import re
import shutil
import sqlite3
import tempfile
import time
from contextlib import closing
from functools import partial
from math import sin
from pathlib import Path

import orjson
import yaml

from edgeproxy.base.timestamps import format_timestamp
from edgeproxy.collector.accounts import audit
from edgeproxy.collector.billing.journal.journal import FIRST_HASH, compute_hash
from edgeproxy.collector.billing.journal.postings import JournalEntry
from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.pages.availability import DAYS
from edgeproxy.collector.pages.edge import EDGE
from edgeproxy.collector.pages.price_changes import PRICE_CHANGE
from edgeproxy.collector.pages.residencies import RESIDENCIES
from edgeproxy.collector.pages.site import Audience
from edgeproxy.wire.edge_report import format_fields
from edgeproxy.wire.key_uses import KeysUsed
from loadtest.testbed.batch_chains import Chain
from loadtest.testbed.collector import ADMIN, SERVICE, sha256
from loadtest.testbed.process import ROOT
from loadtest.testbed.waiting import until
from tests.e2e.browser import Chromium, Tab, tab
from tests.support.filled_site import (
    fill,
    held,
    invoice_of,
    key_of,
    pages_of,
    report_traffic,
    schedule_price_change,
)
from tests.support.oidc import AUDIENCE, Provider
from tests.support.site import PagesStage
from tests.support.two_residencies import sign_in_operator, two_residencies
from tests.support.visitor import Visitor

FOLDER = ROOT / "docs/pages"
LOOKS = {"wide": (1280, "light"), "narrow": (360, "dark")}
HEIGHT_MAX = 2000
"""The largest height of a picture in pixels. Anything below is cut off."""
QUALITY = 55
WHOSE: dict[Audience, str] = {
    "operator": "The operators' console",
    "customer": "A customer's portal",
    "anyone": "Everybody's",
}
API = {"url": "https://api.example.com", "example": "/v1/ping", "openapi": str(ROOT / "tests/e2e/example_api.yaml")}
"""An API with a description as owners write it."""
HEAD = """# Pictures of all pages

Made by `python -m tests.e2e.pictures`, of what the tests have on the pages: wide and light, narrow and dark. What each
page is for is in [pages.md](pages.md).
"""


HISTORY_DAYS = 20
"""Days of usage, so that charts, changes and projections have data."""


class Showcase(PagesStage):
    """The site of the pictures: a service that sells tokens and requests. Each of its meters has one name."""

    def __init__(self, folder: Path) -> None:
        meters = {
            "requests": {"count": "requests", "label": "API requests", "dimensions": {"key": 100}},
            "llm_tokens": {"count": "events", "label": "Tokens", "dimensions": {"model": 10}},
            "egress": {"count": "bytes_out", "label": "Data sent", "unit": "bytes"},
            "agent_executions": {"count": "events", "label": "Agent runs"},
            "storage_gb": {"count": "events", "label": "Storage GB"},
            "refused": {"count": "refusals"},
        }
        super().__init__(folder, api=API, collector={"meters": meters})

    def _paying(self, folder: Path) -> dict[str, object]:
        plans = yaml.safe_load((ROOT / "config/plans.yaml").read_text())
        for plan in plans["plans"].values():
            del plan["meters"]["api_calls"], plan["meters"]["seats"]  # Nobody counts them here.
            plan.pop("tier", None)
            if (by := plan["meters"]["llm_tokens"].get("by")) is not None:
                by["prices"] = {f"m-{model}": price for model, price in by["prices"].items()}
        file = folder / "plans.yaml"
        file.write_text(yaml.safe_dump(plans, sort_keys=False))
        return super()._paying(folder) | {"plans": str(file)}


def enliven(stage: PagesStage) -> None:
    """Add history to the data on the pages: earlier customers, weeks of usage, and the traffic of the last hour."""
    now = int(time.time())
    today = now // DAY * DAY
    with closing(sqlite3.connect(stage.collector.database, timeout=30)) as database, database:
        database.execute("UPDATE customers SET created_at = ?", [(now - 60 * DAY) * 1000])
        database.execute("UPDATE segments SET start = period_start WHERE meter <> ''")
    chain = Chain("edge-eu-3", "eu-west", today - HISTORY_DAYS * DAY)
    events = []
    for age in range(HISTORY_DAYS, 0, -1):
        chain.since = today - age * DAY + 43200
        day = 100 + round(40 * sin(age / 1.1)) + 3 * (HISTORY_DAYS - age)
        rows = (
            ("acme", "requests", "v1", 7 * day),
            ("acme", "egress", "v1", 400_000 * day),
            ("bolt", "requests", "v1", day),
        )
        assert stage.collector.post(chain.next(*rows), fields=format_fields(1.0)).status == 200
        at = format_timestamp((today - age * DAY + 43200) * 1000)
        usage = {"source": "models", "customer": "acme", "meter": "llm_tokens", "time": at}
        for model, share in (("m-large", 4400), ("m-small", 2300), ("m-tiny", 600)):
            one = {"id": f"{model}-{age}", "value": share * day, "dimensions": {"model": model}}
            events.append(usage | one)
    assert stage.collector.send("POST", "/v1/events", events, token=SERVICE).status == 202
    chain.since = now - 20
    for minute in range(now // 60 * 60 - 7080, now // 60 * 60 - 1800, 60):
        for edge, region in (("edge-eu-2", "eu-west"), ("edge-us-1", "us-east")):
            report_traffic(stage.collector, edge, region, minute, 1900 + round(300 * sin(minute / 1500)), varies=True)
    assign_alerts(stage)
    for name, external_id in (("acme-staging", "crm-20418"), ("northwind", "acme-reseller-7"), ("lumen", "crm-20977")):
        customer = {"name": name, "tier": "basic", "external_id": external_id}
        assert stage.collector.send("POST", "/v1/customers", customer).status == 201
    used = KeysUsed()
    for name, budget, count in (
        ("production", None, 870),
        ("staging", "200 requests/month", 171),
        ("ci", "100 requests/day", 19),
    ):
        key = stage.collector.send("POST", "/v1/customers/acme/keys", {"name": name, "budget": budget})
        assert key.status == 201
        usage_by_key = ("acme", "requests", "v1", count, f'{{"key":"{key.json()["usage_key"]}"}}')
        used.record([bytes.fromhex(sha256(key.json()["secret"]))], now)
        fields = format_fields(1.0) | used.format_fields()
        assert stage.collector.post(chain.next(usage_by_key), fields=fields).status == 200
    chain = Chain("edge-eu-4", "eu-west", now - 19 * 3600)
    for age, limit, count in ((19, "standard", 40), (9, "standard", 310), (8, "concurrency", 25), (2, "standard", 120)):
        chain.since = now - age * 3600
        row = ("acme", "refused", "v1", count, f'{{"certain":"yes","limit":"{limit}"}}')
        assert stage.collector.post(chain.next(row), fields=format_fields(1.0)).status == 200
    about = {
        "severity": "P1",
        "title": "Requests to us-east fail",
        "regions": ["us-east"],
        "message": "Requests to us-east fail, and so do our checks. Requests to eu-west are served.",
    }
    created = stage.collector.send("POST", "/v1/incidents", about)
    assert created.status == 201
    news = {
        "state": "identified",
        "message": "A router of our provider drops packets. It is being taken out of service.",
    }
    assert stage.collector.send("POST", f"/v1/incidents/{created.json()['id']}/updates", news).status == 201
    times = {end: format_timestamp((today + DAY + at) * 1000) for end, at in (("begins_at", 7200), ("ends_at", 9000))}
    about = {"title": "New disks", "regions": ["portal"], "message": "Signing in fails for a minute or two.", **times}
    assert stage.collector.send("POST", "/v1/maintenance", about).status == 201
    with closing(sqlite3.connect(stage.collector.database, timeout=30)) as database, database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(traffic)")]
        moved = ", ".join("start - 600" if name == "start" else name for name in columns)
        reports = f"SELECT {moved} FROM traffic WHERE step = 60 AND start BETWEEN ? AND ?"
        first = now // 60 * 60 - 7080  # Edges may report nothing older than two hours.
        database.execute(f"INSERT INTO traffic ({', '.join(columns)}) {reports}", [first, first + 540])
        limit = "replace(dimensions, 'pro', 'standard')"  # The customer's tier has changed since.
        refused = "customer = 'acme' AND meter = 'refused'"
        database.execute(f"UPDATE series SET dimensions = {limit} WHERE {refused}")
        own = f"series IN (SELECT id FROM series WHERE {refused})"
        database.execute(f"UPDATE series_dimensions SET value = 'standard' WHERE value = 'pro' AND {own}")
        database.execute(f"DELETE FROM dimension_values WHERE value = 'pro' AND {refused}")
        for table in ("traffic", "traffic_routes"):  # The errors of the incident below.
            failed = f"UPDATE {table} SET server_errors = requests * (28 + start / 60 % 9) / 100"
            database.execute(f"{failed} WHERE region = 'us-east' AND start >= ?", [now // 60 * 60 - 1500])
        own = "UPDATE customer_errors SET requests = requests * 30 WHERE status = 503 AND region = 'us-east'"
        database.execute(f"{own} AND start >= ?", [now // 60 * 60 - 1500])
        there = "SELECT id FROM incidents WHERE ended_at IS NULL"
        ages = "CASE state WHEN 'investigating' THEN 1500 ELSE 660 END"
        database.execute(f"UPDATE incident_updates SET at = at - {ages} WHERE incident IN ({there})")
        for age in range(1, DAYS):  # The portal was watched as long as the regions were.
            rows = [("portal", today - age * DAY, result, count) for result, count in (("50", 2870), ("fast", 2870))]
            database.executemany("INSERT INTO checks VALUES (?, ?, ?, ?)", rows)
        gone = "SELECT id FROM incidents WHERE severity = 'P2'"
        ages = f"{9 * DAY + 4000} - CASE state WHEN 'investigating' THEN 0 ELSE 2820 END"
        database.execute(f"UPDATE incident_updates SET at = at - ({ages}) WHERE incident IN ({gone})")
        moved = (9 * DAY + 4000, 9 * DAY + 4000 - 2820)
        database.execute(
            "UPDATE incidents SET began_at = began_at - ?, ended_at = ended_at - ? WHERE severity = 'P2'", moved
        )
        database.execute("UPDATE incidents SET began_at = began_at - 1500 WHERE ended_at IS NULL")
    listed = partial(stage.collector.get, "/v1/customers/acme/keys", token=ADMIN, sort="-last_used_on", limit="3")
    until(lambda: all(key["last_used_on"] for key in listed().json()["keys"]), "the last use is written")
    schedule_price_change(stage)
    for email, role in (("dev@example.com", "developer"), ("books@example.com", "billing")):
        contact = {"email": email, "role": role}
        assert stage.collector.send("POST", "/v1/customers/acme/contacts", contact).status == 201
    with closing(sqlite3.connect(stage.collector.database, timeout=30)) as database, database:
        signed_in = "UPDATE contacts SET signed_in_at = ?, language = 'en' WHERE role = 'developer'"
        database.execute(signed_in, [now - 2 * DAY])
    address = {"email": "acme@example.com"}
    assert stage.collector.send("PUT", "/v1/customers/acme/alert-address", address).status == 200
    amounts = {"amounts": [15000, 25000]}
    assert stage.collector.send("PUT", "/billing/spend-alerts?customer=acme", amounts).status == 200
    spread_alerts(stage.collector.database)


def spread_alerts(file: Path) -> None:
    """Spread acme's alerts over weeks, and the alerts since its invoice over today. Backdate its keys accordingly."""
    with closing(sqlite3.connect(file, timeout=30)) as database, database:
        ids = "SELECT id FROM alerts WHERE customer = 'acme' AND {} ORDER BY id"
        issued = "id >= (SELECT MIN(id) FROM alerts WHERE kind = 'invoice_issued' AND customer = 'acme')"
        for condition, longest, shortest in ((f"NOT {issued}", 21 * DAY, DAY), (issued, 18 * 3600, 1800)):
            rows = database.execute(ids.format(condition)).fetchall()
            for place, (alert,) in enumerate(rows):
                age = longest - (longest - shortest) * place // max(len(rows) - 1, 1)
                database.execute("UPDATE alerts SET at = at - ? WHERE id = ?", [age * 1000, alert])
        start = "json_extract(alerts.details, '$.start')"
        created = f"SELECT at FROM alerts WHERE kind = 'key_created' AND {start} = keys.start"
        database.execute(f"UPDATE keys SET created_at = COALESCE(({created}), created_at)")
        yesterday = int(time.time()) // DAY * DAY - DAY
        database.execute("UPDATE keys SET last_used_on = ? WHERE name = 'server'", [yesterday])


PEOPLE = {"key": "operator:jonas", "incident": "operator:mara", "maintenance": "operator:mara", "customer": "sales"}
"""The people who make changes, by the first word of an action."""
ORIGINS = {"operator": "203.0.113.24", "contact": "198.51.100.7"}
"""Addresses by the first word of the actor; other actors use 10.0.4.18."""


def spread_audit(file: Path) -> None:
    """Spread the audit log over weeks and several people, with valid hashes. Incidents keep their times."""
    now, ages, before = time.time_ns() // 1_000_000, {}, audit.FIRST_HASH
    with closing(sqlite3.connect(file, timeout=30)) as database, database:
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute("SELECT * FROM audit ORDER BY seq")]
        updates = {
            (row["incident"], row["state"]): row["at"] for row in database.execute("SELECT * FROM incident_updates")
        }
        for row in rows:
            if row["seq"] == 1:
                ages[row["seq"]] = 60 * DAY
            elif row["action"].startswith("incident."):
                state = orjson.loads(row["after"])["state"]
                ages[row["seq"]] = now // 1000 - updates[row["target"], state]
            elif row["action"] == "key.create" and len(ages) > 2:  # After the first incident: as its alert has it.
                key = [row["target"].partition("/")[2]]
                (created,) = database.execute("SELECT created_at FROM keys WHERE id = ?", key).fetchone()
                ages[row["seq"]] = (now - created) // 1000
        ages[len(rows)] = 45
        for row in rows:
            last = max(seq for seq in ages if seq <= row["seq"])
            following = min(seq for seq in ages if seq >= row["seq"])
            part = (row["seq"] - last) / max(1, following - last)
            age = ages[last] + part * (ages[following] - ages[last])
            row["at"] = now - round(1000 * age) + row["seq"] * 617 % 1000
            if "began_at" in (after := orjson.loads(row["after"] or "{}")):
                row["after"] = orjson.dumps(after | {"began_at": format_timestamp(row["at"])}).decode()
            if row["actor"] == "admin":
                row["actor"] = PEOPLE.get(row["action"].partition(".")[0], "billing")
            if row["origin"]:
                row["origin"] = ORIGINS.get(row["actor"].partition(":")[0], "10.0.4.18")
            before = row["hash"] = audit.compute_hash(before, row)
            values = [row[name] for name in ("at", "actor", "origin", "after", "hash", "seq")]
            changed = "at = ?, actor = ?, origin = ?, after = ?, hash = ?"
            database.execute(f"UPDATE audit SET {changed} WHERE seq = ?", values)
            if row["action"] == "customer.create":
                database.execute("UPDATE customers SET created_at = ? WHERE name = ?", [row["at"], row["target"]])
        database.execute("UPDATE audit_head SET hash = ?", [before])


def sign_in_person(stage: PagesStage, provider: Provider) -> None:
    """Sign the operator in at an issuer, as a person with a second factor and mails of the status page."""
    stage.collector.settings["pages"] |= {"client": "console", "client_secret": "secret-of-console"}
    stage.collector.settings["pages"]["status"]["subscribe"] = True
    roles = {"claim": "groups", "admin": ["ops"]}
    stage.collector.settings["operators"] = {"issuer": provider.issuer, "audience": AUDIENCE, "roles": roles}
    stage.collector.start()
    stage.operator.client.cookies.clear()
    stage.operator.get("/sign-in/operator")
    stage.operator.send("", person="mara")
    assert stage.operator.answer.url.path == "/console", stage.operator.answer.url
    until(lambda: stage.collector.get("/status").status == 200, "the status is there", seconds=60)


def backdate_fees(file: Path) -> None:
    """Move the booked fees HISTORY_DAYS back, with valid hashes: each hash covers the hash before it."""
    with closing(sqlite3.connect(file, timeout=30)) as database, database:
        database.row_factory = sqlite3.Row
        before, moved = FIRST_HASH, HISTORY_DAYS * DAY
        for row in database.execute("SELECT * FROM credit_transactions ORDER BY seq").fetchall():
            booked, details = dict(row), orjson.loads(row["details"])
            if fees := details.get("fees"):
                details["fees"] = [[5 * amount, start - moved, end] for amount, start, end in fees]
                booked |= {"details": orjson.dumps(details).decode(), "at": row["at"] - moved * 1000}
                database.execute("UPDATE credit_entries SET amount = 5 * amount WHERE seq = ?", [row["seq"]])
            columns = "account, amount, grant_id, meter, model"
            entries = database.execute(
                f"SELECT {columns} FROM credit_entries WHERE seq = ? ORDER BY position", [row["seq"]]
            )
            before = booked["hash"] = compute_hash(before, booked, [JournalEntry(*entry) for entry in entries])
            values = [booked["details"], booked["at"], before, row["seq"]]
            database.execute("UPDATE credit_transactions SET details = ?, at = ?, hash = ? WHERE seq = ?", values)
        database.execute("UPDATE credit_head SET hash = ?", [before])


def name_of(path: str) -> str:
    """Return the name of a page's picture."""
    return re.sub(r"[{}]", "", path).strip("/").replace("/", "-")


CHOSEN = dict.fromkeys(("/account/usage", "/console/customers/{customer}/usage"), "&range=7")
"""The selection on a page's picture. There is also usage of the week before."""
SEARCHED = "acme"
"""The search text on the picture of the search."""


async def visit(page: Tab, url: str, name: str) -> None:
    """Open a page. On the search page, run a search."""
    await page.goto(url)
    if name == "console-search":
        async with page.loading():
            await page.run(f"find.value = '{SEARCHED}'; find.form.requestSubmit()")
    await page.run("Object.assign(document.documentElement.style, {overflow: 'hidden', scrollbarGutter: 'auto'})")
    await page.run("await new Promise(painted => requestAnimationFrame(() => requestAnimationFrame(painted)))")


async def take(page: Tab, url: str, name: str) -> str:
    """Take the pictures of a page; return its title."""
    for called, (width, scheme) in LOOKS.items():
        await page.look(width, scheme)
        await visit(page, url, name)
        height = min(HEIGHT_MAX, await page.run("return document.documentElement.scrollHeight"))
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = await page.call(
            "Page.captureScreenshot", format="webp", quality=QUALITY, captureBeyondViewport=True, clip=clip
        )
        (FOLDER / f"{name}-{called}.webp").write_bytes(base64.b64decode(shot["data"]))
    title: str = await page.run("return document.querySelector('h1').textContent")
    return " ".join(title.split())


def assign_alerts(stage: PagesStage) -> None:
    """Assign an alert to a person."""
    listed = partial(stage.collector.get, "/v1/alerts", token=ADMIN, kind="events_rejected")
    until(lambda: listed().json()["alerts"], "the alert is raised")
    (alert, *_) = listed().json()["alerts"]
    assert stage.collector.send("POST", f"/v1/alerts/{alert['id']}/assign", {"to": "jonas"}).status == 200


def find_change(stage: PagesStage) -> str:
    """Return the id of the scheduled price change."""
    return str(stage.collector.get("/billing/price-changes", token=ADMIN).json()["price_changes"][0]["id"])


async def gallery(stage: PagesStage, residencies: Visitor, browser: Chromium) -> str:
    """Take all pictures and return the page that shows them. `residencies` visits a collector with other
    residencies.
    """
    said, held_one = HEAD, held(stage)
    visitors: dict[Audience, Visitor | None] = {
        "operator": stage.operator,
        "customer": stage.customer("acme"),
        "anyone": None,
    }

    async def show(visitor: Visitor | None, paths: dict[str, str]) -> str:
        shown, site = "", stage.site if visitor is None else visitor.site
        async with tab(browser) as page:
            if visitor is not None:
                await page.lend(visitor)
            for path, where in paths.items():
                name = name_of(path)
                title = await take(page, f"{site}{where}?lang=en{CHOSEN.get(path, '')}", name)
                shown += f"\n### {title}\n\n`{path}`\n\n![{title}, wide]({name}-wide.webp)\n"
                shown += f"\n![{title}, narrow]({name}-narrow.webp)\n"
        return shown

    for who, heading in WHOSE.items():
        invoice = held_one if who == "operator" else invoice_of(stage, "acme")
        visitor = visitors[who]
        key = key_of(stage, "acme")
        paths = pages_of(who, invoice, key=key) if visitor else {"/status": "/status", "/sign-in": "/sign-in"}
        if who == "operator":
            paths |= {PRICE_CHANGE: PRICE_CHANGE.format(change=find_change(stage)), EDGE: EDGE.format(edge="edge-us-1")}
        said += f"\n## {heading}\n{await show(visitor, paths)}"
        if who == "operator":
            said += await show(residencies, {RESIDENCIES: RESIDENCIES})
    return said


def main() -> None:
    """Take all pictures."""
    for old in FOLDER.glob("*.webp"):
        old.unlink()
    chromium = shutil.which("chromium")
    assert chromium, "Chromium is not on this machine"
    with tempfile.TemporaryDirectory(prefix="pictures-") as name:
        folder = Path(name)
        with (
            closing(Showcase(folder / "site")) as stage,
            closing(Provider(folder)) as provider,
            two_residencies(folder / "sides") as sides,
            sign_in_operator(sides["eu"]) as residencies,
        ):
            fill(stage)
            enliven(stage)
            stage.collector.end()  # It has counted before there was anything, and keeps figures for minutes.
            backdate_fees(stage.collector.database)
            spread_audit(stage.collector.database)
            provider.start(redirect=f"{stage.site}/sign-in/back")
            sign_in_person(stage, provider)
            browser = Chromium(chromium, folder / "browser")
            try:
                (FOLDER / "README.md").write_text(asyncio.run(gallery(stage, residencies, browser)), encoding="utf-8")
            finally:
                browser.stop()


if __name__ == "__main__":
    main()
