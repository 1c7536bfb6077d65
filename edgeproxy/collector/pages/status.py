"""The public status page: rendered at intervals and served from memory, also while the database is away.

It holds nothing of any customer.
"""

import asyncio
import gzip
import hashlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple
from xml.etree import ElementTree

import orjson
from aiohttp import web
from babel import Locale

from edgeproxy.base import log
from edgeproxy.base.json_values import JsonObject
from edgeproxy.collector.database.database import Database
from edgeproxy.collector.database.periodic import run_guarded
from edgeproxy.collector.database.schema import DAY
from edgeproxy.collector.pages import availability, checks, incidents, languages, rendering
from edgeproxy.collector.pages.availability import RegionAvailability
from edgeproxy.collector.pages.charts import WIDTH
from edgeproxy.collector.pages.checks import RegionChecks, Row
from edgeproxy.collector.pages.incidents import Incident
from edgeproxy.collector.pages.languages import LANGUAGES, Reader
from edgeproxy.collector.pages.site import CHOICE_SECONDS, LANGUAGE_COOKIE
from edgeproxy.config.collector.pages import StatusPage

REFRESH_SECONDS = 15.0
"""Seconds between two reads of the database."""
STALE_SECONDS = 120.0
"""The age in seconds from which on the page names it."""
FEED_ENTRIES_MAX = 50
CACHED = {"Cache-Control": "public, max-age=15, stale-if-error=86400"}
ATOM = "http://www.w3.org/2005/Atom"
ANYWHERE = {**rendering.SECURITY, "Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}


class StatusSnapshot(NamedTuple):
    """The checks and incidents that were read, and the Unix second at which they were."""

    counts: Mapping[Row, int]
    incidents: list[Incident]
    at: float


class CachedAnswer(NamedTuple):
    """A rendered response, plain and compressed."""

    body: bytes
    zipped: bytes
    tag: str
    media: str

    @classmethod
    def of(cls, text: str | bytes, media: str) -> "CachedAnswer":
        """Return the response with this body."""
        body = text.encode() if isinstance(text, str) else text
        return cls(body, gzip.compress(body, 6, mtime=0), f'"{hashlib.sha256(body).hexdigest()[:16]}"', media)


class StatusPages:
    """The status as a page, as JSON and as an Atom feed."""

    def __init__(self, database: Database, settings: StatusPage, url: str, region_checks: RegionChecks) -> None:
        self._database = database
        self._settings = settings
        self._url = url
        self._checks = region_checks
        self._snapshot = StatusSnapshot({}, [], 0.0)
        self.answers: dict[str, CachedAnswer] = {}
        """The rendered responses, by `page LANGUAGE`, `json` and `feed`."""
        self._log = log.RateLimitedLog(600.0)

    def add_to(self, application: web.Application) -> None:
        """Add the routes."""
        for path, answer in (
            ("/status", self.answer_page),
            ("/status.json", self.answer_json),
            ("/status.atom", self.answer_feed),
        ):
            application.router.add_get(path, answer)  # With HEAD.

    async def run(self) -> None:
        """Refresh at intervals until cancelled."""
        while True:
            await self.refresh(time.time())
            await asyncio.sleep(REFRESH_SECONDS)

    async def refresh(self, now: float) -> None:
        """Render all responses; of the last snapshot where the database is away."""
        await run_guarded(self._log, "the status is not known now, and is told as it was", self._look(now))
        last = dict(self._checks.last)
        self.answers = await asyncio.to_thread(self._render, last, now)

    async def _look(self, now: float) -> None:
        today = int(now) // DAY * DAY
        async with self._database.reading() as connection:
            counts = await checks.fetch_counts(connection, today - availability.DAYS * DAY)
            self._snapshot = StatusSnapshot(counts, await incidents.list_incidents(connection, now), now)

    def _render(self, last: Mapping[str, bool], now: float) -> dict[str, CachedAnswer]:
        """Return all responses, rendered."""
        snapshot = self._snapshot
        regions = availability.compute_regions(snapshot.counts, self._settings, last, now)
        made = {
            f"page {language}": CachedAnswer.of(
                render_page(Reader(language, Locale.parse(language)), self._settings, regions, snapshot, now),
                "text/html",
            )
            for language in LANGUAGES
        }
        made["json"] = CachedAnswer.of(format_status(self._settings, regions, snapshot), "application/json")
        made["feed"] = CachedAnswer.of(format_feed(self._settings, self._url, snapshot), "application/atom+xml")
        return made

    async def answer_page(self, request: web.Request) -> web.Response:
        """Return the page in the reader's language."""
        chosen = request.query.get("lang")
        language = choose_language(
            chosen or request.cookies.get(LANGUAGE_COOKIE), request.headers.get("Accept-Language")
        )
        answer = self._answer(request, f"page {language}", rendering.SECURITY)
        answer.headers["Vary"] = "Accept-Language, Accept-Encoding, Cookie"
        if chosen in LANGUAGES:
            answer.set_cookie(LANGUAGE_COOKIE, chosen, max_age=CHOICE_SECONDS, httponly=True, samesite="Lax")
            answer.headers["Cache-Control"] = "no-store"
        return answer

    async def answer_json(self, request: web.Request) -> web.Response:
        """Return the status as JSON."""
        return self._answer(request, "json", ANYWHERE)

    async def answer_feed(self, request: web.Request) -> web.Response:
        """Return the incidents as an Atom feed (RFC 4287)."""
        return self._answer(request, "feed", ANYWHERE)

    def _answer(self, request: web.Request, name: str, fields: Mapping[str, str]) -> web.Response:
        made = self.answers.get(name)
        if made is None:
            return web.Response(status=503, text="The status is not known yet.", headers={"Retry-After": "5"})
        headers = {**fields, **CACHED, "ETag": made.tag, "Vary": "Accept-Encoding"}
        if request.headers.get("If-None-Match") == made.tag:
            return web.Response(status=304, headers=headers)
        body = made.body
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"], body = "gzip", made.zipped
        return web.Response(body=body, content_type=made.media, charset="utf-8", headers=headers)


@lru_cache(1000)
def choose_language(chosen: str | None, accepted: str | None) -> str:
    """Return the language of a reader: the chosen one, else by Accept-Language."""
    return languages.choose_reader(chosen, accepted).language


def render_page(
    reader: Reader, settings: StatusPage, regions: list[RegionAvailability], snapshot: StatusSnapshot, now: float
) -> str:
    """Return the HTML of the page."""
    age = now - snapshot.at
    step = WIDTH / availability.DAYS
    return rendering.render_template(
        "status.html",
        reader,
        name=settings.name,
        who=None,
        form_token="",
        once="",
        path="/status",
        done="",
        sells=False,
        sells_credits=False,
        notice=None,
        currencies=[],
        beside=None,
        regions=regions,
        going_on=[one for one in snapshot.incidents if one["ended_at"] is None],
        over=[one for one in snapshot.incidents if one["ended_at"] is not None],
        known_at=snapshot.at or None,
        age=age if age > STALE_SECONDS else None,
        days=availability.DAYS,
        step=step,
        level=classify_day,
    )


def classify_day(available: float | None, objective: float) -> str:
    """Return the level at which a day is drawn."""
    if available is None:
        return "none"
    if available >= objective:
        return "all"
    return "most" if available >= 1 - 10 * (1 - objective) else "few"


def format_status(settings: StatusPage, regions: list[RegionAvailability], snapshot: StatusSnapshot) -> bytes:
    """Return the status as JSON."""
    return orjson.dumps(
        {
            "name": settings.name,
            "as_of": format_time(snapshot.at) if snapshot.at else None,
            "objectives": {"availability": settings.availability, "fast": settings.fast, "days": availability.DAYS},
            "regions": [format_region(region) for region in regions],
            "incidents": snapshot.incidents,
        },
        option=orjson.OPT_INDENT_2,
    )


def format_region(region: RegionAvailability) -> JsonObject:
    """Return the JSON object of a region."""
    return {
        "region": region.name,
        "is_well": region.is_well,
        "availability": region.available,
        "error_budget_left": region.budget_left,
        "fast": region.fast_share,
        "fast_within_ms": round(region.latency * 1000),
        "median_ms": region.median_ms,
        "p95_ms": region.p95_ms,
        "checks": region.total,
        "days": [
            {"date": format_time(day.second)[:10], "checks": day.total, "failed": day.failed}
            for day in region.days
            if day.total
        ],
    }


def format_feed(settings: StatusPage, url: str, snapshot: StatusSnapshot) -> bytes:
    """Return the updates of incidents as Atom, the latest first."""
    ElementTree.register_namespace("", ATOM)
    root = ElementTree.Element(f"{{{ATOM}}}feed")

    def add(parent: ElementTree.Element, name: str, text: str = "", **fields: str) -> ElementTree.Element:
        element = ElementTree.SubElement(parent, f"{{{ATOM}}}{name}", fields)
        element.text = "".join(one if one.isprintable() or one == "\n" else "\ufffd" for one in text) or None
        return element

    updates = [
        (update, one, number) for one in snapshot.incidents for number, update in enumerate(reversed(one["updates"]))
    ]
    updates.sort(key=lambda entry_key: entry_key[0]["at"], reverse=True)
    add(root, "title", settings.name)
    add(root, "id", f"{url}/status")
    add(root, "updated", updates[0][0]["at"] if updates else "2026-01-01T00:00:00Z")
    add(root, "link", href=f"{url}/status")
    add(root, "link", rel="self", href=f"{url}/status.atom")
    add(add(root, "author"), "name", settings.name)
    for update, one, number in updates[:FEED_ENTRIES_MAX]:
        entry = add(root, "entry")
        add(entry, "title", f"{one['severity']} {one['title']}: {update['state']}")
        add(entry, "id", f"{url}/status#{one['id']}-{number}")
        add(entry, "updated", update["at"])
        add(entry, "link", href=f"{url}/status")
        add(entry, "content", update["message"], type="text")
    document: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return document


def format_time(second: float) -> str:
    """Return a Unix second as RFC 3339."""
    return datetime.fromtimestamp(int(second), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
